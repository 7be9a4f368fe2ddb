"""The output of a file reader: chunks of columns, bad rows, and the bounds of both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.ingest.fields import Values
from streams.ingest.inputs import is_compressed

CHUNK_ROWS_MAX: Final = 20_000
"""Rows of one chunk."""
CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
"""A chunk of text ends with the line that exceeds this."""
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest line of a text file that is read; a longer one is a bad row. Characters, in CSV."""


class InputFormat(StrEnum):
    """Format of a file."""

    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"
    AVRO = "avro"

    @property
    def row_word(self) -> str:
        """What a row's number counts: rows or lines."""
        return "line" if self in {InputFormat.CSV, InputFormat.NDJSON} else "row"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not sent: its number, the reason, and its content."""

    number: int
    reason: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows, as columns; unreadable ones are in `bad`."""

    numbers: NDArray[np.int64]
    columns: dict[str, Values]
    bad: list[BadRow] = field(default_factory=list)
    position: float = 0.0
    """Position of its end in the file, 0 to 1."""
    absent: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By column that is missing in some rows: which rows."""

    def head(self, rows: int) -> "Chunk":
        """The first `rows` rows, bad ones counted."""
        total = len(self.numbers) + len(self.bad)
        if rows >= total:
            return self
        last = sorted([*self.numbers.tolist(), *(one.number for one in self.bad)])[rows - 1]
        keep = int(np.searchsorted(self.numbers, last, side="right"))
        columns = {name: values[:keep] for name, values in self.columns.items()}
        absent = {name: mask[:keep] for name, mask in self.absent.items()}
        return Chunk(
            self.numbers[:keep], columns, [one for one in self.bad if one.number <= last], self.position, absent
        )


@dataclass(frozen=True, slots=True)
class Source:
    """A file: its columns, and its rows as chunks that hold the columns asked for. Each call reads it again."""

    columns: tuple[str, ...]
    chunks: Callable[[Sequence[str]], Iterator[Chunk]]
    all_columns: Callable[[], tuple[str, ...]] | None = None
    """Where each row has columns of its own (NDJSON): reads the whole file for the names that it has. `columns` are
    those of its beginning; a chunk has any column that it is asked for."""
    seen: Callable[[], tuple[str, ...]] | None = None
    """There: the columns that the rows read so far have had, at most NAMES_MAX."""

    @property
    def is_open(self) -> bool:
        """Whether columns may come that are not in `columns`."""
        return self.all_columns is not None


def refuse_compressed(path: Path, input_format: InputFormat) -> None:
    """Refuse a compressed file of a format that compresses within.

    Raises:
        ValueError: it is compressed as a whole.

    """
    if is_compressed(path):
        raise ValueError(f"it is compressed as a whole, which {input_format} files are not: decompress it first")
