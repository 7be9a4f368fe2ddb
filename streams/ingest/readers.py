"""Files as chunks of columns: Parquet, CSV, NDJSON and Avro container files, in bounded memory.

A row's number is what a person would look for in the file: the row (from 1) of Parquet and Avro, the line (from 1, the
header counts) of CSV and NDJSON. Numbers only grow, so that "done up to number n" says where to go on.
"""

import codecs
import csv
import io
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import fastavro.schema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streams.errors import StreamsError, UsageError
from streams.ingest.avro_file import AvroFile
from streams.ingest.fields import Values
from streams.ingest.inputs import COMPRESSED_SUFFIXES, is_compressed, opened
from streams.ingest.reading import DEFAULT_READING, Reading
from streams.text import counted

CHUNK_ROWS_MAX: Final = 20_000
"""Rows of one chunk."""
CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
"""A chunk of text ends with the line that exceeds this."""
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest line of a text file that is read; a longer one is a bad row. Characters, in CSV."""
CELL_CHARACTERS_MAX: Final = 131_072
"""Longest cell of a CSV file (the csv module's own default); it bounds what an unclosed quote swallows."""
PEEKED_ROWS: Final = 1_000
"""Rows of an NDJSON file that are looked at to learn its columns."""
NAMES_MAX: Final = 1_000
"""Names of an NDJSON file's columns that are remembered."""
SHOWN_CHARACTERS_MAX: Final = 1_000
DELIMITERS: Final = ",;\t|"
"""What may stand between the cells of a CSV file, where nobody says so; the first one wins a draw."""
_BLANKS: Final = " \t"
"""Around a cell of a CSV file these do not count: ` van-1 ` is the device `van-1`."""
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""In this order: UTF-32's begins with UTF-16's."""
_UTF8: Final = frozenset({"utf-8", "utf-8-sig"})
_UNREADABLE: Final = (
    pa.ArrowException,
    csv.Error,
    zlib.error,
    lzma.LZMAError,
    fastavro.schema.SchemaParseException,
    fastavro.schema.UnknownType,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the libraries raise on bytes that are not what they should be."""


class InputFormat(StrEnum):
    """Format of a file."""

    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"
    AVRO = "avro"

    @property
    def row_word(self) -> str:
        """What a row's number counts."""
        return "line" if self in {InputFormat.CSV, InputFormat.NDJSON} else "row"


EXTENSIONS: Final = {
    ".parquet": InputFormat.PARQUET,
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.CSV,
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
    absent: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Of the columns that some rows do not have at all: which rows."""

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
    """A file: its columns, and its rows as chunks that hold the columns asked for. Each call reads it anew."""

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


def format_of(path: Path, override: InputFormat | None = None, name: str | None = None) -> InputFormat:
    """Format of a file by its extension; that of a compressed one stands before `.gz` or `.zst`.

    Raises:
        UsageError: there is no such file, or its extension says nothing.

    """
    shown = name or path
    if not path.is_file():
        raise UsageError(f"{shown}: {'not a file' if path.exists() else 'no such file'}")
    found = override or EXTENSIONS.get(_extension(path))
    if found is None:
        known = ", ".join(EXTENSIONS)
        raise UsageError(f"{shown}: the extension is none of {known}: say --input-format")
    return found


def _extension(path: Path) -> str:
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix.lower()


def open_source(
    path: Path, input_format: InputFormat, reading: Reading = DEFAULT_READING, name: str | None = None
) -> Source:
    """Open a file and learn its columns. Messages call it `name`.

    Raises:
        StreamsError: it cannot be read, or is not of this format. Reading its chunks may raise this, too.

    """
    shown = name or str(path)
    try:
        match input_format:
            case InputFormat.PARQUET:
                source = _open_parquet(path)
            case InputFormat.CSV:
                source = _open_csv(path, reading)
            case InputFormat.NDJSON:
                source = _open_ndjson(path, reading)
            case InputFormat.AVRO:
                source = _open_avro(path)
    except OSError as error:
        raise StreamsError(f"{shown}: cannot be read: {_one_line(error)}") from None
    except _UNREADABLE as error:
        raise StreamsError(f"{shown}: not a readable {input_format} file: {_one_line(error)}") from None
    if len(set(source.columns)) != len(source.columns):
        twice = next(name for name in source.columns if source.columns.count(name) > 1)
        raise StreamsError(f"{shown}: has more than one column {twice!r}")
    scan = source.all_columns
    return Source(
        source.columns,
        lambda names: _guarded(shown, input_format.row_word, source.chunks(names)),
        None if scan is None else lambda: _scanned(shown, scan),
        source.seen,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _scanned(shown: str, scan: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    try:
        return scan()
    except (OSError, *_UNREADABLE) as error:
        raise StreamsError(f"{shown}: cannot be read to its end: {_one_line(error)}") from None


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


def _guarded(shown: str, word: str, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    last = 0
    try:
        for chunk in chunks:
            yield chunk
            last = max([last, *chunk.numbers[-1:].tolist(), *(one.number for one in chunk.bad[-1:])])
    except OSError as error:
        raise StreamsError(f"{shown}: cannot be read after {word} {last}: {_one_line(error)}") from None
    except _UNREADABLE as error:
        raise StreamsError(f"{shown}: damaged somewhere after {word} {last}: {_one_line(error)}") from None


def _refuse_compressed(path: Path, input_format: InputFormat) -> None:
    if is_compressed(path):
        raise ValueError(f"it is compressed as a whole, which {input_format} files are not: decompress it first")


def _open_parquet(path: Path) -> Source:
    _refuse_compressed(path, InputFormat.PARQUET)
    with pq.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        with pq.ParquetFile(path) as file:
            total, done = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=_parquet_rows(file.metadata), columns=list(names)):
                numbers = np.arange(done + 1, done + 1 + batch.num_rows)
                done += batch.num_rows
                yield Chunk(numbers, {name: batch.column(name) for name in names}, position=done / total)

    return Source(columns, chunks)


def _parquet_rows(metadata: Any) -> int:
    """Rows of a chunk, fewer where they are large."""
    groups = [metadata.row_group(position) for position in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(CHUNK_ROWS_MAX, int(CHUNK_BYTES_MAX / max(1.0, row_bytes))))


def encoding_of(path: Path, reading: Reading) -> str:
    """Encoding of a text file: the one declared, else by its byte order mark, else UTF-8."""
    with opened(path) as file:
        beginning = file.stream.read(4)
    by_mark = next((name for mark, name in _BYTE_ORDER_MARKS.items() if beginning.startswith(mark)), "utf-8")
    if reading.encoding is None:
        return by_mark
    declared = codecs.lookup(reading.encoding).name
    return by_mark if declared in _UTF8 and by_mark == "utf-8-sig" else declared


class _Lines:
    """Lines of a text as the csv module takes them, counted and bounded."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.number = 0
        """Lines given."""
        self.characters = 0
        """Characters of them."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(LINE_BYTES_MAX)
        if not line:
            raise StopIteration
        self.number += 1
        self.characters += len(line)
        if len(line) == LINE_BYTES_MAX and not line.endswith(("\n", "\r")):
            while (rest := self._text.readline(LINE_BYTES_MAX)) and not rest.endswith(("\n", "\r")):
                pass
            raise csv.Error(f"the line is longer than {LINE_BYTES_MAX} characters")
        return line


def _delimiter_of(path: Path, reading: Reading, header: str) -> str:
    if reading.delimiter is not None:
        return reading.delimiter
    if _extension(path) == ".tsv":
        return "\t"

    def cells(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    return max(DELIMITERS, key=cells)


def _open_csv(path: Path, reading: Reading) -> Source:
    encoding = encoding_of(path, reading)

    @contextmanager
    def open_rows() -> Iterator[tuple[_Lines, Callable[[], float]]]:
        # Bytes that are not of the encoding become lone surrogates here, and bad rows where the text is converted.
        with opened(path) as file:
            text = io.TextIOWrapper(file.stream, encoding=encoding, errors="surrogateescape", newline="")
            yield _Lines(text), file.position
            text.detach()

    with open_rows() as (lines, _):
        first = next(lines, "")
    delimiter = _delimiter_of(path, reading, first)
    with open_rows() as (lines, _):
        columns = tuple(name.strip() for name in next(_csv_reader(lines, delimiter), []))
    if not columns:
        raise ValueError("it has no header line")
    if any("\0" in name for name in columns):
        raise ValueError("its header has zero bytes: --encoding says what it is, for example utf-16-le")

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        wanted = [(name, columns.index(name)) for name in names]
        with open_rows() as (lines, position):
            reader = _csv_reader(lines, delimiter)
            next(reader)
            while True:
                numbers, cells, bad = _csv_rows(reader, lines, len(columns))
                if not numbers and not bad:
                    return
                by_column = list(zip(*cells, strict=True)) or [()] * len(columns)
                yield Chunk(
                    np.array(numbers, dtype=np.int64),
                    {name: [cell.strip(_BLANKS) or None for cell in by_column[index]] for name, index in wanted},
                    bad,
                    position(),
                )

    return Source(columns, chunks)


def _csv_reader(lines: _Lines, delimiter: str) -> Any:
    return csv.reader(lines, strict=True, delimiter=delimiter, skipinitialspace=True)


def _csv_rows(reader: Any, lines: _Lines, width: int) -> tuple[list[int], list[list[str]], list[BadRow]]:
    """The next rows of a CSV file: numbers and cells of the readable ones, and the others."""
    numbers: list[int] = []
    cells: list[list[str]] = []
    bad: list[BadRow] = []
    enough = lines.characters + CHUNK_BYTES_MAX
    while len(numbers) + len(bad) < CHUNK_ROWS_MAX and lines.characters < enough:
        number = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            unclosed = f" (lines {number} to {lines.number}: is a quote not closed?)" if lines.number > number else ""
            bad.append(BadRow(number, f"not CSV: {error}{unclosed}"))
            continue
        if len(row) == width:
            numbers.append(number)
            cells.append(row)
        elif len(row) > 1 or "".join(row).strip():
            bad.append(BadRow(number, f"has {counted(len(row), 'cell')}, the header has {width}", row))
    return numbers, cells, bad


def _open_ndjson(path: Path, reading: Reading) -> Source:
    encoding = encoding_of(path, reading)

    @contextmanager
    def open_lines() -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
        with opened(path) as file:
            yield (file.stream if encoding in _UTF8 else _as_utf8(file.stream, encoding)), file.position

    def names_of(rows_max: int | None) -> tuple[str, ...]:
        with open_lines() as (raw, _):
            names: dict[str, None] = {}
            for (_, row), _ in itertools.islice(_json_lines(raw), rows_max):
                if isinstance(row, dict) and len(names) < NAMES_MAX:
                    names.update(dict.fromkeys(row))
            return tuple(names)

    peeked = names_of(PEEKED_ROWS)
    seen = dict.fromkeys(peeked)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        with open_lines() as (raw, position):
            for block in _json_blocks(_json_lines(raw)):
                rows = [row for _, row in block if isinstance(row, dict)]
                for row in rows:
                    if not row.keys() <= seen.keys() and len(seen) < NAMES_MAX:
                        seen.update(dict.fromkeys(row))
                absent = {}
                for name in names:
                    present = [name in row for row in rows]
                    if not all(present):
                        absent[name] = ~np.array(present, dtype=np.bool_)
                yield Chunk(
                    np.array([number for number, row in block if isinstance(row, dict)], dtype=np.int64),
                    {name: [row.get(name) for row in rows] for name in names},
                    [row for _, row in block if isinstance(row, BadRow)],
                    position(),
                    absent,
                )

    return Source(peeked, chunks, lambda: names_of(None), lambda: tuple(seen))


def _as_utf8(stream: BinaryIO, encoding: str) -> BinaryIO:
    return io.BufferedReader(_Recoded(stream, encoding))


class _Recoded(io.RawIOBase):
    """A text of another encoding as bytes of UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            data = self._stream.read(len(buffer))
            self._left = self._decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
            if not data:
                break
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


_Line = tuple[int, dict[str, Any] | BadRow]


def _json_blocks(lines: Iterator[tuple[_Line, int]]) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    size = 0
    for line, length in lines:
        block.append(line)
        size += length
        if len(block) >= CHUNK_ROWS_MAX or size >= CHUNK_BYTES_MAX:
            yield block
            block, size = [], 0
    if block:
        yield block


def _json_lines(raw: BinaryIO) -> Iterator[tuple[_Line, int]]:
    """Line numbers and objects, and the length of the line; blank lines are no rows."""
    for number in itertools.count(1):
        line = raw.readline(LINE_BYTES_MAX)
        if not line:
            return
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := raw.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            yield (number, BadRow(number, f"the line is longer than {LINE_BYTES_MAX} bytes", _shown(line))), len(line)
        elif line.strip():
            yield (number, _json_row(number, line)), len(line)


def _json_row(number: int, line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line, object_pairs_hook=_unambiguous)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start}: --encoding says what it is, for example cp1252"
        return BadRow(number, reason, _shown(line))
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"not JSON: {error}", _shown(line))
    return row if isinstance(row, dict) else BadRow(number, "not a JSON object: one a line is expected", _shown(line))


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _shown(line: bytes) -> str:
    return line[:SHOWN_CHARACTERS_MAX].decode("utf-8", "backslashreplace").rstrip("\r\n")


def _open_avro(path: Path) -> Source:
    _refuse_compressed(path, InputFormat.AVRO)
    file = AvroFile(path)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        done = 0
        rows: list[dict[str, Any]] = []
        position = 0.0
        for block, position in file.blocks():
            rows += block
            while len(rows) >= CHUNK_ROWS_MAX:
                yield chunk(rows[:CHUNK_ROWS_MAX], done, position, names)
                done += CHUNK_ROWS_MAX
                rows = rows[CHUNK_ROWS_MAX:]
        if rows:
            yield chunk(rows, done, position, names)

    def chunk(rows: list[dict[str, Any]], done: int, position: float, names: Sequence[str]) -> Chunk:
        columns: dict[str, Values] = {}
        for name in names:
            values = [row[name] for row in rows]
            columns[name] = pa.array(values, file.times[name]) if name in file.times else values
        return Chunk(np.arange(done + 1, done + 1 + len(rows)), columns, position=position)

    return Source(file.columns, chunks)
