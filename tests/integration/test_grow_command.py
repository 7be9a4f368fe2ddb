"""`streams topics grow` against a real Kafka; tasks answer by what they commit, as those of workers do."""

import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.grow.log import GrowthWriter
from streams.growth.committed import standing_of
from streams.growth.layout import Growth
from streams.growth.record import layouts_of
from streams.growth.stages import Duty, Phase, Standing, duty_of, have_adopted
from streams.kafka.admin import partition_counts
from streams.kafka.growth_topic import GrowthTopic
from streams.kafka.positions import metadata_of
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.sinks.base import Committed
from tests.integration.forked import ForkedProcess, run_forked
from tests.integration.kafka_helpers import admin_of, settings_of
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

APP: Final = "logistics.flows.gps"


class Tasks:
    """A member of the flow's group that does for each of its partitions what a growth asks, and consumes nothing."""

    def __init__(self, stack: Stack, flow: Pipeline) -> None:
        self._flow = flow
        self._topic = GrowthTopic(settings_of(stack), flow)
        self._consumer = Consumer({
            "bootstrap.servers": stack.bootstrap_servers, "group.id": flow.group, "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 300, "auto.offset.reset": "earliest", "session.timeout.ms": 6_000,
        })  # fmt: skip
        self._standings: dict[int, Standing] = {}
        self.up_to = "ready"
        """What they do not do any more, of `steps`; empty: they do all."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.has_partitions = threading.Event()
        self._consumer.subscribe([flow.source])
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self._consumer.close()
        self._topic.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._consumer.poll(0.05)
            owned = [one.partition for one in self._consumer.assignment()]
            if not owned:
                continue
            for partition in owned:
                if partition not in self._standings:
                    self._commit(partition, Standing(1 if partition < 3 else 0))
            self.has_partitions.set()
            try:
                layouts = layouts_of(self._topic.read(), 3)
            except StreamsError:
                continue  # no answer just now
            if layouts.growth is not None and layouts.phase is not None:
                for partition in owned:
                    self._serve(partition, layouts.growth, layouts.phase)

    def _serve(self, partition: int, growth: Growth, phase: Phase) -> None:
        was, parent = self._standings[partition], self._standings.get(growth.parent_of(partition), Standing(0))
        duty = duty_of(partition, was, growth.before, growth, phase, parent_epoch=parent.epoch)
        now = was
        if duty is Duty.SAY_READY and self._does("ready"):
            now = replace(was, ready=growth.epoch)
        elif duty is Duty.CUT and self._does("cut"):
            now = replace(was, epoch=growth.epoch)
        elif duty is Duty.ADOPT and self._does("adopted"):
            now = Standing(growth.epoch)
        elif partition in growth.children and was.epoch == growth.epoch and self._does("cleared"):
            now = replace(was, cleared=growth.epoch)
        elif partition in growth.parents and was.epoch == growth.epoch and self._may_settle(partition, growth):
            now = replace(was, settled=growth.epoch)
        if now != was:
            self._commit(partition, now)

    def _may_settle(self, partition: int, growth: Growth) -> bool:
        return self._does("settled") and have_adopted(partition, growth, self._standings)

    def _does(self, what: str) -> bool:
        steps = ("ready", "cut", "adopted", "cleared", "settled")
        return not self.up_to or steps.index(what) < steps.index(self.up_to)

    def _commit(self, partition: int, standing: Standing) -> None:
        position = Committed(
            0, 1, epoch=standing.epoch, ready=standing.ready, cleared=standing.cleared, settled=standing.settled
        )
        where = TopicPartition(self._flow.source, partition, 0, metadata_of(position))
        try:
            self._consumer.commit(offsets=[where], asynchronous=False)
        except KafkaException:
            return  # a rebalance: again
        self._standings[partition] = standing
        assert standing_of(position) == standing


class Ground:
    """The topics of a flow under a prefix of its own."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.prefix = f"grow-{uuid.uuid4().hex[:8]}."
        self.flow = GPS.with_prefix(self.prefix)
        self.client: AdminClient = admin_of(stack)
        self._stack, self._directory = stack, directory
        apply_topics(self.client, [self.flow], partitions=3)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self._stack.environment(), "STREAMS_TOPIC_PREFIX": self.prefix, "STREAMS_APP": APP}

    def grow(self, *arguments: object) -> tuple[int, str, str]:
        done = run_forked(["topics", "grow", *map(str, arguments)], self.environment, timeout_s=120)
        return done.returncode, done.stdout, done.stderr

    def start(self, *arguments: object) -> tuple[ForkedProcess, Path]:
        path = self._directory / f"{uuid.uuid4().hex}.txt"
        path.touch()
        return ForkedProcess(["topics", "grow", *map(str, arguments)], self.environment, stdout=path), path

    def status(self) -> dict[str, Any]:
        _, out, _ = self.grow(GPS.source, "--status", "--format", "json")
        found: dict[str, Any] = json.loads(out)
        return found

    def counts(self) -> set[int]:
        names = {topic.name for topic in self.flow.topics()} | {self.flow.forwarded_of(0)}
        return {count for name, count in partition_counts(self.client).items() if name in names}


@contextmanager
def tasks(stack: Stack, ground: Ground) -> Iterator[Tasks]:
    running = Tasks(stack, ground.flow)
    try:
        assert running.has_partitions.wait(30)
        yield running
    finally:
        running.close()


