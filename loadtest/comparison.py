"""The benchmark's parts: one topic, drained by each program alone and in turn."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rich.progress import Progress

from loadtest.fleet import Fleet, FleetShape, fill_topic
from loadtest.latency import LIVE_PREFIX, WARM_UP_S, measure_latency
from loadtest.oracle.check import Limits, Topics, check
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.prepare import prepare_pipeline
from loadtest.report import Run
from loadtest.subject import Drain, Offsets, Subject, wait_until_quiet, wait_until_ready, watch_drain
from loadtest.worker import free_port, operator_seconds, worker
from streams.errors import UsageError
from streams.pipelines import PIPELINES
from streams.settings import Settings

DEVICES: Final = 2_000
LATENCY_EVENTS_PER_S: Final = 10_000
LATENCY_LEAD_MS: Final = 3_000
IDLE_MS: Final = 1_000
STALL_S_MAX: Final = 60.0
READY_S_MAX: Final = 120.0


class Part(StrEnum):
    """What can be measured by itself."""

    PASSTHROUGH = "passthrough"
    GPS = "gps"
    FAUST = "faust"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes of one invocation."""

    events: int
    partitions: int
    faust_events: int
    latency_s: int
    seed: int
    parts: frozenset[Part]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the programs under measurement keep their state, and where their logs go."""

    data: Path
    logs: Path


class Bench:
    """One invocation on one stack: the topic is filled once and drained by each program in turn."""

    def __init__(self, settings: Settings, options: Options, folders: Folders, progress: Progress) -> None:
        self.settings = settings
        self.options = options
        self.folders = folders
        self.progress = progress
        self.pipeline = PIPELINES["gps"]
        self.bootstrap = settings.kafka_bootstrap_servers
        self.offsets = Offsets(self.bootstrap)
        self.oracle: Report | None = None
        self._schema, self._schema_id = prepare_pipeline(settings, self.pipeline.name, options.partitions)
        if self.offsets.end(self.pipeline.source):
            raise UsageError(f"{self.pipeline.source} holds records already: a benchmark wants a stack of its own")

    def close(self) -> None:
        """Disconnect from the stack."""
        self.offsets.close()

    def runs(self) -> Iterator[Run]:
        """Measure part after part; each result as soon as it is there."""
        parts = self.options.parts
        if parts & {Part.PASSTHROUGH, Part.GPS}:
            publish_rate = self._fill(self.pipeline.source, self.options.events, "filling the topic")
            if Part.PASSTHROUGH in parts:
                yield self._passthrough(publish_rate)
            if Part.GPS in parts:
                yield self._gps(publish_rate)
        if Part.FAUST in parts:
            yield self._faust()
        if Part.LATENCY in parts:
            yield self._latency()

    def _shape(self, start_ms: int) -> FleetShape:
        return FleetShape(
            devices=DEVICES,
            start_ms=start_ms,
            schema=self._schema,
            schema_id=self._schema_id,
            duplicate_immediate=0.025,
            duplicate_delayed=0.025,
            disordered=0.05,
            lateness_ms=self.settings.streams_lateness_ms,
        )

    def _fill(self, topic: str, events: int, title: str) -> float:
        """Fill a topic with history that ends about now; returns records per second."""
        span_ms = events * 1000 // DEVICES
        fleet = Fleet(self.options.seed, self._shape(int(time.time() * 1000) - span_ms - 60_000))
        started_s = time.monotonic()
        with self._task(title, events) as update:
            sent = fill_topic(self.bootstrap, topic, fleet.batches(events), on_progress=update)
        return sent / (time.monotonic() - started_s)

    @contextmanager
    def _task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        task = self.progress.add_task(title, total=total)
        yield lambda done: self.progress.update(task, completed=done)
        self.progress.update(task, completed=total or 1, total=total or 1)

    def _drain(self, subject: Subject, group: str, topic: str, events: int) -> Drain:
        with self._task(f"{subject.name} drains it", events) as update:
            return watch_drain(
                subject,
                lambda: self.offsets.committed(group, topic),
                events,
                stall_s_max=STALL_S_MAX,
                on_progress=update,
            )

    def _run(self, scenario: str, drain: Drain, publish_rate: float) -> Run:
        return Run(
            scenario=scenario,
            partitions=self.options.partitions,
            workers=1,
            events=drain.events,
            publish_rate=publish_rate,
            consume_rate=drain.events_per_second,
            lag_max=drain.events,
            cpu_seconds_per_million=1e6 / drain.events_per_cpu_second,
            rss_mb_max=drain.rss_mb_max,
            events_per_cpu_second=drain.events_per_cpu_second,
        )

    def _passthrough(self, publish_rate: float) -> Run:
        group = target = "bench.passthrough"
        self.offsets.create(target, self.options.partitions)
        arguments = [
            "-m",
            "loadtest.baselines.passthrough",
            "--bootstrap",
            self.bootstrap,
            "--group",
            "bench.passthrough",
        ]
        arguments += ["--source", self.pipeline.source, "--target", target]
        arguments += ["--commit-interval-ms", str(self.settings.streams_commit_interval_ms)]
        with Subject("pass-through", arguments, self.folders.logs / "passthrough.log", ready_line="ready") as subject:
            drain = self._drain(subject, group, self.pipeline.source, self.options.events)
        return self._run("bench-passthrough", drain, publish_rate)

    def _gps(self, publish_rate: float) -> Run:
        pipeline, options = self.pipeline, self.options
        port = free_port()
        with self._worker("worker.log", port) as subject:
            drain = self._drain(subject, pipeline.group, pipeline.source, options.events)
            seconds = operator_seconds(port)
            self._await_idle_release()
        run = self._run("bench-gps", drain, publish_rate)
        micros = {name: 1e6 * value / drain.events for name, value in seconds.items()}
        # What no operator accounts for: consuming, columns, producing, transactions, the interpreter between them.
        # Operators are timed by the clock, so that this falls short where the machine is busy with other things.
        micros["rest"] = max(0.0, 1e6 / drain.events_per_cpu_second - sum(micros.values()))
        run.operators_us_per_event = {name: round(value, 3) for name, value in micros.items()}
        with self._task("the oracle judges", 2 * options.events) as update:
            self.oracle = check(
                self.bootstrap,
                registry_schemas(self.settings.schema_registry_url),
                Topics.of_pipeline(pipeline.name),
                Limits.of_settings(self.settings),
                on_progress=lambda topic, read: update(read + options.events * (topic != pipeline.source)),
            )
        run.oracle = self.oracle.as_dict()
        return run

    def _worker(self, log: str, port: int, environment: Mapping[str, str] | None = None) -> Subject:
        variables = {"STREAMS_IDLE_MS": str(IDLE_MS), **(environment or {})}
        return worker(self.settings, self.folders.data / "worker", port, self.folders.logs / log, variables)

    def _await_idle_release(self) -> None:
        """A drained partition still holds its last events; they leave at the pace of the clock after `IDLE_MS`."""
        pipeline = self.pipeline
        quiet_s = (self.settings.streams_lateness_ms + IDLE_MS) / 1000 + 3
        with self._task("waiting for the idle release", None):
            wait_until_quiet(
                lambda: self.offsets.end(pipeline.clean, pipeline.late, pipeline.dlq), quiet_s, timeout_s=READY_S_MAX
            )

    def _faust(self) -> Run:
        events, partitions = self.options.faust_events, self.options.partitions
        for topic in ("bench.faust", "bench.faust.out"):
            self.offsets.create(topic, partitions)
        for table in ("seen", "vehicles"):
            # Faust would create its changelogs too, but on a fresh broker its agent does not wait until they are there.
            self.offsets.create(f"bench.faust-{table}-changelog", partitions, {"cleanup.policy": "compact"})
        publish_rate = self._fill("bench.faust", events, "filling a share of it for Faust")
        environment = {
            "BASELINE_BOOTSTRAP": self.bootstrap,
            "BASELINE_ID": "bench.faust",
            "BASELINE_PARTITIONS": str(partitions),
            "BASELINE_DATA_DIR": str(self.folders.data / "faust"),
            "BASELINE_SOURCE": "bench.faust",
            "BASELINE_TARGET": "bench.faust.out",
            "BASELINE_SCHEMA": self._schema,
            "BASELINE_SCHEMA_ID": str(self._schema_id),
        }
        arguments = ["-m", "loadtest.baselines.faust_baseline", "worker", "-l", "info"]
        log = self.folders.logs / "faust.log"
        with Subject("Faust", arguments, log, environment=environment, ready_line="Worker ready") as subject:
            drain = self._drain(subject, "bench.faust", "bench.faust", events)
        return self._run("bench-faust", drain, publish_rate)

    def _latency(self) -> Run:
        pipeline, partitions = self.pipeline, self.options.partitions
        port = free_port()
        with self._worker("worker-latency.log", port, {"STREAMS_LATENESS_MS": "0"}) as subject:
            wait_until_ready(subject, READY_S_MAX)
            cpu_before_s, rss_before_mb = subject.usage()
            shape = FleetShape(
                devices=LATENCY_EVENTS_PER_S,
                start_ms=int(time.time() * 1000) + LATENCY_LEAD_MS,
                schema=self._schema,
                schema_id=self._schema_id,
                delay_ms_max=0,
                device_prefix=LIVE_PREFIX,
            )
            events = LATENCY_EVENTS_PER_S * (self.options.latency_s + WARM_UP_S)
            batches = list(Fleet(self.options.seed, shape).batches(events))
            with self._task(f"latency at {LATENCY_EVENTS_PER_S:,} events/s", None):
                latency = measure_latency(
                    self.bootstrap,
                    source=pipeline.source,
                    output=pipeline.clean,
                    partitions=partitions,
                    batches=batches,
                    schema=self._schema,
                )
            cpu_after_s, rss_after_mb = subject.usage()
        cpu_used_s = cpu_after_s - cpu_before_s
        return Run(
            scenario="bench-latency",
            partitions=partitions,
            workers=1,
            events=events,
            publish_rate=latency.publish_rate,
            consume_rate=latency.publish_rate,
            latency_ms=latency.percentiles_ms,
            cpu_seconds_per_million=cpu_used_s / events * 1e6,
            rss_mb_max=max(rss_before_mb, rss_after_mb),
            oracle={"lost": latency.lost, "duplicated": latency.duplicated},
            events_per_cpu_second=events / max(cpu_used_s, 0.01),
        )
