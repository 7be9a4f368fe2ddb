"""The worker and other stream processors, each draining the same traffic alone, one after the other."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import loadtest
from loadtest.baselines.kafka_streams.build import MAIN, built
from loadtest.baselines.steady import WARM_UP_S, measure_steady
from loadtest.comparison import EVENTS_PER_TICK, READY_S_MAX, Bench
from loadtest.fleet import Fleet, FleetShape
from loadtest.latency import LIVE_PREFIX
from loadtest.parts import Part
from loadtest.report import Run
from loadtest.subject import Drain, Subject, wait_until_ready
from loadtest.worker import free_port
from streams.errors import StreamsError
from streams.local.artifacts import java
from streams.local.progress import Silent

CHECKOUT: Final = Path(loadtest.__file__).resolve().parent.parent
QUIX_PYTHON: Final = CHECKOUT / ".local" / "baselines" / "quix" / "bin" / "python"
QUIX: Final = "bench.quix"
KAFKA_STREAMS: Final = "bench.kafka-streams"
STEADY_EVENTS_PER_S: Final = 10_000
STEADY_LEAD_MS: Final = 3_000
UNIQUE_SHARE_MIN: Final = 0.93
"""Share of the traffic that is not a copy of another record."""
JVM_OPTIONS: Final = ("-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
"""The heap is fixed, and the collector is the one with the most throughput."""


def find_quix() -> Path:
    """The interpreter of Quix Streams' own environment.

    Raises:
        StreamsError: there is none.

    """
    if not QUIX_PYTHON.is_file():
        raise StreamsError(f"{QUIX_PYTHON} is missing: `make loadtest-baselines` makes the environment of Quix Streams")
    return QUIX_PYTHON


@dataclass(slots=True)
class Half:
    """Notes when a drain has passed its middle, and what it had taken by then."""

    subject: Subject
    middle: int
    passed: tuple[int, float, float] | None = None
    """Events, CPU seconds, and the time."""

    def note(self, done: int) -> None:
        """Look how far it is."""
        if self.passed is None and done >= self.middle:
            self.passed = done, self.subject.usage()[0], time.monotonic()


class Compared(Bench):
    """A bench with steady traffic, and with Kafka Streams doing the same work."""

    def runs(self) -> Iterator[Run]:
        """Measure part after part; each result as soon as it is there."""
        yield from super().runs()
        if Part.STEADY in self.options.parts:
            yield self._steady_worker()
        if Part.KAFKA_STREAMS in self.options.parts:
            yield from self._kafka_streams()

    def _steady_worker(self) -> Run:
        """The worker that has drained its topic, started again."""
        pipeline = self._gps.pipeline
        with self._worker(pipeline, "worker-steady.log", free_port()) as subject:
            wait_until_ready(subject, READY_S_MAX)
            return self._steady(subject, pipeline.group, pipeline.source, "bench-steady")

    def _kafka_streams(self) -> Iterator[Run]:
        """A drain from its start, its second half (compiled by then), and steady traffic for the same process."""
        target = f"{KAFKA_STREAMS}.out"
        for topic in (KAFKA_STREAMS, target, *(f"{target}.{part}" for part in ("late", "rejects", "state"))):
            self.offsets.create(topic, self.options.partitions)
        with self._task("making Kafka Streams ready", None):
            class_path = built(Silent())
        filled = self._fill(self._gps, KAFKA_STREAMS, self.options.events, "filling the topic for Kafka Streams")
        environment = {
            "BASELINE_BOOTSTRAP": self.bootstrap,
            "BASELINE_ID": KAFKA_STREAMS,
            "BASELINE_DATA_DIR": str(self.folders.data / "kafka-streams"),
            "BASELINE_SOURCE": KAFKA_STREAMS,
            "BASELINE_TARGET": target,
            "BASELINE_SCHEMA_ID": str(self._gps.schema_id),
            "BASELINE_LATENESS_MS": str(self.settings.streams_lateness_ms),
            "BASELINE_COMMIT_INTERVAL_MS": str(self.settings.streams_commit_interval_ms),
            "BASELINE_THREADS": "1",
        }
        arguments = [*JVM_OPTIONS, "-cp", os.pathsep.join(map(str, class_path)), MAIN]
        with Subject(
            "Kafka Streams",
            arguments,
            self.folders.logs / "kafka-streams.log",
            environment=environment,
            ready_line="ready",
            python=java(),
        ) as subject:
            half = Half(subject, self.options.events // 2)
            drain = self._drain(subject, KAFKA_STREAMS, KAFKA_STREAMS, self.options.events, on_progress=half.note)
            ended = subject.usage()[0], time.monotonic()
            self._check_written(target)
            yield self._run("bench-kafka-streams", drain, filled.rate)
            yield self._run("bench-kafka-streams-warm", second_half(drain, half, *ended), filled.rate)
            if self.options.steady_s:
                yield self._steady(subject, KAFKA_STREAMS, KAFKA_STREAMS, "bench-steady-kafka-streams")

    def _check_written(self, target: str) -> None:
        """A program that lost its events would be a cheap one."""
        held_max = 2 * EVENTS_PER_TICK * self.settings.streams_lateness_ms // 1000
        written = self.offsets.end(target, f"{target}.late", f"{target}.rejects")
        if written < self.options.events * UNIQUE_SHARE_MIN - held_max:
            raise StreamsError(f"Kafka Streams has written {written:,} of {self.options.events:,} events")

    def _steady(self, subject: Subject, group: str, topic: str, scenario: str) -> Run:
        shape = FleetShape(
            devices=STEADY_EVENTS_PER_S,
            start_ms=int(time.time() * 1000) + STEADY_LEAD_MS,
            schema=self._gps.schema,
            schema_id=self._gps.schema_id,
            delay_ms_max=0,
            device_prefix=LIVE_PREFIX,
        )
        events = STEADY_EVENTS_PER_S * (self.options.steady_s + WARM_UP_S)
        batches = list(Fleet(self.options.seed, shape).batches(events))
        with self._task(f"{subject.name} at {STEADY_EVENTS_PER_S:,} events/s", None):
            found = measure_steady(
                subject,
                lambda: self.offsets.committed(group, topic),
                self.bootstrap,
                topic,
                batches,
                seconds=self.options.steady_s,
            )
        return Run(
            scenario=scenario,
            partitions=self.options.partitions,
            workers=1,
            events=found.events,
            publish_rate=STEADY_EVENTS_PER_S,
            consume_rate=found.events / self.options.steady_s,
            cpu_seconds_per_million=found.cpu_s / max(found.events, 1) * 1e6,
            rss_mb_max=found.rss_mb,
            events_per_cpu_second=found.events / max(found.cpu_s, 0.01),
            steady_s=self.options.steady_s,
        )


class Baselines(Compared):
    """One invocation on one stack: the worker, Kafka Streams, Faust, Quix Streams, as far as they are asked for."""

    def __init__(self, *arguments: object, quix_events: int, scenarios: frozenset[str]) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # those of a bench
        self._quix_events = quix_events
        self._scenarios = scenarios

    def runs(self) -> Iterator[Run]:
        """Measure one after the other; each result as soon as it is there."""
        if "worker" in self._scenarios:
            filled = self._fill(self._gps, self._gps.pipeline.source, self.options.events, "filling the topic")
            yield self._pipeline(self._gps, filled)
            if self.options.steady_s:
                yield self._steady_worker()
        if "kafka-streams" in self._scenarios:
            yield from self._kafka_streams()
        if "faust" in self._scenarios:
            yield self._faust()
        if "quix" in self._scenarios:
            yield self._quix()

    def _quix(self) -> Run:
        for topic in (QUIX, f"{QUIX}.out"):
            self.offsets.create(topic, self.options.partitions)
        filled = self._fill(self._gps, QUIX, self._quix_events, "filling a share of it for Quix Streams")
        environment = {
            "BASELINE_BOOTSTRAP": self.bootstrap,
            "BASELINE_ID": QUIX,
            "BASELINE_DATA_DIR": str(self.folders.data / "quix"),
            "BASELINE_SOURCE": QUIX,
            "BASELINE_TARGET": f"{QUIX}.out",
            "BASELINE_SCHEMA": self._gps.schema,
            "BASELINE_SCHEMA_ID": str(self._gps.schema_id),
            "PYTHONPATH": str(CHECKOUT),
        }
        with Subject(
            "Quix Streams",
            ["-m", "loadtest.baselines.quix_baseline"],
            self.folders.logs / "quix.log",
            environment=environment,
            ready_line="now processing incoming messages",
            python=find_quix(),
        ) as subject:
            drain = self._drain(subject, QUIX, QUIX, self._quix_events)
        return self._run("bench-quix", drain, filled.rate)


def second_half(drain: Drain, half: Half, cpu_s: float, at_s: float) -> Drain:
    """The part of a drain after its middle: what a program does that has been running for a while."""
    done, cpu_then_s, then_s = half.passed or (0, 0.0, 0.0)
    events = drain.events - done
    return replace(
        drain,
        events=events,
        events_per_second=events / max(at_s - then_s, 0.01),
        events_per_cpu_second=events / max(cpu_s - cpu_then_s, 0.01),
    )
