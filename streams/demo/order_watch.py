"""Follows one order after the other in the topics of the order flows, as any consumer can, and counts verdicts."""

import io
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import fastavro
from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from streams.demo.topic_probes import FRAME_BYTES, ROWS_MAX
from streams.errors import StreamsError
from streams.kafka import clients
from streams.settings import Settings

SHOWN_S: Final = 6.0
"""How long an order is shown whose verdict is there; then the next one is followed."""
ENDED: Final = frozenset({"DELIVERED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class FollowedOrder:
    """The newest row of one order, and the verdict on its delivery once there is one."""

    order: str
    status: str
    vehicle: str | None
    distance_km: float | None
    expected_arrival: datetime | None
    promised_time: datetime | None
    risk: str
    verdict: str = ""
    """YES, NO or UNKNOWN; empty before the delivery."""
    off_by_m: float | None = None
    """How far from the destination the vehicle was at the delivery."""


@dataclass(frozen=True, slots=True)
class OrdersReading:
    """What was seen of orders."""

    rows: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    followed: FollowedOrder | None = None


class OrderWatch:
    """Reads tracking rows and verdicts, read_committed, from its creation on."""

    def __init__(self, settings: Settings, schemas: Mapping[str, Mapping[str, Any]], partitions: int) -> None:
        """`schemas`: of the topic of tracking rows, and of that of verdicts, in this order."""
        self._tracking, self._verified = schemas
        self._schemas = {topic: fastavro.parse_schema(dict(schema)) for topic, schema in schemas.items()}
        self._consumer = clients.consumer(
            settings,
            {
                "client.id": "streams-demo-orders",
                "group.id": "streams-demo",  # required by the client; it neither joins nor commits
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            },
        )
        self._consumer.assign(
            [TopicPartition(topic, number, OFFSET_END) for topic in schemas for number in range(partitions)]
        )
        self._rows = 0
        self._verdicts: Counter[str] = Counter()
        self._followed: FollowedOrder | None = None
        self._ended_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def sample(self) -> OrdersReading:
        """Take in the rows that have come.

        Raises:
            StreamsError: the topics cannot be read.

        """
        try:
            messages = self._consumer.consume(ROWS_MAX, 0.0)
        except KafkaException as error:
            raise StreamsError(f"reading the topics of orders: {error}") from None
        now_s = time.monotonic()
        if self._ended_s is not None and now_s - self._ended_s >= SHOWN_S:
            self._followed = self._ended_s = None
        for message in messages:
            topic, value = message.topic(), message.value()
            if message.error() is None and topic is not None and isinstance(value, bytes):
                row: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), self._schemas[topic], None)
                if topic == self._tracking:
                    self._track(row, now_s)
                else:
                    self._verify(row, now_s)
        return OrdersReading(self._rows, dict(self._verdicts), self._followed)

    def _track(self, row: Mapping[str, Any], now_s: float) -> None:
        self._rows += 1
        known = self._followed
        if known is None and (row["status"] in ENDED or row["distance_km"] is None):
            return  # one that is on its way is followed
        if known is not None and (known.order != row["order_id"] or known.verdict):
            return
        self._followed = FollowedOrder(
            row["order_id"], row["status"], row["vehicle_id"], row["distance_km"], row["expected_arrival"],
            row["promised_time"], row["risk"],
        )  # fmt: skip
        if row["status"] in ENDED:
            self._ended_s = now_s

    def _verify(self, row: Mapping[str, Any], now_s: float) -> None:
        self._verdicts[row["is_verified"]] += 1
        known = self._followed
        if known is not None and known.order == row["order_id"]:
            self._followed = FollowedOrder(
                known.order, "DELIVERED", known.vehicle, known.distance_km, known.expected_arrival,
                known.promised_time, known.risk, row["is_verified"], row["distance_m"],
            )  # fmt: skip
            self._ended_s = now_s
