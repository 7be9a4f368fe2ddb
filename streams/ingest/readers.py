"""Files as chunks of columns: Parquet, CSV, NDJSON and Avro container files, in bounded memory.

A row's number is the one a person would use to find it: the row (from 1) of Parquet and Avro, the line (from 1, the
header counts) of CSV and NDJSON. Numbers only grow, so that "done up to number n" says where to go on.
"""

import csv
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import fastavro.schema
import pyarrow as pa

from streams.errors import StreamsError, UsageError
from streams.ingest.chunks import Chunk, InputFormat, Source
from streams.ingest.formats.avro import open_avro
from streams.ingest.formats.delimited import open_csv
from streams.ingest.formats.ndjson import open_ndjson
from streams.ingest.formats.parquet import open_parquet
from streams.ingest.inputs import extension_of
from streams.ingest.reading import DEFAULT_READING, Reading

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
"""What the libraries raise on invalid bytes."""
EXTENSIONS: Final = {
    ".parquet": InputFormat.PARQUET,
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.CSV,
    ".ndjson": InputFormat.NDJSON,
    ".jsonl": InputFormat.NDJSON,
    ".avro": InputFormat.AVRO,
}


def format_of(path: Path, override: InputFormat | None = None, name: str | None = None) -> InputFormat:
    """Format of a file by its extension; that of a compressed one stands before `.gz` or `.zst`.

    Raises:
        UsageError: there is no such file, or its extension says nothing.

    """
    shown = name or path
    if not path.is_file():
        raise UsageError(f"{shown}: {'not a file' if path.exists() else 'no such file'}")
    found = override or EXTENSIONS.get(extension_of(path))
    if found is None:
        known = ", ".join(EXTENSIONS)
        raise UsageError(f"{shown}: the extension is none of {known}: say --input-format")
    return found


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
                source = open_parquet(path)
            case InputFormat.CSV:
                source = open_csv(path, reading)
            case InputFormat.NDJSON:
                source = open_ndjson(path, reading)
            case InputFormat.AVRO:
                source = open_avro(path)
    except OSError as error:
        raise StreamsError(f"{shown}: cannot be read: {_one_line(error)}") from None
    except _UNREADABLE as error:
        raise StreamsError(f"{shown}: not a readable {input_format} file: {_one_line(error)}") from None
    if len(set(source.columns)) != len(source.columns):
        # Not by name: without a header it is the first row that stands there.
        first, second = _alike(source.columns)
        raise StreamsError(f"{shown}: its columns {first + 1} and {second + 1} have the same name")
    scan = source.all_columns
    return Source(
        source.columns,
        lambda names: _guarded(shown, input_format.row_word, source.chunks(names)),
        None if scan is None else lambda: _scanned(shown, scan),
        source.seen,
    )


def _alike(names: Sequence[str]) -> tuple[int, int]:
    """Positions of the first two equal names."""
    second = next(place for place, name in enumerate(names) if name in names[:place])
    return names.index(names[second]), second


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
