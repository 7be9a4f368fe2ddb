"""Records that the client refuses to send: header names that are not UTF-8, any record timestamp.

One Produce request (version 7) a call, written by hand after the Kafka protocol; record batches of version 2.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Final

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of

RawHeaders = Sequence[tuple[bytes, bytes | None]]

_PRODUCE: Final = 0
_VERSION: Final = 7
_TIMEOUT_S: Final = 30
_CASTAGNOLI: Final = 0x82F63B78
LONG_MAX: Final = 2**63 - 1


class RawProducer:
    """A connection to the only broker of a test's stack."""

    def __init__(self, bootstrap_servers: str) -> None:
        host, port = bootstrap_servers.split(":")
        self._socket = socket.create_connection((host, int(port)), _TIMEOUT_S)
        self._requests = 0

    def close(self) -> None:
        self._socket.close()

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: RawHeaders = (),
    ) -> int:
        """Send one record; its offset."""
        data = _batch(key, value, timestamp_ms, headers)
        body = struct.pack(">hhi", -1, -1, _TIMEOUT_S * 1000) + struct.pack(">i", 1) + _text(topic)
        body += struct.pack(">iii", 1, partition, len(data)) + data
        self._requests += 1
        request = struct.pack(">hhi", _PRODUCE, _VERSION, self._requests) + _text("tests-raw") + body
        self._socket.sendall(struct.pack(">i", len(request)) + request)
        answer = self._read(struct.unpack(">i", self._read(4))[0])
        at = 4 + 4 + 2 + len(topic.encode()) + 4 + 4  # correlation id, topics, name, partitions, partition
        error, offset = struct.unpack_from(">hq", answer, at)
        assert error == 0, f"the broker refuses the record: error {error}"
        return int(offset)

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self._socket.recv(count - len(found))
            assert part, "the broker has closed the connection"
            found += part
        return found


def accept_any_timestamp(stack: Stack, *topics: str) -> None:
    """Have topics take records of any timestamp: since Kafka 4.0 they refuse what is over an hour ahead."""
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(
                    "message.timestamp.after.max.ms", str(LONG_MAX), incremental_operation=AlterConfigOpType.SET
                )
            ],
        )
        for topic in topics
    ]
    client = admin_of(stack)  # while it is in use, somebody must hold it
    for future in client.incremental_alter_configs(wanted).values():
        future.result(_TIMEOUT_S)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _varint(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out) + bytes([rest])


def _sized(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _batch(key: bytes | None, value: bytes | None, timestamp_ms: int, headers: RawHeaders) -> bytes:
    record = b"\0" + _varint(0) + _varint(0) + _sized(key) + _sized(value) + _varint(len(headers))
    record += b"".join(_sized(name) + _sized(content) for name, content in headers)
    # attributes, last offset, first and newest timestamp, producer id, epoch, sequence, records
    checked = struct.pack(">hiqqqhii", 0, 0, timestamp_ms, timestamp_ms, -1, -1, -1, 1) + _sized(record)
    rest = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _remainder(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_CASTAGNOLI if number & 1 else 0)
    return number


_TABLE: Final = [_remainder(number) for number in range(256)]
