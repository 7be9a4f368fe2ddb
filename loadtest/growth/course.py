"""The course of the measurement: traffic, the growth in its middle, more traffic, and the verdict over all of it."""

import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from loadtest.cluster import Cluster, fresh_topics
from loadtest.crew import Crew, crew
from loadtest.generator.plan import DEVICES_MAX
from loadtest.generator.target import PREFIX
from loadtest.generators import Generators
from loadtest.growth.oracle import Verdict, judge
from loadtest.growth.progress import GrowingProgress
from loadtest.growth.visible import VisibleEvents
from loadtest.plan import Plan, Point, Work
from loadtest.sampler import Role, Sampler, Series
from loadtest.stage import LEAD_S, READY_S_MAX, Progress, Stage
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.grow.admin import GrowthAdmin
from streams.grow.found import Found
from streams.grow.run import Event, GrowthRun
from streams.settings import Settings

SHARE: Final = 0.6
"""Rate before and during the growth, as a share of what the partitions before it let through."""
TIMES: Final = 3
"""Rate after the growth, as a multiple of the rate before it."""
OVERLOAD: Final = 1.2
DURING: Final = 3
"""So many times as long as the time before lasts the time that is called during the growth."""
IDLE_MS: Final = 3_000
QUIET_MS: Final = 20_000
"""More than the generators' `topic.metadata.refresh.interval.ms`; the product's own default is ten minutes."""
OVER_S_MAX: Final = 180.0
FORWARDED: Final = "streams_growth_forwarded_total"
KEYS_MOVED: Final = "streams_growth_keys_moved_total"
IN_TIME: Final = (
    "--late", "0", "--buffered", "0", "--newest-first", "0", "--skewed", "0", "--not-framed", "0", "--unknown-schema",
    "0", "--malformed", "0", "--incompatible-schema", "0", "--invalid", "0", "--key-mismatch", "0",
    "--future-timestamp", "0", "--too-large", "0",
)  # fmt: skip
"""Nothing is late or rejected by itself: what is, is so by the growth."""


@dataclass(slots=True)
class Stretch:
    """What was noticed in a part of the time."""

    name: str
    from_ms: float
    until_ms: float
    sent_rate: float = 0.0
    consumed_rate: float = 0.0
    lag_max: int = 0
    latency_ms: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the stretch as an object of the report's JSON."""
        return {
            "name": self.name, "seconds": (self.until_ms - self.from_ms) / 1000, "sent_rate": self.sent_rate,
            "consumed_rate": self.consumed_rate, "lag_max": self.lag_max, "latency_ms": self.latency_ms,
        }  # fmt: skip


@dataclass(slots=True)
class GrowthFigures:
    """Everything that the measurement has shown. Rates are records per second."""

    before: int
    after: int
    workers: int
    rate_before_max: float = 0.0
    """What was consumed when more came than could be, before the growth, and after it."""
    rate_after_max: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    pause_ms_max: float = 0.0
    """The longest that a record of any key was visible later than half of them were before the growth."""
    keys_moved: int = 0
    forwarded: int = 0
    steps: list[tuple[float, str]] = field(default_factory=list)
    """When the command came to which step, in milliseconds since 1970."""
    verdict: Verdict = field(default_factory=Verdict)
    series: Series = field(default_factory=Series)
    course: list[tuple[float, float, float]] = field(default_factory=list)
    """For each second of the time around the growth: when, and median and longest latency of what was due then."""
    began_ms: float = 0.0
    sampling_began_ms: float = 0.0
    """When the samples' clock was at 0, in milliseconds since 1970."""
    incidents: list[str] = field(default_factory=list)

    def sampled_at_s(self, wall_ms: float) -> float:
        """A time of day on the samples' clock."""
        return (wall_ms - self.sampling_began_ms) / 1000

    @property
    def gain(self) -> float:
        """How many times as much is consumed after the growth."""
        return self.rate_after_max / self.rate_before_max if self.rate_before_max else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as the report's object `growth`."""
        return {
            "partitions": [self.before, self.after], "workers": self.workers,
            "rate_before_max": round(self.rate_before_max, 1), "rate_after_max": round(self.rate_after_max, 1),
            "gain": round(self.gain, 2), "pause_ms_max": round(self.pause_ms_max), "keys_moved": self.keys_moved,
            "forwarded": self.forwarded, "stretches": [one.as_dict() for one in self.stretches],
            "steps": [{"at_ms": round(at - self.began_ms), "step": step} for at, step in self.steps],
            "oracle": self.verdict.as_dict(), "incidents": self.incidents,
        }  # fmt: skip


