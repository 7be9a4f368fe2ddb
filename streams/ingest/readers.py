"""Files as chunks of columns: Parquet, CSV, NDJSON and Avro container files, in bounded memory.

A row's number is what a person would look for in the file: the row (from 1) of Parquet and Avro, the line (from 1, the
header counts) of CSV and NDJSON. Numbers only grow, so that "done up to number n" says where to go on.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streams.errors import StreamsError, UsageError
from streams.ingest.fields import Values

CHUNK_ROWS_MAX: Final = 20_000
"""Rows of one chunk."""
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest line of an NDJSON file that is read; a longer one is a bad row."""
CELL_CHARACTERS_MAX: Final = 131_072
"""Longest cell of a CSV file (the csv module's own default); it bounds what an unclosed quote swallows."""
PEEKED_ROWS: Final = 1_000
"""Rows of an NDJSON file that are looked at to learn its columns."""
SHOWN_CHARACTERS_MAX: Final = 1_000


class InputFormat(StrEnum):
    """Format of a file."""

    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"
    AVRO = "avro"


EXTENSIONS: Final = {
    ".parquet": InputFormat.PARQUET,
    ".csv": InputFormat.CSV,
    ".ndjson": InputFormat.NDJSON,
    ".jsonl": InputFormat.NDJSON,
    ".avro": InputFormat.AVRO,
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not sent: its number, why, and what it says."""

    number: int
    reason: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows, as columns; those that could not even be read are in `bad`."""

    numbers: NDArray[np.int64]
    columns: dict[str, Values]
    bad: list[BadRow] = field(default_factory=list)
    position: float = 0.0
    """How far into the file its end is, 0 to 1."""

    def head(self, rows: int) -> "Chunk":
        """The first `rows` rows, bad ones counted."""
        total = len(self.numbers) + len(self.bad)
        if rows >= total:
            return self
        last = sorted([*self.numbers.tolist(), *(one.number for one in self.bad)])[rows - 1]
        keep = int(np.searchsorted(self.numbers, last, side="right"))
        columns = {name: values[:keep] for name, values in self.columns.items()}
        return Chunk(self.numbers[:keep], columns, [one for one in self.bad if one.number <= last], self.position)


@dataclass(frozen=True, slots=True)
class Source:
    """A file: its columns, and its rows as chunks that hold the columns asked for. Each call reads it anew."""

    columns: tuple[str, ...]
    chunks: Callable[[Sequence[str]], Iterator[Chunk]]


def format_of(path: Path, override: InputFormat | None = None) -> InputFormat:
    """Format of a file by its extension.

    Raises:
        UsageError: there is no such file, or its extension says nothing.

    """
    if not path.is_file():
        raise UsageError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    found = override or EXTENSIONS.get(path.suffix.lower())
    if found is None:
        known = ", ".join(EXTENSIONS)
        raise UsageError(f"{path}: the extension is none of {known}: say --input-format")
    return found


def open_source(path: Path, input_format: InputFormat) -> Source:
    """Open a file and learn its columns.

    Raises:
        StreamsError: it cannot be read, or is not of this format. Reading its chunks may raise this, too.

    """
    opener = {
        InputFormat.PARQUET: _open_parquet,
        InputFormat.CSV: _open_csv,
        InputFormat.NDJSON: _open_ndjson,
        InputFormat.AVRO: _open_avro,
    }[input_format]
    try:
        source = opener(path)
    except OSError as error:
        raise StreamsError(f"{path}: cannot be read: {error}") from None
    except (pa.ArrowException, ValueError, KeyError, EOFError, IndexError) as error:
        raise StreamsError(f"{path}: not a readable {input_format} file: {error}") from None
    if len(set(source.columns)) != len(source.columns):
        twice = next(name for name in source.columns if source.columns.count(name) > 1)
        raise StreamsError(f"{path}: has more than one column {twice!r}")
    return Source(source.columns, lambda names: _guarded(path, source.chunks(names)))


def first_rows(chunks: Iterator[Chunk], limit: int | None) -> Iterator[Chunk]:
    """The chunks of the first `limit` rows (None: all), bad ones counted."""
    left = limit
    for chunk in chunks:
        if left is None:
            yield chunk
            continue
        part = chunk.head(left)
        yield part
        left -= len(part.numbers) + len(part.bad)
        if left <= 0:
            return


def _guarded(path: Path, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    last = 0
    try:
        for chunk in chunks:
            yield chunk
            last = max([last, *chunk.numbers[-1:].tolist(), *(one.number for one in chunk.bad[-1:])])
    except OSError as error:
        raise StreamsError(f"{path}: cannot be read after row {last}: {error}") from None
    except (pa.ArrowException, ValueError, KeyError, EOFError, IndexError, UnicodeError) as error:
        raise StreamsError(f"{path}: damaged somewhere after row {last}: {error}") from None


def _open_parquet(path: Path) -> Source:
    with pq.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        with pq.ParquetFile(path) as file:
            total, done = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=CHUNK_ROWS_MAX, columns=list(names)):
                numbers = np.arange(done + 1, done + 1 + batch.num_rows)
                done += batch.num_rows
                yield Chunk(numbers, {name: batch.column(name) for name in names}, position=done / total)

    return Source(columns, chunks)


def _open_csv(path: Path) -> Source:
    # Bytes that are no UTF-8 become lone surrogates here, and bad rows where the text is converted.
    def rows(raw: Any) -> Any:
        return csv.reader(raw, strict=True)

    def open_text() -> Any:
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    with open_text() as raw:
        columns = tuple(name.strip() for name in next(rows(raw), []))
    if not columns:
        raise ValueError("it has no header line")

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        size = max(1, path.stat().st_size)
        wanted = [(name, columns.index(name)) for name in names]
        with open_text() as raw:
            reader = rows(raw)
            next(reader)
            while True:
                numbers, cells, bad = _csv_rows(reader, len(columns))
                if not numbers and not bad:
                    return
                by_column = list(zip(*cells, strict=True)) or [()] * len(columns)
                yield Chunk(
                    np.array(numbers, dtype=np.int64),
                    {name: [cell or None for cell in by_column[index]] for name, index in wanted},
                    bad,
                    min(1.0, raw.buffer.tell() / size),
                )

    return Source(columns, chunks)


def _csv_rows(reader: Any, width: int) -> tuple[list[int], list[list[str]], list[BadRow]]:
    """The next rows of a CSV file: numbers and cells of the readable ones, and the others."""
    numbers: list[int] = []
    cells: list[list[str]] = []
    bad: list[BadRow] = []
    while len(numbers) + len(bad) < CHUNK_ROWS_MAX:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            bad.append(BadRow(number, f"not CSV: {error}"))
            continue
        if len(row) == width:
            numbers.append(number)
            cells.append(row)
        elif row:
            bad.append(BadRow(number, f"has {len(row)} cells, the header has {width}", row))
    return numbers, cells, bad


def _open_ndjson(path: Path) -> Source:
    with path.open("rb") as raw:
        peeked = (parsed for _, parsed in itertools.islice(_json_lines(raw), PEEKED_ROWS))
        columns = tuple(dict.fromkeys(name for row in peeked if isinstance(row, dict) for name in row))

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        size = max(1, path.stat().st_size)
        with path.open("rb") as raw:
            lines = _json_lines(raw)
            while block := list(itertools.islice(lines, CHUNK_ROWS_MAX)):
                rows = [row for _, row in block if isinstance(row, dict)]
                yield Chunk(
                    np.array([number for number, row in block if isinstance(row, dict)], dtype=np.int64),
                    {name: [row.get(name) for row in rows] for name in names},
                    [row for _, row in block if isinstance(row, BadRow)],
                    min(1.0, raw.tell() / size),
                )

    return Source(columns, chunks)


def _json_lines(raw: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Line numbers and objects; blank lines are no rows."""
    for number in itertools.count(1):
        line = raw.readline(LINE_BYTES_MAX)
        if not line:
            return
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := raw.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(number, f"the line is longer than {LINE_BYTES_MAX} bytes", _shown(line))
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(number, f"not JSON: {error}", _shown(line))
            continue
        yield number, row if isinstance(row, dict) else BadRow(number, "not a JSON object", _shown(line))


def _shown(line: bytes) -> str:
    return line[:SHOWN_CHARACTERS_MAX].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _open_avro(path: Path) -> Source:
    with path.open("rb") as raw:
        schema: Any = fastavro.reader(raw).writer_schema
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("its values are no records")
    columns = tuple(str(one["name"]) for one in schema["fields"])

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        size, done = max(1, path.stat().st_size), 0
        with path.open("rb") as raw:
            reader = fastavro.reader(raw)
            while rows := list(itertools.islice(reader, CHUNK_ROWS_MAX)):
                numbers = np.arange(done + 1, done + 1 + len(rows))
                done += len(rows)
                columns = {name: [row[name] for row in rows] for name in names}
                yield Chunk(numbers, columns, position=min(1.0, raw.tell() / size))

    return Source(columns, chunks)
