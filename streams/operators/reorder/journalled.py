"""Held events while the journal is read: as many as there is room for, the rest goes into pages of the store."""

from dataclasses import dataclass

from streams.batch.events import Events, Fields
from streams.operators.reorder.held import Held, memory_of_section, without_repeats
from streams.operators.reorder.section import last_held, unpack_held


@dataclass(frozen=True, slots=True)
class _Section:
    """What one cycle has held; most of it is released by the end of the journal, and never looked at."""

    data: bytes
    fields: Fields
    event_time_max: int
    memory: int
    """Of its events."""


class HeldInJournal:
    """Held events that a restore reads from the journal: as many as there is room for, the rest goes into pages."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._sections: list[_Section] = []
        self._bytes = 0

    def add(self, section: memoryview, fields: Fields, watermark: int, bytes_max: int) -> int:
        """Take events that were held at the end of a cycle, and say how many; up to `watermark` they are released.

        Raises:
            JournalCorrupted: the bytes are not such a section.

        """
        count, event_time_max = last_held(section)
        if event_time_max <= watermark:
            return count
        memory = memory_of_section(count, len(section))
        self._sections.append(_Section(bytes(section), fields, event_time_max, memory))
        self._bytes += memory
        if self._bytes > bytes_max:
            self._sections = [one for one in self._sections if one.event_time_max > watermark]
            self._bytes = sum(one.memory for one in self._sections)
            if self._bytes > bytes_max // 2:
                self._held.put_into_pages(self._taken(watermark))
        return count

    def rest(self, watermark: int) -> Events | None:
        """Take those in memory that are above `watermark`, each once."""
        return without_repeats(self._taken(watermark))

    def _taken(self, watermark: int) -> list[Events]:
        sections, self._sections, self._bytes = self._sections, [], 0
        unpacked = (unpack_held(memoryview(one.data), one.fields) for one in sections if one.event_time_max > watermark)
        waiting = (events.take(events.event_time > watermark) for events in unpacked)
        return [events for events in waiting if len(events)]
