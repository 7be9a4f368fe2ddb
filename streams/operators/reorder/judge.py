"""Decides which events below the watermark are late, and in which order events are released.

Everything is decided per record, by the watermark at its own place in the log, so that it does not depend on how the
log was cut into batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.batch.columns import Bools, Int64, Objects
from streams.batch.events import Events
from streams.batch.refs import ByteColumn, byte_objects, concat_bytes

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


def judge_behind(
    events: Events, watermark: Int64, behind: Bools, last_due: LastDue, held: list[Events]
) -> tuple[Bools, Int64]:
    """Which of the events below the watermark (at least one) are late, and by how many ms.

    `events` are the batch's accepted events in log order, `watermark` the one at each place, `behind` those at or below
    it, `held` the events held from earlier batches. An event that it has passed is late when its key already has a
    due event that comes after it. Exact, over the keys concerned and what becomes due in this batch only.
    """
    is_late = np.zeros(len(events), dtype=np.bool_)
    late_by_ms = np.zeros(len(events), dtype=np.int64)
    is_concerned = np.zeros(len(last_due.event_time), dtype=np.bool_)
    is_concerned[events.slot[behind]] = True
    slots = is_concerned.nonzero()[0]
    rows = is_concerned[events.slot].nonzero()[0]
    waited = [(chunk, _due_of(chunk, is_concerned, int(watermark[-1]))) for chunk in held]
    slot = np.concatenate([slots, *(chunk.slot[picked] for chunk, picked in waited), events.slot[rows]])
    time = np.concatenate(
        [last_due.event_time[slots], *(chunk.event_time[picked] for chunk, picked in waited), events.event_time[rows]]
    )
    sequence = np.concatenate(
        [last_due.sequence[slots], *(chunk.sequence[picked] for chunk, picked in waited), events.sequence[rows]]
    )
    ids = _Ids(
        [
            last_due.event_id[slots],
            *(chunk.event_id.take(picked) for chunk, picked in waited),
            events.event_id.take(rows),
        ]
    )
    # When each event becomes due: earlier due events come first; a held one just before the row whose watermark passes
    # it; one below the watermark at its own row.
    own = len(slot) - len(rows)
    place = 2 * np.searchsorted(watermark, time, side="left")
    place[: len(slots)] = -1
    place[own:] = np.where(behind[rows], 2 * rows + 1, place[own:])
    rank = _ranks(slot, time, sequence, ids)
    order = np.lexsort((place, slot))
    # Ranks of a slot are above those of all slots before it, and each slot begins with its last due event.
    latest = np.maximum.accumulate(rank[order])
    judged = ((order >= own) & behind[rows][np.maximum(order - own, 0)]).nonzero()[0]
    due, entry = latest[judged - 1], order[judged]
    late = rank[entry] < due
    time_of_rank = np.empty(len(slot), dtype=np.int64)
    time_of_rank[rank] = time
    late_rows = rows[entry[late] - own]
    is_late[late_rows] = True
    late_by_ms[late_rows] = time_of_rank[due[late]] - time[entry[late]]
    return is_late, late_by_ms


@dataclass(frozen=True, slots=True)
class _Ids:
    """Event ids as objects, built only if they are looked at."""

    parts: Sequence[ByteColumn]

    def objects(self) -> Objects:
        """All ids as objects."""
        return byte_objects(concat_bytes(self.parts))


def _due_of(chunk: Events, is_concerned: Bools, watermark: int) -> Int64:
    """Rows of held events that are due at `watermark` and whose slot is concerned."""
    ripe = (chunk.event_time <= watermark).nonzero()[0]
    return ripe[is_concerned[chunk.slot[ripe]]]


def _ranks(slot: Int64, time: Int64, sequence: Int64, ids_given: _Ids) -> Int64:
    """Place of each row in the order of (slot, event time, sequence, id); equal rows share one."""
    order = np.lexsort((sequence, time, slot))
    tied = np.ones(len(order) - 1, dtype=np.bool_)
    for column in (slot, time, sequence):
        tied &= column[order[1:]] == column[order[:-1]]
    if tied.any():
        ids = ids_given.objects()
        # Rows that only their ids tell apart stand together: sorting just those, they fill the same places.
        places = (np.append(tied, False) | np.insert(tied, 0, False)).nonzero()[0]
        group = np.cumsum(np.insert(~tied, 0, True))[places].tolist()
        members = zip(group, ids[order[places]].tolist(), order[places].tolist(), strict=True)
        order[places] = [row for *_, row in sorted(members)]
        tied[tied] = ids[order[1:]][tied] == ids[order[:-1]][tied]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(np.insert(~tied, 0, False))
    return rank


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
    places = (np.append(tied, False) | np.insert(tied, 0, False)).nonzero()[0]
    rows = order[places]
    if (events.id_word[rows] & np.uint64(1)).all():  # all UUIDs: their words sort as their text does
        columns = (events.id_lo[rows], events.id_hi[rows], events.sequence[rows], events.event_time[rows])
        order[places] = rows[np.lexsort(columns)]
    else:
        order[places] = sorted(rows.tolist(), key=lambda row: _sort_key(events, row))
    return order


def _sort_key(events: Events, row: int) -> SortKey:
    return int(events.event_time[row]), int(events.sequence[row]), events.event_id[row] or b""
