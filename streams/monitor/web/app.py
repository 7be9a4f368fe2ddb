"""The monitor's web application. It only reads: nothing here changes anything.

Other parts of the system add pages of their own (`Panel`), which are mounted here and linked from the monitor's pages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from streams.flow.graph import Graph
from streams.hosts import Hosts
from streams.monitor import exposition
from streams.monitor.history.prometheus import PrometheusHistory
from streams.monitor.notify.counts import Count
from streams.monitor.report import group_row, instant
from streams.monitor.scale import ScalePolicy
from streams.monitor.scale_book import ScaleBook
from streams.monitor.snapshot import Snapshot
from streams.monitor.watcher import Watcher
from streams.monitor.web import burrow, flows, runbooks, views
from streams.monitor.web.history import HistoryApi
from streams.monitor.web.live import Live, TooMany
from streams.monitor.web.middleware import Compressed, Names, PageHeaders
from streams.monitor.web.pages import FIRST, STATIC, Page, all_pages, filled
from streams.monitor.web.panel_metrics import PanelMetrics


class _AnyName(Convertor[str]):
    """A path segment with any characters, slashes and newlines too: what a group may be called."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """Return the name unchanged."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name unchanged."""
        return value


register_url_convertor("any", _AnyName())

Told = tuple[int, dict[str, Any]]
"""HTTP status and message."""


@dataclass(frozen=True, slots=True)
class Panel:
    """An application mounted at `path` (such as `/dead-letters`) and linked from the page as `title`."""

    path: str
    title: str
    app: ASGIApp
    metrics: Callable[[], bytes] | None = None
    """Its part of `/metrics`, in Prometheus' text format; called at every interval, in a thread of its own, and may
    take its time. Raises StreamsError when there is nothing new: the last text is served again, with its age.
    """
    stop: Callable[[], None] = lambda: None
    """Called when the server stops: ends answers that would not end by themselves."""


