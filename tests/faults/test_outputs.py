"""Row 26: one record that an output refuses. It becomes one dead letter, its neighbours flow, no partition waits."""

import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from logistics.flows.gps import GPS
from tests.faults.harness import READY_S_MAX, SEED, Scene, metric
from tests.faults.test_data import DEVICES
from tests.integration.kafka_helpers import alter_topic, decoded_value, headers_of, recreate_topic, run
from tests.integration.test_rejects import Encoder
from tests.integration.workers import read, wait_drained, wait_until

pytestmark = [pytest.mark.kafka]

EVENTS = 100
"""Of each device."""
DAY_MS = 86_400_000
TABLE = GPS.tables[0].topic


@dataclass
class Sent:
    """What was sent: values by device, in order, and the odd ones."""

    values: dict[str, list[bytes]] = field(default_factory=dict)
    odd: list[bytes] = field(default_factory=list)

    @property
    def even(self) -> dict[str, list[bytes]]:
        return {device: [value for value in values if value not in self.odd] for device, values in self.values.items()}


def send(scene: Scene, *, odd_at: int = EVENTS // 2, devices: list[str] = DEVICES, **odd: Any) -> Sent:
    """Events of each device, a second apart; the one at `odd_at` of the first device has what `odd` says.

    `headers` and `timestamp_ms` are the record's, everything else is a field of the event.
    """
    producer = Producer(
        {
            "bootstrap.servers": scene.stack.bootstrap_servers,
            "partitioner": "murmur2_random",
            "compression.type": "zstd",  # a long key is in the value once more: the source takes it, lz4 is too weak
            "message.max.bytes": 4_000_000,
        }
    )
    encoder, sent = Encoder(scene.stack), Sent()
    begin_ms = int(time.time() * 1000) - EVENTS * 1_000
    for number in range(EVENTS):
        for device in devices:
            is_odd = number == odd_at and device == devices[0]
            changed = odd if is_odd else {}
            at_ms = begin_ms + number * 1_000
            fields: dict[str, Any] = {"device_id": device, "event_time": at_ms, "sequence": number}
            fields |= {name: value for name, value in changed.items() if name not in {"headers", "timestamp_ms"}}
            value = encoder.framed(**fields)
            key = fields["device_id"].encode()
            producer.produce(
                GPS.source, value, key, timestamp=changed.get("timestamp_ms", at_ms), headers=changed.get("headers"),
            )  # fmt: skip
            sent.values.setdefault(device, []).append(value)
            if is_odd:
                sent.odd.append(value)
    assert 0 == producer.flush(60)
    return sent


def by_key(messages: list[Message]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for message in messages:
        found.setdefault((message.key() or b"").decode(), []).append(message.value() or b"")
    return found


def outputs(scene: Scene) -> tuple[dict[str, list[bytes]], list[Message], dict[str, int]]:
    """Clean values by key, dead letters, and the number of events in each row of the table."""
    rows = {
        row["device_id"]: row["events"]
        for row in (decoded_value(message.value() or b"", f"{TABLE}-value") for message in read(scene.stack, TABLE))
    }
    return by_key(read(scene.stack, GPS.clean)), read(scene.stack, GPS.dlq), rows


def reason_of(letter: Message) -> str:
    return (dict(headers_of(letter))["dlq.reason"] or b"").decode()


def drained(scene: Scene) -> None:
    scene.struck()
    scene.worker.start(scene.environment).wait_ready(READY_S_MAX)
    wait_drained(scene.probe, scene.worker, timeout_s=180)
    scene.result.recover_s.append(time.monotonic() - scene._struck_at)


@pytest.mark.fault(row=26, what="record larger than the clean topic takes, by its headers")
def test_a_record_too_large_for_the_clean_topic_is_one_dead_letter(scene: Scene) -> None:
    alter_topic(scene.stack, GPS.clean, max_message_bytes="3000")
    noise = random.Random(SEED).randbytes(3_500)
    sent = send(scene, headers=[("noise", noise)])

    drained(scene)

    clean, letters, rows = outputs(scene)
    assert [("refused_by_output", sent.odd[0])] == [(reason_of(each), each.value()) for each in letters]
    headers = dict(letters[0].headers() or ())
    assert noise == headers["noise"]
    assert GPS.clean.encode() in (headers["__streams.errors.message"] or b"")
    assert b"Message size too large" in (headers["__streams.errors.message"] or b"")
    assert sent.even == clean
    assert {device: len(values) for device, values in clean.items()} == rows
    assert 1 == metric(scene.worker, "streams_rejects_total", reason="refused_by_output")
    assert metric(scene.worker, "streams_aborts_total", reason="refused_by_output") > 0


@pytest.mark.slow
@pytest.mark.fault(row=26, what="table row of one key too large for its topic")
def test_a_key_whose_table_row_is_refused_costs_its_own_events_only(scene: Scene) -> None:
    alter_topic(scene.stack, TABLE, max_message_bytes="900")
    name = "".join(random.Random(SEED).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=1_000))
    sent = send(scene, device_id=name)

    drained(scene)

    clean, letters, rows = outputs(scene)
    assert [("refused_by_output", sent.odd[0])] == [(reason_of(each), each.value()) for each in letters]
    assert sent.even == clean
    assert {device: len(values) for device, values in clean.items()} == rows


@pytest.mark.fault(row=26, what="key of 900 kB")
def test_an_event_with_a_key_of_900_kb_is_invalid(scene: Scene) -> None:
    sent = send(scene, device_id=random.Random(SEED).randbytes(450_000).hex())
    scene.environment = {**scene.environment, "STREAMS_RECORD_BYTES_MAX": "1048576"}
    drained(scene)

    clean, letters, _ = outputs(scene)
    assert [("invalid", sent.odd[0])] == [(reason_of(each), each.value()) for each in letters]
    assert sent.even == clean


@pytest.mark.slow
@pytest.mark.parametrize("age_ms", [40 * DAY_MS, -50 * 60_000], ids=["40 days old", "50 minutes ahead"])
@pytest.mark.fault(row=26, what="timestamp outside of the outputs' limits")
def test_a_timestamp_outside_of_the_limits_of_the_outputs_is_no_obstacle(scene: Scene, age_ms: int) -> None:
    for topic in (GPS.clean, GPS.late, GPS.dlq):
        alter_topic(
            scene.stack, topic, message_timestamp_before_max_ms="600000", message_timestamp_after_max_ms="600000"
        )
    sent = send(scene, odd_at=0, timestamp_ms=int(time.time() * 1000) - age_ms)

    drained(scene)

    clean, letters, _ = outputs(scene)
    accepted = sent.values if age_ms < 0 else sent.even  # its event is far ahead of so old a timestamp
    assert accepted == clean
    assert ["future_timestamp"] * (age_ms > 0) == [reason_of(each) for each in letters]


@pytest.mark.slow
@pytest.mark.fault(row=26, what="dead letter too large for its topic: one partition stands still")
def test_a_dead_letter_that_is_refused_stops_its_partition_only_and_says_so(scene: Scene) -> None:
    alter_topic(scene.stack, GPS.dlq, max_message_bytes="3000")
    noise = random.Random(SEED).randbytes(3_500)
    sent = send(scene, latitude=91.0, headers=[("noise", noise)])
    scene.struck()
    scene.worker.start(scene.environment)

    wait_until(lambda: "stands still" in scene.worker.readiness()[1], "/readyz says it", timeout_s=120)
    ends = scene.probe.log_ends(GPS.source) or {}
    others = {partition: end for partition, end in ends.items() if partition != 0}
    wait_until(lambda: others.items() <= (scene.probe.committed() or {}).items(), "the others flow", timeout_s=60)
    status, words = scene.worker.readiness()
    assert 503 == status
    assert f"{GPS.source}-0 stands still: {GPS.dlq} refuses a record" in words
    assert 1 == metric(scene.worker, "streams_paused_partitions", reason="refused_by_output")
    assert scene.worker.is_running
    assert [] == read(scene.stack, GPS.dlq)

    alter_topic(scene.stack, GPS.dlq, max_message_bytes="1000000")
    assert 0 == scene.worker.terminate()
    drained(scene)
    clean, letters, _ = outputs(scene)
    assert [("invalid", sent.odd[0])] == [(reason_of(each), each.value()) for each in letters]
    assert sent.even == clean


@pytest.mark.fault(row=26, what="dead-letter topic with fewer partitions than the source")
def test_a_dead_letter_topic_with_fewer_partitions_is_refused_at_start(scene: Scene) -> None:
    recreate_topic(scene.stack, GPS.dlq, 2)

    started = run(scene.stack, "worker", "--pipeline", "gps", "--data-dir", str(scene.worker.data_dir))

    assert 1 == started.returncode
    assert f"{GPS.dlq} has 2 partitions, {GPS.journal} has 3: give {GPS.dlq} 3 partitions" in started.stderr
    scene.struck()
