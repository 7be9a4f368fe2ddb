"""Universal Scalability Law: what contention and coherency cost, fitted to measured throughputs.

X(N) = g N / (1 + a (N - 1) + b N (N - 1)): `g` what one partition would bring alone, `a` the share of the work that is
serialised (contention), `b` what every pair costs each other (coherency). N. J. Gunther, Guerrilla Capacity Planning,
Springer 2007, chapter 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import nnls

POINTS_MIN: Final = 3
_NOISE: Final = 1e-9
"""Of the solver: a smaller share is none."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """A fitted law. Rates are events per second."""

    rate_of_one: float
    contention: float
    coherency: float
    error: float
    """Root mean square of the relative deviations of the points."""
    points: tuple[tuple[int, float], ...]
    """What was measured: (N, rate)."""

    def rate(self, n: float) -> float:
        """Throughput that the law gives for N = n."""
        return self.rate_of_one * n / (1 + self.contention * (n - 1) + self.coherency * n * (n - 1))

    @property
    def peak_n(self) -> float:
        """N beyond which more makes it slower; infinite without coherency cost."""
        if self.coherency <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def ceiling(self) -> float:
        """The highest rate that any N brings; infinite when the law has no bound."""
        if math.isfinite(self.peak_n):
            return self.rate(self.peak_n)
        return self.rate_of_one / self.contention if self.contention > 0 else math.inf

    def as_dict(self) -> dict[str, float | list[tuple[int, float]] | None]:
        """For the report's JSON; an infinity is null."""
        return {
            "rate_of_one": round(self.rate_of_one, 3),
            "contention": round(self.contention, 6),
            "coherency": round(self.coherency, 8),
            "error": round(self.error, 4),
            "peak_n": round(self.peak_n, 1) if math.isfinite(self.peak_n) else None,
            "ceiling": round(self.ceiling, 1) if math.isfinite(self.ceiling) else None,
            "points": [(n, round(rate, 1)) for n, rate in self.points],
        }


def fit(points: Sequence[tuple[int, float]]) -> Scaling | None:
    """The law that deviates least, in relative terms; None for fewer than three different N, or a rate of zero.

    N / X(N) = (1 + a (N - 1) + b N (N - 1)) / g is linear in 1 / g, a / g and b / g. With 0 <= a, b <= 1 it is a sum of
    1, N and 1 + N (N - 1) with weights that are not negative: non-negative least squares, each row weighted so that
    every point counts by its relative error.
    """
    if len({n for n, _ in points}) < POINTS_MIN or any(rate <= 0 or n < 1 for n, rate in points):
        return None
    n = np.array([float(number) for number, _ in points])
    rate = np.array([value for _, value in points])
    columns = np.stack([np.ones_like(n), n, 1 + n * (n - 1)], axis=1)
    (free, serial, pairs), _ = nnls(columns * (rate / n)[:, None], np.ones_like(n))
    whole = float(free + serial + pairs)
    contention, coherency = (0.0 if share < _NOISE else float(share) for share in (serial / whole, pairs / whole))
    found = Scaling(1 / whole, contention, coherency, 0.0, tuple(points))
    deviations = np.array([found.rate(number) / value - 1 for number, value in points])
    return Scaling(
        found.rate_of_one, found.contention, found.coherency, float(np.sqrt(np.mean(deviations**2))), tuple(points)
    )