class MonitorWeb:
    """The application over a watcher."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        bootstrap_servers: str,
        hosts: Hosts,
        scale: ScalePolicy,
        panels: Sequence[Panel] = (),
        prometheus: PrometheusHistory | None = None,
        graphs: Sequence[Graph] = (),
        notified: Mapping[str, Count] | None = None,
        base: str = "",
        clusters: Sequence[Page] = (),
    ) -> None:
        """`prometheus`: source of older history. `graphs`: the flows, for their page.

        `base`: path that it is mounted at.

        `base`: path that it is mounted at. `clusters`: pages of all clusters, where there are several.
        """
        self._watcher = watcher
        self._bootstrap_servers = bootstrap_servers
        self._panels = tuple(panels)
        self._pages = all_pages(Page(f"{panel.path}/", panel.title) for panel in panels)
        self._base, self._clusters = base, tuple(clusters)
        self.hosts = hosts
        self.health = watcher.health
        self._panel_metrics = PanelMetrics(
            {panel.path: panel.metrics for panel in panels if panel.metrics is not None}, every_s=watcher.interval_s
        )
        self._rendered: tuple[Snapshot, bytes] | None = None
        self._rendering = asyncio.Lock()
        self.live = Live()
        watcher.listen(self.live.publish)
        self._graphs = tuple(graphs)
        self._notified = notified or {}
        self._history = HistoryApi(watcher, prometheus)
        self._scale = ScaleBook(scale)
        watcher.listen(self._scale.observe)
        self.guarded_paths = paths = tuple(panel.path for panel in panels)
        self.app = Starlette(
            routes=[*self._routes(), *(Mount(panel.path, app=panel.app) for panel in self._panels)],
            middleware=[
                Middleware(PageHeaders),
                Middleware(Names, hosts=hosts, guarded=paths),
                Middleware(Compressed, spared=paths),
            ],
            lifespan=self.lifespan,
        )

    def stop_panels(self) -> None:
        """Have the panels end their open connections."""
        for panel in self._panels:
            panel.stop()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Run the watcher and collect metrics while the application runs."""
        self.live.bind()
        self._watcher.start()
        self._panel_metrics.start()
        yield
        self._panel_metrics.stop()

    def _routes(self) -> list[BaseRoute]:
        return [
            *(Route(page.path, self._page(page)) for page in FIRST),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            Route("/runbooks", self._runbooks),
            Route("/runbooks/{name}", self._runbook),
            Route("/api/overview", self._with(self._overview)),
            Route("/api/groups/{group:any}", self._with(self._group)),
            Route("/api/flows", self._with(lambda s, _: JSONResponse(flows.flows(self._graphs, s)))),
            Route("/api/history", self._history.answer),
            Route("/api/live", self._live),
            Route("/scale/{group:any}", self._with(self._replicas)),
            Route("/v3/kafka", self._with(lambda s, r: _told((200, burrow.clusters([s.cluster])), r))),
            Route("/v3/kafka/{cluster}", self._of_cluster(self._cluster)),
            Route("/v3/kafka/{cluster}/topic", self._of_cluster(lambda s, _: (200, burrow.topics(s)))),
            Route("/v3/kafka/{cluster}/topic/{topic}", self._of_cluster(_topic)),
            Route("/v3/kafka/{cluster}/consumer", self._of_cluster(lambda s, _: (200, burrow.consumers(s)))),
            Route("/v3/kafka/{cluster}/consumer/{group:any}/status", self._of_cluster(_status)),
            Route("/v3/kafka/{cluster}/consumer/{group:any}/lag", self._of_cluster(_lag)),
            Route("/v3/kafka/{cluster}/consumer/{group:any}", self._of_cluster(_consumer)),
        ]

    # --- health -----------------------------------------------------------------------------------------------------

    async def _healthz(self, _: Request) -> Response:
        return _health(self._watcher.health().dead)

    async def _readyz(self, _: Request) -> Response:
        return _health(self._watcher.health().blind)

    async def _metrics(self, _: Request) -> Response:
        return Response(await self.metrics(), headers={"Content-Type": exposition.CONTENT_TYPE})

    async def metrics(self) -> bytes:
        """Metrics of the newest round, with its age; nothing is queried, so that a scrape never waits."""
        parts = [
            await self._snapshot_metrics(),
            exposition.render_health(self._watcher.health()),
            exposition.render_notifications(self._notified),
        ]
        return b"".join([*parts, self._panel_metrics.content()])

    async def _snapshot_metrics(self) -> bytes:
        """Rendered once per snapshot, however many scrapes there are."""
        async with self._rendering:
            snapshot = self._watcher.latest
            if snapshot is None:
                return b""
            if self._rendered is None or self._rendered[0] is not snapshot:
                self._rendered = snapshot, await asyncio.to_thread(exposition.render, snapshot)
            return self._rendered[1]

    # --- the page ---------------------------------------------------------------------------------------------------

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        text = filled(page, self._pages, self._base, self._clusters)

        async def endpoint(_: Request) -> Response:
            return HTMLResponse(text, headers={"Cache-Control": "no-cache"})

        return endpoint

    async def _runbooks(self, _: Request) -> Response:
        return HTMLResponse(runbooks.index_page(self._pages))

    async def _runbook(self, request: Request) -> Response:
        page = runbooks.runbook_page(request.path_params["name"], self._pages)
        return HTMLResponse(page or runbooks.index_page(self._pages), status_code=200 if page else 404)

    async def _live(self, request: Request) -> Response:
        try:
            self.live.enter()
        except TooMany:
            return PlainTextResponse("too many readers\n", status_code=503, headers={"Retry-After": "10"})
        return _LiveResponse(
            self.live,
            self.live.events(request.query_params.get("group")),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _overview(self, snapshot: Snapshot, _: Request) -> Response:
        return JSONResponse(views.overview(snapshot))

    def _group(self, snapshot: Snapshot, request: Request) -> Response:
        group = snapshot.groups.get(request.path_params["group"])
        if group is None:
            return JSONResponse(burrow.error("no such group"), status_code=404)
        return JSONResponse({"time": instant(group.time_ms), **group_row(group)})

    def _replicas(self, snapshot: Snapshot, request: Request) -> Response:
        name = request.path_params["group"]
        row = self._scale.row(name)
        if row is not None:
            return JSONResponse(row)
        if name not in snapshot.groups:
            return JSONResponse(burrow.error("no such group"), status_code=404)
        return JSONResponse(burrow.error("the group has had no members since the monitor was started"), status_code=503)

    # --- Burrow -----------------------------------------------------------------------------------------------------

    def _with(self, answer: Callable[[Snapshot, Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            snapshot = self._watcher.latest
            if snapshot is None:
                return JSONResponse(burrow.error(self._watcher.health().blind or "not ready"), status_code=503)
            return answer(snapshot, request)

        return endpoint

    def _of_cluster(self, answer: Callable[[Snapshot, Request], Told]) -> Callable[[Request], Awaitable[Response]]:
        def checked(snapshot: Snapshot, request: Request) -> Response:
            if request.path_params["cluster"] not in {snapshot.cluster, snapshot.round.cluster}:
                return _told((404, burrow.error("cluster not found")), request)
            return _told(answer(snapshot, request), request)

        return self._with(checked)

    def _cluster(self, _: Snapshot, __: Request) -> Told:
        return 200, burrow.cluster(self._bootstrap_servers)


def _health(reason: str | None) -> Response:
    return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)


def _told(told: Told, request: Request) -> Response:
    """The request, which Burrow repeats in its answer."""
    status, content = told
    asked = {"url": request.url.path, "host": request.url.netloc}
    return JSONResponse({**content, "request": asked}, status_code=status)


def _topic(snapshot: Snapshot, request: Request) -> Told:
    found = burrow.topic(snapshot, request.path_params["topic"])
    return (404, burrow.error("cluster or topic not found")) if found is None else (200, found)


def _consumer(snapshot: Snapshot, request: Request) -> Told:
    group = snapshot.groups.get(request.path_params["group"])
    return (404, burrow.error("cluster or consumer not found")) if group is None else (200, burrow.consumer(group))


def _status(snapshot: Snapshot, request: Request) -> Told:
    return _judged(snapshot, request, every_partition=False)


def _lag(snapshot: Snapshot, request: Request) -> Told:
    return _judged(snapshot, request, every_partition=True)


def _judged(snapshot: Snapshot, request: Request, *, every_partition: bool) -> Told:
    name = request.path_params["group"]
    group = snapshot.groups.get(name)
    if group is None:
        return 404, burrow.unknown_status(snapshot, name)
    return 200, burrow.status(snapshot, group, every_partition=every_partition)


class _LiveResponse(StreamingResponse):
    """Gives the reader's place back, even when the reader left before the first event."""

    def __init__(self, live: Live, events: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(events, **options)
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._live.leave()
