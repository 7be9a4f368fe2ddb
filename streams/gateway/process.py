"""The process of a gateway: its parts put together, served until it is told to stop."""

import asyncio
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from streams.flow.declaration import Pipeline
from streams.gateway.access import Access
from streams.gateway.app import gateway_app
from streams.gateway.credentials import CredentialFile, Credentials
from streams.gateway.crew import Member
from streams.gateway.delivery import Delivery
from streams.gateway.formats import load_formats
from streams.gateway.http_limits import bounded_protocol
from streams.gateway.metrics import GatewayMetrics
from streams.gateway.senders import Senders
from streams.gateway.service import EventService
from streams.gateway.sources import Sources
from streams.gateway.together import Together
from streams.hosts import is_loopback
from streams.limits import GATEWAY_CONNECTIONS_MAX, GATEWAY_GRACE_S
from streams.listening import listening, url_of
from streams.schemas.catalog import Catalog
from streams.settings import Settings

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 8088
DIRECTORY: Final = "gateway"
"""Below STREAMS_DATA_DIR, where STREAMS_GATEWAY_DIR is not set."""
FORMATS: Final = "formats"
_BACKLOG: Final = 2_048
_KEEP_ALIVE_S: Final = 75


def gateway_directory(settings: Settings) -> Path:
    """Where credentials and formats of one's own are."""
    return settings.streams_gateway_dir or settings.streams_data_dir / DIRECTORY


class GatewayProcess:
    """Everything of one process; `run` blocks until it is stopped."""

    def __init__(
        self, settings: Settings, pipelines: list[Pipeline], *, port: int, member: Member | None = None
    ) -> None:
        """Take the port, unless it is one of several processes (`member`), which have it already.

        Broker and registry need not be there yet.

        Raises:
            StreamsError: the port is taken, or the credentials cannot be read.
            UsageError: a setting, a schema or a format cannot be used.

        """
        directory = gateway_directory(settings)
        self._metrics = GatewayMetrics()
        self._credentials = Credentials(CredentialFile(directory))
        formats = load_formats(directory / FORMATS)
        self._sources = Sources(settings, pipelines, Catalog.load(), _now_ms)
        self._senders = Senders(rate_max=settings.streams_gateway_rate_max, on_pause=_say_paused)
        self._delivery = Delivery(settings, on_delivered=self._metrics.delivery_seconds.observe)
        self._events = EventService(
            settings,
            self._sources,
            Access(self._credentials, bound_to=settings.streams_web_host),
            self._delivery,
            self._senders,
            formats,
            self._metrics,
            now_ms=_now_ms,
        )
        app = gateway_app(
            self._events,
            list(self._sources.by_name.values()),
            self._metrics,
            unready=self._unready,
            sample=self._sample,
            formats=[(one.name, one.title) for one in formats.values()],
            together=None if member is None else Together(member),
        )
        self._settings = settings
        self._sockets = [listening(settings.streams_web_host, [port])] if member is None else member.sockets()
        self._server = _Server(
            uvicorn.Config(
                app,
                http=bounded_protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                backlog=_BACKLOG,
                limit_concurrency=GATEWAY_CONNECTIONS_MAX,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=GATEWAY_GRACE_S,
            ),
            self._open,
            self._close,
        )

    @property
    def address(self) -> str:
        """Address that the process listens on."""
        return url_of(self._sockets[0])

    def run(self) -> None:
        """Take events until SIGTERM or Ctrl-C; to be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._say_open_sources()
        log.info("gateway", events=f"{self.address}/v1/events/", metrics=f"{self.address}/metrics")
        self._server.run(sockets=self._sockets)

    def _end(self, _: int, __: FrameType | None) -> None:
        """Before the server has begun. It raises the signals again that ended it: they have been obeyed."""
        self._server.should_exit = True

    def _open(self) -> None:
        self._delivery.open()
        self._preparing = asyncio.create_task(self._sources.prepare())

    def _close(self) -> None:
        self._preparing.cancel()
        self._delivery.close()

    def _unready(self) -> list[str]:
        why = self._delivery.why_not()
        return [*self._sources.unready, *([] if why is None else [why])]

    def _sample(self) -> None:
        """Set what is measured when somebody looks."""
        self._metrics.in_flight_records.set(self._delivery.records)
        self._metrics.bodies_bytes.set(self._events.budget.held)
        paused = [source for source, _ in self._senders.paused]
        for name in self._sources.by_name:
            self._metrics.paused_senders.labels(name).set(paused.count(name))

    def _say_open_sources(self) -> None:
        """What nobody can send to, or everybody on this machine can."""
        unguarded = [name for name in self._sources.by_name if not self._credentials.is_guarded(name)]
        if not unguarded:
            return
        if is_loopback(self._settings.streams_web_host):
            log.info("sources without a token take events from programs on this machine", sources=unguarded)
        else:
            log.warning(
                "sources without a token take no events: run `streams gateway token new --source SOURCE --name NAME`",
                sources=unguarded,
            )


class _Server(uvicorn.Server):
    """Opens and closes what the application works with in the event loop."""

    def __init__(self, config: uvicorn.Config, open_: Any, close: Any) -> None:
        super().__init__(config)
        self._open, self._close = open_, close

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the service, then listen."""
        self._open()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests under way, then stop."""
        await super().shutdown(sockets)
        self._close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say_paused(source: str, sender: str) -> None:
    log.warning("a sender has to pause: many requests in a row had no event in them", source=source, sender=sender)
