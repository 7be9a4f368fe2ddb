"""Avro container files, block by block: every codec of the specification, with what the runtime has already.

fastavro decodes header and records. Blocks are read here, since fastavro needs a further package for each codec, and
reads and decompresses as much as a damaged length says.
"""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import fastavro
import pyarrow as pa

MAGIC: Final = b"Obj\x01"
HEADER_BYTES_MAX: Final = 8 * 1024 * 1024
BLOCK_BYTES_MAX: Final = 256 * 1024 * 1024
"""Largest block, compressed or not (writers make them of 16 kB to some MB)."""
_SYNC_BYTES: Final = 16
_VARINT_BYTES_MAX: Final = 10
_CRC_BYTES: Final = 4
_HEADER: Final = fastavro.parse_schema(
    {
        "type": "record",
        "name": "org.apache.avro.file.Header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": len(MAGIC)}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": _SYNC_BYTES}},
        ],
    }
)
_TIMES: Final = {"millis": "ms", "micros": "us", "nanos": "ns"}


class AvroFile:
    """A container file: its schema, and its records in blocks. Times stay numbers; `times` says of which unit."""

    def __init__(
        self, source: Path | bytes, *, block_bytes_max: int = BLOCK_BYTES_MAX, block_records_max: int = BLOCK_BYTES_MAX
    ) -> None:
        """Read the header. `source`: a file, or its content. `block_bytes_max`: of a block, compressed or not.

        Raises:
            ValueError: it is no container of records, or of an unknown codec (or another error of a damaged header).
            OSError: it cannot be read.

        """
        self._source, self._block_bytes_max, self._block_records_max = source, block_bytes_max, block_records_max
        with self._opened() as raw:
            head = io.BytesIO(raw.read(HEADER_BYTES_MAX))
        if not head.getvalue().startswith(MAGIC):
            raise ValueError("it does not begin as an Avro container file does")
        header: Any = fastavro.schemaless_reader(head, _HEADER, None)
        self._sync: bytes = header["sync"]
        self._first_block = head.tell()
        codec = header["meta"].get("avro.codec", b"null").decode("utf-8", "replace")
        if codec not in _CODECS:
            raise ValueError(f"its codec {codec!r} is none of {', '.join(sorted(_CODECS))}")
        self._decompress = _CODECS[codec]
        written = json.loads(header["meta"]["avro.schema"])
        if not isinstance(written, dict) or written.get("type") != "record":
            raise ValueError("its values are no records")
        self.times: dict[str, pa.DataType] = {}
        """Arrow type of the fields that are timestamps."""
        written["fields"] = [self._without_time(field) for field in written["fields"]]
        self._schema = fastavro.parse_schema(written)
        self.fields: Sequence[Mapping[str, Any]] = written["fields"]
        """Fields of the schema, times as numbers."""
        self.columns = tuple(str(field["name"]) for field in written["fields"])
        self.block_bytes = 0
        """Of the block that was read last, uncompressed."""

    def _opened(self) -> BinaryIO:
        return io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source.open("rb")

    def _without_time(self, field: Mapping[str, Any]) -> dict[str, Any]:
        kind = field["type"]
        branches = kind if isinstance(kind, list) else [kind]
        plain: list[Any] = []
        for branch in branches:
            logical = str(branch.get("logicalType", "")) if isinstance(branch, dict) else ""
            unit = _TIMES.get(logical.rpartition("timestamp-")[2]) if "timestamp-" in logical else None
            if unit is not None and branch["type"] == "long" and len(branches) <= 2:
                self.times[str(field["name"])] = pa.timestamp(unit, None if logical.startswith("local-") else "UTC")
                plain.append("long")
            else:
                plain.append(branch)
        return {**field, "type": plain if isinstance(kind, list) else plain[0]}

    def blocks(self) -> Iterator[tuple[list[dict[str, Any]], float]]:
        """Records of each block, and the part of the file (0 to 1) up to its end.

        Raises:
            EOFError: the file ends within a block.
            ValueError: a block is damaged, or too large (or another error of a damaged record).

        """
        with self._opened() as raw:
            size = max(1, raw.seek(0, io.SEEK_END))
            raw.seek(self._first_block)
            while (count := _long(raw)) is not None:
                length = _long(raw)
                if length is None:
                    raise EOFError("the file ends within a block")
                if not 0 <= length <= self._block_bytes_max:
                    raise ValueError(f"a block of {length} bytes")
                packed = raw.read(length)
                if raw.read(_SYNC_BYTES) != self._sync:
                    raise EOFError("the file ends within a block, or the block is not closed by the sync marker")
                data = self._decompress(packed, self._block_bytes_max)
                self.block_bytes = len(data)
                yield self._records(data, count), min(1.0, raw.tell() / size)

    def _records(self, data: bytes, count: int) -> list[dict[str, Any]]:
        if not 0 <= count <= len(data):
            raise ValueError(f"a block of {len(data)} bytes cannot hold {count} records")
        if count > self._block_records_max:
            raise ValueError(f"a block of {count} records; at most {self._block_records_max} are read")
        stream = io.BytesIO(data)
        found: list[Any] = [fastavro.schemaless_reader(stream, self._schema, None) for _ in range(count)]
        if stream.tell() != len(data):
            raise ValueError(f"a block has {len(data) - stream.tell()} bytes after its last record")
        return found


