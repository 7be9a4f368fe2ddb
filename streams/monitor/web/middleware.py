"""What every request to the monitor passes: compression, headers that keep a page to itself, the check of names."""

from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.hosts import Hosts

COMPRESS_LEVEL: Final = 5
"""A third of the time of the highest, for a tenth more of bytes."""
_HEADERS: Final = {
    b"content-security-policy": (
        b"default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
_UNNAMED_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered by whatever name: load balancers ask by many, and what they say is of use to nobody else."""


class Compressed:
    """Compresses what is answered, the stream of events too. `spared`: paths of pages that others bring.

    Those are left as they are: lengths tell of secrets where a page has some and repeats what it is told (BREACH).
    """

    def __init__(self, app: ASGIApp, spared: tuple[str, ...]) -> None:
        self._app = app
        self._spared = spared
        self._compressing = GZipMiddleware(app, compresslevel=COMPRESS_LEVEL, exclude_content_types=("image/png",))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, compressed or not."""
        path = scope.get("path", "")
        is_spared = any(path == each or path.startswith(f"{each}/") for each in self._spared)
        await (self._app if is_spared else self._compressing)(scope, receive, send)


class PageHeaders:
    """Headers that keep a page to itself. Not a `BaseHTTPMiddleware`: that would buffer the stream of events."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add them to what is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Any] = list(message.get("headers", []))
                named = {name.lower() for name, _ in headers}
                # What a page says itself stands: two values of one header are another value, and what it is, is the
                # browser's choice.
                headers += [(name, value) for name, value in _HEADERS.items() if name not in named]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, with_headers)


class Names:
    """Refuses requests by a foreign name (DNS rebinding). Pages of others (`guarded`) look after themselves."""

    def __init__(self, app: ASGIApp, hosts: Hosts, guarded: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is asked by a name of ours."""
        if scope["type"] != "http" or self._is_exempt(scope["path"]):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("host", "")
        if self._hosts.serve(asked):
            await self._app(scope, receive, send)
            return
        why = f"{asked[:100]!r} is no name of this monitor: ask by its address, or add the name to STREAMS_WEB_NAMES\n"
        await PlainTextResponse(why, status_code=403)(scope, receive, send)

    def _is_exempt(self, path: str) -> bool:
        return path in _UNNAMED_PATHS or any(path == each or path.startswith(f"{each}/") for each in self._guarded)
