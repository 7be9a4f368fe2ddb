"""What the drives of a load test work with: workers, generators, and the clock of the samples."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadtest.crew import Crew, crew
from loadtest.fleet import SOURCES, Fleet, fill_topic
from loadtest.fleet.mix import NOTHING, Bounds, Size, shape_of
from loadtest.generator.plan import DEVICES_MAX as OPEN_LOOP_DEVICES_MAX
from loadtest.generator.target import find_schemas
from loadtest.generators import Generators, Sent, generators
from loadtest.oracle.windows import Window, windows_of
from loadtest.plan import Plan, Point, Work
from loadtest.sampler import INTERVAL_S, Sampler, Series
from loadtest.visible import Measured, Skewed, VisibleLatency
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.settings import Settings

LEAD_S: Final = 3.0
"""For generators that are ready, to make their first records."""
VISIBLE_S_MAX: Final = 15.0
"""Beyond lateness and the fastest clock; for a machine that is busy."""
CLOSING_DEVICES: Final = 60
"""For each partition: none is left without an event."""
CLOSING_TICK_MS: Final = 1
"""All at the same time: none of them is due because of another one."""
CLOSING_MARGIN_MS: Final = 5_000
NEVER_IDLE_MS: Final = 86_400_000
"""A partition whose sender is held up is not idle, or its records would be late for that: results must not depend on
how busy this machine is."""
READY_S_MAX: Final = 120.0
STALL_S_MAX: Final = 60.0

Progress = Callable[[str, float], None]
"""What is being done, and how much of it is, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Span:
    """Traffic to be sent: when, how much, and which of it is measured. Times are in seconds."""

    rate: float
    after_s: float
    """From the first due time of all."""
    warm_up_s: float
    seconds: float
    is_measured: bool = True
    """Otherwise it lies within another one, and its records are counted with that one's."""

    @property
    def ends_s(self) -> float:
        """When it is over, from the first due time of all."""
        return self.after_s + self.warm_up_s + self.seconds


def in_turn(rates: Sequence[float], *, warm_up_s: float, seconds: float) -> list[Span]:
    """One rate after the other, without a pause."""
    return [Span(rate, number * (warm_up_s + seconds), warm_up_s, seconds) for number, rate in enumerate(rates)]


@dataclass(slots=True)
class OpenLoop:
    """Traffic at one rate that waits for nobody, and what was measured of it after its warm-up."""

    span: Span
    traffic: Generators
    prefix: str
    """Prefix that the keys of this traffic's devices have."""
    from_ms: int = 0
    until_ms: int = 0
    measured: Measured | None = None
    keep_apart: Callable[[Skewed], None] | None = None
    sent: Sent | None = None
    series: Series = field(default_factory=Series)

    def begin(self, first_ms: int, visible: VisibleLatency | None) -> None:
        """Say when: `first_ms` is the time of day at which the first record of all spans is due."""
        start_ms = first_ms + round(self.span.after_s * 1000)
        self.from_ms = start_ms + round(self.span.warm_up_s * 1000)
        self.until_ms = self.from_ms + round(self.span.seconds * 1000)
        if visible is not None:
            self.measured = visible.measure(self.from_ms, self.until_ms) if self.span.is_measured else None
            self.keep_apart = visible.keep_apart
        self.traffic.begin(start_ms=start_ms, count_from_ms=self.from_ms, count_until_ms=self.until_ms)

    @property
    def rate(self) -> float:
        """Return the rate that was asked for, in events per second."""
        return self.span.rate

    @property
    def due(self) -> int:
        """Measured records that must become visible."""
        return self.traffic.due if self.sent is None else self.sent.due

    @property
    def counted(self) -> int:
        """Measured records that have become visible."""
        return 0 if self.measured is None else self.measured.counted

    def progress(self, now_ms: float) -> float:
        """How much of the measured stretch is over."""
        return max(0.0, (now_ms - self.from_ms) / (self.until_ms - self.from_ms))

    def look(self) -> None:
        """Notice a generator that has failed; learn which of its devices have wrong clocks.

        Raises:
            StreamsError: one has failed.

        """
        self.traffic.running()
        if self.keep_apart is not None and (skewed := self.traffic.skewed(self.prefix)) is not None:
            self.keep_apart(skewed)
            self.keep_apart = None


