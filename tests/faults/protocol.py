"""As much of Kafka's protocol as a proxy has to know: which requests begin where, what a metadata answer is made of.

Sources: https://kafka.apache.org/protocol, MetadataResponse.json of Kafka (flexible versions 9 and up).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

METADATA: Final = 3
END_TXN: Final = 26
"""The request that commits or aborts a transaction."""
_FLEXIBLE_METADATA: Final = 9
_REQUEST: Final = struct.Struct(">ihhi")
_ANSWER: Final = struct.Struct(">ii")


@dataclass(frozen=True, slots=True)
class Request:
    """Head of a request."""

    api_key: int
    version: int
    correlation_id: int


class Requests:
    """Finds the requests in the chunks of a connection."""

    def __init__(self) -> None:
        self._head = b""
        self._skip = 0

    def feed(self, chunk: bytes) -> list[Request]:
        """Requests that begin in `chunk` (or whose head ends in it)."""
        found = []
        while chunk:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped:]
            missing = _REQUEST.size - len(self._head)
            self._head, chunk = self._head + chunk[:missing], chunk[missing:]
            if len(self._head) == _REQUEST.size:
                size, key, version, correlation_id = _REQUEST.unpack(self._head)
                found.append(Request(key, version, correlation_id))
                self._head, self._skip = b"", size + 4 - _REQUEST.size
        return found


class Answers:
    """The answers on a connection; those to metadata requests can be passed on without their brokers."""

    def __init__(self) -> None:
        self._metadata: dict[int, int] = {}
        """Version of each metadata request that is under way, by correlation id."""
        self._held = b""
        self._pass = 0

    def expect(self, requests: Iterable[Request]) -> None:
        """Note what was asked."""
        self._metadata.update({one.correlation_id: one.version for one in requests if one.api_key == METADATA})

    def feed(self, chunk: bytes, *, no_brokers: bool) -> bytes:
        """What to pass on now; the first bytes of an answer are held until it is known what it is."""
        self._held += chunk
        passed = b""
        while self._held:
            if not self._pass:
                if len(self._held) < _ANSWER.size:
                    break
                size, correlation_id = _ANSWER.unpack_from(self._held)
                self._pass = size + 4
                if correlation_id in self._metadata and no_brokers:
                    if len(self._held) < self._pass:
                        self._pass = 0
                        break
                    answer, self._held = self._held[: self._pass], self._held[self._pass :]
                    passed += without_brokers(answer, self._metadata.pop(correlation_id))
                    self._pass = 0
                    continue
                self._metadata.pop(correlation_id, None)
            passed += self._held[: self._pass]
            self._held, self._pass = self._held[self._pass :], max(0, self._pass - len(self._held))
        return passed


def without_brokers(answer: bytes, version: int) -> bytes:
    """The same metadata answer with an empty list of brokers."""
    if version < _FLEXIBLE_METADATA:
        raise ValueError(f"metadata answers of version {version} are not known here")
    at = brokers_at = _ANSWER.size + 1 + 4  # no tagged fields in the head, throttle time
    count, at = _uvarint(answer, at)
    for _ in range(count - 1):
        at = _behind_string(answer, at + 4)  # node id, host
        at = _behind_string(answer, at + 4)  # port, rack
        tags, at = _uvarint(answer, at)
        if tags:
            raise ValueError("tagged fields of a broker are not known here")
    rest = answer[4:brokers_at] + b"\x01" + answer[at:]
    return struct.pack(">i", len(rest)) + rest


def _behind_string(data: bytes, at: int) -> int:
    length, at = _uvarint(data, at)
    return at + max(0, length - 1)


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
