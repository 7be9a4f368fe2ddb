"""Several clusters in one monitor: each has its own pages and API; the metrics of all are in one `/metrics`.

The first cluster is where a monitor of one cluster is; the others are below `/clusters/NAME`. Burrow's API knows them
by their names. Every sample of `/metrics` has the label `cluster`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from streams.monitor import exposition
from streams.monitor.web import burrow
from streams.monitor.web.app import MonitorWeb
from streams.monitor.web.middleware import Names, PageHeaders

PREFIX: Final = "/clusters/"


class ClustersWeb:
    """Combines the applications of all clusters, by name; the first one is at `/`."""

    def __init__(self, clusters: Mapping[str, MonitorWeb]) -> None:
        self._clusters = dict(clusters)
        first, *others = self._clusters.items()
        self.app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/v3/kafka", self._list_clusters),
                *(Route(f"/v3/kafka/{name}", web.app) for name, web in others),
                *(Route(f"/v3/kafka/{name}/{{rest:path}}", web.app) for name, web in others),
                *(Mount(f"{PREFIX}{name}", app=web.app) for name, web in others),
                Mount("/", app=first[1].app),
            ],
            middleware=[
                Middleware(PageHeaders),
                Middleware(Names, hosts=first[1].hosts, guarded=first[1].guarded_paths),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for web in self._clusters.values():
                await stack.enter_async_context(web.lifespan(app))
            yield

    async def _healthz(self, _: Request) -> Response:
        """Unhealthy if any cluster's monitor is: only a restart helps."""
        reasons = {name: web.health().dead for name, web in self._clusters.items()}
        return _told(reasons, is_ill=any(reasons.values()))

    async def _readyz(self, _: Request) -> Response:
        """Ready while one cluster is read; the text says why others are not."""
        reasons = {name: web.health().blind for name, web in self._clusters.items()}
        return _told(reasons, is_ill=all(reasons.values()))

    async def _metrics(self, _: Request) -> Response:
        texts = {name: await web.metrics() for name, web in self._clusters.items()}
        return Response(await asyncio.to_thread(merged, texts), headers={"Content-Type": exposition.CONTENT_TYPE})

    async def _list_clusters(self, request: Request) -> Response:
        asked = {"url": request.url.path, "host": request.url.netloc}
        return JSONResponse({**burrow.clusters(self._clusters), "request": asked})


def merged(texts: Mapping[str, bytes]) -> bytes:
    """Metrics of several clusters in one text: each family once, samples with the label `cluster`."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for name, text in texts.items():
        family, is_known = b"", False
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                family = line.split(b" ", 3)[2]
                is_known = family in heads
                heads.setdefault(family, [])
                samples.setdefault(family, [])
            if line.startswith(b"#"):
                if not is_known:
                    heads[family].append(line)
            elif line:
                samples[family].append(_labelled(line, name.encode()))
    return b"\n".join([line for family in heads for line in (*heads[family], *samples[family])] + [b""])


def _labelled(line: bytes, cluster: bytes) -> bytes:
    """Add the label to a sample; `cluster` needs no quoting (`STREAMS_CLUSTER_NAME`)."""
    brace, space = line.find(b"{"), line.find(b" ")
    label = b'cluster="' + cluster + b'"'
    if 0 <= brace < space:
        return line[: brace + 1] + label + b"," + line[brace + 1 :]
    return line[:space] + b"{" + label + b"}" + line[space:]


def _told(reasons: Mapping[str, str | None], *, is_ill: bool) -> Response:
    text = "".join(f"{name}: {reason or 'ok'}\n" for name, reason in reasons.items())
    return PlainTextResponse(text, status_code=503 if is_ill else 200)
