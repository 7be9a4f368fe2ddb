"""Reads CSV and other delimited text files."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from streams.ingest.chunks import CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, LINE_BYTES_MAX, BadRow, Chunk, Source
from streams.ingest.formats.encoding import encoding_of
from streams.ingest.inputs import extension_of, opened
from streams.ingest.reading import Reading
from streams.text import counted

DELIMITERS: Final = ",;\t|"
"""Delimiters to try for a CSV file, where none is set; the first one wins a draw."""
_BLANKS: Final = " \t"
"""Blanks around a cell of a CSV file are ignored: ` van-1 ` is the device `van-1`."""


class _Lines:
    """Lines of a text for the csv module, counted and bounded."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self.number = 0
        """Number of lines read."""
        self.characters = 0
        """Number of characters in them."""

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
    if extension_of(path) == ".tsv":
        return "\t"

    def cells(delimiter: str) -> int:
        return len(next(csv.reader([header], delimiter=delimiter), []))

    return max(DELIMITERS, key=cells)


def open_csv(path: Path, reading: Reading) -> Source:
    """Columns and chunks of a CSV file with a header; a row's number is that of its first line."""
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
    # The module's own limit of 131,072 characters a cell bounds what an unclosed quote takes in.
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
