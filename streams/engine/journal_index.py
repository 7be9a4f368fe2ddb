"""Index of a partition's journal: the event times of its records.

It says what a restart must replay and where the journal may be truncated. Records are indexed in groups, so that the
index stays small for a long journal.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streams.limits import JOURNAL_INDEX_RECORDS
from streams.state.names import JOURNAL_INDEX
from streams.state.store import Store, WriteBatch, prefix_end

_OFFSET_BYTES: Final = 8
_COUNT_BYTES: Final = 4


@dataclass(slots=True)
class JournalGroup:
    """Consecutive records of the journal."""

    first_offset: int
    event_time_max: int
    records: int

    def row(self) -> tuple[bytes, bytes]:
        """The row of the group in the store."""
        newest = self.event_time_max.to_bytes(_OFFSET_BYTES, "big", signed=True)
        return _key(self.first_offset), newest + self.records.to_bytes(_COUNT_BYTES, "big")


class JournalIndex:
    """The groups of one partition, oldest first."""

    def __init__(self) -> None:
        self._groups: deque[JournalGroup] = deque()
        self._replay_group = 0
        """The first group that a restart must replay."""

    def note(self, offset: int, records: int, event_time_max: int, batch: WriteBatch) -> None:
        """Add records that begin at `offset`; `batch` writes the group's row."""
        groups = self._groups
        if not groups or groups[-1].records >= JOURNAL_INDEX_RECORDS or len(groups) == self._replay_group:
            groups.append(JournalGroup(offset, event_time_max, records))
        else:
            last = groups[-1]
            last.event_time_max = max(last.event_time_max, event_time_max)
            last.records += records
        batch.puts.append(groups[-1].row())

    def restore(self, store: Store, start: int, batch: WriteBatch) -> None:
        """Load the store's groups before offset `start`; `batch` deletes the others, which will be added again."""
        self._groups = deque(group for group in read_journal_index(store) if group.first_offset < start)
        self._replay_group = len(self._groups)
        batch.delete_ranges.append((_key(start), prefix_end(JOURNAL_INDEX)))

    def skip(self, event_time_below: int) -> None:
        """Nothing below this event time has to be replayed any more."""
        groups = self._groups
        while self._replay_group < len(groups) and groups[self._replay_group].event_time_max < event_time_below:
            self._replay_group += 1

    def replay_from(self, journal_next: int) -> int:
        """Offset from which a restart must replay; `journal_next` is the end of the journal."""
        if self._replay_group < len(self._groups):
            return self._groups[self._replay_group].first_offset
        return journal_next

    def oldest_needed(self, since: int) -> int | None:
        """Offset of the first group that is still needed; None when that is the very first one.

        A group is needed when it must be replayed, or holds an event time from `since` on, or is the last.
        """
        groups = self._groups
        old = 0
        while old < min(len(groups) - 1, self._replay_group) and groups[old].event_time_max < since:
            old += 1
        return groups[old].first_offset if old else None

    def cut(self, before: int, batch: WriteBatch) -> int | None:
        """Remove the groups that lie wholly before offset `before`; returns the offset of the first remaining group.

        None when there is nothing to forget. `batch` deletes their rows.
        """
        groups, found = self._groups, None
        while len(groups) > 1 and groups[1].first_offset <= before:
            key = _key(groups.popleft().first_offset)
            self._replay_group -= 1
            batch.delete_ranges.append((key, key + b"\0"))
            found = groups[0].first_offset
        return found


def read_journal_index(store: Store) -> Iterator[JournalGroup]:
    """Read the index from the store."""
    for key, value in store.scan(JOURNAL_INDEX):
        yield JournalGroup(
            int.from_bytes(key[len(JOURNAL_INDEX) :], "big"),
            int.from_bytes(value[:_OFFSET_BYTES], "big", signed=True),
            int.from_bytes(value[_OFFSET_BYTES:], "big"),
        )


def _key(first_offset: int) -> bytes:
    return JOURNAL_INDEX + first_offset.to_bytes(_OFFSET_BYTES, "big")
