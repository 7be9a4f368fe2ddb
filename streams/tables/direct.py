"""Rows by key, answered without the framework: all that are asked for in one turn of the event loop together.

An answer is the one that the framework's way gives, byte for byte. What is not a row that is here (refused, elsewhere,
with parameters, as Arrow) goes that way itself, as a request of its own in the same connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import structlog
from starlette.requests import Request
from starlette.responses import Response

from streams.deadletters.web.guard import Guard
from streams.deadletters.web.tokens import Right, Rights
from streams.errors import UsageError
from streams.tables.asked import CHANGES, COMMITTED, key_of
from streams.tables.connection import Answering
from streams.tables.heads import TABLES, headers_of
from streams.tables.metrics import TableMetrics
from streams.tables.rendering import ARROW, JSON, ROW_HEADERS, body_of, key_text, texts_of
from streams.tables.routing import ROUTED
from streams.tables.served import ServedFlow
from streams.tables.shape import TableShape

log = structlog.get_logger(__name__)

_CLIENTS_MAX: Final = 128
"""Sets of headers that are remembered, with what they permit; a client sends the same ones all the time."""
_KIND: Final = "key"
_HEADERS: Final = b"".join(b"%s: %s\r\n" % (name.lower().encode(), it.encode()) for name, it in ROW_HEADERS.items())
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}
_OK: Final = _STATUS_LINES[HTTPStatus.OK]


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody whose headers were looked at."""

    rights: Rights
    is_routed: bool
    """Whether the client is another worker, which passes on a request."""
    wants_json: bool


@dataclass(frozen=True, slots=True)
class _Point:
    answering: Answering
    client: Client
    key: bytes
    began_s: float


class DirectRows:
    """Answers requests for rows by key of one worker, on its event loop. Implements `connection.Direct`."""

    def __init__(
        self,
        by_table: Mapping[str, ServedFlow],
        guard: Guard,
        metrics: TableMetrics,
        serve: Callable[[Request], Awaitable[Response]],
    ) -> None:
        """`serve` is the framework's way for a request for one row."""
        self._by_table, self._guard, self._metrics, self._serve = by_table, guard, metrics, serve
        self._clients: dict[tuple[str, bytes], Client] = {}
        self._waiting: dict[str, list[_Point]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def take(self, answering: Answering) -> bool:
        """Take a request, to be answered later; False: it is for the framework."""
        began_s = time.perf_counter()
        target, _, query = answering.head.target.partition(b"?")
        topic, slash, rest = target[len(TABLES) :].decode("ascii").partition("/")
        text = unquote(rest) if "%" in rest else rest
        if not slash or text == CHANGES or "%" in topic:
            return False
        client, flow = self._client_of(answering), self._by_table.get(topic)
        if client is None or flow is None or query or not client.wants_json:
            return self._ask(answering)
        try:
            key = key_of(text)
        except UsageError:
            return self._ask(answering)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)
        self._waiting.setdefault(topic, []).append(_Point(answering, client, key, began_s))
        return True

    def _client_of(self, answering: Answering) -> Client | None:
        """Who asks, where they may read; None: the framework's way decides."""
        address, fields = answering.client[0], answering.head.fields
        if self._guard.is_held(address):
            return None
        client = self._clients.get((address, fields))
        if client is None:
            client = self._looked_at(answering)
            if client is not None:
                if len(self._clients) >= _CLIENTS_MAX:
                    self._clients.clear()
                self._clients[address, fields] = client
        return client

    def _looked_at(self, answering: Answering) -> Client | None:
        request = _request_of(answering)
        if request is None:
            return None
        rights = self._guard.rights_unless_refused(request)
        if rights is None or Right.READ not in rights:
            return None
        wants_json = ARROW not in request.headers.get("accept", "")
        return Client(rights, ROUTED in request.headers, wants_json)

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for topic, points in waiting.items():
            flow = self._by_table[topic]
            try:
                self._answer_from(flow, flow.tables[topic], points)
            except Exception as error:  # noqa: BLE001 - the framework's way meets it again, and says it
                log.debug("rows are served in the framework's way", table=topic, error=repr(error))
            for point in points:
                if point.answering.message is None:
                    self._ask(point.answering)
        for connection in dict.fromkeys(point.answering.connection for some in waiting.values() for point in some):
            connection.flush()

    def _answer_from(self, flow: ServedFlow, table: TableShape, points: list[_Point]) -> None:
        """Answer what is here; what is not, stays."""
        look = flow.stored.look(table, [point.key for point in points])
        batch = table.rows(list(look.rows), list(look.rows.values())) if look.rows else None
        texts: dict[bool, Mapping[bytes, str]] = {}
        before = f'{{"table":{body_of(table.topic).decode()},"key":'
        after = f',"as_of":"{COMMITTED}","stale":false}}'
        for point in points:
            if point.key in look.elsewhere:
                continue
            if batch is None or point.key in look.absent:
                why = f"{table.topic} has no row of the key {key_text(point.key)!r}"
                self._give(point, HTTPStatus.NOT_FOUND, body_of({"error": why}))
                continue
            reveals = Right.REVEAL in point.client.rights
            if reveals not in texts:
                rendered = texts_of(batch, masked=() if reveals else table.personal)
                texts[reveals] = dict(zip(look.rows, rendered, strict=True))
            key, row = body_of(key_text(point.key)).decode(), texts[reveals][point.key]
            self._give(point, HTTPStatus.OK, f'{before}{key},"row":{row}{after}'.encode())

    def _give(self, point: _Point, status: HTTPStatus, body: bytes) -> None:
        headers = b"%scontent-length: %d\r\ncontent-type: %s\r\n\r\n" % (_HEADERS, len(body), JSON.encode())
        point.answering.answer(_STATUS_LINES[status], headers, body)
        seconds = None if point.client.is_routed else time.perf_counter() - point.began_s
        self._metrics.answered(_KIND, status, seconds)

    def _ask(self, answering: Answering) -> bool:
        """Have the request answered in the framework's way."""
        request = _request_of(answering)
        if request is None:
            return False
        task = asyncio.get_running_loop().create_task(self._ask_for(request, answering))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return True

    async def _ask_for(self, request: Request, answering: Answering) -> None:
        try:
            response = await self._serve(request)
        except Exception as error:
            log.exception("a row could not be served", path=request.url.path, error=repr(error))
            response = Response("Internal Server Error", HTTPStatus.INTERNAL_SERVER_ERROR, media_type="text/plain")
        headers = b"".join(b"%s: %s\r\n" % pair for pair in response.raw_headers) + b"\r\n"
        answering.answer(_STATUS_LINES[HTTPStatus(response.status_code)], headers, bytes(response.body))
        answering.connection.flush()


def _request_of(answering: Answering) -> Request | None:
    """As the framework has it; None: the headers are for it to judge."""
    headers = headers_of(answering.head.fields)
    if headers is None:
        return None
    path, _, query = answering.head.target.partition(b"?")
    text = unquote(path.decode("ascii"))
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": text,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": answering.client,
        "path_params": {"rest": text.removeprefix(TABLES.decode())},
    }
    return Request(scope)
