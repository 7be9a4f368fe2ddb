"""A burst of poison: vans send records that cannot be processed among good ones."""

import io
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import fastavro
from confluent_kafka import KafkaException

from streams.deadletters.letter.letter import Letter
from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.troubles.base import Audited, verdict
from streams.errors import StreamsError
from streams.kafka import clients
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.text import counted

VANS: Final = 5
GOOD_EACH: Final = 15
DEGREES_SCALE: Final = 10_000_000
"""Many trackers send degrees as integers of this scale."""
UNKNOWN_SCHEMA_ID: Final = 1_999_999_999
FRAME_BYTES: Final = 5
FLUSH_S_MAX: Final = 10.0
SENT_S: Final = 1.0
DEPOT: Final = (52.5163, 13.3777)
STEP_DEGREES: Final = 0.0004
POISON: Final = ("not_framed", "malformed", "unknown_schema", "key_mismatch", "invalid")
"""Reasons, one record each; what is to be repaired is the newest, so that it is in time when it comes back."""

_numbers: Final = itertools.count()


class Poison:
    """Five vans send 75 good positions and 25 records that cannot be processed."""

    def __init__(self, demo: Demo) -> None:
        """They are sent at once.

        Raises:
            StreamsError: Kafka does not take them.

        """
        self._demo = demo
        self.prefix = van_prefix(demo)
        asked = self.prefix.encode()
        self._audited = Audited(demo, lambda key: key.startswith(asked))
        self._began_s: float | None = None
        _send(demo, _records(demo, self.prefix))

    def explain(self) -> str:
        """What was done, and where to see the effect."""
        return (
            f"Poison: {VANS} vans ({self.prefix}1 to {VANS}) send {VANS * GOOD_EACH} good positions and "
            f"{VANS * len(POISON)} broken records: JSON instead of Avro, half a "
            "record, a schema that nobody knows, the key of another van, degrees times ten million. See "
            f"{self._demo.links.dead_letters}: each one with its bytes and reason."
        )

    def look(self, shot: Snapshot) -> str | None:
        """The counts, once they are known."""
        self._began_s = shot.elapsed_s if self._began_s is None else self._began_s
        found = self._audited.look(shot.elapsed_s, is_over=shot.elapsed_s - self._began_s > SENT_S)
        if found is None:
            return None
        good = found.outcomes["clean"] + found.outcomes["late"]
        lost = VANS * GOOD_EACH - good
        return (
            f"Poison: {counted(found.outcomes['rejected'], 'dead letter')} in {self._demo.flow.dlq}, {good} of "
            f"{VANS * GOOD_EACH} good positions of the same vans "
            f"went through: {lost} good {'event' if lost == 1 else 'events'} lost, and nothing stood still. "
            f"{verdict(found)}"
        )

    def close(self) -> None:
        """Release resources."""
        self._audited.close()


def van_prefix(demo: Demo) -> str:
    """Prefix of the ids of this run's vans."""
    return f"van-{demo.feeder.device_prefix.split('-')[1]}-"


def degrees(letter: Letter) -> bytes | None:
    """`streams dlq replay --transform streams.demo.troubles.poison:degrees`: degrees as they should be.

    None, which leaves the letter as it is, for what is wrong otherwise.
    """
    if letter.reason != "invalid" or letter.value is None:
        return None
    schema = fastavro.parse_schema(dict(Catalog.load().latest(f"{letter.source}-value").parsed))
    row: Any = fastavro.schemaless_reader(io.BytesIO(letter.value[FRAME_BYTES:]), schema, None)
    if abs(row["latitude"]) <= 90.0:
        return None
    row["latitude"] /= DEGREES_SCALE
    row["longitude"] /= DEGREES_SCALE
    return letter.value[:FRAME_BYTES] + _encoded(schema, row)


def _records(demo: Demo, prefix: str) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values: of each van its good positions, a second apart up to now, then its broken records."""
    flow = demo.flow
    newest = Catalog.load().latest(flow.subject)
    schema = fastavro.parse_schema(dict(newest.parsed))
    frame = b"\0" + Registry(demo.settings).lookup(flow.subject, newest.text).to_bytes(4, "big")
    unknown = b"\0" + UNKNOWN_SCHEMA_ID.to_bytes(4, "big")
    now_ms = time.time_ns() // 1_000_000
    total = GOOD_EACH + len(POISON)
    for van in range(1, VANS + 1):
        key = f"{prefix}{van}".encode()
        for place in range(total):
            number = next(_numbers)
            row: dict[str, Any] = {
                "event_id": f"{prefix}{van}-{number}",
                "device_id": key.decode(),
                "sequence": number,
                "event_time": now_ms - (total - place) * 1_000,
                "latitude": DEPOT[0] + van * STEP_DEGREES,
                "longitude": DEPOT[1] + place * STEP_DEGREES,
            }
            good = frame + _encoded(schema, row)
            if place < GOOD_EACH:
                yield key, good
                continue
            reason = POISON[place - GOOD_EACH]
            if reason == "not_framed":
                yield key, json.dumps(row).encode()
            elif reason == "malformed":
                yield key, good[: len(good) // 2]
            elif reason == "unknown_schema":
                yield key, unknown + good[FRAME_BYTES:]
            elif reason == "key_mismatch":
                yield f"{prefix}{van % VANS + 1}".encode(), good
            else:
                scaled = {name: row[name] * DEGREES_SCALE for name in ("latitude", "longitude")}
                yield key, frame + _encoded(schema, {**row, **scaled})


def _encoded(schema: Any, row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, row)
    return out.getvalue()


def _send(demo: Demo, records: Iterator[tuple[bytes, bytes]]) -> None:
    producer = clients.producer(
        demo.settings, {"client.id": "streams-demo", "enable.idempotence": True, "partitioner": "murmur2_random"}
    )
    try:
        for key, value in records:
            producer.produce(demo.flow.source, value, key)
        left = producer.flush(FLUSH_S_MAX)
    except KafkaException as error:
        raise StreamsError(f"{demo.flow.source}: {error}") from None
    if left:
        raise StreamsError(f"{demo.flow.source}: Kafka did not take {counted(left, 'record')} in {FLUSH_S_MAX:.0f} s")
