"""Collects what a commit cycle has done, and updates the metrics once it is committed."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Int64
from streams.deadletters.letter.audit import Outcome
from streams.engine.effects import CycleEnd, Effects
from streams.flow.declaration import Pipeline
from streams.operators.fold.operator import CONTRADICTIONS
from streams.worker.metrics import WorkerMetrics
from streams.worker.mismatches import SchemaNews, SchemaWatch
from streams.worker.misrouted import MisroutedNews, MisroutedWatch
from streams.worker.ports import TimeSource
from streams.worker.terms import Term


@dataclass(slots=True)
class CycleAccount:
    """The effects of one commit cycle so far, and when its oldest record arrived."""

    opened_at_s: float | None = None
    """Monotonic seconds; None before its first record."""
    records: int = 0
    schemas: SchemaNews = field(default_factory=SchemaNews)
    terms: set[Term] = field(default_factory=set)
    """Those of all partitions that have anything in its transaction; its commit claims them."""
    misrouted: MisroutedNews = field(default_factory=MisroutedNews)
    _outcomes: dict[str, int] = field(default_factory=dict)
    _rejects: dict[str, int] = field(default_factory=dict)
    _beside: Counter[tuple[str, str]] = field(default_factory=Counter)
    _contradictions: int = 0
    _forwarded: int = 0
    _clean_times: list[Int64] = field(default_factory=list)
    _clean_arrivals: list[Int64] = field(default_factory=list)

    def note(self, effects: Effects, now_s: float) -> None:
        """Add the effects of a micro-batch; `now_s`: monotonic."""
        if self.opened_at_s is None:
            self.opened_at_s = now_s
        self.records += effects.records
        self.schemas.add(effects)
        self.misrouted.add(effects)
        for letter in effects.dead_letters:
            reason = letter.reject.reason.value
            self._rejects[reason] = self._rejects.get(reason, 0) + 1
        counts: Counter[str] = Counter()
        counts.update(dict.fromkeys((Outcome.CLEAN, Outcome.LATE, Outcome.DUPLICATE), 0))
        counts[Outcome.REJECTED] = len(effects.dead_letters)
        for part in effects.partitions:
            counts.update(part.outcomes())
            self._beside.update(part.beside)
            for records in part.of(Outcome.CLEAN):
                self._clean_times.append(records.events.event_time)
                self._clean_arrivals.append(records.events.timestamp_ms)
            self._contradictions += part.found.get(CONTRADICTIONS, 0)
            self._forwarded += sum(map(len, part.forwards))
        for outcome, count in counts.items():
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + count

    def publish(
        self, metrics: WorkerMetrics, pipeline: Pipeline, end: CycleEnd, *, now_ms: int, skew_ms_max: int
    ) -> None:
        """Update the metrics with the whole cycle, which is committed; `now_ms`: of the wall clock."""
        for outcome, count in self._outcomes.items():
            metrics.events.labels(pipeline.name, outcome).inc(count)
        for (operator, outcome), count in self._beside.items():
            metrics.branch_events.labels(pipeline.name, operator, outcome).inc(count)
        for reason, count in self._rejects.items():
            metrics.rejects.labels(pipeline.name, reason).inc(count)
        if self._contradictions:
            metrics.contradictions.labels(pipeline.name).inc(self._contradictions)
        if self._forwarded:
            metrics.growth_forwarded.labels(pipeline.name).inc(self._forwarded)
        if self._clean_times:
            metrics.event_age_seconds.observe((now_ms - np.concatenate(self._clean_times)) / 1000.0)
            arrivals = np.concatenate(self._clean_arrivals)
            arrivals = arrivals[Clock(now_ms, skew_ms_max).is_time(arrivals)]
            metrics.arrival_age_seconds.observe(np.maximum(now_ms - arrivals, 0.0) / 1000.0)
        windows = {window.topic for window in pipeline.windows}
        for commit in end.commits:
            if commit.is_adoption:
                moved = sum(len(rows) for rows in commit.changelogs if rows.topic in pipeline.table_topics[:1])
                metrics.growth_keys_moved.labels(pipeline.name).inc(moved)
            for rows in commit.rows:
                counter = metrics.window_rows if rows.topic in windows else metrics.operator_rows
                counter.labels(rows.topic).inc(len(rows))
            for one, position in zip(pipeline.inputs, commit.positions, strict=True):
                if position.watermark > TIME_MIN:
                    age_s = (now_ms - position.watermark) / 1000.0
                    metrics.watermark_age_seconds.labels(one.topic, str(commit.partition)).set(age_s)


class CycleReport:
    """Updates metrics with what committed cycles have done, and logs new rejects and mismatches. One thread."""

    def __init__(
        self, pipeline: Pipeline, metrics: WorkerMetrics, clock: TimeSource, *, partitions: int, skew_ms_max: int
    ) -> None:
        """`partitions`: the number of partitions that the flow's state is divided into."""
        self._pipeline = pipeline
        self._metrics = metrics
        self._clock = clock
        self._skew_ms_max = skew_ms_max
        self._schemas = SchemaWatch(pipeline.name, metrics)
        self._misrouted = MisroutedWatch(pipeline, partitions, metrics)

    def committed(self, account: CycleAccount, end: CycleEnd) -> None:
        """Update metrics for a cycle that was committed."""
        now_ms = self._clock.wall_ms()
        account.publish(self._metrics, self._pipeline, end, now_ms=now_ms, skew_ms_max=self._skew_ms_max)
        self._schemas.tell(account.schemas, now_ms)
        self._misrouted.tell(account.misrouted, int(self._clock.monotonic_s() * 1000))

    def remark(self) -> str | None:
        """What is wrong with the partitions that keys are in, as a sentence; None when nothing is. Any thread."""
        return self._misrouted.remark(int(self._clock.monotonic_s() * 1000))
