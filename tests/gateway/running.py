"""A gateway in a thread, on a real socket: everything but Kafka and the registry, and a client that hides nothing."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import uvicorn

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.gateway.access import Access
from streams.gateway.answers import Refused
from streams.gateway.app import gateway_app
from streams.gateway.credentials import CredentialFile, Credentials
from streams.gateway.delivery import Outgoing
from streams.gateway.formats import load_formats
from streams.gateway.http_limits import bounded_protocol
from streams.gateway.metrics import GatewayMetrics
from streams.gateway.senders import Senders
from streams.gateway.service import EventService
from streams.gateway.sources import Sources
from streams.schemas.catalog import Catalog
from streams.settings import load_settings

SCHEMA_ID: Final = 7
SOURCE: Final = GPS.source


class MemoryDelivery:
    """Keeps what is delivered; refuses what it is told to."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.is_down = False
        self.refuses: set[bytes] = set()
        self.bytes_max: int | None = None

    async def deliver(self, outgoing: Outgoing) -> dict[int, str]:
        """Keep the records."""
        await asyncio.sleep(0)
        if self.is_down:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "down", kind="kafka", retry_s=2)
        if outgoing.topic == SOURCE and self.refuses:
            rows = [row for row, key in enumerate(outgoing.keys) if key in self.refuses]
            return dict.fromkeys(rows, "too large for the topic")
        self.sent.append(outgoing)
        return {}

    def why_not(self) -> str | None:
        """None: it takes records."""
        return "down" if self.is_down else None

    def values(self, topic: str) -> list[bytes]:
        """Everything that was sent to a topic."""
        return [value for outgoing in self.sent if outgoing.topic == topic for value in outgoing.values]

    def keys(self, topic: str) -> list[bytes | None]:
        """Keys of everything that was sent to a topic."""
        return [key for outgoing in self.sent if outgoing.topic == topic for key in outgoing.keys]

    def headers(self, topic: str) -> list[dict[str, bytes | None]]:
        """Headers of everything that was sent to a topic."""
        return [
            dict(header or [])
            for outgoing in self.sent
            if outgoing.topic == topic
            for header in outgoing.headers or [None] * len(outgoing.values)
        ]


@dataclass
class Answer:
    """An answer of the gateway."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


@dataclass
class Gateway:
    """A running gateway."""

    port: int
    delivery: MemoryDelivery
    directory: Path
    metrics: GatewayMetrics
    events: EventService
    senders: Senders
    sources: Sources
    clock: list[float] = field(default_factory=lambda: [time.time()])

    def send(
        self,
        body: bytes | str | Any,
        *,
        source: str = SOURCE,
        query: str = "",
        kind: str | None = "application/json",
        **headers: str,
    ) -> Answer:
        """POST a body; one that is no text or bytes as JSON. Names of headers with underscores."""
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            given["content-type"] = kind
        return self.ask("POST", f"/v1/events/{source}{query}", body.encode() if isinstance(body, str) else body, given)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Any request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, content: bytes, *, timeout_s: float = 10.0) -> bytes:
        """Send bytes, and read until the gateway closes or is silent for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(content)
            found = b""
            try:
                while part := connection.recv(65_536):
                    found += part
            except (TimeoutError, ConnectionResetError):
                pass
            return found

    def credentials(self) -> CredentialFile:
        """The file of its credentials."""
        return CredentialFile(self.directory)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 when it is not there."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(
    directory: Path,
    *,
    rate_max: int = 0,
    bound_to: str = "127.0.0.1",
    protocol: type[asyncio.Protocol] | None = None,
    clock: Sequence[float] | None = None,
    body_s_max: float = 10.0,
    **settings: Any,
) -> Iterator[Gateway]:
    """A gateway on a free port. `clock`: one number that says what time it is for signatures and tokens."""
    found = load_settings(**settings)
    delivery, metrics = MemoryDelivery(), GatewayMetrics()
    now = list(clock) if clock is not None else [0.0]

    def now_s() -> float:
        return now[0] or time.time()

    sources = Sources(found, [GPS, ORDERS], Catalog.load(), lambda: int(now_s() * 1000))
    for source in sources.by_name.values():
        source.use(SCHEMA_ID)
    senders = Senders(rate_max=rate_max)
    formats = load_formats(directory / "formats")
    access = Access(Credentials(CredentialFile(directory), look_again_s=0), bound_to=bound_to, clock=now_s)
    events = EventService(
        found,
        sources,
        access,
        delivery,
        senders,
        formats,
        metrics,
        now_ms=lambda: int(now_s() * 1000),
        body_s_max=body_s_max,
    )
    app = gateway_app(
        events, list(sources.by_name.values()), metrics,
        unready=lambda: sources.unready, sample=lambda: None,
        formats=[(one.name, one.title) for one in formats.values()],
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        config = uvicorn.Config(
            app, http=protocol or bounded_protocol(), ws="none", lifespan="off", log_config=None, log_level="critical",
            access_log=False, server_header=False, date_header=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield Gateway(listener.getsockname()[1], delivery, directory, metrics, events, senders, sources, now)
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(10)
            assert not thread.is_alive()


def position(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A valid position; None takes a field out."""
    found = {
        "event_id": f"e-{number}",
        "device_id": f"van-{number % 5}",
        "sequence": number,
        "event_time": "2026-01-01T00:00:00Z",
        "latitude": 52.5,
        "longitude": 13.4,
        "speed_kmh": 43.5,
    }
    found |= changes
    return {name: value for name, value in found.items() if value is not None}
