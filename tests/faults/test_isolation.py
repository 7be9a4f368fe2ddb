"""Row 28: what is wrong with one partition stays with that partition."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from logistics.flows.gps import GPS
from streams.local import kafka as local_kafka
from streams.local.stack import Stack, running_stack
from tests.faults.harness import READY_S_MAX, Result, Scene, scene_of
from tests.integration.kafka_helpers import QUICK_START, admin_of
from tests.integration.workers import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

BAD = 1
MakeScene = Callable[..., Scene]


def others_flow(scene: Scene, ends: dict[int, int]) -> None:
    """All partitions but one come to these ends; the worker says which one does not."""
    good = {partition: end for partition, end in ends.items() if partition != BAD}
    wait_until(lambda: scene.has_committed(good), f"{good} is committed", timeout_s=READY_S_MAX)
    said = f"{GPS.source}-{BAD} is not restored"
    text = wait_until(lambda: said_at_readyz(scene, said), f"/readyz says: {said}")
    for partition in good:
        assert f"{GPS.source}-{partition}" not in text


def said_at_readyz(scene: Scene, text: str) -> str:
    """The answer of a worker that is not ready and says this; empty otherwise, also where the machine is too busy."""
    status, answer = scene.worker.readiness()
    return answer if status == 503 and text in answer else ""


@pytest.mark.fault(row=28, what="one partition that cannot be restored: a damaged journal")
def test_a_partition_that_cannot_be_restored_stands_alone(stack: Stack, scene: Scene) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    producer.produce(GPS.journal, b"not a journal record", partition=BAD)
    assert producer.flush(30) == 0
    with scene.load():
        scene.start()
        scene.struck()
        for _ in range(2):
            ends = wait_until(lambda: scene.probe.log_ends(GPS.source), "the broker answers")
            others_flow(scene, ends)
        assert BAD not in scene.committed()
        beyond = TopicPartition(GPS.journal, BAD, 1)
        admin = admin_of(stack)  # it must live as long as its futures
        for future in admin.delete_records([beyond]).values():
            future.result(30)
        scene.lifted()
        scene.recovers()
        scene.worker.wait_ready(READY_S_MAX)
    scene.exactly_once()


# --- a partition without a leader: its directory is gone --------------------------------------------------------------


@pytest.fixture
def own_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A broker that notices within a second that it cannot write to a directory."""
    quick = "log.flush.offset.checkpoint.interval.ms=1000\nlog.flush.start.offset.checkpoint.interval.ms=1000\n"
    monkeypatch.setattr(local_kafka, "PROPERTIES", local_kafka.PROPERTIES + quick)
    with running_stack(tmp_path / "stack", extension=QUICK_START) as running:
        yield running


class SecondDirectory:
    """A directory of the broker that holds one partition and nothing else, and can be taken away."""

    def __init__(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stack = stack
        self._first, self.path = stack.directory / local_kafka.DATA, stack.directory / "second"
        self._patch = monkeypatch

    def move_in(self, log: str) -> None:
        """Stop the broker, move a partition's log, and start the broker with both directories."""
        launch = local_kafka.Kafka.launch

        def moved(*arguments: object) -> None:
            self.path.mkdir()
            identity = (self._first / "meta.properties").read_text().splitlines()
            own = [line for line in identity if not line.startswith("directory.id")]
            own.append(f"directory.id={local_kafka.new_cluster_id()}")
            (self.path / "meta.properties").write_text("\n".join(own) + "\n")
            shutil.move(self._first / log, self.path / log)
            launch(*arguments)  # type: ignore[arg-type]

        both = local_kafka.PROPERTIES.replace(f"log.dirs={local_kafka.DATA}", f"log.dirs={local_kafka.DATA},second")
        self._patch.setattr(local_kafka, "PROPERTIES", both)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local_kafka.Kafka, "launch", moved)
            self._stack.restart_kafka()

    def take_away(self) -> None:
        """Put a file in its place: the broker cannot write there, and goes on without it."""
        self.path.rename(self._stack.directory / "away")
        self.path.write_text("not a directory")

    def put_back(self) -> None:
        self.path.unlink()
        (self._stack.directory / "away").rename(self.path)
        self._stack.restart_kafka()


def has_leader(stack: Stack, partition: int) -> bool:
    return bool(admin_of(stack).list_topics(GPS.source, 10).topics[GPS.source].partitions[partition].leader >= 0)


@pytest.mark.slow
@pytest.mark.fault(row=28, what="one source partition without a leader")
def test_a_partition_without_a_leader_stands_alone(
    own_stack: Stack, tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene_of(own_stack, tmp_path, result) as scene:
        worker, second = scene.worker, SecondDirectory(own_stack, monkeypatch)
        with scene.load():
            scene.start().wait_ready(READY_S_MAX)
            scene.flows()
            assert worker.terminate() == 0, worker.printed()[-3000:]
        second.move_in(f"{GPS.source}-{BAD}")
        wait_until(lambda: has_leader(own_stack, BAD), "it has a leader in its new place")
        with scene.load():
            pass
        ends = wait_until(lambda: scene.probe.log_ends(GPS.source), "the broker answers")
        before = scene.committed()
        second.take_away()
        scene.struck()
        wait_until(lambda: not has_leader(own_stack, BAD), "it has no leader")
        scene.start()
        others_flow(scene, ends)
        assert before[BAD] == scene.committed()[BAD]
        second.put_back()
        scene.lifted()
        scene.recovers()
        worker.wait_ready(READY_S_MAX)
        scene.exactly_once()
