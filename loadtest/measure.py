"""One point of a load test: fresh topics and workers, traffic by the chosen drive, then the oracle's verdict."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from loadtest.bottleneck import Bottleneck, Load, judge
from loadtest.cluster import Cluster, fresh_topics
from loadtest.drives import DRIVES, Found
from loadtest.generator.target import PREFIX
from loadtest.oracle.check import Limits, Topics
from loadtest.oracle.compare import Report
from loadtest.oracle.parallel import check_by_partition
from loadtest.oracle.windows import windows_of
from loadtest.plan import Plan, Point, Work
from loadtest.progress import GroupProgress
from loadtest.report import Run
from loadtest.sampler import Role, Sample, Sampler, Series
from loadtest.stage import Progress, Stage, closing_ms
from loadtest.trial import Trial
from streams.flow.declaration import Pipeline
from streams.settings import Settings

SKEW_SPARE_MS: Final = 60_000
TIMESTAMP_AGE_MS: Final = 3_600_000
"""Outputs keep the timestamps of the last hour."""
SHARE_SHOWN: Final = 0.8
"""Share of the sustainable rate whose latency stands in the summary of a run."""


@dataclass(slots=True)
class Outcome:
    """Everything that a point has shown."""

    point: Point
    run: Run
    series: Series
    bottleneck: Bottleneck
    trials: list[Trial] = field(default_factory=list)
    """Every rate that was sent for a while, in order."""
    oracle: Report | None = None
    notes: list[str] = field(default_factory=list)


class Measurement:
    """Measures one point of a plan on one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        point: Point,
        name: str,
        scratch: Path,
        logs: Path,
        *,
        events: int,
        keep: bool,
    ) -> None:
        """`events`: records of a drain."""
        self._cluster = cluster
        self._plan = plan
        self._point = point
        self._prefix = f"{PREFIX}{name}.{point.label}."
        self._scratch = scratch / point.label
        self._logs = logs / point.label
        self._events = events
        self._keep = keep
        self._found = Found()

    def run(self, progress: Progress) -> Outcome:
        """Measure, then have everything checked.

        Raises:
            StreamsError: it could not be measured; the message says why.

        """
        plan, point = self._plan, self._point
        topics = fresh_topics(self._cluster.settings, plan.pipeline, self._prefix, point.partitions, keep=self._keep)
        with topics as (beside, pipeline):
            closes_ms = closing_ms(plan, windows_of(pipeline))
            settings = beside.model_copy(
                update={
                    "streams_lateness_ms": plan.lateness_ms,
                    # Or the events that close the windows would be from the future.
                    "streams_skew_ms_max": max(beside.streams_skew_ms_max, closes_ms + SKEW_SPARE_MS),
                }
            )
            group_progress = GroupProgress(
                settings, group=pipeline.group, topic=pipeline.source, partitions=point.partitions
            )
            with ExitStack() as cleanup:
                cleanup.callback(shutil.rmtree, self._scratch, ignore_errors=True)
                cleanup.callback(group_progress.close)
                sampler = cleanup.enter_context(Sampler(group_progress))
                if self._cluster.broker_pid is not None:
                    sampler.watch("broker", Role.BROKER, self._cluster.broker_pid)
                sampler.watch("load test", Role.HARNESS, psutil.Process().pid)
                stage = Stage(
                    plan, point, settings, pipeline, sampler, self._scratch, self._logs, progress, self._events
                )
                incidents = DRIVES[plan.drive](stage, self._found)
                series = sampler.series
            report = self._judge(settings, pipeline, progress)
        return self._outcome(series, report, incidents)

    def _downstream_share(self) -> float:
        found = self._found
        if self._point.work is not Work.DOWNSTREAM:
            return 0.0
        let_through = (found.consume_rate or 0.0) / self._plan.downstream_rate(self._point.partitions)
        return max(let_through, found.downstream_share)

    def _judge(self, settings: Settings, pipeline: Pipeline, progress: Progress) -> Report:
        progress("the oracle judges", 0.0)
        return check_by_partition(
            settings.kafka_bootstrap_servers,
            settings.schema_registry_url,
            Topics.of_pipeline(pipeline.name, pipeline.prefix),
            replace(Limits.of_settings(settings), is_idle_in_the_end=False, timestamp_age_ms=TIMESTAMP_AGE_MS),
            memory_mb=self._plan.length.oracle_memory_mb,
            on_progress=lambda done, of: progress("the oracle judges", done / of),
        )

    def _outcome(self, series: Series, report: Report, incidents: Sequence[str]) -> Outcome:
        found, point = self._found, self._point
        busy = found.busy
        events = busy.events()
        worker_s = busy.cores(Role.WORKER) * busy.seconds()
        load = Load(
            cores=psutil.cpu_count() or 1,
            machine=busy.machine_cores(),
            stolen=busy.stolen_cores(),
            workers=tuple(busy.cores_by_process(Role.WORKER).values()),
            broker=None if self._cluster.broker_pid is None else busy.cores(Role.BROKER),
            generators=busy.cores(Role.GENERATOR),
            harness=busy.cores(Role.HARNESS),
            downstream_share=self._downstream_share(),
            partition_share_max=_partition_share_max(series),
            tail_share=_tail_share(found.drained if found.drained.samples else busy),
            behind_ms=found.behind_ms,
        )
        timed = _timed(found.trials)
        run = Run(
            scenario=f"{self._plan.drive}-{point.work}",
            partitions=point.partitions,
            workers=point.workers,
            repetition=point.repetition,
            events=report.events,
            publish_rate=found.publish_rate,
            consume_rate=found.consume_rate,
            sustainable_rate=found.sustainable_rate,
            steady_s=found.steady_s,
            latency_ms=timed.latency_ms if timed else None,
            latency_rate=timed.publish_rate if timed else None,
            latency_skewed_ms=timed.latency_skewed_ms or None if timed else None,
            publish_delay_ms=timed.publish_delay_ms or None if timed else None,
            latency_counted=timed.counted if timed else None,
            latency_due=timed.due if timed else None,
            lag_max=series.lag_max(),
            cpu_seconds_per_million=worker_s / events * 1e6 if events else None,
            broker_cpu_seconds_per_million=_per_million(load.broker, busy),
            rss_mb_max=series.rss_mb_max(Role.WORKER),
            oracle=report.as_dict(),
            events_per_cpu_second=events / worker_s if worker_s else None,
        )
        notes = [*found.notes, *incidents]
        notes += [
            f"{trial.counted_words()} at {trial.publish_rate:,.0f} events/s: the latency of the others is not known, "
            "and longer than anything counted"
            for trial in found.trials
            if not trial.is_complete
        ]
        if found.rejects_exact and report.rejected_expected != found.rejects:
            notes.append(
                f"the generators made {found.rejects:,} records to be rejected, "
                f"the oracle expects {report.rejected_expected:,}"
            )
        return Outcome(point, run, series, judge(load), found.trials, report, notes)


def _timed(trials: Sequence[Trial]) -> Trial | None:
    """The one whose latency stands for the point: at 80% of what can be sustained, or what comes nearest."""
    timed = [trial for trial in trials if trial.latency_ms]
    return min(timed, key=lambda trial: abs((trial.share or SHARE_SHOWN) - SHARE_SHOWN), default=None)


def _per_million(cores: float | None, busy: Series) -> float | None:
    """CPU seconds for a million events of someone who has used so many cores meanwhile."""
    events = busy.events()
    return None if cores is None or not events else cores * busy.seconds() / events * 1e6


def _partition_share_max(series: Series) -> float:
    last: Sample | None = series.samples[-1] if series.samples else None
    if last is None or not last.done:
        return 1.0
    return max(last.committed) / (last.done / len(last.committed))


def _tail_share(series: Series) -> float:
    """Share of the samples with lag in which fewer than half of the partitions had any."""
    lagging = [sample for sample in series.samples if sum(sample.lag)]
    if not lagging:
        return 0.0
    return sum(sum(lag > 0 for lag in sample.lag) * 2 < len(sample.lag) for sample in lagging) / len(lagging)
