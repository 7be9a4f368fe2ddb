"""`/tables` of a supervisor: requests are passed on to one of its processes, any of which answers for whole tables.

Who may ask is decided here, by what the user's request says: a process sees all of them come from this machine.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Final

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from yarl import URL

from streams.deadletters.web.guard import Guard, require
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.tokens import Right, Tokens
from streams.settings import Settings
from streams.tables.routing import STOPS
from streams.worker.supervisor_web import Asked

_CONNECT_S_MAX: Final = 2.0
_SILENCE_S_MAX: Final = 30.0
"""A stream of changes sends something more often than that."""
_PASSED_ON: Final = ("accept", "authorization", "last-event-id")
_PASSED_BACK: Final = ("content-type", "cache-control", "retry-after", "streams-next", "x-content-type-options")
_RETRY_AFTER_S: Final = 2
_NONE_ANSWERS: Final = "no process of this worker answers: they start, or have ended and are started again"


class PassedOn:
    """Implements `worker.supervisor_web.Further` for tables."""

    def __init__(self, settings: Settings, processes: Sequence[Asked]) -> None:
        self._processes = processes
        self._turns = itertools.count()
        self._guard = Guard(Tokens.of(settings), bound_to=settings.streams_web_host, what="the interface of tables")
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    def routes(self) -> list[Route]:
        """The routes to serve."""
        return [Route("/tables", self._serve), Route("/tables/{rest:path}", self._serve)]

    async def close(self) -> None:
        """Close all streams; requests under way are told that this worker stops."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _serve(self, request: Request) -> Response:
        try:
            require(self._guard.rights(request), Right.READ)
        except Refused as refused:
            await asyncio.sleep(refused.pause_s)
            headers = {"Retry-After": str(refused.retry_s)} if refused.retry_s else {}
            return JSONResponse({"error": refused.why}, refused.status, headers)
        running = [process for process in self._processes if process.is_running]
        first = next(self._turns)
        for turn in range(len(running)):
            if self._is_closed:
                break
            answer = await self._ask(running[(first + turn) % len(running)], request)
            if answer is not None:
                return answer
        why = STOPS if self._is_closed else _NONE_ANSWERS
        return JSONResponse({"error": why}, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(_RETRY_AFTER_S)})

    async def _ask(self, process: Asked, request: Request) -> Response | None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S_MAX, sock_read=_SILENCE_S_MAX)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            found = await self._session.get(
                URL(f"{process.url}{path}{query}", encoded=True), headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        back = {name: found.headers[name] for name in _PASSED_BACK if name in found.headers}
        return StreamingResponse(_parts(found), found.status, back)


async def _parts(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for part in answer.content.iter_any():
            yield part
    finally:
        answer.close()
