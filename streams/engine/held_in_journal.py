"""Held events that a restore reads from the journal: as many as there is room for in memory, the rest in the store."""

from streams.batch.events import Events
from streams.engine.task import PartitionTask
from streams.operators.reorder.held import memory_of, without_repeats
from streams.state.journal import JournalCorrupted
from streams.state.store import StoreCorrupted


class HeldInJournal:
    """Collects them for one task, in the order of the journal."""

    def __init__(self, task: PartitionTask, bytes_max: int) -> None:
        self._task = task
        self._bytes_max = bytes_max
        self._parts: list[Events] = []
        self._bytes = 0

    def add(self, events: Events, watermark: int) -> None:
        """Take events that were held at the end of a cycle; those up to `watermark` have been released since."""
        if not len(events):
            return
        self._parts.append(events)
        self._bytes += memory_of(events)
        if self._bytes > self._bytes_max:
            self._parts = self._waiting(watermark)
            self._bytes = sum(map(memory_of, self._parts))
        if self._bytes > self._bytes_max // 2:
            self._task.held.put_into_pages(self._parts, self._task.store)
            self._parts, self._bytes = [], 0

    def hold(self, watermark: int) -> None:
        """Let the task hold what is above `watermark`, the one that the partition stands at.

        Raises:
            StoreCorrupted: a page of the store cannot be read.

        """
        events = without_repeats(self._waiting(watermark))
        if events is not None:
            self._task.hold_restored(events)
        try:
            self._task.held.restore_pages(self._task.store, watermark)
        except JournalCorrupted as error:
            raise StoreCorrupted(f"a page of held events: {error}") from None

    def _waiting(self, watermark: int) -> list[Events]:
        waiting = (events.take(events.event_time > watermark) for events in self._parts)
        return [events for events in waiting if len(events)]
