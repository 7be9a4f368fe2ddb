"""Middleware of the monitor: compression, security headers, and the check of host names."""

from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.hosts import Hosts

COMPRESS_LEVEL: Final = 5
"""A third of the time of the highest level, for a tenth more bytes."""
_HEADERS: Final = {
    b"content-security-policy": (
        b"default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
_UNNAMED_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Answered under any host name: load balancers use many, and the answers reveal nothing."""


class Compressed:
    """Compresses answers, including the stream of events. `spared`: paths of pages that others bring.

    Those are not compressed: on a page with secrets that also repeats input, the length would reveal them (BREACH).
    """

    def __init__(self, app: ASGIApp, spared: tuple[str, ...]) -> None:
        self._app = app
        self._spared = spared
        self._compressing = GZipMiddleware(app, compresslevel=COMPRESS_LEVEL, exclude_content_types=("image/png",))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; compress the answer where allowed."""
        path = scope.get("path", "")
        is_spared = any(path == each or path.startswith(f"{each}/") for each in self._spared)
        await (self._app if is_spared else self._compressing)(scope, receive, send)


class PageHeaders:
    """Adds the headers that isolate a page from other sites.

    Not a `BaseHTTPMiddleware`: it would buffer event streams.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Any] = list(message.get("headers", []))
                named = {name.lower() for name, _ in headers}
                # Headers that a page sets itself are kept: with two values of one header the result would depend on the
                # browser.
                headers += [(name, value) for name, value in _HEADERS.items() if name not in named]
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, with_headers)


class Names:
    """Refuses requests under a foreign host name (DNS rebinding).

    Pages of others (`guarded`) check names themselves.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, guarded: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests under one of our names."""
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
