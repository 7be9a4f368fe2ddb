"""Counts records that do not fit their schema, and unexpected fields, by schema id; logs them at intervals.

A mismatch (an id that the registry does not know, a schema that cannot be read, bytes that are not what their schema
says) makes a dead letter. An unexpected field never stops anything: that is what a producer which upgraded first sends.
Counts are of committed cycles, like all of the worker's.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from streams.batch.rejects import Reason
from streams.engine.effects import Effects
from streams.limits import MISMATCH_LOG_INTERVAL_MS, SCHEMA_LABELS_MAX
from streams.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

MISMATCHES: Final = frozenset({Reason.UNKNOWN_SCHEMA, Reason.INCOMPATIBLE_SCHEMA, Reason.MALFORMED})
OTHER: Final = "other"
"""Label for further values once there are as many labels as allowed."""


@dataclass(slots=True)
class SchemaNews:
    """Mismatches and unexpected fields of one cycle, kept until it is committed."""

    mismatches: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Number of mismatches, by schema id and reason."""
    examples: dict[tuple[int, str], str] = field(default_factory=dict)
    """Message of the first mismatch, by schema id and reason."""
    unexpected: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Number of records with an unexpected field, by schema id and field."""

    def add(self, effects: Effects) -> None:
        """Add the mismatches and unexpected fields of a micro-batch."""
        for letter in effects.dead_letters:
            reject = letter.reject
            if reject.schema_id is not None and reject.reason in MISMATCHES:
                key = (reject.schema_id, reject.reason.value)
                self.mismatches[key] += 1
                self.examples.setdefault(key, reject.message)
        for (schema_id, name), records in effects.unexpected.items():
            self.unexpected[schema_id, name] += records


class SchemaWatch:
    """Counts and logs the mismatches of a flow's cycles. One thread at a time."""

    def __init__(self, pipeline: str, metrics: WorkerMetrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._labels: set[tuple[Hashable, ...]] = set()
        self._told_ms: dict[tuple[str, int], int] = {}
        self._untold: dict[tuple[str, int], Counter[str]] = {}
        self._examples: dict[tuple[str, int], str] = {}

    def tell(self, news: SchemaNews, now_ms: int) -> None:
        """Count the mismatches of a committed cycle, and log each schema id at most once a minute."""
        for (schema_id, reason), records in news.mismatches.items():
            labels = self._bounded("mismatch", schema_id, reason)
            self._metrics.schema_mismatches.labels(self._pipeline, *labels).inc(records)
            self._remember("mismatch", schema_id, reason, records, news.examples.get((schema_id, reason), ""))
        for (schema_id, name), records in news.unexpected.items():
            labels = self._bounded("unexpected", schema_id, name)
            self._metrics.unexpected_fields.labels(self._pipeline, *labels).inc(records)
            self._remember("unexpected", schema_id, name, records)
        if self._untold:
            self._log("mismatch", now_ms, self._log_mismatch)
            self._log("unexpected", now_ms, self._log_unexpected)

    def _bounded(self, kind: str, schema_id: int, detail: str) -> tuple[str, str]:
        """Labels to count under; the common labels for further values once there are too many."""
        key = (kind, schema_id, detail)
        if key not in self._labels:
            if len(self._labels) >= SCHEMA_LABELS_MAX:
                return OTHER, (detail if kind == "mismatch" else OTHER)
            self._labels.add(key)
        return str(schema_id), detail

    def _remember(self, kind: str, schema_id: int, detail: str, records: int, example: str = "") -> None:
        key = (kind, schema_id)
        if key in self._untold or len(self._untold) < SCHEMA_LABELS_MAX:
            self._untold.setdefault(key, Counter())[detail] += records
            self._examples.setdefault(key, example)

    def _log(self, kind: str, now_ms: int, say: Callable[[int, Mapping[str, int], str], None]) -> None:
        """Log each schema id unless it was logged within the interval."""
        recent = {key: at for key, at in self._told_ms.items() if now_ms - at < MISMATCH_LOG_INTERVAL_MS}
        for key in [key for key in self._untold if key[0] == kind and key not in recent]:
            if len(recent) >= 2 * SCHEMA_LABELS_MAX:
                break  # the rest is logged later, or only counted
            recent[key] = now_ms
            say(key[1], dict(self._untold.pop(key)), self._examples.pop(key, ""))
        self._told_ms = recent

    def _log_mismatch(self, schema_id: int, found: Mapping[str, int], example: str) -> None:
        log.warning(
            "records do not match their schema: dead letters",
            pipeline=self._pipeline, schema_id=schema_id, records=found, first=example,
        )  # fmt: skip

    def _log_unexpected(self, schema_id: int, found: Mapping[str, int], _: str) -> None:
        log.info(
            "a producer sends fields that the reader's schema does not know; they are passed on unread",
            pipeline=self._pipeline, schema_id=schema_id, records=found,
        )  # fmt: skip
