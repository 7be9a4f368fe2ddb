"""Time from an event to its visible output, with a sender that does not wait for anyone."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyruhvro
from confluent_kafka import OFFSET_END, Message, TopicPartition

from loadtest import clients
from loadtest.fleet import TrafficBatch, send_open_loop
from streams.errors import StreamsError

VISIBLE_WAIT_S: Final = 30.0
"""How long after the last event was sent the last output may become visible."""
POLL_S: Final = 0.005
SURPLUS_S: Final = 1.0
"""How long to wait for more than was sent."""
WARM_UP_S: Final = 5
"""Events of the first seconds are sent and must arrive, but are not timed: every client connects, every key is new."""
LIVE_PREFIX: Final = "live-"
"""Prefix of the ids of the devices that send for the measurement."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from an event's time (when it was to be sent) to its arrival at a read_committed consumer."""

    events: int
    publish_rate: float
    """Rate at which events were sent, in events per second."""
    percentiles_ms: dict[str, float]
    lost: int
    duplicated: int


def measure_latency(
    bootstrap: str, *, source: str, output: str, partitions: int, batches: Sequence[TrafficBatch], schema: str
) -> Latency:
    """Send `batches` by their timestamps, read `output` meanwhile, and compare each event's time with when it showed.

    The event time of a record must be its timestamp. Taking a record off the consumer is part of the time measured;
    decoding it is not, it comes afterwards. The first `WARM_UP_S` are not timed.

    Raises:
        StreamsError: sending failed.

    """
    expected = sum(map(len, batches))
    consumer = clients.consumer(
        bootstrap,
        {
            "group.id": "bench-latency",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "fetch.min.bytes": 1,
        },
    )
    consumer.assign([TopicPartition(output, partition, OFFSET_END) for partition in range(partitions)])
    consumer.consume(1, 2.0)  # the ends are looked up before anything is sent
    failure: list[StreamsError] = []

    def send() -> None:
        try:
            send_open_loop(bootstrap, source, batches)
        except StreamsError as error:
            failure.append(error)

    sender = threading.Thread(target=send, name="sender", daemon=True)
    sender.start()
    visible: list[tuple[float, list[bytes]]] = []
    received = 0
    ends_s = batches[-1].timestamps_ms[-1] / 1000 + VISIBLE_WAIT_S
    while received < expected and time.time() < ends_s and not failure:
        messages = consumer.consume(5_000, POLL_S)
        if messages:
            now_ms = time.time() * 1000
            visible.append((now_ms, _sent_values(messages)))
            received += len(visible[-1][1])
    visible.append((time.time() * 1000, _sent_values(consumer.consume(5_000, SURPLUS_S))))
    consumer.close()
    sender.join()
    if failure:
        raise failure[0]
    first_ms, last_ms = batches[0].timestamps_ms[0], batches[-1].timestamps_ms[-1]
    delays_ms, ids = _delays(visible, schema, since_ms=first_ms + WARM_UP_S * 1000)
    sent_ids = {event_id for batch in batches for event_id in _columns(batch.values, schema)[0]}
    return Latency(
        events=expected,
        publish_rate=expected / max((last_ms - first_ms) / 1000, 0.001),
        percentiles_ms=_percentiles(delays_ms),
        lost=len(sent_ids - set(ids)),
        duplicated=len(ids) - len(set(ids)),
    )


def _sent_values(messages: Sequence[Message]) -> list[bytes]:
    """Values of what was sent; other devices' events may still leave meanwhile."""
    return [
        message.value() or b""
        for message in messages
        if message.error() is None and (message.key() or b"").startswith(LIVE_PREFIX.encode())
    ]


def _columns(values: list[bytes], schema: str) -> tuple[list[str], "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    batch = pyruhvro.deserialize_array([value[5:] for value in values], schema)
    times = batch.column("event_time").cast(pa.int64()).to_numpy()
    return batch.column("event_id").to_pylist(), times


def _delays(visible: list[tuple[float, list[bytes]]], schema: str, *, since_ms: float) -> tuple[list[float], list[str]]:
    """Milliseconds that events since `since_ms` took, and the ids of all."""
    delays: list[float] = []
    ids: list[str] = []
    for now_ms, values in visible:
        if values:
            event_ids, times = _columns(values, schema)
            ids.extend(event_ids)
            delays.extend((now_ms - times[times >= since_ms]).tolist())
    return delays, ids


def _percentiles(delays_ms: list[float]) -> dict[str, float]:
    if not delays_ms:
        return {}
    values = np.array(delays_ms)
    names = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9}
    found = {name: round(float(np.percentile(values, share)), 1) for name, share in names.items()}
    return {**found, "max": round(float(values.max()), 1)}
