"""Held events while the journal is read: as many as there is room for, the rest goes into pages of the store."""

from streams.batch.events import Events, Fields
from streams.operators.reorder.held import Held, without_repeats
from streams.operators.reorder.packed import PackedHeld


class HeldInJournal:
    """Held events that a restore reads from the journal: as many as there is room for, the rest goes into pages.

    Most of what cycles have held was released by later ones. So sections stay packed, and one of which every event has
    been released since is never unpacked.
    """

    def __init__(self, held: Held, fields: Fields) -> None:
        """Events have the columns of `fields`, and end in `held`."""
        self._held, self._fields = held, fields
        self._parts: list[PackedHeld] = []
        self._bytes = 0

    def add(self, section: memoryview, watermark: int, bytes_max: int) -> int:
        """Take what was held at the end of a cycle, and say how many events that is.

        Those up to `watermark` have been released since.

        Raises:
            JournalCorrupted: the bytes are not such a section.

        """
        part = PackedHeld.of(section, self._fields)
        if part.event_time_max > watermark:
            self._parts.append(part)
            self._bytes += part.memory
            if self._bytes > bytes_max:
                self._make_room(watermark, bytes_max)
        return part.count

    def rest(self, watermark: int) -> Events | None:
        """Take those in memory that are above `watermark`, each once."""
        parts = self._waiting(watermark)
        self._parts, self._bytes = [], 0
        return without_repeats(parts)

    def _make_room(self, watermark: int, bytes_max: int) -> None:
        self._parts = [part for part in self._parts if part.event_time_max > watermark]
        self._bytes = sum(part.memory for part in self._parts)
        if self._bytes > bytes_max // 2:
            self._held.put_into_pages(self._waiting(watermark))
            self._parts, self._bytes = [], 0

    def _waiting(self, watermark: int) -> list[Events]:
        waiting = (part.after(watermark, self._fields) for part in self._parts if part.event_time_max > watermark)
        return [events for events in waiting if len(events)]
