"""Reads from Kafka how far the group is behind, and the rows of a few vehicles as any consumer sees them."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import fastavro
from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from streams.errors import StreamsError
from streams.kafka import clients
from streams.settings import Settings

REQUEST_TIMEOUT_S: Final = 3.0
ROWS_MAX: Final = 20_000
"""Rows read at once; the rest waits for the next look."""
FRAME_BYTES: Final = 5
SIMULATED: Final = "truck-"
"""Device ids of simulated vehicles begin so, in every run."""
REAL_SHOWN: Final = 1
SIMULATED_SHOWN: Final = 3
STOPPED_SHOWN: Final = 1
"""How many of the simulated vehicles shown are ones that stood still when they were chosen."""


class LagProbe:
    """How many records of a topic a group has not committed: last stable offset minus committed offset.

    Asked by a consumer that never joins the group: the administrative request for the same may abort the process when
    the broker is away (docs/adr/0040).
    """

    def __init__(self, settings: Settings, group: str, topic: str, partitions: int) -> None:
        self._where = [TopicPartition(topic, number) for number in range(partitions)]
        config: dict[str, Any] = {
            "client.id": "streams-demo-lag",
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
        self._consumer = clients.consumer(settings, config)

    def sample(self) -> dict[int, int] | None:
        """Lag by partition; None when Kafka does not answer in time."""
        try:
            committed = self._consumer.committed(self._where, REQUEST_TIMEOUT_S)
            ends = [self._consumer.get_watermark_offsets(one, REQUEST_TIMEOUT_S) for one in self._where]
        except KafkaException:
            return None
        if any(one.error is not None for one in committed) or any(end is None for end in ends):
            return None
        return {one.partition: max(0, end[1] - max(0, one.offset)) for one, end in zip(committed, ends, strict=True)}

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A row of the vehicle table."""

    device: str
    events: int
    odometer_km: float
    speed_mean_kmh: float | None
    speed_max_kmh: float | None
    last_seen: datetime
    stopped_since: datetime | None


class VehicleWatch:
    """The newest rows of a few vehicles, read_committed: the first real ones to show up, and a few simulated ones.

    It sees what is written from its creation on. Simulated vehicles of an earlier run are left out.
    """

    def __init__(
        self, settings: Settings, topic: str, partitions: int, schema: Mapping[str, Any], simulated_prefix: str
    ) -> None:
        self._consumer = clients.consumer(
            settings,
            {
                "client.id": "streams-demo",
                "group.id": "streams-demo",  # required by the client; it neither joins nor commits
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            },
        )
        self._schema = fastavro.parse_schema(dict(schema))
        self._prefix = simulated_prefix.encode()
        self._shown: dict[bytes, Vehicle] = {}
        self._consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in range(partitions)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def sample(self) -> tuple[Vehicle, ...]:
        """Take in the rows that have come; real vehicles first, then by name.

        Raises:
            StreamsError: the table cannot be read.

        """
        newest: dict[bytes, bytes] = {}
        try:
            messages = self._consumer.consume(ROWS_MAX, 0.0)
        except KafkaException as error:
            raise StreamsError(f"reading the vehicle table: {error}") from None
        for message in messages:
            key, value = message.key(), message.value()
            if message.error() is None and isinstance(key, bytes) and isinstance(value, bytes):
                newest[key] = value
        for key, value in newest.items():
            if key in self._shown or self._has_place_for(key):
                vehicle = self._decode(value)
                if key in self._shown or self._is_wanted(key, vehicle):
                    self._shown[key] = vehicle
        return tuple(
            sorted(self._shown.values(), key=lambda one: (one.device.encode().startswith(self._prefix), one.device))
        )

    def _has_place_for(self, key: bytes) -> bool:
        simulated = key.startswith(self._prefix)
        earlier_run = not simulated and key.startswith(SIMULATED.encode())
        return not earlier_run and self._places_left(simulated=simulated) > 0

    def _is_wanted(self, key: bytes, vehicle: Vehicle) -> bool:
        if not key.startswith(self._prefix) or vehicle.stopped_since is not None:
            return True
        return self._places_left(simulated=True) > STOPPED_SHOWN

    def _places_left(self, *, simulated: bool) -> int:
        taken = sum(key.startswith(self._prefix) == simulated for key in self._shown)
        return (SIMULATED_SHOWN if simulated else REAL_SHOWN) - taken

    def _decode(self, value: bytes) -> Vehicle:
        row: Any = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), self._schema, None)
        return Vehicle(
            row["device_id"],
            row["events"],
            row["odometer_km"],
            row["speed_mean_kmh"],
            row["speed_max_kmh"],
            row["last_event_time"],
            row["stopped_since"],
        )
