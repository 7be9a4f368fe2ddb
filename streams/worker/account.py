"""What a commit cycle has done: told to the metrics once it is committed, so that an aborted one tells nothing."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Int64
from streams.engine.effects import CycleEnd, Effects
from streams.flow.declaration import Pipeline
from streams.worker.metrics import WorkerMetrics
from streams.worker.mismatches import SchemaNews
from streams.worker.misrouted import MisroutedNews
from streams.worker.ownership import Term


@dataclass(slots=True)
class CycleAccount:
    """Of one cycle."""

    opened_at: float | None = None
    """Monotonic seconds; None before its first record."""
    records: int = 0
    schemas: SchemaNews = field(default_factory=SchemaNews)
    terms: set[Term] = field(default_factory=set)
    """Those of all partitions that have anything in its transaction; its commit claims them."""
    misrouted: MisroutedNews = field(default_factory=MisroutedNews)
    _outcomes: dict[str, int] = field(default_factory=dict)
    _rejects: dict[str, int] = field(default_factory=dict)
    _contradictions: int = 0
    _clean_times: list[Int64] = field(default_factory=list)
    _clean_arrivals: list[Int64] = field(default_factory=list)

    def note(self, effects: Effects) -> None:
        """Add what a micro-batch has brought about."""
        if self.opened_at is None:
            self.opened_at = time.monotonic()
        self.records += effects.records
        self.schemas.add(effects)
        self.misrouted.add(effects)
        for letter in effects.dead_letters:
            reason = letter.reject.reason.value
            self._rejects[reason] = self._rejects.get(reason, 0) + 1
        counts = Counter({"clean": 0, "late": 0, "duplicate": 0, "rejected": len(effects.dead_letters)})
        for part in effects.partitions:
            counts.update(part.outcomes())
            if part.clean is not None:
                self._clean_times.append(part.clean.event_time)
                self._clean_arrivals.append(part.clean.timestamp_ms)
            self._contradictions += part.contradictions
        for outcome, count in counts.items():
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + count

    def publish(self, metrics: WorkerMetrics, pipeline: Pipeline, end: CycleEnd, *, skew_ms_max: int) -> None:
        """Count all of it: the cycle is committed."""
        for outcome, count in self._outcomes.items():
            metrics.events.labels(pipeline.name, outcome).inc(count)
        for reason, count in self._rejects.items():
            metrics.rejects.labels(pipeline.name, reason).inc(count)
        if self._contradictions:
            metrics.contradictions.labels(pipeline.name).inc(self._contradictions)
        now_ms = time.time() * 1000
        if self._clean_times:
            metrics.event_age_seconds.observe((now_ms - np.concatenate(self._clean_times)) / 1000.0)
            arrivals = np.concatenate(self._clean_arrivals)
            arrivals = arrivals[Clock(int(now_ms), skew_ms_max).is_time(arrivals)]
            metrics.arrival_age_seconds.observe(np.maximum(now_ms - arrivals, 0.0) / 1000.0)
        for commit in end.commits:
            for rows in commit.rows:
                metrics.window_rows.labels(rows.topic).inc(len(rows))
            if commit.watermark > TIME_MIN:
                age_s = (now_ms - commit.watermark) / 1000.0
                metrics.watermark_age_seconds.labels(pipeline.source, str(commit.partition)).set(age_s)