def test_a_flow_is_grown_by_commands_of_which_one_is_fenced_and_one_is_killed(stack: Stack, tmp_path: Path) -> None:
    ground = Ground(stack, tmp_path)
    assert "partitions 0 to 2 are not processed: no worker runs" in ground.grow(GPS.source, "--partitions", 6)[2]
    with tasks(stack, ground) as running:
        code, out, err = ground.grow(GPS.source, "--partitions", 6, "--dry-run", "--format", "json")
        assert code == 0, err
        plan = json.loads(out)
        assert [one["topic"] for one in plan["topics"]][-2:] == [ground.flow.forwarded_of(0), ground.flow.source]
        assert plan["children"] == {"0": [3], "1": [4], "2": [5]}
        assert (ground.counts(), ground.status()["over"]) == ({3}, True)

        first, first_says = ground.start(GPS.source, "--partitions", 6)
        wait_until(lambda: "waiting for partitions 0 to 2 to be ready" in first_says.read_text(), "it waits")
        assert (ground.status()["step"], ground.counts()) == ("ready", {3})
        another = GrowthWriter(settings_of(stack), source=ground.flow.source, topic=ground.flow.growth)
        another.open()
        running.up_to = "cut"
        assert first.wait(60) == 3
        assert "another `streams topics grow" in first_says.read_text()
        assert ground.status()["phase"] == "planned"
        another.close()
        second, second_says = ground.start(GPS.source, "--partitions", 6)
        wait_until(lambda: "to give their keys away" in second_says.read_text(), "the growth has begun")
        second.kill()
        assert second.wait(30) == -9
        status = ground.status()
        assert (status["phase"], status["waits_for"], status["partitions"]["ready"]) == (
            "begun", [0, 1, 2], {"done": 3, "of": 3},
        )  # fmt: skip
        assert ground.grow(GPS.source, "--abandon")[0] == 1
        assert partition_counts(ground.client)[ground.flow.source] == 3, "it waits for all parents to cut"

        running.up_to = ""
        code, out, err = ground.grow(GPS.source, "--partitions", 6, "--format", "json")
        assert code == 0, err
        done = json.loads(out)
        assert (done["over"], done["before"], done["after"]) == (True, 3, 6)
        assert ground.counts() == {6}
        assert ground.grow(GPS.source, "--partitions", 6)[:2] == (0, "gps has 6 partitions: its growth is over\n")
        assert ground.grow(GPS.source, "--status")[0] == 0
        code, out, err = ground.grow(f"{ground.flow.source}", "--partitions", 12, "--format", "json")
        assert (code, ground.counts()) == (0, {12}), err
        assert json.loads(out)["epoch"] == 3


def test_what_cannot_be_grown_is_refused_in_one_line_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    ground = Ground(stack, tmp_path)
    for arguments, status, says in (
        ((GPS.source, "--partitions", 7), 2, "7 is no multiple of it"),
        ((GPS.source, "--partitions", 2), 2, "Kafka cannot take partitions away"),
        ((GPS.source, "--partitions", 3), 2, "has 3 partitions already: nothing to do"),
        ((GPS.clean, "--partitions", 6), 2, "is written by flow gps, and grows with its source"),
        (("nothing", "--partitions", 6), 2, "no declared flow has the source 'nothing'"),
        ((GPS.source,), 2, "--partitions is missing"),
        ((GPS.source, "--abandon"), 1, "gps does not grow: there is nothing to give up"),
    ):
        code, out, err = ground.grow(*arguments)
        assert (code, out) == (status, ""), err
        assert says in err
        assert len(err.strip().splitlines()) == 1, err
    assert ground.counts() == {3}
    assert ground.status() == {"pipeline": "gps", "step": None, "over": True}


def test_partitions_added_by_hand_are_finished_and_a_growth_is_given_up(stack: Stack, tmp_path: Path) -> None:
    ground = Ground(stack, tmp_path)
    with tasks(stack, ground) as running:
        process, says = ground.start(GPS.source, "--partitions", 6)
        wait_until(lambda: "to be ready" in says.read_text(), "it waits")
        process.kill()
        process.wait(30)
        assert ground.grow(GPS.source, "--partitions", 9)[2].startswith(
            "streams: gps grows from 3 to 6 already, and that is not over"
        )
        assert ground.grow(GPS.source, "--abandon")[1] == "gps stays at 3 partitions\n"
        assert ground.status()["over"]

        source = ground.flow.source
        ground.client.create_partitions([NewPartitions(source, 6)])[source].result(30)
        wait_until(lambda: partition_counts(ground.client).get(source) == 6, "somebody adds partitions")
        assert "has 6 partitions, which is neither 3 nor 9" in ground.grow(source, "--partitions", 9)[2]
        running.up_to = ""
        code, out, err = ground.grow(source, "--partitions", 6)
        assert code == 0, err
        assert "somebody has given the source its partitions already" in out
        assert out.splitlines()[-1] == "gps has 6 partitions: its growth is over"
        assert ground.counts() == {6}


@pytest.mark.slow
def test_a_broker_that_is_killed_in_mid_growth_is_waited_for(stack: Stack, tmp_path: Path) -> None:
    ground = Ground(stack, tmp_path)
    with tasks(stack, ground) as running:
        running.up_to = "cut"
        process, says = ground.start(GPS.source, "--partitions", 6)
        wait_until(lambda: "to give their keys away" in says.read_text(), "the growth has begun")
        stack.restart_kafka(signal.SIGKILL)
        running.up_to = ""
        assert process.wait(180) == 0, says.read_text()
        assert says.read_text().splitlines()[-1] == "gps has 6 partitions: its growth is over"
        assert ground.counts() == {6}
