"""A section of held events that was looked through, but not unpacked."""

from dataclasses import dataclass
from typing import Self

from streams.batch.events import Events, Fields
from streams.operators.reorder.held import memory_of, memory_of_values
from streams.operators.reorder.section import held_outline, unpack_held


@dataclass(frozen=True, slots=True)
class PackedHeld:
    """One piece of `pack_held`."""

    data: bytes
    count: int
    event_time_max: int
    memory: int
    """About what the events take when they are unpacked."""

    @classmethod
    def of(cls, section: memoryview, fields: Fields) -> Self:
        """Look through a section, so that `after` cannot fail. Headers, which are rare, are unpacked for that.

        Raises:
            JournalCorrupted: the bytes are not such a section.

        """
        found = held_outline(section)
        memory = memory_of_values(found.value_bytes, found.count)
        if found.has_headers:
            memory = memory_of(unpack_held(section, fields))
        return cls(bytes(section), found.count, found.event_time_max, memory)

    def after(self, watermark: int, fields: Fields) -> Events:
        """The events above `watermark`, with the columns of `fields`."""
        events = unpack_held(memoryview(self.data), fields)
        return events.take(events.event_time > watermark)
