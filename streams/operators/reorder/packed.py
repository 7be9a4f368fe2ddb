"""A section of held events that was looked through, but not unpacked."""

import json
from dataclasses import dataclass
from typing import Final, Self

from streams.batch.columns import TIME_MIN
from streams.batch.events import Events, Fields
from streams.operators.reorder.held import memory_of
from streams.operators.reorder.section import unpack_held
from streams.state.codec import ColumnReader
from streams.state.journal import reading

_EVENT_BYTES: Final = 400
"""Approximate memory of an event without its value, once it is unpacked."""
_NUMBERS_AFTER_TIME: Final = 4
"""Columns of 64 bits between the event times and the payload: the sequence, and the three words of the id."""


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
        with reading():
            columns = ColumnReader(section)
            names = json.loads(columns.blob(columns.size()))
            count, payload, texts = int(names["events"]), list(names["payload"]), list(names["texts"])
            columns.numbers("<i8", count)
            event_time = columns.numbers("<i8", count)
            columns.numbers("<i8", count * (_NUMBERS_AFTER_TIME + len(payload)))
            for _ in ("event_id", "key"):
                columns.skip_texts(count)
            value_bytes = columns.skip_texts(count)
            has_headers = columns.skip_texts(count) > 0
            for _ in texts:
                columns.skip_texts(count)
            newest = int(event_time.max()) if count else TIME_MIN
        memory = memory_of(unpack_held(section, fields)) if has_headers else 2 * value_bytes + _EVENT_BYTES * count
        return cls(bytes(section), count, newest, memory)

    def after(self, watermark: int, fields: Fields) -> Events:
        """The events above `watermark`, with the columns of `fields`."""
        events = unpack_held(memoryview(self.data), fields)
        return events.take(events.event_time > watermark)
