"""The body of a request, read within bounds of size, of time and of what all bodies together take."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from streams.gateway.answers import Refused
from streams.limits import GATEWAY_BODIES_BYTES_MAX, GATEWAY_BODY_S_MAX

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_GZIP: Final = 31
"""Window bits of zlib that mean gzip, with its header and checksum."""
_STEP_BYTES: Final = 256 * 1024


class ClientGone(Exception):
    """The sender has hung up before its body was complete: there is nobody to answer."""


class Budget:
    """What the bodies of all requests under way take, in bytes."""

    def __init__(self, bytes_max: int = GATEWAY_BODIES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.held = 0

    def take(self, count: int) -> None:
        """Count more bytes of a body.

        Raises:
            Refused: all bodies together take too much.

        """
        if self.held + count > self._bytes_max:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at the same time: send again later",
                kind="memory", retry_s=1,
            )  # fmt: skip
        self.held += count

    def give_back(self, count: int) -> None:
        """Free `count` bytes of the budget."""
        self.held -= count


class Body:
    """The body of one request; `release` when the request is answered."""

    def __init__(self, budget: Budget, *, bytes_max: int, seconds_max: float = GATEWAY_BODY_S_MAX) -> None:
        self._budget, self._bytes_max, self._seconds_max = budget, bytes_max, seconds_max
        self._taken = 0
        """Packed and unpacked, which are in memory at the same time."""

    async def read(self, receive: Receive, *, declared: bytes | None) -> bytes:
        """The bytes as they were sent. `declared`: what `Content-Length` says.

        Raises:
            Refused: it is too large, or takes too long.
            ClientGone: the connection has ended.

        """
        if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > self._bytes_max):
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds_max):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientGone
                    chunk = message.get("body", b"")
                    if chunk:
                        size += len(chunk)
                        self._take(len(chunk), size)
                        chunks.append(chunk)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT, f"the body was not complete within {self._seconds_max:g} s", kind="slow",
                headers={"Connection": "close"},
            ) from None  # fmt: skip
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def unpacked(self, sent: bytes, encoding: bytes) -> bytes:
        """The bytes without their `Content-Encoding` (`gzip`, or none).

        Raises:
            Refused: it is another encoding, not gzip, or too large once unpacked.

        """
        name = encoding.strip().lower()
        if name in {b"", b"identity"}:
            return sent
        if name not in {b"gzip", b"x-gzip"}:
            raise Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: only gzip is read", kind="encoding",
                headers={"Accept-Encoding": "gzip"},
            )  # fmt: skip
        parts: list[bytes] = []
        size = 0
        try:
            for part in gunzipped(sent):
                size += len(part)
                self._take(len(part), size)
                parts.append(part)
        except zlib.error as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"the body is not gzip: {error}", kind="encoding") from None
        return b"".join(parts)

    def release(self) -> None:
        """Return the memory that the body was counted with."""
        self._budget.give_back(self._taken)
        self._taken = 0

    def _take(self, count: int, size: int) -> None:
        if size > self._bytes_max:
            raise self._too_large()
        self._budget.take(count)
        self._taken += count

    def _too_large(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {self._bytes_max} bytes: send it in parts",
            kind="too_large", headers={"Connection": "close"},
        )  # fmt: skip


def gunzipped(sent: bytes) -> Iterator[bytes]:
    """The content of all members, in steps of bounded size.

    Raises:
        zlib.error: it is not gzip, or cut short.

    """
    rest = sent
    while rest:
        machine = zlib.decompressobj(_GZIP)
        while not machine.eof:
            part = machine.decompress(rest, _STEP_BYTES)
            rest = machine.unconsumed_tail
            if not part and not rest and not machine.eof:
                raise zlib.error("it is cut short")
            yield part
        rest = machine.unused_data
