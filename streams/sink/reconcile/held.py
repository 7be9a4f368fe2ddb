"""What a target holds, as of one moment: how far it has read, and its rows as plain values.

Times are microseconds since 1970, days are days since then, JSON is its parts: so that both sides have one form, and
no value is out of a Python type's range.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import pyarrow as pa

from streams.sink.reconcile.compare import HeldRow
from streams.sinks.target import TargetBatch

_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


class Held(Protocol):
    """A target as of one moment. One thread; close it when done."""

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """By partition, the offset after the last record that it has; 0: nothing of it was written."""

    def rows(self) -> Iterator[HeldRow]:
        """All of its rows; may be called again."""

    def plain(self, batch: TargetBatch) -> Iterator[HeldRow]:
        """Rows of the topic in the form of `rows`."""

    def close(self) -> None:
        """Disconnect."""


def rows_of(partitions: Sequence[int], offsets: Sequence[int], values: Sequence[Sequence[Any]]) -> Iterator[HeldRow]:
    """Rows of columns."""
    for row in zip(partitions, offsets, zip(*values, strict=True), strict=True):
        yield HeldRow(*row)


def plain_values(column: Any, *, is_json: bool) -> list[Any]:
    """Values of a column of Arrow."""
    if is_json:
        return [None if text is None else json.loads(text) for text in column.to_pylist()]
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        width, factor = (pa.int32() if kind == pa.time32("ms") else pa.int64()), _MICROSECONDS[kind.unit]
        return [None if at is None else at * factor for at in column.cast(width).to_pylist()]
    if pa.types.is_date(kind):
        return cast("list[Any]", column.cast(pa.int32()).to_pylist())
    return cast("list[Any]", column.to_pylist())
