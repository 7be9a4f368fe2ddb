"""`streams reconcile` on a real broker: beside traffic, after it, and when something was damaged."""

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import TopicPartition

from loadtest import clients
from logistics.flows.gps import GPS
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.reconcile.model.decode import plain_schema, row_reader
from streams.schemas.client import Registry
from tests.integration.forked import run_forked
from tests.integration.kafka_helpers import settings_of
from tests.integration.workers import (
    PARTITIONS,
    SETTINGS,
    Traffic,
    Worker,
    fresh_world,
    position_schema,
    read,
    rough_shape,
    wait_drained,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

GHOST = "ghost"


def reconciled(stack: Stack, *options: object) -> tuple[int, dict[str, Any]]:
    """Exit status and report. The bounds are those recorded with the state; the largest record is a setting."""
    record_bytes = {"STREAMS_RECORD_BYTES_MAX": SETTINGS["STREAMS_RECORD_BYTES_MAX"]}
    ran = run_forked(
        ["reconcile", "--flow", "gps", "--format", "json", *map(str, options)],
        {**os.environ, **stack.environment(), **record_bytes},
    )
    assert ran.returncode in {0, 100}, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["agrees"] == (ran.returncode == 0)
    return ran.returncode, found


def produce(stack: Stack, topic: str, key: bytes, value: bytes, timestamp_ms: int = 0) -> None:
    """A record that no worker has written."""
    producer = clients.producer(stack.bootstrap_servers, {"partitioner": "murmur2_random"})
    producer.produce(topic, value, key, timestamp=timestamp_ms)
    assert producer.flush(30) == 0


def skip_to_the_end(stack: Stack, partition: int) -> None:
    """Commit the end of the source as the group's position, as if a worker had lost what is before it."""
    consumer = clients.consumer(stack.bootstrap_servers, {"group.id": GPS.group, "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(GPS.source, partition), 30)
        consumer.commit(offsets=[TopicPartition(GPS.source, partition, end)], asynchronous=False)
    finally:
        consumer.close()


def position(stack: Stack, number: int, time_ms: int) -> bytes:
    """A framed position of a vehicle that nobody else sends."""
    text, schema_id = position_schema(stack, 1)
    body = io.BytesIO()
    event = {
        "event_id": f"{GHOST}-{number}", "device_id": GHOST, "sequence": number, "event_time": time_ms,
        "latitude": 48.0, "longitude": 11.0, "speed_kmh": None, "heading_deg": None,
    }  # fmt: skip
    fastavro.schemaless_writer(body, plain_schema(text), event)
    return b"\0" + schema_id.to_bytes(4, "big") + body.getvalue()


def with_other_values(stack: Stack, value: bytes, **changed: Any) -> bytes:
    """A row's bytes with other values."""
    registry = Registry(settings_of(stack))
    schema_id = int.from_bytes(value[1:5], "big")
    row = {**row_reader(registry.schema_by_id)(value), **changed}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, plain_schema(registry.schema_by_id(schema_id)), row)
    return value[:5] + body.getvalue()


def drive(stack: Stack, worker: Worker) -> None:
    """Rough traffic in two parts, with idle time between them, and a run of reconcile beside the second one."""
    worker.start().wait_ready()
    with Traffic(stack, rough_shape(stack), seed=3, records_per_s=800) as traffic:
        traffic.wait_for(2_000)
    time.sleep(1.0)
    with Traffic(
        stack, rough_shape(stack, start_ms=int(time.time() - 3_600) * 1_000), seed=4, records_per_s=800
    ) as more:
        more.wait_for(1_000)
        status, found = reconciled(stack)
        assert status == 0, found["by_key"]
        assert found["checked"]["events in the clean topic"] > 0
        assert found["bounds"]["recorded_with_state"]
        assert found["bounds"]["lateness_ms"] == int(SETTINGS["STREAMS_LATENESS_MS"])


def test_nothing_is_found_until_something_is_damaged(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        drive(stack, worker)
        wait_drained(probe, worker)
        assert worker.terminate() == 0
    page, metrics = tmp_path / "report.html", tmp_path / "reconcile.prom"
    status, found = reconciled(stack, "--html", page, "--metrics-file", metrics)
    assert status == 0, found["by_key"]
    assert min(found["checked"][name] for name in ("events in the clean topic", "dead letters", "window rows")) > 10
    assert "events in the late topic" in found["checked"]
    assert "Its outputs are as expected" in page.read_text()
    assert 'streams_reconcile_differences{kind="lost event",pipeline="gps"} 0.0' in metrics.read_text()

    row = read(stack, GPS.tables[0].topic)[-1]
    key, value = row.key() or b"", row.value() or b""
    produce(stack, GPS.tables[0].topic, key, with_other_values(stack, value, odometer_km=1.25))
    copy = next(each for each in read(stack, GPS.clean) if each.key() != key)
    produce(stack, GPS.clean, copy.key() or b"", copy.value() or b"", copy.timestamp()[1])
    lost_ms = int(time.time() - 7_000) * 1_000
    produce(stack, GPS.source, GHOST.encode(), position(stack, 1, lost_ms), lost_ms)
    skip_to_the_end(stack, partition_of(GHOST.encode(), PARTITIONS))

    status, found = reconciled(stack, "--html", page)
    assert status == 100
    by_key = {each["key"]: each for each in found["by_key"]}
    assert by_key.keys() == {key.decode(), (copy.key() or b"").decode(), GHOST}
    (wrong,) = by_key[key.decode()]["differences"]
    assert (wrong["kind"], [each["name"] for each in wrong["columns"]]) == ("wrong table row", ["odometer_km"])
    assert wrong["columns"][0]["actual"] == 1.25
    (doubled,) = by_key[(copy.key() or b"").decode()]["differences"]
    assert doubled["kind"] == "doubled event"
    assert by_key[GHOST]["first_event"]["event_id"] == f"{GHOST}-1"
    assert {each["kind"] for each in by_key[GHOST]["differences"]} >= {"lost event", "missing table row"}
    assert GHOST in page.read_text()

    status, found = reconciled(stack, "--keys", GHOST)
    assert (status, [each["key"] for each in found["by_key"]]) == (100, [GHOST])
    assert reconciled(stack, "--keys", next(_untouched(stack, set(by_key))))[0] == 0


def _untouched(stack: Stack, damaged: set[str]) -> Any:
    """Keys of which nothing was damaged."""
    return (key for each in read(stack, GPS.clean) if (key := (each.key() or b"").decode()) not in damaged)