def _long(raw: BinaryIO) -> int | None:
    """A number of Avro's variable length; None at the end of the file."""
    shift = number = 0
    for _ in range(_VARINT_BYTES_MAX):
        byte = raw.read(1)
        if not byte:
            if shift:
                raise EOFError("the file ends within a number")
            return None
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (number >> 1) ^ -(number & 1)
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _checked_size(size: int, size_max: int) -> int:
    if size > size_max:
        raise ValueError(f"a block of more than {size_max} bytes")
    return size


def _stored(data: bytes, _: int) -> bytes:
    return data


def _deflate(data: bytes, size_max: int) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    found = machine.decompress(data, size_max + 1)
    _checked_size(len(found), size_max)
    if not machine.eof:
        raise EOFError("a compressed block is cut short")
    return found


def _bzip2(data: bytes, size_max: int) -> bytes:
    return _whole(bz2.BZ2Decompressor(), data, size_max)


def _xz(data: bytes, size_max: int) -> bytes:
    return _whole(lzma.LZMADecompressor(memlimit=BLOCK_BYTES_MAX), data, size_max)


def _whole(machine: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes, size_max: int) -> bytes:
    found = machine.decompress(data, size_max + 1)
    _checked_size(len(found), size_max)
    if not machine.eof:
        raise EOFError("a compressed block is cut short")
    return found


def _snappy(data: bytes, size_max: int) -> bytes:
    if len(data) <= _CRC_BYTES:
        raise EOFError("a compressed block is cut short")
    packed, crc = data[:-_CRC_BYTES], int.from_bytes(data[-_CRC_BYTES:], "big")
    size = 0
    for position, byte in enumerate(packed[:5]):
        size |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            break
    found: bytes = pa.Codec("snappy").decompress(packed, _checked_size(size, size_max), asbytes=True)
    if zlib.crc32(found) != crc:
        raise ValueError("a block does not match its checksum")
    return found


def _zstandard(data: bytes, size_max: int) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        found: bytes = stream.read(size_max + 1)
    _checked_size(len(found), size_max)
    return found


def _lz4(data: bytes, size_max: int) -> bytes:
    """LZ4 as fastavro and Python's lz4.block write it: the size, 4 bytes little-endian, before an LZ4 block."""
    size = _checked_size(int.from_bytes(data[:4], "little"), size_max)
    found: bytes = pa.Codec("lz4_raw").decompress(data[4:], size, asbytes=True)
    return found


_CODECS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "null": _stored,
    "deflate": _deflate,
    "bzip2": _bzip2,
    "xz": _xz,
    "snappy": _snappy,
    "zstandard": _zstandard,
    "lz4": _lz4,
}
