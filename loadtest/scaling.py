"""Universal Scalability Law: what contention and coherency cost, fitted to measured throughputs, or no law.

X(N) = g N / (1 + a (N - 1) + b N (N - 1)): `g` what one would bring alone, `a` the share of the work that is serialised
(contention), `b` what every pair costs each other (coherency). N. J. Gunther, Guerrilla Capacity Planning, Springer
2007, chapter 4. With b = 0 it is Amdahl's law.

N is what was varied while the rest stayed as it was: workers at a fixed number of partitions, or partitions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import least_squares

from loadtest.statistics import CONFIDENCE

POINTS_MIN: Final = 6
"""Different N; a law of three coefficients goes through any three, and says nothing by that."""
BEYOND_MAX: Final = 2.0
"""Nothing is said of an N that is larger than this many times the largest measured one."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A coefficient and its 95% confidence interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For the report's JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fitted law. Rates are events per second."""

    rate_of_one: Interval
    contention: Interval
    coherency: Interval | None
    """None: the measurements do not tell it from 0, and the law is Amdahl's."""
    error: float
    """Root mean square of the relative deviations of the points."""
    points: tuple[tuple[int, float], ...]
    """What was measured, repetitions included: (N, rate)."""

    def rate(self, n: float) -> float:
        """Throughput that the law gives for N = n."""
        coherency = 0.0 if self.coherency is None else self.coherency.value
        return self.rate_of_one.value * n / (1 + self.contention.value * (n - 1) + coherency * n * (n - 1))

    @property
    def n_max(self) -> float:
        """The largest N of which the law says anything."""
        return max(n for n, _ in self.points) * BEYOND_MAX

    @property
    def peak_n(self) -> float | None:
        """N beyond which more makes it slower; None where it is not within reach of what was measured."""
        if self.coherency is None:
            return None
        peak = max(1.0, math.sqrt(max(0.0, 1 - self.contention.value) / self.coherency.value))
        return peak if peak <= self.n_max else None

    @property
    def ceiling(self) -> float | None:
        """The highest rate that any N brings; None where it is out of reach, or something higher was measured."""
        if self.peak_n is None:
            return None
        found = self.rate(self.peak_n)
        return found if found >= max(rate for _, rate in self.points) else None

    def as_dict(self) -> dict[str, object]:
        """For the report's JSON."""
        return {
            "rate_of_one": self.rate_of_one.as_dict(),
            "contention": self.contention.as_dict(),
            "coherency": None if self.coherency is None else self.coherency.as_dict(),
            "error": round(self.error, 4),
            "peak_n": None if self.peak_n is None else round(self.peak_n, 1),
            "ceiling": None if self.ceiling is None else round(self.ceiling, 1),
            "n_max": self.n_max,
            "points": [(n, round(rate, 1)) for n, rate in self.points],
        }


@dataclass(frozen=True, slots=True)
class NoLaw:
    """States why no scaling law could be fitted."""

    why: str

    def as_dict(self) -> dict[str, str]:
        """For the report's JSON."""
        return {"none": self.why}


def fit(points: Sequence[tuple[int, float]]) -> Scaling | NoLaw:
    """The law that deviates least, in relative terms, if its coefficients can be told from 0; else Amdahl's; else none.

    Every repetition of an N is a point.
    """
    numbers = {n for n, _ in points}
    if any(rate <= 0 or n < 1 for n, rate in points):
        return NoLaw("a throughput of 0 was measured")
    if len(numbers) < POINTS_MIN:
        return NoLaw(f"different numbers measured: {len(numbers)}; a law needs {POINTS_MIN}")
    n, rate = np.array([float(each) for each, _ in points]), np.array([value for _, value in points])
    full = _fitted(n, rate, lambda c: c[0] * n / (1 + c[1] * (n - 1) + c[2] * n * (n - 1)), 3)
    if full is not None and full[0][1].low > 0 and full[0][2].low > 0 and full[0][1].value < 1:
        (one, contention, coherency), error = full
        return Scaling(one, contention, coherency, error, tuple(points))
    amdahl = _fitted(n, rate, lambda c: c[0] * n / (1 + c[1] * (n - 1)), 2)
    if amdahl is not None and amdahl[0][1].low > 0 and amdahl[0][1].value < 1:
        (one, contention), error = amdahl
        return Scaling(one, contention, None, error, tuple(points))
    return NoLaw("contention and coherency cannot be told from 0: what was measured is as good as linear, or too noisy")


def _fitted(
    n: Floats, rate: Floats, law: Callable[[Floats], Floats], coefficients: int
) -> tuple[list[Interval], float] | None:
    """Coefficients with their intervals and the relative error; None where the points do not determine them."""
    freedom = n.size - coefficients
    if freedom < 1:
        return None
    scale = float(np.median(rate / n))
    start = np.array([1.0, *([0.01] * (coefficients - 1))])

    def deviations(found: Floats) -> Floats:
        deviation: Floats = law(np.array([found[0] * scale, *found[1:]])) / rate - 1
        return deviation

    with np.errstate(all="ignore"):
        try:
            found = least_squares(
                deviations, start, bounds=([1e-6, *([-0.5 / float(n.max())] * (coefficients - 1))], np.inf)
            )
        except ValueError:  # a step led to where the law has no finite value
            return None
    if not found.success:
        return None
    squares = float(np.sum(found.fun**2))
    try:
        spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)) * squares / freedom)
    except np.linalg.LinAlgError:
        return None
    margin = spread * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    units = np.array([scale, *([1.0] * (coefficients - 1))])
    intervals = [
        Interval(float(value * unit), float((value - off) * unit), float((value + off) * unit))
        for value, off, unit in zip(found.x, margin, units, strict=True)
    ]
    return intervals, math.sqrt(squares / n.size)
