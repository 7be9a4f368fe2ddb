"""The scene of a fault test whose worker joins two topics: the app of the benchmark of joins, judged by its model."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from loadtest.fleet import FleetShape
from loadtest.fleet.fill import Filler
from loadtest.fleet.traffic import TrafficBatch
from loadtest.joins.bench import APP, OWN_SCHEMAS
from loadtest.joins.check import check_joined
from loadtest.joins.flow import JOINED, POSITION_SUBJECT, POSITIONS, STEP_SUBJECT, STEPS, flow
from loadtest.joins.traffic import StepShape, steps
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.read import TopicReader
from loadtest.oracle.rows import row_reader
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.schemas.catalog import SCHEMAS_DIR_VARIABLE, Catalog, schemas_dir
from streams.schemas.client import Registry
from streams.schemas.registration import register_schemas
from tests.faults.harness import RECORDS_PER_S, RECOVERY_S_MAX, SEED, Result, Scene
from tests.integration.forked import ForkedProcess
from tests.integration.kafka_helpers import admin_of, delete_topics, settings_of
from tests.integration.workers import (
    IDLE_MS,
    LATENESS_MS,
    LIMITS,
    PARTITIONS,
    SETTINGS,
    Probe,
    Traffic,
    Worker,
    read,
    rough_shape,
    wait_until,
)

STEPS_SHARE: Final = 0.2
"""Of the records that are sent."""
_CHUNK_RECORDS: Final = 2_000
_QUIET_S: Final = (LATENESS_MS + IDLE_MS) / 1000 + 2.0


class JoinWorker(Worker):
    """A worker of the flow that joins."""

    def start(self, environment: Mapping[str, str] | None = None, *, options: Sequence[str] = ()) -> "JoinWorker":
        """Start it with further environment and options; it is not ready yet on return."""
        assert not self.is_running
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True)
            (self.data_dir / "worker.id").write_text(self._member)
        command = ["worker", "--pipeline", flow.name, "--data-dir", str(self.data_dir), "--web-port", str(self.port)]
        values = {**os.environ, **self._stack.environment(), **SETTINGS, **(environment or {})}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
        self._process = ForkedProcess([*command, *options], values, stdout=self.log)
        return self

    def partitions(self) -> set[int]:
        """Partitions that the latest run has and has restored, by its log."""
        owned: set[int] = set()
        for line in self.said(f'"topic": "{STEPS}"'):
            said = self.parsed(line)
            if said.get("event") == "restored":
                owned.add(said["partition"])
            elif "partitions" in said:
                owned.difference_update(said["partitions"])
        return owned

    @staticmethod
    def parsed(line: str) -> dict[str, Any]:
        """A line of the log; nothing where it is none."""
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(line)
            return found
        return {}


class InputProbe(Probe):
    """Positions of the group in one of the two inputs."""

    def __init__(self, stack: Stack, topic: str) -> None:
        super().__init__(stack, group=flow.pipeline.group)
        self.topic = topic

    def committed(self) -> dict[int, int] | None:
        """Committed offsets by partition; None while nobody answers."""
        try:
            found = self._group.committed([TopicPartition(self.topic, one) for one in range(self.partitions)], 10)
        except KafkaException:
            self._unanswered()
            return None
        return {one.partition: one.offset for one in found if one.offset >= 0}

    def all_is_committed(self) -> bool:
        """Whether the group has committed every record of the input."""
        ends = self.log_ends(self.topic)
        return ends is not None and self.committed() == {partition: end for partition, end in ends.items() if end}


class _ToTopic(Filler):
    """Sends to a topic of its own, whichever it is told."""

    def __init__(self, topic: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._topic = topic

    def send(self, topic: str, batch: TrafficBatch) -> int:
        """As any filler."""
        del topic
        return super().send(self._topic, batch)


@dataclass(frozen=True)
class _Steps:
    """Steps without end, in the shape of a fleet."""

    seed: int
    shape: StepShape

    def batches(self, records: int) -> Iterator[TrafficBatch]:
        """Steps of one stretch of time after the other."""
        for number in count():
            at = self.shape.start_ms + number * self.shape.span_ms
            stretch = StepShape(
                self.shape.vehicles, at, self.shape.span_ms, self.shape.schema, self.shape.schema_id, LATENESS_MS - 1
            )
            yield from steps(self.seed + number, stretch, min(records, _CHUNK_RECORDS))


class InputTraffic(Traffic):
    """Traffic into one of the two inputs."""

    def __init__(
        self, stack: Stack, shape: FleetShape, topic: str, *, records_per_s: int, fleet: _Steps | None = None
    ) -> None:
        super().__init__(stack, shape, seed=SEED, records_per_s=records_per_s)
        self._topic = topic
        if fleet is not None:
            self._fleet: Any = fleet

    def _new_filler(self) -> Filler:
        config = {"linger.ms": 5, "topic.metadata.refresh.interval.ms": 1_000}
        return _ToTopic(self._topic, self._bootstrap, config)


@dataclass
class BothTraffic:
    """Traffic into both inputs."""

    inputs: Sequence[Traffic]

    @property
    def sent(self) -> int:
        return sum(one.sent for one in self.inputs)

    def wait_for(self, records: int, *, timeout_s: float = 60.0) -> None:
        """Wait until as many records more were sent."""
        wanted = self.sent + records
        wait_until(lambda: self.sent >= wanted, "traffic goes on", timeout_s=timeout_s)


@dataclass
class JoinScene(Scene):
    """Workers that join."""

    flow: str = flow.name
    positions: Probe = field(kw_only=True)
    """`probe` is that of the other input, which leads."""
    step_schema_id: int = field(kw_only=True)

    @contextmanager
    def load(self, *, records_per_s: int = RECORDS_PER_S, **shape: Any) -> Iterator[Any]:
        """Traffic for the length of a block; both inputs come at the same pace of event time."""
        made = rough_shape(self.stack, **{"rejects": {}, **shape})
        per_s = made.devices * 1_000 / made.tick_ms  # of event time
        span_ms = int(_CHUNK_RECORDS * 1_000 / (per_s * STEPS_SHARE))
        text = Catalog.load().versions(STEP_SUBJECT)[0].text
        stepping = _Steps(SEED, StepShape(made.devices, made.start_ms, span_ms, text, self.step_schema_id))
        share = int(records_per_s * STEPS_SHARE)
        inputs = [
            InputTraffic(self.stack, made, POSITIONS, records_per_s=records_per_s),
            InputTraffic(self.stack, made, STEPS, records_per_s=share, fleet=stepping),
        ]
        with ExitStack() as running:
            yield BothTraffic([running.enter_context(one) for one in inputs])

    def flows(self, timeout_s: float = RECOVERY_S_MAX) -> None:
        """Wait until all that is in both logs by now is committed."""
        for probe, topic in ((self.probe, STEPS), (self.positions, POSITIONS)):
            ends = wait_until(lambda: probe.log_ends(topic), "the broker answers", timeout_s=timeout_s)  # noqa: B023

            def has_all() -> bool:
                now = probe.committed() or {}  # noqa: B023
                return all(now.get(partition, 0) >= end for partition, end in ends.items())  # noqa: B023

            wait_until(has_all, f"{topic}: {ends} is committed", timeout_s=timeout_s)

    def judged(self, worker: Worker) -> Report:
        """What the model says of the rows, once everything is released."""
        since, last = [time.monotonic()], [None]

        def still() -> bool:
            assert worker.is_running, f"the worker ended:\n{worker.printed()[-4000:]}"
            ends: Any = [self.probe.log_ends(topic) for topic in (JOINED, flow.pipeline.journal)]
            is_all = self.probe.all_is_committed() and self.positions.all_is_committed()
            if ends != last[0] or None in ends or len(worker.partitions()) != PARTITIONS or not is_all:
                last[0], since[0] = ends, time.monotonic()
            return time.monotonic() - since[0] > _QUIET_S

        wait_until(still, "all is processed and released", timeout_s=RECOVERY_S_MAX)
        reader = TopicReader(self.stack.bootstrap_servers)
        try:
            report = check_joined(reader, registry_schemas(self.stack.registry_url), LATENESS_MS)
        finally:
            reader.close()
        self.result.report = report.as_dict()
        assert report.ok, f"SEED={SEED} {self.result}\n{report}\n{worker.log} ends:\n{worker.printed()[-3000:]}"
        assert report.clean > 0
        return report

    def nothing_is_visible_too_early(self) -> None:
        """No row stems from a step that the group has not committed."""
        committed, read_row = self.committed(), row_reader(registry_schemas(self.stack.registry_url))
        beyond: set[str] = set()
        before: set[str] = set()
        for record in read(self.stack, STEPS):
            is_beyond = (record.offset() or 0) >= committed.get(record.partition() or 0, 0)
            (beyond if is_beyond else before).add(read_row(record.value() or b"")["event_id"])
        assert beyond - before, "every record was committed: nothing could have been seen too early"
        seen = {read_row(record.value() or b"")["event_id"] for record in read(self.stack, JOINED)}
        assert not seen & (beyond - before), "rows are visible of steps whose offsets are not committed"


def _schemas(folder: Path) -> Path:
    for subject in (POSITION_SUBJECT, STEP_SUBJECT):
        shutil.copytree(schemas_dir() / subject, folder / subject)
    shutil.copytree(OWN_SCHEMAS, folder, dirs_exist_ok=True)
    return folder


@contextmanager
def join_scene_of(
    stack: Stack, directory: Path, result: Result, *members: str, environment: Mapping[str, str] | None = None
) -> Iterator[JoinScene]:
    """Fresh topics of the flow that joins, and workers that are not started yet."""
    client, folder = admin_of(stack), _schemas(directory / "schemas")
    delete_topics(client, {topic.name for topic in flow.pipeline.topics()})
    apply_topics(client, [flow.pipeline], partitions=PARTITIONS)
    done = register_schemas(Catalog.load(folder), Registry(settings_of(stack)))
    (schema_id,) = (one.schema_id for one in done if one.subject == STEP_SUBJECT and one.version == 1)
    assert schema_id is not None
    probes = [InputProbe(stack, topic) for topic in (STEPS, POSITIONS)]
    for probe in probes:
        wait_until(lambda: probe.committed() == {}, "the offsets of the deleted topics are gone")  # noqa: B023
    made: list[Worker] = [JoinWorker(stack, directory, f"join-{member}") for member in members or ("a",)]
    variables = {"STREAMS_APP": APP, SCHEMAS_DIR_VARIABLE: str(folder), **(environment or {})}
    scene = JoinScene(stack, probes[0], made, result, variables, LIMITS, positions=probes[1], step_schema_id=schema_id)
    try:
        yield scene
    finally:
        scene.stop()