class GrowthMeasurement:
    """Measures one growth of one flow on one cluster."""

    def __init__(
        self, cluster: Cluster, plan: Plan, before: int, after: int, name: str, scratch: Path, logs: Path
    ) -> None:
        self._cluster, self._scratch, self._logs = cluster, scratch, logs
        self._plan = replace(plan, mix=(*IN_TIME, *plan.mix), partitions=(before,))
        self._prefix = f"{PREFIX}{name}."
        self._found = GrowthFigures(before, after, next(iter(plan.workers), 2))

    def run(self, progress: Progress) -> GrowthFigures:
        """Measure, then judge.

        Raises:
            StreamsError: it could not be measured; the message says why.

        """
        found, plan = self._found, self._plan
        topics = fresh_topics(self._cluster.settings, plan.pipeline, self._prefix, found.before, keep=False)
        with topics as (beside, pipeline), ExitStack() as cleanup:
            settings = beside.model_copy(update={"streams_lateness_ms": plan.lateness_ms})
            cleanup.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            group = GrowingProgress(settings, group=pipeline.group, topic=pipeline.source, partitions=found.after)
            cleanup.callback(group.close)
            sampler = cleanup.enter_context(Sampler(group))
            if self._cluster.broker_pid is not None:
                sampler.watch("broker", Role.BROKER, self._cluster.broker_pid)
            sampler.watch("load test", Role.HARNESS, psutil.Process().pid)
            point = Point(Work.DOWNSTREAM, found.before, found.workers)
            stage = Stage(plan, point, settings, pipeline, sampler, self._scratch, self._logs, progress, 0)
            with self._workers(settings, pipeline, sampler) as workers:
                stage.wait_ready(workers)
                found.rate_before_max = self._saturated(stage, workers, found.before)
                self._grow(stage, workers, settings, pipeline)
                found.rate_after_max = self._saturated(stage, workers, found.after)
                time.sleep((plan.lateness_ms + 3 * IDLE_MS) / 1000)  # idle partitions let go of what they hold
                stage.wait_drained(workers, "idle")
                found.forwarded = int(workers.total(FORWARDED))
                found.keys_moved = int(workers.total(KEYS_MOVED))
                found.incidents = workers.incidents
            found.series, found.sampling_began_ms = sampler.series, -sampler.at_s(0.0) * 1000
            progress("the oracle judges", 0.0)
            found.verdict = judge(settings, pipeline)
        return found

    def _workers(self, settings: Settings, pipeline: Pipeline, sampler: Sampler) -> Any:
        plan = self._plan
        environment = {
            "STREAMS_LATENESS_MS": str(plan.lateness_ms), "STREAMS_IDLE_MS": str(IDLE_MS),
            "STREAMS_GROUP_STATIC": "false", "STREAMS_GROWTH_QUIET_MS": str(QUIET_MS),
        }  # fmt: skip
        downstream = ["--downstream-ms", str(plan.downstream_ms)]
        downstream += ["--downstream-records", str(plan.downstream_records)]
        return crew(
            settings, pipeline.name, self._found.workers, environment, downstream, data=self._scratch,
            logs=self._logs, sampler=sampler,
        )  # fmt: skip

    def _saturated(self, stage: Stage, workers: Crew, partitions: int) -> float:
        """What is consumed of more than can be."""
        length = self._plan.length
        rate = self._plan.downstream_rate(partitions) * OVERLOAD
        with self._traffic(stage, rate, length.warm_up_s + length.seconds) as traffic:
            began_s = stage.sampler.now_s()
            self._wait(stage, workers, [traffic], f"{rate:,.0f} records/s for {partitions} partitions")
            ended_s = stage.sampler.now_s()
        consumed = stage.sampler.series.between(began_s + LEAD_S + length.warm_up_s, ended_s).rate()
        stage.wait_drained(workers, "draining")
        return consumed

    def _grow(self, stage: Stage, workers: Crew, settings: Settings, pipeline: Pipeline) -> None:
        plan, found = self._plan, self._found
        seconds = plan.length.seconds
        base = plan.downstream_rate(found.before) * SHARE
        whole_s, more_s = (2 + DURING) * seconds, seconds
        with ExitStack() as cleanup:
            visible = cleanup.enter_context(VisibleEvents(settings, pipeline.clean))
            traffic = cleanup.enter_context(self._traffic(stage, base, whole_s, awaits=True))
            more = cleanup.enter_context(self._traffic(stage, (TIMES - 1) * base, more_s, awaits=True))
            self._until_ready(stage, workers, [traffic, more])
            begins_ms = round((time.time() + LEAD_S) * 1000)
            begin(traffic, begins_ms)
            begin(more, begins_ms + round((1 + DURING) * seconds * 1000))
            found.began_ms = begins_ms
            self._until(begins_ms + seconds * 1000, stage, workers, "before the growth")
            command = _Command(settings, pipeline, found.after, found.steps)
            self._wait(stage, workers, [traffic, more], "the growth")
            stage.wait_drained(workers, "draining")
            command.wait()
            time.sleep((plan.lateness_ms + 2 * IDLE_MS) / 1000)
            self._describe(stage, visible, begins_ms, seconds)

    def _describe(self, stage: Stage, visible: VisibleEvents, begins_ms: float, seconds: float) -> None:
        found = self._found
        moments = [begins_ms + share * seconds * 1000 for share in (0, 1, 1 + DURING, 2 + DURING)]
        for name, from_ms, until_ms in zip(("before", "during", "after"), moments, moments[1:], strict=False):
            series = stage.sampler.series.between(stage.sampler.at_s(from_ms), stage.sampler.at_s(until_ms))
            _, latency = visible.latencies_ms(from_ms, until_ms)
            found.stretches.append(
                Stretch(
                    name, from_ms, until_ms, round(series.arrival_rate(), 1), round(series.rate(), 1),
                    series.lag_max(), percentiles(latency),
                )
            )  # fmt: skip
        usual = found.stretches[0].latency_ms.get("p50", 0.0)
        due, latency = visible.latencies_ms(moments[1], moments[3])
        found.pause_ms_max = float(latency.max(initial=usual) - usual)
        due, latency = visible.latencies_ms(moments[0], moments[3])
        second = ((due - begins_ms) // 1000).astype(np.int64)
        found.course = [
            (float(one), float(np.median(mine)), float(mine.max()))
            for one in np.unique(second).tolist()
            if len(mine := latency[second == one])
        ]

    def _traffic(self, stage: Stage, rate: float, seconds: float, *, awaits: bool = False) -> Any:
        arguments = [*(["--await-start"] if awaits else []), "--rate", str(max(1, round(rate)))]
        return stage.traffic(*arguments, "--seconds", str(seconds), devices=min(DEVICES_MAX, max(60, round(rate))))

    def _wait(self, stage: Stage, workers: Crew, traffic: list[Generators], what: str) -> None:
        while any([one.running() for one in traffic]):  # noqa: C419 - all are asked, not the first that runs
            workers.look()
            stage.progress(what, 0.0)
            time.sleep(0.1)
        for one in traffic:
            one.result()

    def _until(self, wall_ms: float, stage: Stage, workers: Crew, what: str) -> None:
        while (left_s := wall_ms / 1000 - time.time()) > 0:
            workers.look()
            stage.progress(what, 0.0)
            time.sleep(min(0.1, left_s))

    def _until_ready(self, stage: Stage, workers: Crew, traffic: list[Generators]) -> None:
        deadline_s = time.monotonic() + READY_S_MAX
        while not all(one.are_ready() for one in traffic):
            workers.look()
            stage.progress("starting generators", 0.0)
            if time.monotonic() > deadline_s:
                raise StreamsError(f"the generators were not ready within {READY_S_MAX:.0f} s")
            time.sleep(0.1)


class _Command:
    """`streams topics grow`, in a thread."""

    def __init__(self, settings: Settings, pipeline: Pipeline, partitions: int, steps: list[tuple[float, str]]) -> None:
        self._steps, self._failure = steps, ""
        self._settings, self._pipeline, self._partitions = settings, pipeline, partitions
        self._thread = threading.Thread(target=self._run, name="grow", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the growth is over.

        Raises:
            StreamsError: it was refused, or is not over in time.

        """
        self._thread.join(OVER_S_MAX)
        if self._failure or self._thread.is_alive():
            last = self._steps[-1][1] if self._steps else "nothing"
            raise StreamsError(f"the growth did not come to its end: {self._failure or 'too slow'}; last: {last}")

    def _run(self) -> None:
        try:
            with GrowthAdmin(self._settings, self._pipeline) as admin:
                GrowthRun(admin, self._partitions, self._tell, time.sleep, time.monotonic).run()
        except StreamsError as error:
            self._failure = str(error)

    def _tell(self, event: Event, _: Found | None) -> None:
        self._steps.append((time.time() * 1000, repr(event)[:200]))


def begin(traffic: Generators, start_ms: int) -> None:
    """Tell generators when their first record is due; none is measured by themselves."""
    traffic.begin(start_ms=start_ms, count_from_ms=start_ms, count_until_ms=start_ms + 1)


def percentiles(latency_ms: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[str, float]:
    """The usual ones; none where there is nothing."""
    if not len(latency_ms):
        return {}
    shares: Mapping[str, float] = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9, "max": 100}
    return {name: round(float(np.percentile(latency_ms, share)), 1) for name, share in shares.items()}
