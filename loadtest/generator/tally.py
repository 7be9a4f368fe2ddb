"""What must become of the records that were sent, counted while they are. Pure."""

from collections import defaultdict, deque
from typing import Any, Final

import numpy as np

from loadtest.fleet.traffic import CODES, KINDS, REJECTS, Kind, TrafficBatch

_MINUTE_MS: Final = 60_000
_REJECT: Final = CODES[REJECTS[0]]
_NOT_UNIQUE: Final = frozenset({Kind.DUPLICATE, Kind.LATE, *REJECTS})


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

        `unique` ones belong into the clean topic, `disordered` are those of them that were overtaken; `late` and
        `unique` may trade places unless `late_exact`.
        """
        count = {kind: int(number) for kind, number in zip(KINDS, self._counts, strict=True)}
        return {
            "records": self.records,
            "unique": sum(number for kind, number in count.items() if kind not in _NOT_UNIQUE),
            "disordered": count[Kind.DISORDERED],
            "duplicates": count[Kind.DUPLICATE],
            "late": count[Kind.LATE],
            "late_exact": late_exact,
            "rejects": {kind.value: count[kind] for kind in REJECTS if count[kind]},
            "rejects_exact": self.rejects_exact,
            "first_timestamp_ms": self.first_timestamp_ms,
            "last_timestamp_ms": self.last_timestamp_ms,
        }
