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
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
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
        """Have every watermark pass all that was sent.

        First that of the first stage, by a little, so that all of it is in the internal topic before anything of much
        later is; then, by two rounds, those of the second, which gets of the last round what comes before it only.
        """
        self._mark(max(int(str(one["event_time"])) for one in self._sent) // 1_000 + 10)
        wait_until(self._is_read, "all orders are in the internal topic", timeout_s=240)
        for later_s in (END_S + 3_600, END_S + 7_200):
            self._mark(later_s)

    def _mark(self, at: int) -> None:
        """An order and a position in every partition of both stages."""
        for number in range(60):
            vehicle = f"end-{number}"
            self._produce("positions.v1", vehicle, position(vehicle, at))
            made = order(at * 100 + number, vehicle, at)
            self._produce("orders.v1", str(made["order_id"]), made)
        assert self._producer.flush(30) == 0

    def _is_read(self) -> bool:
        """Whether the first stage has committed all that is in its topic."""
        parts = [TopicPartition("orders.v1", number) for number in range(PARTITIONS)]
        servers = self.stack.bootstrap_servers
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "streams.tracking-key_by-vehicle_id"})
        try:
            ends = [consumer.get_watermark_offsets(one, 10)[1] for one in parts]
            return [one.offset for one in consumer.committed(parts, 10)] == ends
        except KafkaException:  # while the coordinator is found
            return False
        finally:
            consumer.close()

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
    def worker(self, name: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A worker with a data directory of its own; whatever becomes of it, it does not outlive the block."""
        line = f"streams worker --pipeline tracking --data-dir {self.project / name} --web-port {ports.free_port()}"
        environment = {**self.environment, **variables}
        with (self.project / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command(line), cwd=self.project, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
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
        wait_until(lambda: _is_moving(scene), "it runs", timeout_s=120)
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


@pytest.mark.slow
@pytest.mark.parametrize("step", ["journalled:2", "committed:2"])
def test_a_worker_that_dies_in_a_commit_doubles_and_loses_nothing(
    stack: Stack, project: Path, client: AdminClient, step: str
) -> None:
    scene = Scene(stack, project, "classic")
    scene.send(100, 140)
    with scene.worker("a", STREAMS_FAILPOINT=step) as first:
        scene.send(140, 160)
        wait_until(lambda: first.poll() == -signal.SIGKILL, "it dies", timeout_s=240)
    _finish(scene, "a", 160, 170)


@pytest.mark.slow
def test_a_worker_that_was_frozen_commits_nothing_that_others_have(
    stack: Stack, project: Path, client: AdminClient
) -> None:
    scene = Scene(stack, project, "classic")
    with scene.worker("a") as first:
        scene.send(100, 140)
        wait_until(lambda: _is_moving(scene), "it runs", timeout_s=120)
        first.send_signal(signal.SIGSTOP)
        with scene.worker("b"):
            scene.send(140, 170)
            scene.end()
            wait_until(lambda: len(scene.placed()) >= 70 * len(VEHICLES), "the other one goes on", timeout_s=240)
            first.send_signal(signal.SIGCONT)
            wait_until(lambda: first.poll() is not None or _is_back(project), "the first one is fenced", timeout_s=120)
            assert scene.placed() == scene.wanted()


@pytest.mark.slow
def test_a_store_that_was_damaged_is_not_served(stack: Stack, project: Path, client: AdminClient) -> None:
    scene = Scene(stack, project, "classic")
    with scene.worker("a"):
        scene.send(100, 160)
        wait_until(lambda: _is_moving(scene), "it runs", timeout_s=120)
    tables = list((project / "a").rglob("*.sst"))
    assert tables
    for path in tables:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(64)
        path.write_bytes(bytes(data))
    _finish(scene, "a", 160, 170)


def _finish(scene: Scene, name: str, start_s: int, end_s: int) -> None:
    """Send the rest, to a worker on what the one before has left, and compare all that came out."""
    with scene.worker(name):
        scene.send(start_s, end_s)
        scene.end()
        wanted = len(scene.wanted())
        wait_until(lambda: len(scene.placed()) >= wanted, "all orders are placed", timeout_s=240)
    assert scene.placed() == scene.wanted()


def _is_back(project: Path) -> bool:
    text = (project / "a.log").read_text()
    return "fenced" in text or "reload" in text
