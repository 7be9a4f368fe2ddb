"""How far a backfill is, and when it will be over. Times are arguments, in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_WINDOW_S: Final = 30.0
"""Over how long the pace is taken that the end follows from."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is at one moment."""

    done: int
    """Offsets of the range, over all partitions; those of transaction markers count."""
    total: int
    per_s: float
    left_s: float | None
    """Seconds that the run will still take; None: not known yet."""

    @property
    def part(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0


class Meter:
    """Measures the progress of one run."""

    def __init__(self, starts: Mapping[int, int]) -> None:
        """`starts`: by lane the first offset of the range."""
        self._starts = dict(starts)
        self._looks: list[tuple[float, int]] = []

    def look(self, reached: Mapping[int, int], ends: Mapping[int, int], now_s: float) -> Progress:
        """How far it is; `reached` and `ends` are offsets by lane."""
        total = sum(max(end - self._starts.get(lane, 0), 0) for lane, end in ends.items())
        done = sum(max(min(reached.get(lane, 0), end) - self._starts.get(lane, 0), 0) for lane, end in ends.items())
        self._looks.append((now_s, done))
        while len(self._looks) > 2 and now_s - self._looks[0][0] > _WINDOW_S:
            self._looks.pop(0)
        first_s, first = self._looks[0]
        passed_s = now_s - first_s
        per_s = (done - first) / passed_s if passed_s > 0 else 0.0
        return Progress(done, total, per_s, (total - done) / per_s if per_s > 0 else None)
