"""What must become of the records that were sent, counted while they are. Pure."""

from bisect import bisect_left
from collections import defaultdict, deque
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtest.fleet.traffic import CODES, KINDS, REJECTS, Kind, TrafficBatch
from loadtest.histograms import new_histogram, record

_MINUTE_MS: Final = 60_000
_REJECT: Final = CODES[REJECTS[0]]
_NOT_UNIQUE: Final = frozenset({Kind.DUPLICATE, Kind.LATE, *REJECTS})
_VISIBLE: Final = np.array([kind is not Kind.DUPLICATE and kind not in REJECTS for kind in KINDS])
"""By code: whether a record must come out, in clean or in late."""


class Window:
    """Records that are measured, by their timestamps: what must come out of them, and how late they were sent."""

    def __init__(self, from_ms: int, until_ms: int) -> None:
        self.due = 0
        """Records that must become visible, in clean or in late."""
        self.delays: HdrHistogram = new_histogram()
        """Milliseconds from when each record was to be sent to when it was given to the producer."""
        self.is_over = False
        """Whether a record of a later time was sent: `due` is final."""
        self._from_ms = from_ms
        self._until_ms = until_ms

    def add(self, batch: TrafficBatch, *, sent_ms: float) -> None:
        """Count a batch that was just sent."""
        self.is_over |= bool(len(batch)) and batch.timestamps_ms[-1] >= self._until_ms
        first = bisect_left(batch.timestamps_ms, self._from_ms)
        end = bisect_left(batch.timestamps_ms, self._until_ms)
        if first < end:
            self.due += int(_VISIBLE[batch.kinds[first:end]].sum())
            record(self.delays, sent_ms - np.array(batch.timestamps_ms[first:end], dtype=np.float64))


class Tally:
    """Counts of what was sent, by what it was meant to be, and the first and last timestamp."""

    def __init__(self, quarantine_rejects: int) -> None:
        """`quarantine_rejects`: of a key within a minute, beyond which a device is quarantined; 0: never."""
        self.records = 0
        self.first_timestamp_ms: int | None = None
        self.last_timestamp_ms: int | None = None
        self.rejects_exact = True
        """False once some device sent so many rejects that it is quarantined, and good records of it as well."""
        self._counts = np.zeros(len(KINDS), dtype=np.int64)
        self._quarantine_rejects = quarantine_rejects
        self._recent: defaultdict[bytes | None, deque[int]] = defaultdict(deque)

    def add(self, batch: TrafficBatch) -> None:
        """Count a batch that was sent."""
        if not len(batch):
            return
        self.records += len(batch)
        self._counts += np.bincount(batch.kinds, minlength=len(KINDS))
        self.last_timestamp_ms = batch.timestamps_ms[-1]
        if self.first_timestamp_ms is None:
            self.first_timestamp_ms = batch.timestamps_ms[0]
        if self._quarantine_rejects and self.rejects_exact:
            for row in np.flatnonzero(batch.kinds >= _REJECT):
                self._add_reject(batch.keys[row], batch.timestamps_ms[row])

    def _add_reject(self, key: bytes | None, timestamp_ms: int) -> None:
        recent = self._recent[key]
        recent.append(timestamp_ms)
        while recent[0] <= timestamp_ms - _MINUTE_MS:
            recent.popleft()
        if len(recent) > self._quarantine_rejects:
            self.rejects_exact = False
            self._recent.clear()

    def expected(self, *, late_exact: bool) -> dict[str, Any]:
        """What must become of the records: numbers that add up to `records`.

        `unique` ones belong into the clean topic, and `disordered`, `buffered`, `newest_first` and `skewed` are among
        them; `late` and `unique` may trade places unless `late_exact`, which `newest_first` ones do.
        """
        count = {kind: int(number) for kind, number in zip(KINDS, self._counts, strict=True)}
        return {
            "records": self.records,
            "unique": sum(number for kind, number in count.items() if kind not in _NOT_UNIQUE),
            **{kind.value: count[kind] for kind in (Kind.DISORDERED, Kind.BUFFERED, Kind.NEWEST_FIRST, Kind.SKEWED)},
            "duplicates": count[Kind.DUPLICATE],
            "late": count[Kind.LATE],
            "late_exact": late_exact,
            "rejects": {kind.value: count[kind] for kind in REJECTS if count[kind]},
            "rejects_exact": self.rejects_exact,
            "first_timestamp_ms": self.first_timestamp_ms,
            "last_timestamp_ms": self.last_timestamp_ms,
        }
