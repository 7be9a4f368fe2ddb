"""The HTTP interface of tables: `/tables`, `/tables/{topic}`, `/tables/{topic}/{key}`, `/tables/{topic}/changes`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from streams.deadletters.web.guard import Guard, require
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.tokens import Right, Rights, Tokens
from streams.errors import StreamsError, UsageError
from streams.limits import CHANGES_CLIENTS_MAX
from streams.masking import PERSONAL_MASK
from streams.settings import Settings
from streams.state.store import StoreCorrupted, StoreUnavailable
from streams.tables.asked import (
    CHANGES,
    COMMITTED,
    Asked,
    Parameters,
    cursor_of,
    key_of,
    parameters_of_changes,
    parameters_of_one,
    parameters_of_rows,
    personal_used,
)
from streams.tables.change_log import Positions, View, positions_of
from streams.tables.changes import BeyondEnd
from streams.tables.connection import bound_to
from streams.tables.direct import DirectRows
from streams.tables.metrics import TableMetrics
from streams.tables.portion import KEY, Portion
from streams.tables.rendering import ARROW, JSON, ROW_HEADERS, arrow_stream, body_of, dicts_of, key_text
from streams.tables.routing import RETRY_AFTER_S, ROUTED, STOPS, NoOwner, Passed, Question, Router, told_of
from streams.tables.served import ServedFlow
from streams.tables.shape import TableShape

log = structlog.get_logger(__name__)

NEXT: Final = "streams-next"
"""Header of an Arrow answer: the cursor of the next one."""
_STALLED_S: Final = 10.0
"""A reader of changes that takes nothing for so long is cut off."""
_FINISH_S: Final = 0.3
"""When a worker stops: how long requests under way may take to end by themselves."""

Page = Callable[[Request, Rights], Awaitable[Response]]


class TablesWeb:
    """The tables of all flows of a worker. On the event loop; `close` before the server stops."""

    def __init__(self, settings: Settings, flows: Sequence[ServedFlow], metrics: TableMetrics) -> None:
        self._flows = flows
        self._by_table = {topic: flow for flow in flows for topic in flow.tables}
        self._metrics = metrics
        self._guard = Guard(Tokens.of(settings), bound_to=settings.streams_web_host, what="the interface of tables")
        self._router = Router(metrics)
        self._readers = 0
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def routes(self) -> list[Route]:
        """Routes of the tables, for the worker's web application."""
        return [
            Route("/tables", self._guarded("list", self._list)),
            Route("/tables/{rest:path}", self._dispatched()),
        ]

    def connections(self) -> type[asyncio.Protocol]:
        """The class of connections of a server: rows by key are answered without the framework."""
        return bound_to(DirectRows(self._by_table, self._guard, self._metrics, self._dispatched()))

    async def close(self) -> None:
        """End all streams, and ask nobody any more. What is under way ends, or is told that this worker stops."""
        self._is_closed = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_FINISH_S)
        for task in self._under_way:
            task.cancel()
        for flow in self._flows:
            flow.close()
        await self._router.close()

    def _dispatched(self) -> Callable[[Request], Awaitable[Response]]:
        """By what follows the table's name. One route for all: each costs a row by key some microseconds."""
        one, rows = self._guarded("key", self._one), self._guarded("range", self._rows)
        changes = self._guarded("changes", self._changes)

        async def serve(request: Request) -> Response:
            table, slash, key = request.path_params["rest"].partition("/")
            request.path_params.update(table=table, key=key)
            if key == CHANGES:
                return await changes(request)
            return await (one if slash else rows)(request)

        return serve

    def _guarded(self, kind: str, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """The page for those who may read; what fails becomes an answer that says so."""

        async def serve(request: Request) -> Response:
            began_s = time.perf_counter()
            task = asyncio.current_task()
            if task is None:
                raise RuntimeError("requests are served by tasks")
            self._under_way.add(task)
            try:
                rights = self._guard.rights(request)
                require(rights, Right.READ)
                response = await page(request, rights)
            except asyncio.CancelledError:
                if not self._is_closed:
                    raise
                task.uncancel()  # it was `close`: the answer is still to be sent
                response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, STOPS, RETRY_AFTER_S)
            except Refused as refused:
                await asyncio.sleep(refused.pause_s)
                response = _problem(refused.status, refused.why, refused.retry_s)
            except UsageError as error:
                response = _problem(HTTPStatus.BAD_REQUEST, str(error))
            except BeyondEnd as error:
                response = _problem(HTTPStatus.GONE, str(error))
            except NoOwner as error:
                response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), RETRY_AFTER_S)
            except (StreamsError, StoreUnavailable, StoreCorrupted) as error:
                log.warning("a table could not be served", path=request.url.path, error=str(error))
                response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), RETRY_AFTER_S)
            finally:
                self._under_way.discard(task)
            is_timed = kind != "changes" and ROUTED not in request.headers
            self._metrics.answered(kind, response.status_code, time.perf_counter() - began_s if is_timed else None)
            return response

        return serve

    # --- pages ------------------------------------------------------------------------------------------------------

    async def _list(self, request: Request, rights: Rights) -> Response:
        del request, rights
        found = [
            {
                **table.as_dict(),
                "partitions": flow.state.divisions()[0],
                "partitions_here": sorted(flow.state.tasks()),
            }
            for flow in self._flows
            for table in flow.tables.values()
        ]
        return Response(body_of({"tables": found, "as_of": COMMITTED}), media_type=JSON, headers=ROW_HEADERS)

    async def _one(self, request: Request, rights: Rights) -> Response:
        flow, table = self._table(request)
        key = key_of(request.path_params["key"])
        pairs = request.query_params.multi_items() if request.scope["query_string"] else ()
        parameters = parameters_of_one(pairs)
        columns = parameters.columns(table)
        wants_arrow = _wants_arrow(request, parameters)
        found = await flow.lookups.find(table, key)
        if not found.is_here and ROUTED not in request.headers:
            answer = await self._router.one(flow, table, key, _question(request))
            if isinstance(answer, Passed):
                return Response(answer.body, answer.status, media_type=answer.content_type or None, headers=ROW_HEADERS)
            found = answer
        if not found.is_here:
            return _problem(HTTPStatus.MISDIRECTED_REQUEST, "this worker has not the partition of the key")
        if found.row is None:
            return _problem(HTTPStatus.NOT_FOUND, f"{table.topic} has no row of the key {key_text(key)!r}")
        masked = _masked(table, rights)
        if wants_arrow:
            rows = table.rows([key], [found.packed])
            rows = rows if columns is None else rows.select(list(columns))
            return Response(arrow_stream(rows, masked=masked), media_type=ARROW, headers=ROW_HEADERS)
        row = found.row if columns is None else {name: found.row[name] for name in columns}
        if masked:
            row = {name: PERSONAL_MASK if name in masked and it is not None else it for name, it in row.items()}
        document = {"table": table.topic, "key": key_text(key), "row": row, "as_of": COMMITTED, "stale": False}
        return Response(body_of(document), media_type=JSON, headers=ROW_HEADERS)

    async def _rows(self, request: Request, rights: Rights) -> Response:
        flow, table = self._table(request)
        parameters = parameters_of_rows(request.query_params.multi_items())
        asked, wants_arrow = parameters.rows(table), _wants_arrow(request, parameters)
        _require_visible(table, asked, rights)
        masked = _masked(table, rights)
        if ROUTED in request.headers:
            portion = await self._router.rows_here(flow, table, asked)
            stream = await asyncio.to_thread(arrow_stream, portion.rows, masked=masked, about=told_of(portion))
            return Response(stream, media_type=ARROW, headers=ROW_HEADERS)
        portion = await self._router.rows(flow, table, asked, _question(request))
        render = _arrow_answer if wants_arrow else _json_answer
        return await asyncio.to_thread(render, table, portion, masked)

    async def _changes(self, request: Request, rights: Rights) -> Response:
        if request.method != "GET":
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "changes are a stream without end: GET")
        flow, table = self._table(request)
        parameters = parameters_of_changes(request.query_params.multi_items())
        where, columns = parameters.where(table), parameters.columns(table)
        _require_visible(table, Asked(where=where), rights, of_rows=False)
        since = _since(request.headers.get("last-event-id") or parameters.one("from", ""))
        if self._readers >= CHANGES_CLIENTS_MAX:
            why = f"{self._readers} readers of changes are connected, which is all that are served"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, why, retry_s=RETRY_AFTER_S)
        view = View(where, columns, _masked(table, rights), table.masks_keys and Right.REVEAL not in rights)
        events = flow.changes[table.topic].events(view, since)
        first = await anext(events)  # what cannot be read is said by the status
        return _EventStream(self._counted(first, events), self._metrics)

    async def _counted(self, first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._readers += 1
        self._metrics.readers.inc()
        try:
            yield first
            async for event in events:
                yield event
        finally:
            self._readers -= 1
            self._metrics.readers.dec()
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _table(self, request: Request) -> tuple[ServedFlow, TableShape]:
        topic = request.path_params["table"]
        flow = self._by_table.get(topic)
        if flow is None:
            there = ", ".join(sorted(self._by_table)) or "none"
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no table {topic[:200]!r} here; there is: {there}")
        return flow, flow.tables[topic]


class _EventStream(Response):
    """Server-sent events. A reader that takes nothing for `_STALLED_S` is cut off; one that has gone is noticed."""

    def __init__(self, events: AsyncIterator[bytes], metrics: TableMetrics) -> None:
        super().__init__(headers={**ROW_HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._metrics = events, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until there are no more, or nobody takes them."""
        del scope
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            close = getattr(self._events, "aclose", None)
            if close is not None:
                await close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self._events:
                async with asyncio.timeout(_STALLED_S):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except TimeoutError:
            self._metrics.cut_off.inc()
            log.warning("a reader of changes takes nothing and is cut off", after_s=_STALLED_S)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _question(request: Request) -> Question:
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    return Question(path, request.url.query, request.headers.get("authorization"))


def _wants_arrow(request: Request, parameters: Parameters) -> bool:
    named = parameters.one("format", "")
    if named not in {"", "json", "arrow"}:
        raise UsageError(f"format={named[:50]}: json or arrow")
    return named == "arrow" or (not named and ARROW in request.headers.get("accept", ""))


def _masked(table: TableShape, rights: Rights) -> frozenset[str]:
    return frozenset() if Right.REVEAL in rights else table.personal


def _require_visible(table: TableShape, asked: Asked, rights: Rights, *, of_rows: bool = True) -> None:
    """That an answer tells nothing of personal data to who may not see it."""
    if Right.REVEAL in rights:
        return
    if hidden := personal_used(table, asked.where):
        why = f"where: {', '.join(hidden)} is personal data, which your token does not permit to see"
        raise Refused(HTTPStatus.FORBIDDEN, why)
    if of_rows and table.masks_keys:
        why = f"the keys of {table.topic} are personal data, which your token does not permit to see: ask by key"
        raise Refused(HTTPStatus.FORBIDDEN, why)


def _since(text: str) -> Positions | None:
    if not text:
        return None
    found = positions_of(text)
    if found is None:
        raise UsageError(f"Last-Event-ID: {text[:100]!r} is none of an event that this interface has sent")
    return found


def _json_answer(table: TableShape, portion: Portion, masked: frozenset[str]) -> Response:
    keys = portion.rows.column(KEY).to_pylist()
    rows = dicts_of(portion.rows.select([name for name in portion.rows.schema.names if name != KEY]), masked=masked)
    document: dict[str, Any] = {
        "table": table.topic,
        "rows": [{"key": key_text(key), "row": row} for key, row in zip(keys, rows, strict=True)],
        "next": None if portion.through is None else cursor_of(portion.through),
        "as_of": COMMITTED,
        "stale": False,
    }
    return Response(body_of(document), media_type=JSON, headers=ROW_HEADERS)


def _arrow_answer(table: TableShape, portion: Portion, masked: frozenset[str]) -> Response:
    rows = portion.rows.select([name for name in portion.rows.schema.names if name != KEY])
    cursor = "" if portion.through is None else cursor_of(portion.through)
    about = {"table": table.topic, "as_of": COMMITTED, "stale": "false", "next": cursor}
    stream = arrow_stream(rows, masked=masked, about=about)
    return Response(stream, media_type=ARROW, headers={**ROW_HEADERS, NEXT: cursor})


def _problem(status: int, why: str, retry_s: int = 0) -> Response:
    headers = {**ROW_HEADERS, "Retry-After": str(retry_s)} if retry_s else ROW_HEADERS
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {**headers, "WWW-Authenticate": "Bearer"}
    return Response(body_of({"error": why}), status, media_type=JSON, headers=headers)
