"""Intake of a range of the logs: records before the offset at which each lane ends, and no idle time of the clock.

For running a flow over its history (`streams.backfill`). The watermark moves with the events alone. Where the range is
closed, idle time is given out once every lane has come to its end, so that all that is held is released.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from streams.batch.records import Records
from streams.sources.base import Idle, Polled
from streams.sources.kafka.intake import Intake

_RELEASE_FIRST_MS: Final = 60_000
_RELEASE_MS_MAX: Final = 1 << 50
"""Some 35,000 years: later timers than that are none."""


class Range:
    """Where to end, by lane (`streams.batch.lanes`). One thread may move the ends while another one reads them."""

    def __init__(self, ends: Mapping[int, int], *, is_closed: bool = False, is_final: bool = True) -> None:
        """`ends`: by lane the end offset of the range.

        `is_closed`: whether what is held at the end is released; nothing that comes later is processed on this state.
        `is_final`: whether the ends stay as they are: the range is over once they are reached.
        """
        self.ends: Mapping[int, int] = dict(ends)
        self.is_closed, self.is_final = is_closed, is_final

    def move(self, ends: Mapping[int, int], *, is_final: bool) -> None:
        """Set other ends, none before an earlier one."""
        self.ends = {lane: max(end, self.ends.get(lane, 0)) for lane, end in ends.items()}
        self.is_final = is_final


class RangeIntake(Intake):
    """`Intake` that hands over only what is before the ends of a range, and pauses the lanes that are there."""

    def __init__(self, *given: Any, over: Range, **named: Any) -> None:
        """Create it like an `Intake`, limited to the range `over`."""
        super().__init__(*given, **named)
        self._over = over
        self._wanted: frozenset[int] = frozenset()
        self._ended: frozenset[int] = frozenset()
        self._handed: dict[int, int] = {}
        self._cut: dict[int, int] = {}
        """By lane: the first offset that was read and not handed over."""
        self._released_ms = 0
        self._looked_at: Mapping[int, int] = {}
        """The ends by which `_ended` was found."""

    def poll(self) -> Polled:
        """As `Intake.poll`; idle lanes are those of a closed range that is at its end, for ever longer times."""
        ends = self._over.ends  # they may be moved meanwhile
        self._read_again(ends)
        polled = super().poll()
        records = None if polled.records is None else self._within(polled.records, ends)
        reached = self.positions()
        ended = frozenset(lane for lane, end in ends.items() if reached.get(lane, -1) >= end)
        if ended != self._ended:
            self._ended = ended
            super().pause_only(self._wanted | ended)
        self._looked_at = ends
        return Polled(records, self._idle(ends), polled.generation)

    def pause_only(self, partitions: frozenset[int]) -> None:
        """As `Intake.pause_only`; lanes at their ends are paused besides."""
        self._wanted = partitions
        super().pause_only(partitions | self._ended)

    def is_at_end(self, positions: Mapping[int, int]) -> bool:
        """Whether every lane was read to its end, and `positions`, by lane, are after all that was handed over."""
        ends = self._over.ends
        return (
            ends is self._looked_at
            and self._ended.issuperset(ends)
            and all(positions.get(lane, -1) >= handed for lane, handed in self._handed.items())
        )

    def _read_again(self, ends: Mapping[int, int]) -> None:
        """Go back to records that were read beyond an end that has moved since."""
        taken = self.taken()
        for lane, offset in list(self._cut.items()):
            if ends.get(lane, 0) > offset:
                del self._cut[lane]
                if taken.get(lane, 0) > offset:
                    self._consume_from(lane, offset)

    def _within(self, records: Records, ends: Mapping[int, int]) -> Records | None:
        keep = np.zeros(len(records), dtype=bool)
        for lane in np.unique(records.partition).tolist():
            mine = records.partition == lane
            offsets, end = records.offset[mine], ends.get(lane, 0)
            keep |= mine & (records.offset < end)
            within = offsets[offsets < end]
            if len(within):
                self._handed[lane] = int(within[-1]) + 1
            if len(within) < len(offsets):
                first = int(offsets[len(within)])
                self._cut[lane] = min(first, self._cut.get(lane, first))
        if not keep.any():
            return None
        return records if keep.all() else records.take(keep.nonzero()[0])

    def _idle(self, ends: Mapping[int, int]) -> dict[int, Idle]:
        if not self._over.is_closed or not self._ended.issuperset(ends):
            self._released_ms = 0
            return {}
        self._released_ms = min(max(_RELEASE_FIRST_MS, 2 * self._released_ms), _RELEASE_MS_MAX)
        return dict.fromkeys(ends, Idle(0, self._released_ms))
