"""Held events while the journal is read: as many as there is room for, the rest goes into pages of the store."""

from streams.batch.events import Events
from streams.operators.reorder.held import Held, memory_of, without_repeats


class HeldInJournal:
    """Held events that a restore reads from the journal: as many as there is room for, the rest goes into pages."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._parts: list[Events] = []
        self._bytes = 0

    def add(self, events: Events, watermark: int, bytes_max: int) -> None:
        """Take events that were held at the end of a cycle; those up to `watermark` have been released since."""
        if not len(events):
            return
        self._parts.append(events)
        self._bytes += memory_of(events)
        if self._bytes > bytes_max:
            self._parts = self._waiting(watermark)
            self._bytes = sum(map(memory_of, self._parts))
        if self._bytes > bytes_max // 2:
            self._held.put_into_pages(self._parts)
            self._parts, self._bytes = [], 0

    def rest(self, watermark: int) -> Events | None:
        """Take those in memory that are above `watermark`, each once."""
        parts = self._waiting(watermark)
        self._parts, self._bytes = [], 0
        return without_repeats(parts)

    def _waiting(self, watermark: int) -> list[Events]:
        waiting = (events.take(events.event_time > watermark) for events in self._parts)
        return [events for events in waiting if len(events)]
