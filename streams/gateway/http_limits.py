"""What uvicorn does not bound: how long a request's head may take to arrive, and how large it may be.

Without a bound, clients that send a byte now and then hold connections for ever (slowloris), and a header that never
ends fills the memory (httptools keeps what it has of it).
"""

import asyncio
import importlib.util
import json
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from streams.limits import GATEWAY_HEAD_BYTES_MAX, GATEWAY_HEAD_S_MAX

LEFTOVER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of a body that are read and dropped when its request is answered before it has arrived, so that the sender can
read the answer; beyond it the connection is closed."""


class _Bounded(asyncio.Protocol):
    """Goes in front of a protocol of uvicorn's."""

    head_s_max = GATEWAY_HEAD_S_MAX
    head_bytes_max = GATEWAY_HEAD_BYTES_MAX
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    cycle: Any
    _timer: asyncio.TimerHandle | None = None
    _bytes = 0
    """Since the last request was answered, or the connection was made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, not for ever."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes until a request has begun to be handled."""
        if self._is_between():
            self._bytes += len(data)
            if self._timer is None:
                self._arm()
        super().data_received(data)
        if self.transport.is_closing():
            self._disarm()
        elif not self._is_between():
            self._disarm()
            self._bytes = 0
        elif self._is_leftover():
            if self._bytes > LEFTOVER_BYTES_MAX:
                self.transport.close()
        elif self._bytes > self.head_bytes_max:
            self._end(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"request line and headers have more than {self.head_bytes_max} bytes",
            )

    def _is_between(self) -> bool:
        """Whether no request is being handled whose head is complete."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _is_leftover(self) -> bool:
        """Whether what comes may be the rest of a body whose request is answered."""
        return self.cycle is not None and bool(self.cycle.more_body)

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.head_s_max, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._bytes and not self._is_leftover():
            words = f"request line and headers were not complete within {self.head_s_max:g} s"
            self._end(HTTPStatus.REQUEST_TIMEOUT, words)
        else:
            self.transport.close()

    def _end(self, status: HTTPStatus, words: str) -> None:
        self._disarm()
        content = json.dumps({"type": "about:blank", "title": status.phrase, "status": status.value, "detail": words})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write((head + content).encode())
        self.transport.close()


class BoundedH11(_Bounded, H11Protocol):
    """HTTP by the library h11, which is always installed and slower than httptools."""


def bounded_protocol() -> type[asyncio.Protocol]:
    """The protocol to serve by: httptools' where it is installed (extra `gateway`), else h11's."""
    if importlib.util.find_spec("httptools") is None:
        return BoundedH11
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class BoundedHttpTools(_Bounded, HttpToolsProtocol):
        """By httptools: several times as many requests a second."""

    return BoundedHttpTools
