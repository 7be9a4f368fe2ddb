"""A flow of two sources on a real broker: two workers that come, go and are killed change nothing about its output."""

import io
import json
import random
import signal
import subprocess
from collections.abc import Iterator, Mapping
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
from tests.merged import NAMES, SEEN, Fed, Seen, expected, random_logs, schemas_of

pytestmark = pytest.mark.kafka

PARTITIONS = 3
GROUP = "streams.pair"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    schemas_of(tmp_path / "schemas")
    module = "from tests.merged import merged_flow\n\nflow = merged_flow()\n"
    (tmp_path / "pairs.py").write_text(module, encoding="utf-8")
    return tmp_path


@pytest.fixture
def client(stack: Stack) -> Iterator[AdminClient]:
    made = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    yield made
    there = made.list_topics(timeout=10).topics
    delete_topics(made, {name for name in there if name.startswith(("left.v1", "right.v1", SEEN))})


@contextmanager
def started(project: Path, environment: Mapping[str, str], name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker with a data directory of its own; whatever becomes of it, it does not outlive the block."""
    line = f"streams worker --pipeline pair --data-dir {project / name} --web-port {ports.free_port()}"
    with (project / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command(line), cwd=project, env=dict(environment), stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Sender:
    """Sends events as they are in the logs."""

    def __init__(self, stack: Stack, project: Path) -> None:
        self._producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
        registry = Registry(settings_of(stack))
        self._schemas = {}
        for name in NAMES:
            text = (project / "schemas" / f"{name}.v1-value" / "1.avsc").read_text(encoding="utf-8")
            parsed = fastavro.parse_schema(json.loads(text))
            self._schemas[name] = (registry.lookup(f"{name}.v1-value", text), parsed)

    def send(self, events: list[Fed]) -> None:
        for one in events:
            schema_id, parsed = self._schemas[one.of]
            value = io.BytesIO()
            value.write(b"\0" + schema_id.to_bytes(4, "big"))
            fastavro.schemaless_writer(value, parsed, one.event())
            self._producer.produce(f"{one.of}.v1", value.getvalue(), one.key)
        assert self._producer.flush(30) == 0


def _committed(stack: Stack) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": GROUP})
    try:
        wanted = [TopicPartition(f"{name}.v1", number) for name in NAMES for number in range(PARTITIONS)]
        return {(one.topic, one.partition): one.offset for one in consumer.committed(wanted, 10)}
    except KafkaException:  # while the coordinator is found
        return {}
    finally:
        consumer.close()


def _sent(logs: Mapping[str, list[Fed]], upto: int) -> dict[tuple[str, int], int]:
    ends = {(f"{name}.v1", number): 0 for name in NAMES for number in range(PARTITIONS)}
    for name, log in logs.items():
        for one in log[:upto]:
            ends[f"{name}.v1", partition_of(one.key.encode(), PARTITIONS)] += 1
    return {place: end or -1001 for place, end in ends.items()}


def _seen(stack: Stack, project: Path) -> list[tuple[int, Seen]]:
    records = sorted(committed_records(stack, SEEN, PARTITIONS), key=lambda record: record.partition)
    rows = [decoded(project, SEEN, record) for record in records]
    return [(row["watermark"], (NAMES[row["input"]], row["key"], row["time"], row["sequence"])) for row in rows]


class Scene:
    """A flow of two topics, with logs to send and workers to run."""

    def __init__(self, stack: Stack, project: Path, *, events: int, protocol: str) -> None:
        self.stack, self.project = stack, project
        self.environment = {
            **environment_of(ROOT, stack),
            "STREAMS_APP": "pairs",
            "STREAMS_SCHEMAS_DIR": str(project / "schemas"),
            "STREAMS_GROUP_PROTOCOL": protocol,
            "STREAMS_IDLE_MS": "3600000",  # an idle release changes, rightly, what is late
            "PYTHONPATH": f"{ROOT}:{project}",
        }
        self._rng = random.Random(7)
        self.logs = random_logs(self._rng, events=events)
        run(project, self.environment, f"streams topics apply --partitions {PARTITIONS}")
        run(project, self.environment, "streams schemas register")
        self._sender = Sender(stack, project)
        self._sent = 0

    def send(self, count: int) -> None:
        """The next events of each log."""
        start, self._sent = self._sent, self._sent + count
        for name in self._rng.sample(NAMES, 2):
            self._sender.send(self.logs[name][start : self._sent])

    def wait_committed(self) -> None:
        wanted = _sent(self.logs, self._sent)
        wait_until(lambda: _committed(self.stack) == wanted, f"{self._sent} of each are committed", timeout_s=240)

    def require_right(self) -> None:
        assert _seen(self.stack, self.project) == expected(self.logs, PARTITIONS)


def test_a_worker_that_is_killed_merges_two_topics_exactly_once(
    stack: Stack, project: Path, client: AdminClient
) -> None:
    scene = Scene(stack, project, events=120, protocol="classic")
    with started(project, scene.environment, "a") as first:
        scene.send(60)
        scene.wait_committed()
        scene.send(30)
        first.kill()
        first.wait(30)
    with started(project, scene.environment, "a"):
        scene.send(30)
        scene.wait_committed()
    scene.require_right()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_workers_that_come_and_go_merge_two_topics_exactly_once(
    stack: Stack, project: Path, client: AdminClient, protocol: str
) -> None:
    scene = Scene(stack, project, events=300, protocol=protocol)
    with started(project, scene.environment, "a") as first:
        scene.send(100)
        scene.wait_committed()
        with started(project, scene.environment, "b"):
            wait_until(lambda: "assigned" in (project / "b.log").read_text(), "the second has a part", timeout_s=240)
            scene.send(100)
            scene.wait_committed()
            first.kill()
            first.wait(30)
            scene.send(100)
            scene.wait_committed()
    scene.require_right()
