"""The routes of the gateway."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from streams.gateway.answers import PROBLEM, Refused, problem
from streams.gateway.metrics import GatewayMetrics
from streams.gateway.openapi import openapi, page
from streams.gateway.service import EventService
from streams.gateway.sources import Source
from streams.gateway.together import Together

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def gateway_app(
    events: EventService,
    sources: Sequence[Source],
    metrics: GatewayMetrics,
    *,
    unready: Callable[[], list[str]],
    sample: Callable[[], None],
    formats: Sequence[tuple[str, str]],
    together: Together | None = None,
) -> Starlette:
    """The gateway as an ASGI application.

    `unready`: why it takes no events. `sample` is called before metrics are shown. `formats`: names and titles.
    `together`: the processes of which this is one.
    """
    description = openapi(sources, formats)
    described, shown = json.dumps(description), page(description)

    def is_for_all(request: Request) -> Together | None:
        server = request.scope.get("server")
        return together if together is not None and server is not None and together.is_public(server[1]) else None

    async def show_metrics(request: Request) -> Response:
        sample()
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        registry = metrics.registry
        if (all_ := is_for_all(request)) is not None:
            registry = CollectorRegistry()
            registry.register(await all_.metrics())
        return Response(encoder(registry), headers={"Content-Type": content_type})

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        all_ = is_for_all(request)
        why = unready() if all_ is None else await all_.unready()
        return PlainTextResponse("".join(f"{line}\n" for line in why or ["ok"]), 503 if why else 200)

    async def document(_: Request) -> Response:
        return Response(described, media_type="application/json", headers=_HEADERS)

    async def docs(_: Request) -> Response:
        return HTMLResponse(shown, headers=_HEADERS)

    async def no_route(_: Request, error: Exception) -> Response:
        status = HTTPStatus(error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND)
        words = "events go to POST /v1/events/SOURCE; / describes all there is"
        code, content, _headers = problem(Refused(status, words, kind="route"))
        allowed = error.headers if isinstance(error, HTTPException) else None
        return Response(content, code, media_type=PROBLEM.decode(), headers=allowed)

    app = Starlette(
        routes=[
            Route("/v1/events/{source}", _Endpoint(events), methods=["POST"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/openapi.json", document, methods=["GET"]),
            Route("/", docs, methods=["GET"]),
        ],
        exception_handlers={HTTPStatus.NOT_FOUND: no_route, HTTPStatus.METHOD_NOT_ALLOWED: no_route},
    )
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """An ASGI application as an endpoint, without Starlette's request and response: they cost time."""

    def __init__(self, events: EventService) -> None:
        self._events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._events(scope, receive, send)
