"""Measure how long a restarted worker takes until it processes: with its local state, and from Kafka alone."""

import shutil
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from loadtest.subject import Subject, wait_until_ready


@dataclass(frozen=True, slots=True)
class Recovery:
    """A start of a worker that has state."""

    ready_s: float
    """From the start of its process until it says that it processes, interpreter and imports included."""
    records: int
    """Number of changelog records that the worker has read."""
    rows: int
    """Rows of state in them: remembered ids, held events, rows of keys."""
    restore_s: float
    """Time it spent restoring, by its own account."""
    rss_mb: float

    @property
    def rows_per_s(self) -> float | None:
        """Rows of state per second of restoring; None where there was nothing to restore."""
        return self.rows / self.restore_s if self.rows else None


def measure_restart(start: Callable[[], Subject], metrics_url: str, timeout_s: float) -> Recovery:
    """Start a worker, and stop it again as soon as it is ready.

    Raises:
        StreamsError: it ended, or was not ready in time.

    """
    started = time.monotonic()
    with start() as subject:
        wait_until_ready(subject, timeout_s)
        ready_s = time.monotonic() - started
        values = _values(metrics_url)
        rss_mb = subject.usage()[1]
    return Recovery(
        ready_s=ready_s,
        records=int(values["streams_restore_records_total"]),
        rows=int(values["streams_restore_rows_total"]),
        restore_s=values["streams_restore_seconds_total"],
        rss_mb=rss_mb,
    )


def measure_restore(start: Callable[[], Subject], metrics_url: str, data_dir: Path, timeout_s: float) -> Recovery:
    """As `measure_restart`, after the state directory is gone.

    Raises:
        StreamsError: the worker ended, or was not ready in time.

    """
    shutil.rmtree(data_dir)
    return measure_restart(start, metrics_url, timeout_s)


def _values(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own http address
        text = response.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }
