"""Every metric of the worker, in one typed list. Names are a contract with dashboards and alerts."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streams import __version__
from streams.batch.columns import Float64, Int64
from streams.batch.rejects import Reason
from streams.shared_metrics import SharedMetrics

OUTCOMES: Final = ("clean", "late", "duplicate", "rejected")
"""Outcomes of an event."""
SNAPSHOT_FAILURES: Final = ("object_store", "disk")
"""Why a snapshot could not be taken."""
SNAPSHOT_OUTCOMES: Final = ("used", "none", "unavailable", "damaged", "refused")
"""What became of snapshots where a partition has no local state."""
_AGE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0)
_COMMIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_BATCH_RECORDS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000)
_PROCESSING_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class WorkerMetrics:
    """Metrics of one worker process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.info = Gauge("streams_worker_info", "1, with the version of the program.", ("version",), registry=registry)
        self.info.labels(__version__).set(1)
        self.events = Counter(
            "streams_events", "Events by what became of them, at commit.", ("pipeline", "outcome"), registry=registry
        )
        self.branch_events = Counter(
            "streams_branch_events",
            "Events that an operator dropped beside the way to the clean topic; streams_events has them as well.",
            ("pipeline", "operator", "outcome"),
            registry=registry,
        )
        self.rejects = Counter(
            "streams_rejects", "Dead letters by reason, at commit.", ("pipeline", "reason"), registry=registry
        )
        self.commit_seconds = Histogram(
            "streams_commit_seconds",
            "Duration of steps 2b to 5 of a commit cycle.",
            registry=registry,
            buckets=_COMMIT_SECONDS,
        )
        self.batch_records = Histogram(
            "streams_batch_records", "Records of a micro-batch.", registry=registry, buckets=_BATCH_RECORDS
        )
        self.processing_seconds = Histogram(
            "streams_processing_seconds",
            "CPU time of the processing thread in an operator, per call; waiting is not in it.",
            ("operator",),
            registry=registry,
            buckets=_PROCESSING_SECONDS,
        )
        self.event_age_seconds = VectorHistogram(
            "streams_event_age_seconds", "From event time to commit of a clean event.", _AGE_SECONDS
        )
        registry.register(self.event_age_seconds)
        self.arrival_age_seconds = VectorHistogram(
            "streams_arrival_age_seconds",
            "From arrival (the record's timestamp) to commit of a clean event; without those that have no timestamp.",
            _AGE_SECONDS,
        )
        registry.register(self.arrival_age_seconds)
        self.watermark_age_seconds = Gauge(
            "streams_watermark_age_seconds", "Now minus the watermark.", ("topic", "partition"), registry=registry
        )
        self.state_bytes = Gauge(
            "streams_state_bytes", "Approximate size of state, in memory or on disk.", ("table",), registry=registry
        )
        self.restore_records = Counter(
            "streams_restore_records", "Changelog records read to restore state.", registry=registry
        )
        self.restore_rows = Counter(
            "streams_restore_rows", "Rows of state in the changelog records that were read.", registry=registry
        )
        self.restore_seconds = Counter(
            "streams_restore_seconds", "Time in which at least one partition was restored.", registry=registry
        )
        self.aborts = Counter("streams_aborts", "Aborted commit cycles.", ("reason",), registry=registry)
        self.misrouted = Counter(
            "streams_misrouted",
            "Events whose key is in a partition that murmur2 would not have chosen.",
            ("topic",),
            registry=registry,
        )
        self.records_lost = Counter(
            "streams_records_lost",
            "Offsets of the source that retention deleted before they were read; transaction markers count too.",
            ("topic",),
            registry=registry,
        )
        self.contradictions = Counter(
            "streams_contradictions",
            "Clean events that contradict what came before (an order delivered before it was created).",
            ("pipeline",),
            registry=registry,
        )
        self.window_rows = Counter(
            "streams_window_rows", "Rows of closed windows, all revisions.", ("topic",), registry=registry
        )
        self.operator_rows = Counter(
            "streams_operator_rows", "Rows that operators of your own wrote.", ("topic",), registry=registry
        )
        self.schema_mismatches = Counter(
            "streams_schema_mismatches",
            "Dead letters since a record does not match its schema: unknown_schema, incompatible_schema, malformed.",
            ("pipeline", "schema_id", "reason"),
            registry=registry,
        )
        self.unexpected_fields = Counter(
            "streams_schema_unexpected_fields",
            "Records with a field that the reader's schema does not know; it is passed on unread.",
            ("pipeline", "schema_id", "field"),
            registry=registry,
        )
        self.quarantined_devices = Gauge(
            "streams_quarantined_devices",
            "Devices whose records are rejected unseen, since too many of them were.",
            ("topic",),
            registry=registry,
        )
        shared = SharedMetrics.of(registry)
        self.fenced, self.breaker_state = shared.fenced, shared.breaker_state
        self.paused_partitions = shared.paused_partitions
        self.snapshots = Counter(
            "streams_snapshot_uploads", "Snapshots of partitions that were uploaded.", ("pipeline",), registry=registry
        )
        self.snapshot_bytes = Counter(
            "streams_snapshot_uploaded_bytes",
            "Bytes of objects that were written for snapshots; what an earlier snapshot has is not written again.",
            ("pipeline",),
            registry=registry,
        )
        self.snapshot_failures = Counter(
            "streams_snapshot_failures",
            "Snapshots that failed and are tried again: object_store (no answer, or refused), disk (local).",
            ("pipeline", "reason"),
            registry=registry,
        )
        self.snapshot_restores = Counter(
            "streams_snapshot_restores",
            "Partitions without local state: used (a snapshot), none, unavailable (the object store); and snapshots "
            "that were not used: damaged, refused.",
            ("pipeline", "outcome"),
            registry=registry,
        )
        self.snapshot_timestamp = Gauge(
            "streams_snapshot_timestamp_seconds",
            "When the newest snapshot of an owned partition was current; of its restore, while there is none.",
            ("pipeline", "partition"),
            registry=registry,
        )
        self.snapshot_interval = Gauge(
            "streams_snapshot_interval_seconds", "Time between two snapshots of a partition; 0: none are taken.",
            registry=registry,
        )  # fmt: skip
        self.growth_forwarded = Counter(
            "streams_growth_forwarded",
            "Records that were read in another partition than the one that their key has moved to, at commit.",
            ("pipeline",),
            registry=registry,
        )
        self.growth_keys_moved = Counter(
            "streams_growth_keys_moved",
            "Keys whose rows new partitions have taken over, at commit; one that begins anew counts again.",
            ("pipeline",),
            registry=registry,
        )

    def begin(self, pipeline: str) -> None:
        """Set the counters of a flow's records to 0, so that `rate` sees the first increase."""
        for outcome in OUTCOMES:
            self.events.labels(pipeline, outcome)
        for reason in Reason:
            self.rejects.labels(pipeline, reason.value)
        for counter in (self.growth_forwarded, self.growth_keys_moved, self.snapshots, self.snapshot_bytes):
            counter.labels(pipeline)
        for failure in SNAPSHOT_FAILURES:
            self.snapshot_failures.labels(pipeline, failure)
        for outcome in SNAPSHOT_OUTCOMES:
            self.snapshot_restores.labels(pipeline, outcome)

    @contextmanager
    def stopwatch(self, operator: str, clock_s: Callable[[], float] = time.thread_time) -> Generator[None]:
        """Measure the guarded block as time in `operator`, by default as CPU time of this thread.

        Wall time would include waiting for the interpreter lock while other threads of the worker compute. For a block
        whose purpose is to wait, pass `time.perf_counter`.
        """
        start = clock_s()
        try:
            yield
        finally:
            self.processing_seconds.labels(operator).observe(clock_s() - start)


class VectorHistogram(Collector):
    """Histogram that takes whole columns of values: per-event observation would cost more than processing does."""

    def __init__(self, name: str, documentation: str, buckets: tuple[float, ...]) -> None:
        self._name = name
        self._documentation = documentation
        self._edges: Float64 = np.array(buckets)
        self._counts: Int64 = np.zeros(len(buckets) + 1, dtype=np.int64)
        self._sum = 0.0

    def observe(self, values: np.ndarray[Any, np.dtype[np.floating[Any]]]) -> None:
        """Count each of `values` in its bucket."""
        places = np.searchsorted(self._edges, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterable[Metric]:
        """The cumulative histogram in Prometheus' form."""
        cumulative = np.cumsum(self._counts).tolist()
        names = [*(str(edge) for edge in self._edges.tolist()), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], list(zip(names, cumulative, strict=True)), self._sum)
        return [family]
