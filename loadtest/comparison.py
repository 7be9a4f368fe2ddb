"""The benchmark's parts: one topic, drained by each program alone and in turn."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.progress import Progress

from loadtest.fleet import SOURCES, Fleet, FleetShape, TrafficBatch, fill_topic
from loadtest.latency import LIVE_PREFIX, WARM_UP_S, measure_latency
from loadtest.memory import WARM_UP_S as MEMORY_WARM_UP_S
from loadtest.memory import watch_memory
from loadtest.oracle.check import Limits, Topics
from loadtest.oracle.compare import Report
from loadtest.oracle.parallel import check_by_partition
from loadtest.oracle.windows import Window, windows_of
from loadtest.parts import Folders, Options, Part
from loadtest.prepare import prepare_pipeline
from loadtest.recovery import Recovery, measure_restart, measure_restore
from loadtest.report import Run
from loadtest.subject import Drain, Offsets, Subject, wait_until_quiet, wait_until_ready, watch_drain
from loadtest.worker import free_port, operator_seconds, worker
from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.settings import Settings

EVENTS_PER_TICK: Final = 2_000
"""Events in each second of the history that fills a topic: those of 2,000 vehicles, or of somewhat more orders."""
WINDOWS_OPERATOR: Final = "windows"
LATENCY_EVENTS_PER_S: Final = 10_000
LATENCY_LEAD_MS: Final = 3_000
MEMORY_EVENTS_PER_S: Final = 5_000
MEMORY_DUPLICATES: Final = 0.2
MEMORY_HORIZON_MS: Final = 60_000
IDLE_MS: Final = 1_000
WATERMARK_MS_MAX: Final = 2_000
"""How far the newest event of a partition may be behind the newest of its topic."""
STALL_S_MAX: Final = 60.0
READY_S_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class Feed:
    """A flow made ready, and version 1 of its source's schema."""

    pipeline: Pipeline
    schema: str
    schema_id: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A topic after it was filled."""

    events: int
    rate: float
    """Events per second."""
    newest_ms: int
    """Timestamp of its newest record."""


class Bench:
    """One invocation on one stack: each topic is filled once and drained by each of its programs in turn."""

    def __init__(self, settings: Settings, options: Options, folders: Folders, progress: Progress) -> None:
        self.settings = settings
        self.options = options
        self.folders = folders
        self.progress = progress
        self.bootstrap = settings.kafka_bootstrap_servers
        self.offsets = Offsets(self.bootstrap)
        self.oracles: dict[str, Report] = {}
        """The oracle's report on each flow, by the flow's name."""
        names = ["gps", "orders"] if Part.ORDERS in options.parts else ["gps"]
        if Part.MEMORY in options.parts and len(options.parts) > 1:
            raise UsageError("memory is watched on a topic of its own: --only memory")
        self._feeds = {pipeline.name: self._feed(pipeline) for pipeline in select_pipelines(names)}
        self._gps = self._feeds["gps"]

    def _feed(self, pipeline: Pipeline) -> Feed:
        feed = Feed(pipeline, *prepare_pipeline(self.settings, pipeline.name, self.options.partitions))
        if self.offsets.end(pipeline.source):
            raise UsageError(f"{pipeline.source} holds records already: a benchmark wants a stack of its own")
        return feed

    def close(self) -> None:
        """Disconnect from the stack."""
        self.offsets.close()

    def runs(self) -> Iterator[Run]:
        """Measure part after part; each result as soon as it is there."""
        parts = self.options.parts
        if parts & {Part.PASSTHROUGH, Part.GPS, Part.WINDOWS, Part.RECOVERY}:
            filled = self._fill(self._gps, self._gps.pipeline.source, self.options.events, "filling the topic")
            if Part.PASSTHROUGH in parts:
                yield self._passthrough(filled)
            if parts & {Part.GPS, Part.WINDOWS, Part.RECOVERY}:
                run = self._pipeline(self._gps, filled)
                if Part.GPS in parts:
                    yield run
                if Part.WINDOWS in parts:
                    yield windows_run(run, self.oracles["gps"])
                if Part.RECOVERY in parts:
                    yield from self._recovery(filled)
        if Part.ORDERS in parts:
            feed = self._feeds["orders"]
            filled = self._fill(feed, feed.pipeline.source, self.options.orders_events, "filling a topic with orders")
            yield self._pipeline(feed, filled)
        if Part.FAUST in parts:
            yield self._faust()
        if Part.LATENCY in parts:
            yield self._latency()
        if Part.MEMORY in parts:
            yield self._memory()

    def _fill(self, feed: Feed, topic: str, events: int, title: str) -> Filled:
        """Fill a topic with history that ends about now."""
        source = SOURCES[feed.pipeline.name]
        span_ms = events * 1000 // EVENTS_PER_TICK
        shape = FleetShape(
            devices=round(EVENTS_PER_TICK / source.events_per_tick),
            start_ms=int(time.time() * 1000) - span_ms - 60_000,
            schema=feed.schema,
            schema_id=feed.schema_id,
            duplicate_immediate=0.025,
            duplicate_delayed=0.025,
            disordered=0.05,
            lateness_ms=self.settings.streams_lateness_ms,
        )
        newest_ms = 0

        def batches() -> Iterator[TrafficBatch]:
            nonlocal newest_ms
            for batch in Fleet(self.options.seed, shape, source).batches(events):
                newest_ms = batch.timestamps_ms[-1]
                yield batch

        started_s = time.monotonic()
        with self._task(title, events) as update:
            sent = fill_topic(self.bootstrap, topic, batches(), on_progress=update)
        return Filled(sent, sent / (time.monotonic() - started_s), newest_ms)

    @contextmanager
    def _task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        task = self.progress.add_task(title, total=total)
        yield lambda done: self.progress.update(task, completed=done)
        self.progress.update(task, completed=total or 1, total=total or 1)

    def _drain(
        self, subject: Subject, group: str, topic: str, events: int, *, on_progress: Callable[[int], None] | None = None
    ) -> Drain:
        with self._task(f"{subject.name} drains it", events) as update:

            def progress(done: int) -> None:
                update(done)
                if on_progress is not None:
                    on_progress(done)

            return watch_drain(
                subject,
                lambda: self.offsets.committed(group, topic),
                events,
                stall_s_max=STALL_S_MAX,
                on_progress=progress,
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

    def _passthrough(self, filled: Filled) -> Run:
        group = target = "bench.passthrough"
        source = self._gps.pipeline.source
        self.offsets.create(target, self.options.partitions)
        arguments = [
            "-m",
            "loadtest.baselines.passthrough",
            "--bootstrap",
            self.bootstrap,
            "--group",
            "bench.passthrough",
        ]
        arguments += ["--source", source, "--target", target]
        arguments += ["--commit-interval-ms", str(self.settings.streams_commit_interval_ms)]
        with Subject("pass-through", arguments, self.folders.logs / "passthrough.log", ready_line="ready") as subject:
            drain = self._drain(subject, group, source, filled.events)
        return self._run("bench-passthrough", drain, filled.rate)

    def _pipeline(self, feed: Feed, filled: Filled) -> Run:
        """A worker drains the flow's topic, then the oracle judges all of its output."""
        pipeline = feed.pipeline
        port = free_port()
        with self._worker(pipeline, f"worker-{pipeline.name}.log", port) as subject:
            drain = self._drain(subject, pipeline.group, pipeline.source, filled.events)
            seconds = operator_seconds(port)
            self._await_windows(pipeline, filled.newest_ms)
            self._await_idle_release(pipeline)
        run = self._run(f"bench-{pipeline.name}", drain, filled.rate)
        micros = {name: 1e6 * value / drain.events for name, value in seconds.items()}
        # What no operator accounts for: consuming, columns, producing, transactions, the interpreter between them.
        # Operators are timed by the clock, so that this falls short where the machine is busy with other things.
        micros["rest"] = max(0.0, 1e6 / drain.events_per_cpu_second - sum(micros.values()))
        run.operators_us_per_event = {name: round(value, 3) for name, value in micros.items()}
        run.oracle = self._judge(pipeline).as_dict()
        return run

    def _recovery(self, filled: Filled) -> Iterator[Run]:
        """The worker that has drained the topic starts again: with its state, then without."""
        port = free_port()

        def start(log: str) -> Subject:
            return self._worker(self._gps.pipeline, log, port)

        yield from self._recoveries("bench", filled.events, start, port, self.folders.data / "worker")

    def _recoveries(
        self, bench: str, events: int, start: Callable[[str], Subject], port: int, data_dir: Path
    ) -> Iterator[Run]:
        """A worker that has drained `events` starts with the state in `data_dir`, then without.

        `start` gets the name of the worker's log.
        """
        url = f"http://127.0.0.1:{port}/metrics"
        with self._task("starting again with local state", None):
            found = measure_restart(lambda: start(f"worker-{bench}-restart.log"), url, READY_S_MAX)
        yield self._recovery_run(f"{bench}-restart", events, found)
        with self._task("starting again from Kafka alone", None):
            found = measure_restore(lambda: start(f"worker-{bench}-restore.log"), url, data_dir, READY_S_MAX)
        yield self._recovery_run(f"{bench}-restore", events, found)

    def _recovery_run(self, scenario: str, events: int, found: Recovery) -> Run:
        return Run(
            scenario=scenario,
            partitions=self.options.partitions,
            workers=1,
            events=events,
            rss_mb_max=found.rss_mb,
            ready_s=found.ready_s,
            restored_rows=found.rows,
            restored_rows_per_s=found.rows_per_s,
        )

    def _judge(self, pipeline: Pipeline, *, all_closed: bool = True) -> Report:
        with self._task("the oracle judges", self.options.partitions) as update:
            report = check_by_partition(
                self.bootstrap,
                self.settings.schema_registry_url,
                Topics.of_pipeline(pipeline.name, pipeline.prefix),
                Limits.of_settings(self.settings),
                all_closed=all_closed,
                on_progress=lambda done, _of: update(done),
            )
        self.oracles[pipeline.name] = report
        return report

    def _worker(self, pipeline: Pipeline, log: str, port: int, environment: Mapping[str, str] | None = None) -> Subject:
        variables = {"STREAMS_IDLE_MS": str(IDLE_MS), **(environment or {})}
        data_dir = self.folders.data / "worker"
        return worker(self.settings, pipeline.name, data_dir, port, self.folders.logs / log, variables)

    def _await_windows(self, pipeline: Pipeline, newest_ms: int) -> None:
        """The last windows close when the watermark has come to their end, at the pace of the clock."""
        windows = windows_of(pipeline)
        if windows:
            behind_ms = self.settings.streams_lateness_ms + IDLE_MS + WATERMARK_MS_MAX
            with self._task("waiting for the last windows to close", None):
                time.sleep((open_ms(windows, newest_ms) + behind_ms) / 1000)

    def _await_idle_release(self, pipeline: Pipeline) -> None:
        """A drained partition still holds its last events; they leave at the pace of the clock after `IDLE_MS`."""
        quiet_s = (self.settings.streams_lateness_ms + IDLE_MS) / 1000 + 3
        topics = [pipeline.clean, pipeline.late, pipeline.dlq]
        topics += [window.topic for window in getattr(pipeline, "windows", ())]
        with self._task("waiting for the idle release", None):
            wait_until_quiet(lambda: self.offsets.end(*topics), quiet_s, timeout_s=READY_S_MAX)

    def _faust(self) -> Run:
        events, partitions = self.options.faust_events, self.options.partitions
        for topic in ("bench.faust", "bench.faust.out"):
            self.offsets.create(topic, partitions)
        for table in ("seen", "vehicles"):
            # Faust would create its changelogs too, but on a fresh broker its agent does not wait until they are there.
            self.offsets.create(f"bench.faust-{table}-changelog", partitions, {"cleanup.policy": "compact"})
        filled = self._fill(self._gps, "bench.faust", events, "filling a share of it for Faust")
        environment = {
            "BASELINE_BOOTSTRAP": self.bootstrap,
            "BASELINE_ID": "bench.faust",
            "BASELINE_PARTITIONS": str(partitions),
            "BASELINE_DATA_DIR": str(self.folders.data / "faust"),
            "BASELINE_SOURCE": "bench.faust",
            "BASELINE_TARGET": "bench.faust.out",
            "BASELINE_SCHEMA": self._gps.schema,
            "BASELINE_SCHEMA_ID": str(self._gps.schema_id),
        }
        arguments = ["-m", "loadtest.baselines.faust_baseline", "worker", "-l", "info"]
        log = self.folders.logs / "faust.log"
        with Subject("Faust", arguments, log, environment=environment, ready_line="Worker ready") as subject:
            drain = self._drain(subject, "bench.faust", "bench.faust", events)
        return self._run("bench-faust", drain, filled.rate)

    def _latency(self) -> Run:
        pipeline, partitions = self._gps.pipeline, self.options.partitions
        port = free_port()
        with self._worker(pipeline, "worker-latency.log", port, {"STREAMS_LATENESS_MS": "0"}) as subject:
            wait_until_ready(subject, READY_S_MAX)
            cpu_before_s, rss_before_mb = subject.usage()
            shape = FleetShape(
                devices=LATENCY_EVENTS_PER_S,
                start_ms=int(time.time() * 1000) + LATENCY_LEAD_MS,
                schema=self._gps.schema,
                schema_id=self._gps.schema_id,
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
                    schema=self._gps.schema,
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

    def _memory(self) -> Run:
        """Steady traffic with many duplicates, and ids that are remembered for a minute only."""
        pipeline, partitions = self._gps.pipeline, self.options.partitions
        port = free_port()
        horizon = {"STREAMS_DEDUP_HORIZON_MS": str(MEMORY_HORIZON_MS)}
        address = self.settings.connection_environment()
        arguments = ["-m", "loadtest.generator", "--any-topic", "--rate", str(MEMORY_EVENTS_PER_S)]
        arguments += ["--seed", str(self.options.seed)]
        for kind in ("immediate", "delayed"):
            arguments += [f"--duplicate-{kind}", str(MEMORY_DUPLICATES / 2)]
        seconds = self.options.memory_s
        with self._worker(pipeline, "worker-memory.log", port, horizon) as subject:
            wait_until_ready(subject, READY_S_MAX)
            cpu_before_s, _ = subject.usage()
            with (
                Subject("generator", arguments, self.folders.logs / "generator.log", environment=address) as sender,
                self._task("watching memory", seconds + MEMORY_WARM_UP_S) as update,
            ):
                memory = watch_memory(subject, sender, seconds, on_progress=update)
            events = self.offsets.end(pipeline.source)
            cpu_used_s = subject.usage()[0] - cpu_before_s
            self._drain(subject, pipeline.group, pipeline.source, events)
            self._await_idle_release(pipeline)
        self.settings = self.settings.model_copy(update={"streams_dedup_horizon_ms": MEMORY_HORIZON_MS})
        report = self._judge(pipeline, all_closed=False)
        return Run(
            scenario="bench-memory",
            partitions=partitions,
            workers=1,
            events=events,
            publish_rate=events / (seconds + MEMORY_WARM_UP_S),
            cpu_seconds_per_million=cpu_used_s / events * 1e6,
            rss_mb_max=max(memory.rss_mb),
            events_per_cpu_second=events / max(cpu_used_s, 0.01),
            oracle=report.as_dict(),
            rss_mb_by_minute=memory.by_minute(),
            rss_spread=memory.spread(),
        )


def open_ms(windows: Sequence[Window], newest_ms: int) -> int:
    """Event time from an event at `newest_ms` until all windows that it is in have closed, grace included."""
    return max(window.size_ms - newest_ms % window.size_ms + int(getattr(window, "grace_ms", 0)) for window in windows)


def windows_run(run: Run, report: Report) -> Run:
    """The drain of positions, as far as windows are concerned: they are made in that very run."""
    micros = (run.operators_us_per_event or {}).get(WINDOWS_OPERATOR, 0.0)
    return replace(
        run,
        scenario="bench-windows",
        operators_us_per_event={WINDOWS_OPERATOR: micros},
        window_rows=report.window_rows,
    )
