"""What an error of PostgreSQL is about (rows, the table, or the database), and which rows are refused."""

from collections.abc import Callable
from typing import Final

import numpy as np
import psycopg

from streams.batch.columns import Int64
from streams.masking import PERSONAL_MASK, masked
from streams.sinks.target import RowsRefused, TargetBatch, TargetUnavailable

_OF_ROWS: Final = ("22", "23")
"""Classes of SQLSTATE: a value that does not fit, a constraint that a row violates."""
_OF_SCHEMA: Final = frozenset({"42P01", "42703", "42804", "42P10", "3F000", "42P16", "42701", "428C9"})
"""No such table, column or schema; a column of another type; no unique index; a generated column."""
_SAMPLE: Final = 16
"""Rows that are tried alone when a batch is refused: if all of them are, the cause is not in single rows."""


def is_of_rows(error: psycopg.Error) -> bool:
    """Whether rows are the cause."""
    return (error.sqlstate or "").startswith(_OF_ROWS)


def is_of_schema(error: psycopg.Error) -> bool:
    """Whether the table has changed since the sink checked it."""
    return error.sqlstate in _OF_SCHEMA


def words(error: psycopg.Error, *, masks_values: bool = False) -> str:
    """The error in one line, without secrets; `masks_values`: nor what a database quotes of rows that it refuses."""
    if masks_values and is_of_rows(error):
        where = error.diag.constraint_name or error.diag.column_name
        return f"{type(error).__name__} ({error.sqlstate}{f', {where}' if where else ''}): {PERSONAL_MASK}"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    detail = error.diag.message_detail
    return masked(f"{first}{f' ({detail})' if detail and detail not in first else ''}")


class Refusals:
    """Finds the rows of a batch that a database refuses."""

    def __init__(self, tried: Callable[[Int64], psycopg.Error | None], *, masks_values: bool = False) -> None:
        """`tried`: what the database says to the rows at these positions, of which nothing stays.

        `masks_values`: rows hold personal data: what the database quotes of them is not passed on.
        """
        self._tried, self._masks = tried, masks_values

    def found(self, batch: TargetBatch, error: psycopg.Error) -> RowsRefused | TargetUnavailable:
        """The rows that are refused, each with the reason; or that the table refuses (nearly) everything.

        Halves of the batch are tried until those that are refused stand alone. A table that refuses each of
        several rows of a large batch is not as it should be: its rows wait until somebody has looked at it.
        """
        count = batch.rows.num_rows
        if count >= _SAMPLE:
            sample = np.linspace(0, count - 1, _SAMPLE).astype(np.int64)
            if all(self._tried(sample[at : at + 1]) is not None for at in range(_SAMPLE)):
                return TargetUnavailable(f"PostgreSQL refuses every one of {_SAMPLE} rows tried: {self._words(error)}")
        refused: dict[tuple[int, int], str] = {}
        waiting = [np.arange(count, dtype=np.int64)]
        while waiting:
            rows = waiting.pop()
            why = self._tried(rows) if len(rows) else None
            if why is None:
                continue
            if len(rows) == 1:
                at = int(rows[0])
                refused[int(batch.partition[at]), int(batch.offset[at])] = self._words(why)
                continue
            middle = len(rows) // 2
            waiting += [rows[:middle], rows[middle:]]
        if not refused:
            return TargetUnavailable(f"PostgreSQL: {self._words(error)}")
        return RowsRefused(refused)

    def _words(self, error: psycopg.Error) -> str:
        return words(error, masks_values=self._masks)
