"""Encoding of text files."""

import codecs
import io
from pathlib import Path
from typing import BinaryIO, Final

from streams.ingest.inputs import opened
from streams.ingest.reading import Reading

_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""In this order, since UTF-32's begins with UTF-16's."""
UTF8: Final = frozenset({"utf-8", "utf-8-sig"})
"""Names of the encoding that needs no conversion."""


def encoding_of(path: Path, reading: Reading) -> str:
    """Encoding of a text file: the one declared, else by its byte order mark, else UTF-8."""
    with opened(path) as file:
        beginning = file.stream.read(4)
    by_mark = next((name for mark, name in _BYTE_ORDER_MARKS.items() if beginning.startswith(mark)), "utf-8")
    if reading.encoding is None:
        return by_mark
    declared = codecs.lookup(reading.encoding).name
    return by_mark if declared in UTF8 and by_mark == "utf-8-sig" else declared


def as_utf8(stream: BinaryIO, encoding: str) -> BinaryIO:
    """A stream of another encoding, read as UTF-8."""
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
