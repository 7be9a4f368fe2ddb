"""A flow of two stages on a real broker: both run in one worker, and one that is killed doubles and loses nothing."""

import io
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.kafka.partitioner import partition_of
from streams.local import ports
from streams.local.stack import Stack
from streams.schemas.client import Registry
from tests.integration.guides import ROOT, command, decoded, environment_of, run
from tests.integration.kafka_helpers import committed_records, delete_topics, settings_of
from tests.integration.workers import wait_until
from tests.staged import INTERNAL, PLACED, order, position, schemas_of

pytestmark = pytest.mark.kafka

PARTITIONS = 3
VEHICLES = [f"v{number}" for number in range(9)]
END_S = 1_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    schemas_of(tmp_path / "schemas")
    module = 'from tests.staged import tracking\n\nflow = tracking(apart="10m")\n'
    (tmp_path / "stages.py").write_text(module, encoding="utf-8")
    return tmp_path


@pytest.fixture
def client(stack: Stack) -> Iterator[AdminClient]:
    made = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    yield made
    there = made.list_topics(timeout=10).topics
    delete_topics(made, {name for name in there if name.startswith(("orders.v1", "positions.v1", "tracking.", PLACED))})


class Scene:
    """The flow's topics, and what is sent to them."""

    def __init__(self, stack: Stack, project: Path, protocol: str) -> None:
        self.stack, self.project = stack, project
        self.environment = {
            **environment_of(ROOT, stack),
            "STREAMS_APP": "stages",
            "STREAMS_SCHEMAS_DIR": str(project / "schemas"),
            "STREAMS_GROUP_PROTOCOL": protocol,
            "STREAMS_IDLE_MS": "3600000",
            "PYTHONPATH": f"{ROOT}:{project}",
        }
        run(project, self.environment, f"streams topics apply --partitions {PARTITIONS}")
        run(project, self.environment, "streams schemas register")
        self._producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
        self._registry = Registry(settings_of(stack))
        self._sent: list[dict[str, object]] = []

    def send(self, start_s: int, end_s: int) -> None:
        """An order and a position of each vehicle in each second."""
        for at in range(start_s, end_s):
            for number, vehicle in enumerate(VEHICLES):
                self._produce("positions.v1", vehicle, position(vehicle, at))
                made = order(at * 100 + number, vehicle, at)
                self._produce("orders.v1", str(made["order_id"]), made)
                self._sent.append(made)
        assert self._producer.flush(30) == 0

    def end(self) -> None:
        """Have every watermark pass all that was sent: two rounds, for what the first stage passes on of the second."""
        for later_s in (END_S + 3_600, END_S + 7_200):
            for number in range(60):
                vehicle = f"end-{number}"
                self._produce("positions.v1", vehicle, position(vehicle, later_s))
                made = order(later_s * 100 + number, vehicle, later_s)
                self._produce("orders.v1", str(made["order_id"]), made)
        assert self._producer.flush(30) == 0

    def _produce(self, topic: str, key: str, event: dict[str, object]) -> None:
        text = (self.project / "schemas" / f"{topic}-value" / "1.avsc").read_text(encoding="utf-8")
        schema_id = self._registry.lookup(f"{topic}-value", text)
        value = io.BytesIO()
        value.write(b"\0" + schema_id.to_bytes(4, "big"))
        fastavro.schemaless_writer(value, fastavro.parse_schema(json.loads(text)), event)
        self._producer.produce(topic, value.getvalue(), key)

    def placed(self) -> list[tuple[str, str, float | None]]:
        """Rows of what was sent, in any order."""
        found = (decoded(self.project, PLACED, one) for one in committed_records(self.stack, PLACED, PARTITIONS))
        rows = ((row["vehicle_id"], row["order_id"], row["speed"]) for row in found)
        return sorted(row for row in rows if row[0] in VEHICLES)

    def wanted(self) -> list[tuple[str, str, float | None]]:
        """An order of the time of a position stands after it, as its id says: `o...` is below `v...`, so before it."""
        rows = []
        for one in self._sent:
            at = int(str(one["event_time"])) // 1_000
            rows.append((str(one["vehicle_id"]), str(one["order_id"]), float(at - 1) if at > 100 else None))
        return sorted(rows)

    @contextmanager
    def worker(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A worker with a data directory of its own; whatever becomes of it, it does not outlive the block."""
        line = f"streams worker --pipeline tracking --data-dir {self.project / name} --web-port {ports.free_port()}"
        with (self.project / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command(line), cwd=self.project, env=self.environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def low(self) -> list[int]:
        """Where the log of each internal partition begins."""
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap_servers, "group.id": "looks"})
        try:
            return [consumer.get_watermark_offsets(TopicPartition(INTERNAL, p), 10)[0] for p in range(PARTITIONS)]
        finally:
            consumer.close()


def test_orders_meet_vehicles_exactly_once_although_the_worker_is_killed(
    stack: Stack, project: Path, client: AdminClient
) -> None:
    scene = Scene(stack, project, "classic")
    with scene.worker("a") as first:
        scene.send(100, 140)
        wait_until(lambda: len(scene.placed()) > 0 or first.poll() is not None or _is_moving(scene), "it runs")
        scene.send(140, 160)
        first.kill()
        first.wait(30)
    with scene.worker("a"):
        scene.send(160, 170)
        scene.end()
        wait_until(lambda: len(scene.placed()) >= 70 * len(VEHICLES), "all orders are placed", timeout_s=240)
    assert scene.placed() == scene.wanted()
    moved = committed_records(stack, INTERNAL, PARTITIONS)
    assert all(record.partition == partition_of(record.key or b"", PARTITIONS) for record in moved)


def _is_moving(scene: Scene) -> bool:
    return bool(committed_records(scene.stack, INTERNAL, PARTITIONS))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_workers_share_both_stages_and_consumed_records_are_deleted(
    stack: Stack, project: Path, client: AdminClient, protocol: str
) -> None:
    scene = Scene(stack, project, protocol)
    with scene.worker("a") as first:
        scene.send(100, 140)
        wait_until(lambda: _is_moving(scene), "it runs", timeout_s=120)
        with scene.worker("b"):
            wait_until(lambda: "assigned" in (project / "b.log").read_text(), "the second has a part", timeout_s=240)
            scene.send(140, 180)
            first.kill()
            first.wait(30)
            scene.send(180, 200)
            scene.end()
            wait_until(lambda: len(scene.placed()) >= 100 * len(VEHICLES), "all orders are placed", timeout_s=240)
            assert scene.placed() == scene.wanted()
            wait_until(lambda: all(scene.low()), "what is consumed is deleted", timeout_s=180)
