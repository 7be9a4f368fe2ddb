"""One point of a load test: fresh topics and workers, traffic by the chosen drive, then the oracle's verdict."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from loadtest.bottleneck import Bottleneck, Load, judge
from loadtest.cluster import Cluster, fresh_topics
from loadtest.drives import DRIVES, Found
from loadtest.generator.target import PREFIX
from loadtest.oracle.check import Limits, Topics
from loadtest.oracle.compare import Report
from loadtest.oracle.parallel import check_by_partition
from loadtest.plan import Plan, Point, Work
from loadtest.progress import GroupProgress
from loadtest.report import Run
from loadtest.sampler import Role, Sample, Sampler, Series
from loadtest.stage import Progress, Stage
from streams.flow.declaration import Pipeline
from streams.settings import Settings


@dataclass(slots=True)
class Outcome:
    """Everything that a point has shown."""

    point: Point
    run: Run
    series: Series
    bottleneck: Bottleneck
    latency_curve: list[tuple[float, float]] = field(default_factory=list)
    oracle: Report | None = None
    notes: list[str] = field(default_factory=list)


class Measurement:
    """One point on one cluster."""

    def __init__(
        self, cluster: Cluster, plan: Plan, point: Point, name: str, scratch: Path, logs: Path, *, keep: bool
    ) -> None:
        self._cluster = cluster
        self._plan = plan
        self._point = point
        self._prefix = f"{PREFIX}{name}.{point.label}."
        self._scratch = scratch / point.label
        self._logs = logs / point.label
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
            settings = beside.model_copy(update={"streams_lateness_ms": plan.lateness_ms})
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
                stage = Stage(plan, point, settings, pipeline, sampler, self._scratch, self._logs, progress)
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
            replace(Limits.of_settings(settings), is_idle_in_the_end=False),
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
            tail_share=_tail_share(busy),
            behind_ms=found.behind_ms,
        )
        run = Run(
            scenario=f"{self._plan.drive}-{point.work}",
            partitions=point.partitions,
            workers=point.workers,
            events=report.events,
            publish_rate=found.publish_rate,
            consume_rate=found.consume_rate,
            latency_ms=found.latency_ms,
            latency_rate=found.latency_rate,
            lag_max=series.lag_max(),
            cpu_seconds_per_million=worker_s / events * 1e6 if events else None,
            rss_mb_max=series.rss_mb_max(Role.WORKER),
            oracle=report.as_dict(),
            events_per_cpu_second=events / worker_s if worker_s else None,
        )
        notes = [*found.notes, *incidents]
        if found.rejects_exact and report.rejected_expected != found.rejects:
            notes.append(
                f"the generators made {found.rejects:,} records to be rejected, "
                f"the oracle expects {report.rejected_expected:,}"
            )
        return Outcome(point, run, series, judge(load), found.latency_curve, report, notes)


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
