"""Histograms of milliseconds: recorded, added up, stored as text that other tools read (HdrHistogram V2, base64)."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

MS_MAX: Final = 3_600_000
DIGITS: Final = 3
PERCENTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
_CURVE: Final = (
    *range(0, 90, 2), *(90 + tenth / 2 for tenth in range(18)), *(99 + each / 20 for each in range(20)), 99.99, 100,
)  # fmt: skip


def new_histogram() -> HdrHistogram:
    """An empty one, from 1 ms to an hour, exact to three digits."""
    return HdrHistogram(1, MS_MAX, DIGITS)


def record(histogram: HdrHistogram, values_ms: NDArray[np.float64]) -> None:
    """Count every value; less than a millisecond counts as one."""
    whole = np.clip(np.rint(values_ms), 1, MS_MAX).astype(np.int64)
    for value, count in zip(*(each.tolist() for each in np.unique(whole, return_counts=True)), strict=True):
        histogram.record_value(value, count)


def encoded(histogram: HdrHistogram) -> str:
    """Encode a histogram as text, to hand it to another process."""
    return str(histogram.encode().decode("ascii"))


def added(texts: Iterable[str]) -> HdrHistogram:
    """The sum of histograms that were stored as text."""
    total = new_histogram()
    for text in texts:
        total.decode_and_add(text)
    return total


def percentiles_ms(histogram: HdrHistogram) -> dict[str, float]:
    """Milliseconds, as the report names them; empty when nothing was counted."""
    if not histogram.get_total_count():
        return {}
    found = {name: float(histogram.get_value_at_percentile(share)) for name, share in PERCENTILES.items()}
    return {**found, "max": float(histogram.get_max_value())}


def curve(histogram: HdrHistogram) -> list[tuple[float, float]]:
    """The distribution for a chart: (percentile, milliseconds)."""
    at: Any = histogram.get_value_at_percentile
    return [(float(share), float(at(share))) for share in _CURVE] if histogram.get_total_count() else []
