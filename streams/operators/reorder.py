"""Reorder: hold events until the watermark passes them, release them in order, tell late ones apart.

Everything is decided per record, by the watermark at its own place in the log, so that it does not depend on how the
log was cut into batches.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from streams.operators.columns import Bools, Events, Int64, Objects

SortKey = tuple[int, int, bytes]
"""(event_time, sequence, event_id): the order of events."""


@dataclass(frozen=True, slots=True)
class LastDue:
    """Each key's last released event, by slot."""

    event_time: Int64
    sequence: Int64
    event_id: Objects

    def of(self, slot: int) -> SortKey:
        """Sort key of the last released event of `slot`; smaller than any other when there is none."""
        return int(self.event_time[slot]), int(self.sequence[slot]), self.event_id[slot]


def watermarks(event_time: Int64, timestamp_ms: Int64, *, start: int, lateness_ms: int) -> Int64:
    """Watermark at each record's place in the log, the record itself included.

    The running maximum of min(event time, record timestamp) - lateness: a device whose clock runs ahead of the broker's
    cannot drag it.
    """
    running = np.maximum.accumulate(np.minimum(event_time, timestamp_ms) - lateness_ms)
    return np.maximum(running, start)


@dataclass(frozen=True, slots=True)
class Course:
    """The watermark's course over some records of a partition: before the first of them, and behind each."""

    start: int
    watermark: Int64

    @property
    def end(self) -> int:
        """Behind the last record."""
        return int(self.watermark[-1])

    def prior(self) -> Int64:
        """The watermark just before each record."""
        before = np.empty_like(self.watermark)
        before[0], before[1:] = self.start, self.watermark[:-1]
        return before

    def prior_of(self, event_time: Int64) -> Int64:
        """For events that the watermark passes in its course: where it stood just before it passed each."""
        passed = np.searchsorted(self.watermark, event_time, side="left")
        return np.where(passed > 0, self.watermark[passed - 1], self.start)


def judge_behind(
    events: Events, watermark: Int64, behind: Bools, last_due: LastDue, held: list[Events]
) -> tuple[Bools, Int64]:
    """Which of the events behind the watermark are late, and by how many ms.

    `events` are the batch's accepted events in log order, `watermark` the one at each place, `behind` those at or below
    it, `held` the events held from earlier batches. An event behind the watermark is late when its key already has a
    due event that comes after it. Exact and sequential, over the keys concerned only.
    """
    late = np.zeros(len(events), dtype=np.bool_)
    late_by_ms = np.zeros(len(events), dtype=np.int64)
    concerned = np.unique(events.slot[behind])
    pending: dict[int, list[SortKey]] = {}
    for chunk in held:
        for row in np.flatnonzero(np.isin(chunk.slot, concerned)).tolist():
            pending.setdefault(int(chunk.slot[row]), []).append(_sort_key(chunk, row))
    for heap in pending.values():
        heapq.heapify(heap)
    due: dict[int, SortKey] = {slot: last_due.of(slot) for slot in concerned.tolist()}
    for row in np.flatnonzero(np.isin(events.slot, concerned)).tolist():
        slot, key = int(events.slot[row]), _sort_key(events, row)
        heap = pending.setdefault(slot, [])
        while heap and heap[0][0] <= watermark[row]:
            due[slot] = max(due[slot], heapq.heappop(heap))
        if not behind[row]:
            heapq.heappush(heap, key)
        elif key >= due[slot]:
            due[slot] = key
        else:
            late[row], late_by_ms[row] = True, due[slot][0] - key[0]
    return late, late_by_ms


def release_order(events: Events) -> Int64:
    """Rows sorted by (event_time, sequence, event_id)."""
    order = np.argsort(events.event_time, kind="stable")
    time = events.event_time[order]
    if not (time[1:] == time[:-1]).any():
        return order
    order = np.lexsort((events.sequence, events.event_time))
    time, sequence = events.event_time[order], events.sequence[order]
    tied = (time[1:] == time[:-1]) & (sequence[1:] == sequence[:-1])
    if not tied.any():
        return order
    # Rows of equal time and sequence stand together: sorting just those, they fill the same places.
    places = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
    rows = order[places]
    if (events.id_word[rows] & np.uint64(1)).all():  # all UUIDs: their words sort as their text does
        columns = (events.id_lo[rows], events.id_hi[rows], events.sequence[rows], events.event_time[rows])
        order[places] = rows[np.lexsort(columns)]
    else:
        order[places] = sorted(rows.tolist(), key=lambda row: _sort_key(events, row))
    return order


def _sort_key(events: Events, row: int) -> SortKey:
    return int(events.event_time[row]), int(events.sequence[row]), events.event_id[row]
