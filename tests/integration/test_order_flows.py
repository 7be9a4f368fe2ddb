"""Orders and vehicles on a real broker: what comes of both topics, with a worker that is killed, equals the model."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer

from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.order_check import CHECKS, OrderReport
from loadtest.oracle.read import TopicReader
from streams.flow.discover import select_pipelines
from streams.kafka.admin import partition_counts
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.schemas.client import Registry
from streams.settings import load_settings
from streams.testing.schemas import Schema
from tests.integration.kafka_helpers import Record, admin_of, committed_records, fresh_topics, settings_of, start
from tests.integration.workers import NEVER_IDLE, SETTINGS, Worker, wait_until, workers

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 3
FLOWS = ("gps", "orders", "dispatch", "tracking")
SECONDS, VEHICLES, PLACES = 300, 20, 12
CLOSING = "closing-"
"""Orders that only move watermarks: what is held behind them comes out without idle time."""
MINUTE_MS = 60_000


def schema_of(stack: Stack, topic: str) -> Schema:
    (path,) = Path("schemas", f"{topic}-value").glob("1.avsc")
    text = path.read_text(encoding="utf-8")
    return Schema(
        Registry(settings_of(stack)).lookup(f"{topic}-value", text), text, fastavro.parse_schema(json.loads(text))
    )


def ids(prefix: str, partitions: int) -> dict[int, str]:
    """An id for each partition."""
    names = (f"{prefix}{number}" for number in itertools.count())
    found: dict[int, str] = {}
    while len(found) < partitions:
        name = next(names)
        found.setdefault(partition_of(name.encode(), partitions), name)
    return found


def close(
    stack: Stack, end_ms: int, partitions: int = PARTITIONS, steps: int = 5, then: Callable[[], object] = lambda: None
) -> None:
    """Move the watermarks of all partitions on, stage after stage: events that are minutes apart, in each of them."""
    positions, orders = schema_of(stack, "gps.positions.v1"), schema_of(stack, "orders.events.v1")
    trucks, closing = ids(f"{CLOSING}truck-", partitions), ids(f"{CLOSING}order-", partitions)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
    for number in range(1, steps + 1):
        at = end_ms + number * 10 * MINUTE_MS
        for partition in range(partitions):
            truck, order = trucks[partition], closing[partition]
            common: dict[str, Any] = {"sequence": number, "event_time": at}
            position = {"device_id": truck, "latitude": 48.0, "longitude": 11.0, "speed_kmh": None, "heading_deg": None}
            step = {
                "order_id": order, "kind": "PICKED_UP", "vehicle_id": truck, "depot_id": None, "promised_time": None,
                "destination_latitude": None, "destination_longitude": None,
            }  # fmt: skip
            value = positions.encode({"event_id": f"{truck}-{number}", **common, **position})
            producer.produce("gps.positions.v1", value, truck, timestamp=at)
            value = orders.encode({"event_id": f"{order}-{number}", **common, **step})
            producer.produce("orders.events.v1", value, order, timestamp=at)
        assert producer.flush(30) == 0
        then()


def judged(stack: Stack, flow: str) -> OrderReport:
    (pipeline,) = select_pipelines([flow])
    settings = load_settings(
        **{name.lower(): value for name, value in {**SETTINGS, **NEVER_IDLE}.items() if "LOG" not in name}
    )
    reader = TopicReader(stack.bootstrap_servers)
    try:
        return CHECKS[flow](reader, registry_schemas(stack.registry_url), pipeline.under(settings))
    finally:
        reader.close()


def unexplained(report: OrderReport) -> list[str]:
    """Faults beyond rows of closing orders, which are held still."""
    return [text for text in report.details if not (text.startswith("lost") and CLOSING in text)]


@pytest.fixture
def worker(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    fresh_topics(stack, PARTITIONS, flows=FLOWS)
    with workers(stack, tmp_path, "orders") as (one,):
        yield one


def generate(stack: Stack, *arguments: object) -> None:
    command = [sys.executable, "-m", "loadtest.generator", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, env={**os.environ, **stack.environment()}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_orders_meet_their_vehicles_although_the_worker_is_killed(stack: Stack, worker: Worker) -> None:
    start_ms = time.time_ns() // 1_000_000 - 3 * 60 * MINUTE_MS
    begin = ("--any-topic", "--start-ms", start_ms, "--seed", 3, "--late", 0, "--buffered", 0, "--skewed", 0)
    positions = (*begin, "--events", SECONDS * VEHICLES, "--devices", VEHICLES)
    orders = (*begin, "--pipeline", "orders", "--events", SECONDS * PLACES // 2, "--devices", PLACES)
    flags = [flag for flow in FLOWS[1:] for flag in ("--pipeline", flow)]
    worker.start(NEVER_IDLE, options=flags).wait_ready(240)
    generate(stack, *positions)
    generate(stack, *orders, "--vehicles", VEHICLES)
    wait_until(lambda: committed_records(stack, "orders.bound.v1"), "orders are bound to vehicles", timeout_s=240)
    worker.kill()
    worker.start(NEVER_IDLE, options=flags).wait_ready(240)
    came_to_rest(stack)  # else events of one partition might come late after the closing ones of another
    close(stack, start_ms + 2 * SECONDS * 1_000, then=lambda: came_to_rest(stack))

    def is_done() -> bool:
        """The last closing order of each partition but those that are held in a stage has come through."""
        rows = [
            one
            for one in committed_records(stack, "orders.tracking.v1")
            if (one.key or b"").startswith(CLOSING.encode())
        ]
        return len({one.key for one in rows}) == PARTITIONS

    wait_until(is_done, "the closing orders are followed", timeout_s=240)
    for flow in ("dispatch", "tracking"):
        report = judged(stack, flow)
        assert not unexplained(report), "\n".join(report.details)
        assert set(report.faults) <= {"lost"}, report.faults
        assert report.rows.total() > 500, report.rows


def rows_after(
    stack: Stack, worker: Worker, start_ms: int, *, grown_to: int = 0
) -> dict[str, Counter[tuple[Any, Any]]]:
    """What follows from the same traffic, by topic, without closing orders; `grown_to`: topics grow under it."""
    begin = ("--any-topic", "--late", 0, "--buffered", 0, "--skewed", 0)
    flags = [flag for flow in FLOWS[1:] for flag in ("--pipeline", flow)]
    # Stages are read at any pace, in a drain: with so much room nothing is late in any of them, grown or not.
    environment = {**NEVER_IDLE, "STREAMS_GROWTH_QUIET_MS": "20000", "STREAMS_LATENESS_MS": str(20 * MINUTE_MS)}
    worker.start(environment, options=flags).wait_ready(240)
    grows: list[subprocess.Popen[str]] = []
    for part in range(3):
        at = ("--start-ms", start_ms + part * SECONDS * 1_000, "--seed", part)
        if part and grown_to:
            topic = ("gps.positions.v1.clean", "gps.positions.v1")[part - 1]
            grows.append(start(stack, "topics", "grow", topic, "--partitions", grown_to))
        generate(stack, *begin, *at, "--events", SECONDS * VEHICLES, "--devices", VEHICLES)
        orders = ("--events", SECONDS * PLACES // 2, "--devices", PLACES, "--vehicles", VEHICLES)
        generate(stack, *begin, *at, "--pipeline", "orders", *orders)
        if part and grown_to:
            wait_until(lambda: journal_partitions(stack, part) == grown_to, "state has its partitions", timeout_s=120)  # noqa: B023
            worker.kill()
            worker.start(environment, options=flags).wait_ready(240)
            output, errors = grows[-1].communicate(timeout=240)
            assert grows[-1].returncode == 0, f"{output}\n{errors}"
    # One step after the other: partitions of a stage are then never farther apart than there is room for.
    close(stack, start_ms + 5 * SECONDS * 1_000, grown_to or PARTITIONS, 11, lambda: came_to_rest(stack))
    wait_until(
        lambda: closing_orders(stack) == (grown_to or PARTITIONS), "the closing orders are followed", timeout_s=240
    )
    assert worker.terminate() == 0
    return {
        topic: Counter(
            (one.key, one.value) for one in all_records(stack, topic) if CLOSING.encode() not in (one.key or b"")
        )
        for topic in ("orders.tracking.v1", "deliveries.verified.v1", "vehicles.trips.v1", "gps.positions.v1.clean")
    }


def came_to_rest(stack: Stack) -> None:
    """Wait until no stage has written anything for some commits."""
    topics = ("gps.positions.v1.clean", "orders.events.v1.clean", "orders.bound.v1", "orders.tracking.v1")
    before: list[int] | None = None
    while (now := [len(all_records(stack, topic)) for topic in topics]) != before:
        before = now
        time.sleep(3)


def all_records(stack: Stack, topic: str) -> list[Record]:
    return committed_records(stack, topic, partition_counts(admin_of(stack))[topic])


def journal_partitions(stack: Stack, part: int) -> int:
    return partition_counts(admin_of(stack))[("orders.bound.v1.journal", "gps.positions.v1.journal")[part - 1]]


def closing_orders(stack: Stack) -> int:
    rows = all_records(stack, "orders.tracking.v1")
    return len({one.key for one in rows if (one.key or b"").startswith(CLOSING.encode())})


def test_flows_that_read_one_another_grow_under_traffic_and_nothing_that_they_write_changes(
    stack: Stack, tmp_path: Path
) -> None:
    start_ms = time.time_ns() // 1_000_000 - 3 * 60 * MINUTE_MS
    found = []
    for number, grown_to in enumerate((0, 6)):
        fresh_topics(stack, PARTITIONS, flows=FLOWS)
        with workers(stack, tmp_path, f"worker-{number}") as (worker,):
            found.append(rows_after(stack, worker, start_ms, grown_to=grown_to))
    as_it_was, grown = found
    for topic, rows in as_it_was.items():
        assert rows, topic
        assert grown[topic] == rows, f"{topic}: {len(rows - grown[topic])} missing, {len(grown[topic] - rows)} surplus"
    fresh_topics(stack, PARTITIONS, flows=FLOWS)
