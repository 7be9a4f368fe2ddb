"""The process of a bridge: produces messages to Kafka, then acknowledges them to the MQTT broker."""

import asyncio
import signal
import time
from typing import Final

import structlog

from streams.batch.columns import Headers
from streams.bridge.address import Address
from streams.bridge.client import UNDER_WAY_MAX, MqttClient, MqttMessage
from streams.bridge.messages import rows_of
from streams.bridge.metrics import ACKNOWLEDGED, DROPPED, UNKEEPABLE, BridgeMetrics
from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.gateway.answers import Refused
from streams.gateway.delivery import Delivery
from streams.gateway.formats import Format
from streams.gateway.letters import Origin
from streams.gateway.metrics import GatewayMetrics
from streams.gateway.sources import Sources
from streams.gateway.taking import Taking
from streams.masking import PERSONAL_MASK
from streams.resilience.retry import Backoff
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.worker.web import Web, take_port

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 8098
_BACKOFF: Final = Backoff(first_s=0.5, pause_s_max=10.0)
_SAY_EVERY_S: Final = 30.0
_STOP_S: Final = 10.0
"""How long messages that are under way may take when the bridge is told to stop."""


class BridgeProcess:
    """Everything of one bridge between topics of an MQTT broker and one source."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        address: Address,
        filters: list[str],
        *,
        client_id: str,
        is_mqtt5: bool,
        format_: Format | None,
        web_port: int | None,
    ) -> None:
        """Take the port. Kafka, registry and MQTT broker need not be there yet.

        Raises:
            StreamsError: the port is taken.
            UsageError: a setting, a schema or a file of TLS cannot be used; or a library is missing.

        """
        self._settings, self._format = settings, format_
        self._sources = Sources(settings, [pipeline], Catalog.load(), _now_ms)
        (self._source,) = self._sources.by_name.values()
        if format_ is not None and not format_.fields.keys() <= self._source.names:
            others = ", ".join(sorted(format_.fields.keys() - self._source.names))
            raise UsageError(f"--format {format_.name} gives {others}, which {self._source.name} does not have")
        gateway = GatewayMetrics()
        self._metrics = BridgeMetrics(gateway.registry)
        self._delivery = Delivery(settings, on_delivered=gateway.delivery_seconds.observe)
        self._taking = Taking(
            self._sources, self._delivery, gateway, record_bytes_max=settings.streams_record_bytes_max, now_ms=_now_ms
        )
        self._client = MqttClient(
            settings,
            address,
            filters,
            client_id=client_id,
            is_mqtt5=is_mqtt5,
            bytes_max=settings.streams_gateway_body_bytes_max,
            on_message=self._arrived,
        )
        self._web = Web(gateway.registry, self._unready, listener=take_port(settings.streams_web_host, web_port))
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_stopping = asyncio.Event()
        self._said_s = 0.0

    def run(self) -> None:
        """Take messages until SIGTERM or Ctrl-C."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._is_stopping.set)
        await self._web.start()
        self._delivery.open()
        preparing = asyncio.create_task(self._sources.prepare())
        self._client.start()
        await self._is_stopping.wait()
        preparing.cancel()
        await self._finish()
        self._client.stop()
        self._delivery.close()
        await self._web.stop()

    async def _finish(self) -> None:
        """Give messages that are under way some time to complete; the others stay at the broker."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_STOP_S)
        left = [task for task in self._under_way if not task.done()]
        for task in left:
            task.cancel()
        if left:
            log.warning("messages were not acknowledged; the broker still has them", messages=len(left))

    def _unready(self) -> str | None:
        self._metrics.connected.set(not self._client.why_not)
        why = [*self._sources.unready, self._delivery.why_not() or "", self._client.why_not]
        return "; ".join(filter(None, why)) or None

    # --- messages ---------------------------------------------------------------------------------------------------

    def _arrived(self, message: MqttMessage) -> None:
        """A message arrived; with QoS 0, which has no backpressure, only a bounded number is accepted."""
        if self._is_stopping.is_set():
            return
        if message.qos == 0 and len(self._under_way) >= UNDER_WAY_MAX:
            self._metrics.messages.labels(DROPPED).inc()
            self._say("messages of QoS 0 are dropped: Kafka is slower than they come. Publish with QoS 1")
            return
        task = asyncio.get_running_loop().create_task(self._take(message))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        self._metrics.under_way.set(len(self._under_way))

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._metrics.under_way.set(len(self._under_way))
        if not task.cancelled() and task.exception() is not None:
            log.error("a message could not be handled; the broker still has it", exc_info=task.exception())

    async def _take(self, message: MqttMessage) -> None:
        """Produce the records of a message, however long it takes, then acknowledge it."""
        found = rows_of(message.payload, message.topic, self._format, self._settings.streams_record_bytes_max)
        origin = Origin(f"mqtt {message.topic}"[:200], "", "" if self._format is None else self._format.name)
        trace: Headers | None = None if message.traceparent is None else [("traceparent", message.traceparent)]
        outcome = ACKNOWLEDGED
        failures = 0
        while True:
            try:
                await self._taking.rows(self._source, found, origin, format_=self._format, trace=trace)
            except Refused as refused:
                if refused.retry_s <= 0:
                    outcome = UNKEEPABLE
                    # A topic may name who sent the message.
                    topic = PERSONAL_MASK if self._source.pipeline.personal else message.topic
                    size = len(message.payload)
                    log.error("a message is lost", topic=topic, bytes=size, why=str(refused))  # noqa: TRY400
                    break
                failures += 1
                self._say(f"messages wait at the MQTT broker: {refused}")
                await asyncio.sleep(max(refused.retry_s, _BACKOFF.jittered_s(failures)))
            else:
                break
        self._client.acknowledge(message)
        self._metrics.messages.labels(outcome).inc()

    def _say(self, words: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _SAY_EVERY_S or not self._said_s:
            self._said_s = now_s
            log.warning(words)


def source_named(pipelines: list[Pipeline], name: str) -> Pipeline:
    """The flow whose source has this name.

    Raises:
        UsageError: there is none.

    """
    for one in pipelines:
        if one.source.removeprefix(one.prefix) == name:
            return one
    known = ", ".join(one.source.removeprefix(one.prefix) for one in pipelines)
    raise UsageError(f"--source {name}: there is no such source, only {known}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
