"""`make bench-join`: a worker joins steps of orders with positions, and starts again without its state."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from loadtest.baselines.run import Compared
from loadtest.comparison import EVENTS_PER_TICK, IDLE_MS, READY_S_MAX, STALL_S_MAX, Feed
from loadtest.fleet import Fleet, FleetShape, fill_topic
from loadtest.joins.check import check_joined
from loadtest.joins.flow import JOINED, POSITION_SUBJECT, POSITIONS, STEP_SUBJECT, STEPS, flow
from loadtest.joins.traffic import StepShape, steps
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.read import TopicReader
from loadtest.parts import Part
from loadtest.prepare import REGISTRY_WAIT_S
from loadtest.report import Run
from loadtest.subject import Drain, Subject, wait_until_quiet, watch_drain
from loadtest.worker import free_port, operator_seconds, worker
from streams.kafka.admin import wait_for_broker
from streams.kafka.topics import apply_topics
from streams.schemas.catalog import SCHEMAS_DIR_VARIABLE, Catalog, schemas_dir
from streams.schemas.client import Registry, wait_for_registry
from streams.schemas.registration import register_schemas

APP: Final = "loadtest.joins.flow"
OWN_SCHEMAS: Final = Path(__file__).parent / "schemas"
_BEFORE_NOW_MS: Final = 60_000


class BenchWithJoin(Compared):
    """A bench that also measures a join."""

    def runs(self) -> Iterator[Run]:
        """Measure part after part; each result as soon as it is there."""
        yield from super().runs()
        if Part.JOIN in self.options.parts:
            yield from self._join()

    def _join(self) -> Iterator[Run]:
        """Both inputs drained from their beginning, judged, and the state that is left restored."""
        options, port = self.options, free_port()
        feeds = self._feeds_of_join()
        with self._task("filling two topics for the join", options.join_positions + options.join_steps) as update:
            rate = self._fill_join(*feeds, on_progress=update)

        def start(log: str) -> Subject:
            data_dir = self.folders.data / "join"
            variables = {
                "STREAMS_APP": APP,
                SCHEMAS_DIR_VARIABLE: str(self._schemas_of_join()),
                "STREAMS_IDLE_MS": str(IDLE_MS),
            }
            return worker(self.settings, flow.name, data_dir, port, self.folders.logs / log, variables)

        events = options.join_positions + options.join_steps
        with start("worker-join.log") as subject:
            drain = self._drain_both(subject, events)
            seconds = operator_seconds(port)
            quiet_s = (self.settings.streams_lateness_ms + IDLE_MS) / 1000 + 3
            with self._task("waiting for the idle release", None):
                wait_until_quiet(lambda: self.offsets.end(JOINED), quiet_s, timeout_s=READY_S_MAX)
        run = self._run("bench-join", drain, rate)
        micros = {name: 1e6 * value / events for name, value in seconds.items()}
        micros["rest"] = max(0.0, 1e6 / drain.events_per_cpu_second - sum(micros.values()))
        run.operators_us_per_event = {name: round(value, 3) for name, value in micros.items()}
        run.oracle = self._judge_join()
        yield run
        yield from self._recoveries("bench-join", events, start, port, self.folders.data / "join")

    def _schemas_of_join(self) -> Path:
        """The schemas of both inputs, which are those of the application, and of the rows."""
        folder = self.folders.data / "join-schemas"
        if not folder.exists():
            for subject in (POSITION_SUBJECT, STEP_SUBJECT):
                shutil.copytree(schemas_dir() / subject, folder / subject)
            shutil.copytree(OWN_SCHEMAS, folder, dirs_exist_ok=True)
        return folder

    def _feeds_of_join(self) -> tuple[Feed, Feed]:
        """Topics and schemas made ready: of positions, and of steps."""
        apply_topics(wait_for_broker(self.settings), [flow.pipeline], partitions=self.options.partitions)
        registry = Registry(self.settings)
        wait_for_registry(registry, timeout_s=REGISTRY_WAIT_S)
        catalog = Catalog.load(self._schemas_of_join())
        done = register_schemas(catalog, registry)
        ids = {one.subject: one.schema_id for one in done if one.version == 1 and one.schema_id is not None}
        positions, stepping = (
            Feed(flow.pipeline, catalog.versions(subject)[0].text, ids[subject])
            for subject in (POSITION_SUBJECT, STEP_SUBJECT)
        )
        return positions, stepping

    def _fill_join(self, positions: Feed, stepping: Feed, *, on_progress: Callable[[int], None]) -> float:
        """Both topics with the same history, which ends about now; returns records per second."""
        options = self.options
        span_ms = options.join_positions * 1_000 // EVENTS_PER_TICK
        start_ms = int(time.time() * 1_000) - span_ms - _BEFORE_NOW_MS
        shape = FleetShape(
            devices=EVENTS_PER_TICK,
            start_ms=start_ms,
            schema=positions.schema,
            schema_id=positions.schema_id,
            duplicate_immediate=0.025,
            duplicate_delayed=0.025,
            disordered=0.05,
            lateness_ms=self.settings.streams_lateness_ms,
        )
        steps_shape = StepShape(EVENTS_PER_TICK, start_ms, span_ms, stepping.schema, stepping.schema_id)
        began_s = time.monotonic()
        fleet = Fleet(options.seed, shape).batches(options.join_positions)
        sent = fill_topic(self.bootstrap, POSITIONS, fleet, on_progress=on_progress)
        orders = steps(options.seed, steps_shape, options.join_steps)
        sent += fill_topic(self.bootstrap, STEPS, orders, on_progress=lambda done: on_progress(sent + done))
        return sent / (time.monotonic() - began_s)

    def _drain_both(self, subject: Subject, events: int) -> Drain:
        group = flow.pipeline.group
        with self._task(f"{subject.name} joins them", events) as update:
            return watch_drain(
                subject,
                lambda: sum(self.offsets.committed(group, topic) for topic in (POSITIONS, STEPS)),
                events,
                stall_s_max=STALL_S_MAX,
                on_progress=update,
            )

    def _judge_join(self) -> dict[str, Any]:
        reader = TopicReader(self.bootstrap)
        try:
            with self._task("the model judges", self.options.partitions) as update:
                schemas = registry_schemas(self.settings.schema_registry_url)
                report = check_joined(reader, schemas, self.settings.streams_lateness_ms, update)
        finally:
            reader.close()
        self.oracles[flow.name] = report
        return report.as_dict()
