"""Finds the input files and opens their bytes: patterns, standard input, addresses, compression."""

import glob
import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from streams.errors import StreamsError, UsageError
from streams.ingest.remote import fetched, is_remote
from streams.object_stores import refusal_of

STANDARD_INPUT: Final = "-"
COMPRESSED_SUFFIXES: Final = (".gz", ".zst", ".zstd")
"""Suffixes that do not tell the format: the suffix before them does."""
_PATTERN_CHARACTERS: Final = frozenset("*?[")
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_REFUSED: Final = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
}
_MAGIC_BYTES: Final = 8
_BUFFER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Input:
    """A file: its path, and its name in messages."""

    path: Path
    name: str


@contextmanager
def inputs_of(
    arguments: Sequence[str | Path],
    standard_input: BinaryIO | None = None,
    fetching: Callable[[float], None] = lambda _: None,
) -> Iterator[list[Input]]:
    """The files that paths, patterns and addresses name, in their order, a pattern's sorted; `-` is standard input.

    Standard input, and what an address names, is copied to a temporary file first: its content tells whether it was
    sent before. `fetching` is told how much of one (0 to 1) is here.

    Raises:
        UsageError: a pattern or an address names no file, an address of an object store holds credentials, or standard
            input is named twice or not there.
        StreamsError: there is no room for a copy, or an address cannot be read.

    """
    found: list[Input] = []
    with tempfile.TemporaryDirectory(prefix="streams-ingest-") as scratch:
        for argument in map(str, arguments):
            if argument == STANDARD_INPUT:
                if standard_input is None or any(one.name == STANDARD_INPUT for one in found):
                    raise UsageError("-: standard input can be read once, and must be open")
                found.append(Input(_copied(standard_input, Path(scratch) / "input"), STANDARD_INPUT))
            elif is_remote(argument):
                folder = Path(scratch) / f"{len(found)}"
                folder.mkdir()
                found += [Input(path, name) for name, path in fetched(argument, folder, fetching)]
            elif why := refusal_of(argument):
                raise UsageError(why)
            elif Path(argument).exists() or not _PATTERN_CHARACTERS & set(argument):
                found.append(Input(Path(argument), argument))
            else:
                matches = sorted(one for one in glob.glob(argument, recursive=True) if Path(one).is_file())  # noqa: PTH207
                if not matches:
                    raise UsageError(f"{argument}: no file matches")
                found += [Input(Path(one), one) for one in matches]
        yield found


def _copied(source: BinaryIO, target: Path) -> Path:
    try:
        with target.open("wb") as out:
            shutil.copyfileobj(source, out, _BUFFER_BYTES)
    except OSError as error:
        raise StreamsError(f"-: standard input cannot be kept in {target.parent.parent}: {error.strerror}") from None
    return target


@dataclass(frozen=True, slots=True)
class Opened:
    """Bytes of a file, decompressed, and how far into it (0 to 1) they have been read."""

    stream: BinaryIO
    position: Callable[[], float]


def magic_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as raw:
        return raw.read(_MAGIC_BYTES)


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed as a whole, by gzip or zstd."""
    return magic_of(path).startswith((_GZIP, _ZSTD))


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A file's bytes; gzip and zstd are recognised by their first bytes and decompressed as they are read.

    Raises:
        ValueError: it is an archive, or compressed in another way.
        OSError: it cannot be read, or decompressed.

    """
    magic = magic_of(path)
    for beginning, what in _REFUSED.items():
        if magic.startswith(beginning):
            raise ValueError(f"it is {what}: unpack it first (gzip and zstd are read as they are)")
    size = max(1, path.stat().st_size)
    with path.open("rb") as raw:

        def position() -> float:
            return min(1.0, raw.tell() / size)

        if magic.startswith(_GZIP):
            with gzip.open(raw) as stream:
                yield Opened(io.BufferedReader(stream, _BUFFER_BYTES), position)
        elif magic.startswith(_ZSTD):
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as native:
                yield Opened(io.BufferedReader(_Native(native), _BUFFER_BYTES), position)
        else:
            yield Opened(raw, position)


class _Native(io.RawIOBase):
    """A stream of Arrow as a Python stream."""

    def __init__(self, native: pa.NativeFile) -> None:
        super().__init__()
        self._native = native

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._native.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def extension_of(path: Path) -> str:
    """Extension of a file, in lower case; of a compressed one the extension before `.gz` or `.zst`."""
    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix.lower()
