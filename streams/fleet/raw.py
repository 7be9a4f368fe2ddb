"""The newest events of a vehicle as they are in the log: every field that the topic's schema has."""

import threading
from typing import Any, Final

from streams.avro.framing import FRAME_BYTES, id_in_frame, key_in_headers
from streams.avro.values import decode_one
from streams.batch.rejects import Reject
from streams.fleet.bounds import RAW_EVENTS
from streams.fleet.feeds import BoundFeed
from streams.fleet.picture import Picture
from streams.kafka.headers import headers_of
from streams.kafka.log_reader import LogReader, Span
from streams.masking import PERSONAL_MASK
from streams.names import MONITOR_GROUP
from streams.schemas.client import Registry
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings

_TIMEOUT_S: Final = 3.0


class RawEvents:
    """Reads single events of the positions' topic. For any thread; connects when first used."""

    def __init__(self, settings: Settings, feed: BoundFeed) -> None:
        self._settings, self._feed = settings, feed
        self._registry = Registry(settings)
        self._lock = threading.Lock()
        self._reader: LogReader | None = None

    def newest(self, picture: Picture, number: int, *, masked: bool, hides_ids: bool) -> list[dict[str, Any]]:
        """The newest events of a vehicle, the newest first: place, and fields; `masked`: without personal ones.

        Raises:
            StreamsError: Kafka or the registry does not answer.

        """
        with picture.lock:
            places = picture.recent.where("vehicle", number)[: -RAW_EVENTS - 1 : -1]
        with self._lock:
            return [
                self._event(int(place["partition"]), int(place["offset"]), masked=masked, hides_ids=hides_ids)
                for place in places
            ]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _event(self, partition: int, offset: int, *, masked: bool, hides_ids: bool) -> dict[str, Any]:
        if self._reader is None:
            self._reader = LogReader(self._settings, client=MONITOR_GROUP, group=MONITOR_GROUP)
        span = Span(self._feed.topic, partition, offset, offset + 1)
        records = self._reader.read([span], timeout_s=_TIMEOUT_S)[span].records
        found: dict[str, Any] = {"partition": partition, "offset": offset, "fields": None, "why": None}
        if not records:
            return found | {"why": "it is not in the log any more, or could not be read in time"}
        fields = self._fields(records[0].value(), headers_of(records[0]))
        if isinstance(fields, str):
            return found | {"why": fields}
        hidden = self._feed.personal if masked else frozenset()
        if hides_ids:
            hidden |= {self._feed.feed.columns()["vehicle"]}
        return found | {
            "time": records[0].timestamp()[1],
            "fields": {name: PERSONAL_MASK if name in hidden else _shown(value) for name, value in fields.items()},
        }

    def _fields(self, value: bytes | None, headers: Any) -> dict[str, Any] | str:
        """What the event says, or why it cannot be read."""
        if value is None:
            return "it has no value"
        key = key_in_headers(headers) if headers else None
        framed = key is None
        key = id_in_frame(value[:FRAME_BYTES]) if key is None else key
        if key is None:
            return "it names no schema"
        plan = plan_or_reject(self._registry, key, self._feed.schema)
        if isinstance(plan, Reject):
            return plan.message
        found = decode_one(plan, value[FRAME_BYTES:] if framed else value)
        return found if isinstance(found, dict) else found[1]


def _shown(value: Any) -> Any:
    """A value as JSON has it; floats that JSON has not, bytes and the like as text."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else repr(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)
