"""Statistics of a load test: trends with their confidence, spreads of repetitions, ratios. Pure.

Every interval here is a 95% confidence interval by Student's t unless it says otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

CONFIDENCE: Final = 0.95
LAG_SLOPE_SHARE_MAX: Final = 0.01
"""Lag may grow by this share of the load: the threshold of Theodolite and ShuffleBench (Henning, Hasselbring 2022)."""
BLOCKS_MAX: Final = 20
"""Samples of lag follow each other closely, and a commit moves all of them: means of so many stretches are compared."""
BLOCKS_MIN: Final = 5
REPETITIONS_MIN: Final = 3
"""Fewer have no confidence interval worth the name: their lowest and highest are given instead."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A linear trend per second, and the interval in which it is."""

    per_s: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For the report's JSON."""
        return {"per_s": round(self.per_s, 3), "low": round(self.low, 3), "high": round(self.high, 3)}


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Least-squares trend of `values` over means of equal stretches of time; None when there are too few to tell."""
    if len(times_s) < BLOCKS_MIN or times_s[-1] <= times_s[0]:
        return None
    blocks = min(BLOCKS_MAX, max(BLOCKS_MIN, len(times_s) // 4))
    time, value = np.asarray(times_s, float), np.asarray(values, float)
    place = np.minimum(((time - time[0]) / (time[-1] - time[0]) * blocks).astype(int), blocks - 1)
    counts = np.bincount(place, minlength=blocks)
    filled = counts > 0
    if filled.sum() < BLOCKS_MIN:
        return None
    x = (np.bincount(place, time, blocks)[filled]) / counts[filled]
    y = (np.bincount(place, value, blocks)[filled]) / counts[filled]
    found = stats.linregress(x, y)
    error = float(found.stderr)  # no number where all values are the same
    margin = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, x.size - 2)) if math.isfinite(error) else 0.0
    return Slope(float(found.slope), float(found.slope) - margin, float(found.slope) + margin)


def is_sustained(lag: Slope | None, load_per_s: float) -> bool:
    """Whether lag grows by no more than 1% of the load; what cannot be told is not sustained, nor is no load at all."""
    return lag is not None and load_per_s > 0 and lag.per_s <= LAG_SLOPE_SHARE_MAX * load_per_s


def is_clear(lag: Slope | None, load_per_s: float) -> bool:
    """Whether the whole interval of the trend is on one side of the threshold."""
    if lag is None:
        return False
    bound = LAG_SLOPE_SHARE_MAX * load_per_s
    return lag.high <= bound or lag.low > bound


def rate_between_commits(times_s: Sequence[float], done: Sequence[int]) -> tuple[float, float, int] | None:
    """Events per second from the first to the last commit, the seconds between them, and the events; None without two.

    Commits come in steps: from a sample in the middle of a step to one in the middle of another is off by up to a step
    at each end. From a sample that shows a new commit to another that does is not.
    """
    moved = [place for place in range(1, len(done)) if done[place] != done[place - 1]]
    if len(moved) < 2:
        return None
    first, last = moved[0], moved[-1]
    seconds, events = times_s[last] - times_s[first], done[last] - done[first]
    return (events / seconds, seconds, events) if seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several repetitions: its median, its lowest and its highest value."""

    median: float
    low: float
    high: float
    repetitions: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """The median, the lowest and the highest; at least one value is needed."""
        return Spread(float(np.median(values)), min(values), max(values), len(values))

    def as_dict(self) -> dict[str, float]:
        """For the report's JSON."""
        shown = {"median": self.median, "min": self.low, "max": self.high}
        return {**{name: round(value, 3) for name, value in shown.items()}, "repetitions": self.repetitions}

    def words(self) -> str:
        """`1,234 (1,200 to 1,260)`, or the one figure."""
        if self.repetitions == 1:
            return f"{self.median:,.0f}"
        return f"{self.median:,.0f} ({self.low:,.0f} to {self.high:,.0f})"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much one set of repetitions brings as another, and between what."""

    value: float
    low: float
    high: float
    is_interval: bool
    """Whether low and high are a confidence interval; otherwise the lowest over the highest and the reverse."""
    repetitions: int
    """Number of repetitions of that side of the ratio which was repeated less often."""

    def words(self) -> str:
        """`3.7 times (3.6 to 3.8)`; more digits where one is not enough to tell the ends apart."""
        digits = next((n for n in (1, 2, 3) if f"{self.low:.{n}f}" != f"{self.high:.{n}f}"), 1)
        if self.low == self.high and self.repetitions == 1:
            return f"{self.value:.1f} times (measured once)"
        return f"{self.value:.{digits}f} times ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def as_dict(self) -> dict[str, float | bool]:
        """For the report's JSON."""
        return {
            "value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4),
            "confidence_interval": self.is_interval,
        }  # fmt: skip


def ratio(many: Sequence[float], few: Sequence[float]) -> Ratio:
    """How many times `few` is in `many`; all values above 0, at least one of each.

    With three repetitions of each or more: the ratio of geometric means with Welch's interval of their logarithms.
    With fewer: the ratio of medians, and what the lowest over the highest and the highest over the lowest give.
    """
    repetitions = min(len(many), len(few))
    if repetitions < REPETITIONS_MIN:
        value = float(np.median(many) / np.median(few))
        return Ratio(value, min(many) / max(few), max(many) / min(few), is_interval=False, repetitions=repetitions)
    a, b = np.log(many), np.log(few)
    difference = float(a.mean() - b.mean())
    parts = float(a.var(ddof=1)) / a.size, float(b.var(ddof=1)) / b.size
    variance = sum(parts)
    margin = 0.0
    if variance > 0:
        freedom = variance**2 / (parts[0] ** 2 / (a.size - 1) + parts[1] ** 2 / (b.size - 1))
        margin = math.sqrt(variance) * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    ends = math.exp(difference - margin), math.exp(difference + margin)
    return Ratio(math.exp(difference), *ends, is_interval=True, repetitions=repetitions)
