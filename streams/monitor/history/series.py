"""Values of several rows over time in a fixed amount of memory: recent points fine, older ones coarse. Pure.

A coarse point stands for all looks in its span: the maximum of values such as lag, the mean of rates.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from streams.batch.columns import Bools, Float64, Int64

Float32 = npt.NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)

VALUE_BYTES: Final = 4
FINE_POINTS: Final = 360
"""Newest looks, kept one by one: half an hour, at one look in 5 s."""
COARSE_MS_MIN: Final = 60_000
"""Before that, one point stands for a minute, or for two looks where those are rarer."""
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a series keeps. `peaks`: by field, whether its maximum counts, else its mean."""

    peaks: tuple[bool, ...]
    coarse_points: int
    coarse_ms: int

    @classmethod
    def of(cls, peaks: tuple[bool, ...], *, interval_s: float, hours: float) -> "Shape":
        """Points for `hours` of looks that are `interval_s` apart."""
        coarse_ms = max(COARSE_MS_MIN, round(2_000 * interval_s))
        return cls(peaks, max(2, round(hours * _HOUR_MS / coarse_ms)), coarse_ms)

    @property
    def row_bytes(self) -> int:
        """Bytes of memory per row, apart from some for all rows together."""
        return (FINE_POINTS + self.coarse_points) * len(self.peaks) * VALUE_BYTES


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time in equal steps."""

    start_ms: int
    step_ms: int
    steps: int

    @property
    def end_ms(self) -> int:
        """End of the last step."""
        return self.start_ms + self.step_ms * self.steps


class _Ring:
    """The newest `points` points of some rows."""

    def __init__(self, points: int, rows: int, fields: int) -> None:
        self._times = np.zeros(points, dtype=np.int64)
        self._values = np.zeros((points, rows, fields), dtype=np.float32)  # memory is taken as points come
        self._next = self._count = 0

    def add(self, time_ms: int, values: Float32) -> None:
        self._times[self._next] = time_ms
        self._values[self._next] = values
        self._next = (self._next + 1) % len(self._times)
        self._count = min(self._count + 1, len(self._times))

    def moved(self, rows: Int64) -> "_Ring":
        """The same points under other row numbers; -1: a row that is new."""
        found = _Ring(len(self._times), len(rows), self._values.shape[2])
        found._times[:], found._next, found._count = self._times, self._next, self._count
        for place in self._order().tolist():
            found._values[place] = np.where((rows >= 0)[:, None], self._values[place][rows], np.nan)
        return found

    def points(self, row: int) -> tuple[Int64, Float32]:
        """Times, and the values of a row, the oldest first."""
        order = self._order()
        return self._times[order], self._values[order, row]

    @property
    def oldest_ms(self) -> int | None:
        return int(self._times[self._order()[0]]) if self._count else None

    def _order(self) -> Int64:
        return (np.arange(self._count, dtype=np.int64) - self._count + self._next) % len(self._times)


class Series(Generic[Key]):
    """The values of `rows`, by their keys."""

    def __init__(self, rows: Sequence[Key], shape: Shape) -> None:
        self.rows = list(rows)
        self._place = {key: row for row, key in enumerate(self.rows)}
        self._shape = shape
        self._peaks: Bools = np.array(shape.peaks, dtype=np.bool_)
        self._fine = _Ring(FINE_POINTS, len(self.rows), len(shape.peaks))
        self._coarse = _Ring(shape.coarse_points, len(self.rows), len(shape.peaks))
        self._bucket = -1
        self._open: list[Float32] = []
        """Looks of the coarse point that is being collected."""
        self.newest_ms = 0

    def add(self, time_ms: int, values: Float64) -> None:
        """Add a look: a value per row (first axis) and field; NaN: not known. A look that is not newer is ignored."""
        if time_ms <= self.newest_ms:
            return
        self.newest_ms = time_ms
        narrow = values.astype(np.float32)
        bucket = time_ms // self._shape.coarse_ms
        if self._open and bucket != self._bucket:
            self._coarse.add(
                self._bucket * self._shape.coarse_ms + self._shape.coarse_ms // 2, _joined(self._open, self._peaks)
            )
            self._open = []
        self._bucket = bucket
        self._open.append(narrow)
        self._fine.add(time_ms, narrow)

    def move_to(self, rows: Sequence[Key]) -> None:
        """Have these rows from now on; those that stay keep their points."""
        if list(rows) == self.rows:
            return
        taken = np.array([self._place.get(key, -1) for key in rows], dtype=np.int64)
        self._fine, self._coarse = self._fine.moved(taken), self._coarse.moved(taken)
        self._open = [np.where((taken >= 0)[:, None], values[taken], np.float32(np.nan)) for values in self._open]
        self.rows = list(rows)
        self._place = {key: row for row, key in enumerate(self.rows)}

    @property
    def oldest_ms(self) -> int | None:
        """Time of the oldest point."""
        coarse, fine = self._coarse.oldest_ms, self._fine.oldest_ms
        return fine if coarse is None else coarse if fine is None else min(coarse, fine)

    def on_grid(self, key: Key, span: Span) -> Float64:
        """Values of a row in each step of `span` (first axis), by field; NaN: nothing is known of it.

        Raises:
            KeyError: there is no such row.

        """
        row = self._place[key]
        fine_times, fine = self._fine.points(row)
        coarse_times, coarse = self._coarse.points(row)
        older = coarse_times < (fine_times[0] if len(fine_times) else 0)
        times = np.concatenate([coarse_times[older], fine_times])
        values = np.concatenate([coarse[older], fine]).astype(np.float64)
        return gridded(times, values, self._peaks, span)


def gridded(times: Int64, values: Float64, peaks: Bools, span: Span) -> Float64:
    """Points (first axis) of several fields in equal steps of time: peak or mean of those in each; NaN: none are."""
    place = (times - span.start_ms) // span.step_ms
    inside = (place >= 0) & (place < span.steps)
    place, values = place[inside], values[inside]
    found = np.full((span.steps, values.shape[1]), np.nan)
    np.fmax.at(found, place, values)
    known = np.isfinite(values)
    sums, counts = np.zeros_like(found), np.zeros_like(found)
    np.add.at(sums, place, np.where(known, values, 0.0))
    np.add.at(counts, place, known.astype(np.float64))
    means = np.divide(sums, counts, out=np.full_like(found, np.nan), where=counts > 0)
    return np.where(peaks, found, means)


def _joined(looks: Sequence[Float32], peaks: Bools) -> Float32:
    """Combine several looks to one point."""
    stacked = np.stack(looks)
    known = np.isfinite(stacked)
    counts = known.sum(axis=0)
    sums = np.where(known, stacked, 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan, dtype=sums.dtype), where=counts > 0)
    found: Float32 = np.where(peaks, np.fmax.reduce(stacked, axis=0), means).astype(np.float32)
    return found
