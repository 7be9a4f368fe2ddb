"""Rows 23 to 25: topics that are created again or truncated, state of another life, a declaration that changes."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from logistics.flows.gps import GPS
from streams.flow.discover import select_pipelines
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from tests.faults.harness import READY_S_MAX, Scene, lines
from tests.faults.test_data import DEVICES, Sender
from tests.integration.kafka_helpers import admin_of, delete_topics, run
from tests.integration.test_rejects import Encoder
from tests.integration.workers import PARTITIONS, Worker, read, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

MakeScene = Callable[..., Scene]
EACH = 20
"""Events of each device at a time."""


class Events:
    """Events of one device in each partition, every one of them once."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._encoder = Encoder(scene.stack)
        self.sent: list[bytes] = []

    def send(self, again: list[bytes] | None = None) -> list[bytes]:
        """Send some new ones, and `again` some of before."""
        values = [self._encoder.framed(device_id=device) for _ in range(EACH) for device in DEVICES]
        self.sent += values
        sender = Sender(self._scene, **{"topic.metadata.refresh.interval.ms": 500})
        for place, value in enumerate([*(again or ()), *values]):
            sender.send(DEVICES[place % len(DEVICES)], value)
        sender.flush()
        return values

    def came_out(self) -> list[bytes]:
        return [m.value() or b"" for topic in (GPS.clean, GPS.late) for m in read(self._scene.stack, topic)]

    def wait_out(self, timeout_s: float = 90.0) -> None:
        """Wait until each has come out, and see that none has twice."""
        wait_until(
            lambda: set(self.sent) <= set(self.came_out()), f"{len(self.sent)} events come out", timeout_s=timeout_s
        )
        assert sorted(self.sent) == sorted(self.came_out())


def create_again(stack: Stack, *topics: str) -> None:
    """Delete topics and create them as declared."""
    delete_topics(admin_of(stack), set(topics))
    apply_topics(admin_of(stack), select_pipelines(["gps"]), partitions=PARTITIONS)


def refusal(worker: Worker) -> str:
    """What /readyz says once it refuses a state."""
    return wait_until(
        lambda: text if "streams state rebuild" in (text := worker.readiness()[1]) else "",
        "the worker refuses in words",
        timeout_s=READY_S_MAX,
    )


def rebuild(scene: Scene, source: str, *options: str) -> str:
    done = run(
        scene.stack, "state", "rebuild", "--pipeline", "gps", "--from", source,
        "--data-dir", scene.worker.data_dir, *options,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    return done.stdout


# --- 23: the source is not what it was --------------------------------------------------------------------------------


@pytest.mark.fault(row=23, what="source deleted and created again under a running worker")
def test_a_worker_goes_on_with_a_source_that_is_created_again_while_it_runs(scene: Scene) -> None:
    events = Events(scene)
    scene.worker.start().wait_ready(READY_S_MAX)
    first = events.send()
    events.wait_out()
    create_again(scene.stack, GPS.source)
    scene.struck()
    events.send(again=first[:9])
    events.wait_out()
    scene.result.recover_s.append(0.0)
    assert scene.worker.is_running
    assert lines(scene.worker, "the source topic was deleted and created again: its records are processed from the "
                 "first one; what is known of earlier ones stays, so that copies of them are dropped")  # fmt: skip


@pytest.mark.slow
@pytest.mark.fault(row=23, what="source deleted and created again while the worker is down")
@pytest.mark.parametrize("keeps_state", [True, False], ids=["state kept", "state lost"])
def test_a_source_that_was_created_again_is_read_from_its_first_record(scene: Scene, *, keeps_state: bool) -> None:
    events = Events(scene)
    scene.worker.start().wait_ready(READY_S_MAX)
    first = events.send()
    events.wait_out()
    assert 0 == scene.worker.terminate()
    if not keeps_state:
        scene.worker.delete_data()
    create_again(scene.stack, GPS.source)
    scene.struck()
    events.send(again=first)
    scene.worker.start().wait_ready(READY_S_MAX)
    events.wait_out()


def said_to_be_truncated(worker: Worker) -> str:
    return wait_until(
        lambda: text if "was truncated" in (text := worker.readiness()[1]) else "", "it is refused in words"
    )


@pytest.mark.slow
@pytest.mark.fault(row=23, what="source truncated while the worker is down")
@pytest.mark.parametrize("written_again", [False, True], ids=["empty", "written again"])
def test_a_source_that_was_truncated_is_refused_until_the_offset_is_set(scene: Scene, *, written_again: bool) -> None:
    events = Events(scene)
    scene.worker.start().wait_ready(READY_S_MAX)
    events.send()
    events.wait_out()
    assert 0 == scene.worker.terminate()
    truncate(scene.stack, GPS.source)
    if written_again:  # up to the offset where the worker goes on, and beyond
        events.send()
        events.send()
    scene.struck()
    scene.worker.start()
    assert "--reset-offsets --to-offset 0" in said_to_be_truncated(scene.worker)
    assert 0 == scene.worker.terminate()
    set_offsets(scene.stack, dict.fromkeys(range(PARTITIONS), 0))
    scene.worker.start().wait_ready(READY_S_MAX)
    events.send()
    events.wait_out()


@pytest.mark.slow
@pytest.mark.fault(row=23, what="source truncated and written again under a running worker")
def test_a_running_worker_notices_that_its_source_was_truncated_and_written_again(scene: Scene) -> None:
    events = Events(scene)
    scene.worker.start().wait_ready(READY_S_MAX)
    events.send()
    events.wait_out()
    os.kill(scene.worker.pid, signal.SIGSTOP)  # it sees the log only when it is long enough again
    truncate(scene.stack, GPS.source)
    scene.struck()
    events.send()
    events.send()
    os.kill(scene.worker.pid, signal.SIGCONT)
    assert "--reset-offsets --to-offset 0" in said_to_be_truncated(scene.worker)
    assert 0 == scene.worker.terminate()
    set_offsets(scene.stack, dict.fromkeys(range(PARTITIONS), 0))
    scene.worker.start().wait_ready(READY_S_MAX)
    events.wait_out()


def truncate(stack: Stack, topic: str) -> None:
    """Lose all records of a topic, as a broker may that comes back without its newest segments."""
    names = {f"{topic}-{partition}" for partition in range(PARTITIONS)}
    folders = [path for path in (stack.directory / "kafka").rglob(f"{topic}-*") if path.name in names]
    assert len(folders) == PARTITIONS
    broker = psutil.Process(stack.kafka_pid)
    broker.send_signal(signal.SIGTERM)
    broker.wait(60)
    for folder in folders:
        for file in folder.glob("0*"):
            file.unlink()
        (folder / "leader-epoch-checkpoint").unlink(missing_ok=True)
    stack.restart_kafka()


def set_offsets(stack: Stack, offsets: dict[int, int]) -> None:
    """Set the group's offsets by the request that `kafka-consumer-groups.sh --reset-offsets` makes."""
    wanted = [TopicPartition(GPS.source, partition, offset) for partition, offset in offsets.items()]

    admin = admin_of(stack)

    def is_set() -> bool:
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(GPS.group, wanted)])
        try:
            return all(one.error is None for one in asked[GPS.group].result(30).topic_partitions)
        except KafkaException:
            return False  # a stopped worker keeps its place for a session

    wait_until(is_set, "the group takes the offsets")