class Stage:
    """Runs workers and traffic for the measurement of one point."""

    def __init__(
        self,
        plan: Plan,
        point: Point,
        settings: Settings,
        pipeline: Pipeline,
        sampler: Sampler,
        scratch: Path,
        logs: Path,
        progress: Progress,
        events: int,
    ) -> None:
        self.plan = plan
        self.point = point
        self.settings = settings
        self.pipeline = pipeline
        self.sampler = sampler
        self.progress = progress
        self.events = events
        """Number of events, where the point is measured by a drain."""
        self._scratch = scratch
        self._logs = logs
        self._phase = 0

    @property
    def _prefix(self) -> str:
        """Prefix that the keys of the newest traffic's devices have."""
        return f"{self._phase}-"

    @contextmanager
    def workers(self) -> Iterator[Crew]:
        """Workers, started; stopped when the block is left."""
        plan = self.plan
        environment = {
            "STREAMS_LATENESS_MS": str(plan.lateness_ms),
            "STREAMS_IDLE_MS": str(NEVER_IDLE_MS),
            "STREAMS_SKEW_MS_MAX": str(self.settings.streams_skew_ms_max),
            "STREAMS_GROUP_STATIC": "false",  # a static member outlives its worker by a session, and the group with it
        }
        additions = ["--defect", plan.defect] if plan.defect else []
        if self.point.work is Work.DOWNSTREAM:
            additions += ["--downstream-ms", str(plan.downstream_ms)]
            additions += ["--downstream-records", str(plan.downstream_records)]
        with crew(
            self.settings,
            self.pipeline.name,
            self.point.workers,
            environment,
            additions,
            data=self._scratch,
            logs=self._logs,
            sampler=self.sampler,
        ) as found:
            yield found

    @contextmanager
    def traffic(self, *arguments: str, devices: int) -> Iterator[Generators]:
        """Generators with the plan's mix, each call with devices of its own, about so many."""
        plan, settings = self.plan, self.settings
        self._phase += 1
        common = [
            *("--pipeline", plan.pipeline, "--topic", self.pipeline.source),
            *("--seed", str(plan.seed * 1000 + self._phase), "--device-prefix", self._prefix),
            *("--clock-skew-ms-max", str(plan.length.clock_skew_ms_max)),
        ]
        environment = {
            **settings.connection_environment(),
            "STREAMS_LATENESS_MS": str(plan.lateness_ms),
            "STREAMS_SKEW_MS_MAX": str(settings.streams_skew_ms_max),
        }
        with generators(
            plan.generators,
            [*common, *plan.fleet_mix(devices), *arguments, *plan.mix],
            environment,
            self._logs,
            self.sampler,
        ) as found:
            yield found

    def wait_ready(self, workers: Crew) -> None:
        """Wait until every worker processes.

        Raises:
            StreamsError: none lives any more, or they are not ready in time.

        """
        deadline = time.monotonic() + READY_S_MAX
        while not workers.all_ready():
            self.progress("starting workers", 0.0)
            if time.monotonic() > deadline:
                raise StreamsError(f"the workers were not ready within {READY_S_MAX:.0f} s")
            time.sleep(0.2)

    def wait_drained(self, workers: Crew, what: str) -> float:
        """Wait until everything in the topic is committed; returns when, on the samples' clock.

        Raises:
            StreamsError: no progress for too long, or no worker is left.

        """
        done, moved_s = -1, time.monotonic()
        since_s = self.sampler.now_s()
        while True:
            time.sleep(INTERVAL_S)
            workers.look()
            sample = self.sampler.last
            if sample is not None and sample.at_s > since_s + INTERVAL_S:
                total = sample.done + sum(sample.lag)
                self.progress(what, sample.done / max(1, total))
                if not sum(sample.lag):
                    return sample.at_s
                if sample.done != done:
                    done, moved_s = sample.done, time.monotonic()
            if time.monotonic() - moved_s > STALL_S_MAX:
                behind = f"{sum(sample.lag):,} records behind" if sample else "nothing is known"
                raise StreamsError(f"no progress for {STALL_S_MAX:.0f} s, {behind}")

    def open_loops(self, workers: Crew, spans: Sequence[Span], *, is_timed: bool = True) -> list[OpenLoop]:
        """Send at the rate of each span in its time, without waiting for anyone; spans are in the order of `after_s`.

        With `is_timed` the one that ends last goes on until every measured record is out, or until none has come for
        as long as the event of the fastest clock waits, and some more.
        """
        last = max(spans, key=lambda span: span.ends_s)
        with ExitStack() as cleanup:
            visible = cleanup.enter_context(self._visible()) if is_timed else None
            loops = [self._prepare(cleanup, span, endless=is_timed and span is last) for span in spans]
            self._wait_prepared(workers, loops)
            first_ms = round((time.time() + LEAD_S) * 1000)
            for loop in loops:
                loop.begin(first_ms, visible)
            self._wait_until(first_ms + last.ends_s * 1000, workers, loops)
            if visible is not None:
                self._wait_visible(workers, loops)
                for loop in loops:
                    loop.traffic.stop()
            for loop in loops:
                loop.sent = loop.traffic.wait()
        for loop in loops:
            loop.series = self.sampler.series.between(self.sampler.at_s(loop.from_ms), self.sampler.at_s(loop.until_ms))
        return loops

    def _visible(self) -> VisibleLatency:
        return VisibleLatency(self.settings, self.pipeline, self.point.partitions)

    def _prepare(self, cleanup: ExitStack, span: Span, *, endless: bool) -> OpenLoop:
        """Generators that only wait to be told when to begin: whatever it took to start them is over by then."""
        arguments = ["--await-start", "--rate", str(max(1, round(span.rate)))]
        arguments += [] if endless else ["--seconds", str(span.warm_up_s + span.seconds)]
        devices = min(OPEN_LOOP_DEVICES_MAX, round(span.rate))
        return OpenLoop(span, cleanup.enter_context(self.traffic(*arguments, devices=devices)), self._prefix)

    def _wait_prepared(self, workers: Crew, loops: Sequence[OpenLoop]) -> None:
        deadline = time.monotonic() + READY_S_MAX
        while not all(loop.traffic.are_ready() for loop in loops):
            workers.look()
            for loop in loops:
                loop.look()
            self.progress("starting generators", 0.0)
            if time.monotonic() > deadline:
                raise StreamsError(f"the generators were not ready within {READY_S_MAX:.0f} s")
            time.sleep(0.1)

    def _wait_until(self, wall_ms: float, workers: Crew, loops: Sequence[OpenLoop]) -> None:
        """Wait for a time of day; the generators are watched meanwhile."""
        while (left_s := wall_ms / 1000 - time.time()) > 0:
            workers.look()
            for loop in loops:
                loop.look()
            under_way = [loop for loop in loops if loop.from_ms <= time.time() * 1000]
            if under_way:
                loop = under_way[-1]
                self.progress(f"{loop.rate:,.0f} events/s", min(1.0, loop.progress(time.time() * 1000)))
            time.sleep(min(0.1, left_s))

    def _wait_visible(self, workers: Crew, loops: Sequence[OpenLoop]) -> None:
        """Until every measured record is out, or none came for as long as the fastest clock can make one wait."""
        skew_s = self.plan.length.clock_skew_ms_max / 1000
        patience_s = skew_s + self.plan.lateness_ms / 1000 + VISIBLE_S_MAX
        counted, moved_s = -1, time.monotonic()
        while True:
            workers.look()
            for loop in loops:
                loop.look()
            now = sum(loop.counted for loop in loops)
            due = sum(loop.due for loop in loops)
            if now != counted:
                counted, moved_s = now, time.monotonic()
            is_said = all(loop.traffic.is_due_final for loop in loops)
            if (is_said and now >= due) or time.monotonic() - moved_s > patience_s:
                return
            self.progress("until the last measured record is out", now / max(1, due))
            time.sleep(0.1)

    def close_windows(self, workers: Crew) -> None:
        """Send events of a later time to every partition: all windows are over, and their rows are written.

        These events themselves are held by the workers until a later time still, and never come out.
        """
        windows = windows_of(self.pipeline)
        if not windows:
            return
        bounds = Bounds(
            self.settings.streams_lateness_ms, self.settings.streams_skew_ms_max, self.settings.streams_record_bytes_max
        )
        size = Size(
            devices=CLOSING_DEVICES * self.point.partitions,
            start_ms=round(time.time() * 1000) + closing_ms(self.plan, windows),
            tick_ms=CLOSING_TICK_MS,
            delay_ms_max=0,
            device_prefix="closing-",
        )
        schemas = find_schemas(self.settings, self.pipeline, newer=False, foreign=False)
        fleet = Fleet(self.plan.seed, shape_of(NOTHING, size, schemas, bounds), SOURCES[self.pipeline.name])
        self.progress("closing windows", 0.0)
        fill_topic(
            self.settings.kafka_bootstrap_servers,
            self.pipeline.source,
            fleet.batches(size.devices),
        )
        self.wait_drained(workers, "closing windows")


def closing_ms(plan: Plan, windows: Sequence[Window]) -> int:
    """How much later than now an event is after which every window is over, even one of the fastest clock."""
    longest_ms = max((window.size_ms + window.grace_ms for window in windows), default=0)
    return longest_ms + plan.length.clock_skew_ms_max + plan.lateness_ms + CLOSING_MARGIN_MS
