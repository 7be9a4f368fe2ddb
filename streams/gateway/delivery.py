"""Records to Kafka: who hands some over waits until Kafka has acknowledged each of them.

One idempotent producer, not a transactional one: a request must not wait for others. What is sent twice since an answer
was lost has the same event id both times, and the flow drops the second.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException

from streams.batch.columns import Headers
from streams.flow.topics import OUTPUT_BYTES_MAX
from streams.gateway.answers import Refused
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.partitioner import PARTITIONER
from streams.limits import (
    GATEWAY_DELIVERY_MS_MAX,
    GATEWAY_IN_FLIGHT_BYTES_MAX,
    GATEWAY_IN_FLIGHT_RECORDS_MAX,
)
from streams.resilience.breaker import Breaker, Limits, State
from streams.settings import Settings
from streams.sinks.kafka.refusal import REFUSALS

log = structlog.get_logger(__name__)

POLL_S: Final = 0.002
"""Acknowledgements are asked for this often while some are waited for."""
IDLE_POLL_S: Final = 1.0
"""And this often otherwise: logs and tokens of the client are served by it."""
_BREAKER: Final = Limits(failures_max=3, rest_s=1.0, rest_s_max=10.0, probe_s_max=2 * GATEWAY_DELIVERY_MS_MAX / 1000)
_CLOSE_S: Final = GATEWAY_DELIVERY_MS_MAX / 1000


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Records for one topic: columns of equal length."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    timestamp_ms: int
    headers: Sequence[Headers | None] | None = None

    @property
    def size(self) -> int:
        """Bytes of all values together."""
        return sum(map(len, self.values))

    def take(self, rows: Sequence[int]) -> "Outgoing":
        """The records at these positions."""
        headers = None if self.headers is None else [self.headers[row] for row in rows]
        keys, values = [self.keys[row] for row in rows], [self.values[row] for row in rows]
        return replace(self, keys=keys, values=values, headers=headers)


class Delivers(Protocol):
    """Where records go: Kafka, or what stands for it in tests."""

    async def deliver(self, outgoing: Outgoing) -> dict[int, str]:
        """Deliver records, as `Delivery.deliver`."""

    def why_not(self) -> str | None:
        """Why records cannot be delivered, as `Delivery.why_not`."""


class _Pending:
    """Acknowledgements that one call waits for."""

    __slots__ = ("done", "error", "left", "refused")

    def __init__(self, count: int, done: "asyncio.Future[None]") -> None:
        self.left = count
        self.done = done
        self.error: KafkaError | None = None
        self.refused: list[tuple[bytes | None, str]] = []

    def reported(self, error: KafkaError | None, message: Any) -> None:
        """Delivery report of one record."""
        if error is not None:
            if error.code() in REFUSALS:
                self.refused.append((message.value(), error.str()))
            else:
                self.error = error
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


class Delivery:
    """The producer of a gateway's process. Of one event loop; `open` within it, `close` at the end."""

    def __init__(self, settings: Settings, *, on_delivered: Callable[[float], None] = lambda _: None) -> None:
        """`on_delivered` gets the seconds that a call has waited for Kafka.

        Raises:
            UsageError: the connection settings cannot be used.

        """
        self._settings, self._on_delivered = settings, on_delivered
        self._config: dict[str, Any] = {
            "client.id": "streams.gateway",
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 5,
            "batch.num.messages": 10_000,
            "message.timeout.ms": GATEWAY_DELIVERY_MS_MAX,
            "message.max.bytes": OUTPUT_BYTES_MAX,
            "queue.buffering.max.messages": 2 * GATEWAY_IN_FLIGHT_RECORDS_MAX,
            "queue.buffering.max.kbytes": 2 * (GATEWAY_IN_FLIGHT_BYTES_MAX + OUTPUT_BYTES_MAX) // 1024,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        self._producer = clients.producer(settings, self._config)
        self._alone: clients.Producer | None = None
        """Sends each record in a batch of its own, as the broker refuses a whole batch for one. Made when needed."""
        self._breaker = Breaker(_BREAKER)
        self._is_fatal = False
        self._poll: asyncio.TimerHandle | None = None
        self._is_soon = False
        self.records = 0
        """Number of records that were given to the client and are not yet acknowledged."""
        self.bytes = 0
        self._why = ""

    def open(self) -> None:
        """Begin to serve the client."""
        self._schedule(IDLE_POLL_S)

    def why_not(self) -> str | None:
        """Why records are not taken now; None: they are."""
        if self._breaker.state is State.OPEN:
            return f"Kafka does not acknowledge records: {self._why}"
        return None

    async def deliver(self, outgoing: Outgoing) -> dict[int, str]:
        """Send records; returns when Kafka has acknowledged all that it takes.

        Returns what the topic refuses (too large, against a policy), by position, with the broker's words.

        Raises:
            Refused: Kafka has not acknowledged all of them: some may be there, none may be. Or too many wait already.

        """
        self._admit(len(outgoing.values), outgoing.size)
        started = time.monotonic()
        refused = await self._send(self._producer, outgoing)
        if refused:
            refused = await self._send_alone(outgoing, sorted(refused))
        self._on_delivered(time.monotonic() - started)
        self._breaker.succeeded()
        return refused

    async def _send_alone(self, outgoing: Outgoing, rows: Sequence[int]) -> dict[int, str]:
        """What of these rows is refused, each by itself."""
        if self._alone is None:
            self._alone = clients.producer(self._settings, {**self._config, "batch.num.messages": 1, "linger.ms": 0})
        found = await self._send(self._alone, outgoing.take(rows))
        return {rows[position]: words for position, words in found.items()}

    async def _send(self, producer: clients.Producer, outgoing: Outgoing) -> dict[int, str]:
        count, size = len(outgoing.values), outgoing.size
        if count == 0:
            return {}
        self.records += count
        self.bytes += size
        pending = _Pending(count, asyncio.get_running_loop().create_future())
        try:
            _produce(producer, outgoing, pending)
            if not self._is_soon:
                self._schedule(POLL_S)
            await pending.done
        finally:
            self.records -= count
            self.bytes -= size
        if pending.error is not None:
            raise self._failed(pending.error)
        words = dict(pending.refused)
        return {row: words[value] for row, value in enumerate(outgoing.values) if value in words} if words else {}

    def close(self) -> None:
        """Wait for what is under way, for `GATEWAY_DELIVERY_MS_MAX` at most."""
        if self._poll is not None:
            self._poll.cancel()
        left = sum(producer.flush(_CLOSE_S) for producer in (self._producer, self._alone) if producer is not None)
        if left:
            log.warning("records were not acknowledged before the end; their senders have no answer", records=left)

    def _admit(self, count: int, size: int) -> None:
        now_s = time.monotonic()
        if not self._breaker.admits(now_s):
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "Kafka does not acknowledge records at the moment: send again later",
                kind="kafka", retry_s=max(1.0, self._breaker.retry_in_s(now_s)),
            )  # fmt: skip
        is_full = (
            self.records + count > GATEWAY_IN_FLIGHT_RECORDS_MAX or self.bytes + size > GATEWAY_IN_FLIGHT_BYTES_MAX
        )
        if is_full and self.records:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "more comes in than Kafka acknowledges: send again later",
                kind="backpressure", retry_s=1,
            )  # fmt: skip
        if self._is_fatal:  # the client says so once, and takes no record any more
            self._producer, self._alone = clients.producer(self._settings, self._config), None
            self._is_fatal = False

    def _failed(self, error: KafkaError) -> Refused:
        self._is_fatal = self._is_fatal or error.fatal()
        self._why = described(KafkaException(error))
        self._breaker.failed(time.monotonic())
        log.warning("records were not acknowledged", error=self._why)
        return Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "Kafka did not acknowledge the records: send them again, with the same ids",
            kind="kafka", retry_s=max(1.0, self._breaker.retry_in_s(time.monotonic())),
        )  # fmt: skip

    def _schedule(self, seconds: float) -> None:
        if self._poll is not None:
            self._poll.cancel()
        self._is_soon = seconds <= POLL_S
        self._poll = asyncio.get_running_loop().call_later(seconds, self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(KafkaException):  # of callbacks; reports carry their errors themselves
            self._producer.poll(0)
            if self._alone is not None:
                self._alone.poll(0)
        self._schedule(POLL_S if self.records else IDLE_POLL_S)


def _produce(producer: clients.Producer, outgoing: Outgoing, pending: _Pending) -> None:
    """Give all records to the client. What it does not take counts as reported."""
    produce, topic, stamp_ms, report = producer.produce, outgoing.topic, outgoing.timestamp_ms, pending.reported
    headers = outgoing.headers or [None] * len(outgoing.values)
    for row, (key, value, header) in enumerate(zip(outgoing.keys, outgoing.values, headers, strict=True)):
        try:
            if header:
                produce(
                    topic, value, key, on_delivery=report, timestamp=stamp_ms,
                    headers=list[tuple[str, str | bytes | None]](header),
                )  # fmt: skip
            else:
                produce(topic, value, key, on_delivery=report, timestamp=stamp_ms)
        except BufferError:
            pending.error = KafkaError(KafkaError._QUEUE_FULL)  # noqa: SLF001 - public constant of librdkafka
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if error.code() in REFUSALS:
                pending.refused.append((value, error.str()))
            else:
                pending.error = error
        else:
            continue
        if pending.error is not None:
            pending.left -= len(outgoing.values) - row
            break
        pending.left -= 1
    if pending.left == 0 and not pending.done.done():
        pending.done.set_result(None)