# --- 24: outputs, journal, table, state of another life ---------------------------------------------------------------


@pytest.mark.fault(row=24, what="journal deleted and created again: state rebuilt from local")
def test_a_journal_that_was_created_again_is_written_from_local_state(scene: Scene) -> None:
    lost_and_rebuilt(scene, GPS.journal)


@pytest.mark.slow
@pytest.mark.fault(row=24, what="table deleted and created again: rows rebuilt from local")
def test_a_table_that_was_created_again_is_written_from_local_state(scene: Scene) -> None:
    lost_and_rebuilt(scene, GPS.tables[0].topic)


def lost_and_rebuilt(scene: Scene, topic: str) -> None:
    """Under traffic with everything in it; what the oracle finds afterwards is the verdict."""
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        assert 0 == scene.worker.terminate()
        create_again(scene.stack, topic)
        scene.struck()
        scene.start()
        assert topic in refusal(scene.worker)
        assert 0 == scene.worker.terminate()
        assert "3 partitions written" in rebuild(scene, "local")
        shutil.rmtree(scene.worker.data_dir / "gps")
        scene.start().wait_ready(READY_S_MAX)
        scene.recovers()
    scene.exactly_once()


@pytest.mark.slow
@pytest.mark.fault(row=24, what="outputs deleted and created again: rebuilt from the source")
def test_outputs_that_were_created_again_are_filled_from_the_source(scene: Scene) -> None:
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        assert 0 == scene.worker.terminate()
        create_again(scene.stack, GPS.clean, GPS.windows[0].topic)
        scene.struck()
        scene.start()
        assert GPS.clean in refusal(scene.worker)
        assert 0 == scene.worker.terminate()
        rebuild(scene, "source", "--yes", "--dead-letters")
        scene.start().wait_ready(READY_S_MAX)
        scene.recovers()
    scene.exactly_once()


@pytest.mark.slow
@pytest.mark.fault(row=24, what="state directory of an earlier life of all topics")
def test_state_of_an_earlier_life_is_moved_aside(scene: Scene) -> None:
    events = Events(scene)
    scene.worker.start().wait_ready(READY_S_MAX)
    first = events.send()
    events.wait_out()
    assert 0 == scene.worker.terminate()
    create_again(scene.stack, *(topic.name for topic in GPS.topics()))
    scene.struck()
    events.sent.clear()
    sender = Sender(scene)
    for place, value in enumerate(first):
        sender.send(DEVICES[place % len(DEVICES)], value)
    sender.flush()
    events.sent += first
    scene.worker.start().wait_ready(READY_S_MAX)
    events.wait_out()
    assert lines(scene.worker, "local state does not fit: moved aside, to be rebuilt from Kafka")


# --- 25: the declaration changes --------------------------------------------------------------------------------------

DECLARATIONS = """
from dataclasses import replace
from logistics.flows.gps import GPS
from streams.flow import discover
declared = {{**discover.pipelines(), "gps": replace(GPS, {change})}}
discover.pipelines = lambda app=None: declared
from streams.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.fault(row=25, what="declaration changed and rolled back: a field more, another window size")
def test_a_changed_declaration_is_brought_over_or_refused_and_goes_back(scene: Scene, tmp_path: Path) -> None:
    more = declared(tmp_path, 'payload_fields=(*GPS.payload_fields, "altitude_m")')
    smaller = declared(tmp_path, "windows=(replace(GPS.windows[0], size_ms=30_000),)")
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        for program in (more, None, smaller, None):
            assert 0 == scene.worker.terminate()
            scene.struck()
            scene.worker.program = program
            scene.start()
            if program is smaller:
                assert "60000 ms long and are 30000 ms now" in refusal(scene.worker)
            else:
                scene.worker.wait_ready(READY_S_MAX)
                scene.recovers()
    scene.exactly_once()


def declared(folder: Path, change: str) -> list[str]:
    """The command with another declaration of the gps pipeline."""
    file = folder / f"declared_{abs(hash(change))}.py"
    file.write_text(DECLARATIONS.format(change=change))
    return [sys.executable, os.fspath(file)]
