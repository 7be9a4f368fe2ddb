"""Reads NDJSON files: one JSON object a line."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from streams.ingest.chunks import CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, LINE_BYTES_MAX, BadRow, Chunk, Source
from streams.ingest.formats.encoding import UTF8, as_utf8, encoding_of
from streams.ingest.inputs import opened
from streams.ingest.reading import Reading

PEEKED_ROWS: Final = 1_000
"""Rows of an NDJSON file that are looked at to learn its columns."""
NAMES_MAX: Final = 1_000
"""Names of an NDJSON file's columns that are remembered."""
SHOWN_CHARACTERS_MAX: Final = 1_000


def open_ndjson(path: Path, reading: Reading) -> Source:
    """Chunks of an NDJSON file, and the columns of its first rows; a row's number is that of its line."""
    encoding = encoding_of(path, reading)

    @contextmanager
    def open_lines() -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
        with opened(path) as file:
            yield (file.stream if encoding in UTF8 else as_utf8(file.stream, encoding)), file.position

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
