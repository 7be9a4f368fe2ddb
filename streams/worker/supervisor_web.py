"""The supervisor's web server: combines the answers of its processes."""

import asyncio
import http
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streams.listening import own_url_of
from streams.worker.merged_metrics import LABEL, Families, merged
from streams.worker.web import HttpServer, take_port

log = structlog.get_logger(__name__)

ANSWER_S_MAX: Final = 2.0
"""How long a process may take to answer."""
_OPENMETRICS: Final = {"Accept": "application/openmetrics-text; version=1.0.0"}


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a process's `/readyz` says."""

    is_ready: bool
    lines: tuple[str, ...]


class Asked:
    """A process that is asked at a socket which it has from its supervisor, and which outlives it."""

    def __init__(self, number: int, web: int) -> None:
        self.number = number
        with socket.socket(fileno=web) as server:
            self.url = own_url_of(server)
            server.detach()

    @property
    def is_running(self) -> bool:
        """Whether the process runs: a request to the socket of one that has ended would wait for the next run."""
        raise NotImplementedError

    async def readiness(self) -> Readiness:
        """The answer of its `/readyz`; not ready when there is none within `ANSWER_S_MAX`."""
        if not self.is_running:
            return Readiness(is_ready=False, lines=("has ended and is started again",))
        answer = await self._get("/readyz")
        if answer is None:
            return Readiness(is_ready=False, lines=("starts, or does not answer",))
        status, text = answer
        return Readiness(status == http.HTTPStatus.OK, tuple(text.splitlines()))

    async def metrics(self) -> str | None:
        """Its metrics as OpenMetrics; None: it does not answer."""
        answer = await self._get("/metrics") if self.is_running else None
        return None if answer is None or answer[0] != http.HTTPStatus.OK else answer[1]

    async def _get(self, path: str) -> tuple[int, str] | None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=_OPENMETRICS) as session,
                session.get(f"{self.url}{path}", allow_redirects=False) as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


class Further(Protocol):
    """Routes that the supervisor serves in addition."""

    def routes(self) -> list[Route]:
        """The routes to serve."""

    async def close(self) -> None:
        """Close open connections."""


class SupervisorWeb:
    """`/readyz`, `/healthz` and `/metrics` of all processes."""

    def __init__(
        self, processes: Sequence[Asked], *, host: str, port: int | None, tables: "Further | None" = None
    ) -> None:
        """Listen at the port, as a single worker does (`streams.worker.web`). `tables`: further routes to serve.

        Raises:
            StreamsError: the port is taken.
            UsageError: the host is no address of this machine.

        """
        self._processes, self._tables = processes, tables
        self._registry = CollectorRegistry()
        self._up = Gauge(
            "streams_worker_process_up",
            "Whether a process of a supervised worker runs and answers.",
            (LABEL,),
            registry=self._registry,
        )
        self._restarts = Counter(
            "streams_worker_process_restarts",
            "Starts of a process of a supervised worker after it had ended by itself.",
            (LABEL,),
            registry=self._registry,
        )
        for process in processes:
            self._restarts.labels(process.number)
        self._server = HttpServer(
            [
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                *(() if tables is None else tables.routes()),
            ],
            take_port(host, port),
        )

    def restarted(self, number: int) -> None:
        """Count a restart."""
        self._restarts.labels(number).inc()

    async def start(self) -> None:
        """Start serving."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving."""
        if self._tables is not None:
            await self._tables.close()
        await self._server.stop()

    async def _metrics(self, request: Request) -> Response:
        texts = await asyncio.gather(*(process.metrics() for process in self._processes))
        for process, text in zip(self._processes, texts, strict=True):
            self._up.labels(process.number).set(text is not None)
        answered = {
            process.number: text for process, text in zip(self._processes, texts, strict=True) if text is not None
        }
        whole = CollectorRegistry()
        whole.register(Families([*merged(answered), *self._registry.collect()]))
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encoder(whole), headers={"Content-Type": content_type})

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        found = await asyncio.gather(*(process.readiness() for process in self._processes))
        status, text = readiness_of_all(
            {process.number: one for process, one in zip(self._processes, found, strict=True)}
        )
        return PlainTextResponse(text, status)


def readiness_of_all(found: Mapping[int, Readiness]) -> tuple[int, str]:
    """Status and text of the supervisor's `/readyz`: 200 and `ok` only when every process is ready.

    The first line says which is not, and why. Remarks of each follow with its number.
    """
    unready = [f"process {number}: {'; '.join(one.lines)}" for number, one in found.items() if not one.is_ready]
    remarks = [f"process {number}: {line}" for number, one in found.items() if one.is_ready for line in one.lines[1:]]
    lines = ["; ".join(unready) or "ok", *remarks]
    return 503 if unready else 200, "".join(f"{line}\n" for line in lines)
