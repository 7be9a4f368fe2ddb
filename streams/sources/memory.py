"""Twin of the Kafka source, over `streams.kafka.memory.MemoryKafka`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from streams.batch.lanes import all_lanes, input_of, partition_of_lane
from streams.batch.records import Records
from streams.clock import monotonic_ms
from streams.kafka.memory import Entry, MemoryKafka
from streams.limits import BATCH_RECORDS_MAX, OPEN_TRANSACTION_SAID_MS, SPARE_AFTER_MS
from streams.sources.base import Polled, RebalanceListener, Unreadable
from streams.sources.idle import IdleClock
from streams.sources.lost import LostRecords


@dataclass(frozen=True, slots=True)
class _Command:
    """A command since the last poll; `starts`: the partition that it starts, if any."""

    run: Callable[[], None]
    starts: int | None = None


class MemorySource:
    """`sources.base.Source`. A poll carries out what was asked for, and never waits.

    The group's members share its partitions evenly: whoever has one too many releases it in its next poll, and whoever
    has one too few takes it in a poll after that. A partition that `MemoryKafka.give` gives to another member is lost.
    """

    def __init__(
        self,
        kafka: MemoryKafka,
        *,
        topic: str,
        member: str,
        listener: RebalanceListener,
        idle_ms: int = 1_000,
        batch_records_max: int = BATCH_RECORDS_MAX,
        now_ms: Callable[[], int] = monotonic_ms,
        on_lost_records: Callable[[int, int, int], None] = lambda _lane, _first, _end: None,
        further: Sequence[str] = (),
    ) -> None:
        """`now_ms`: monotonic milliseconds. The rest is as with the Kafka source."""
        self._kafka, self._topics, self._member, self._listener = kafka, (topic, *further), member, listener
        self._batch_records_max, self._now_ms = batch_records_max, now_ms
        self._idle = IdleClock(idle_ms)
        self._lost = LostRecords(on_lost_records)
        self._commands: list[_Command] = []
        self._assigned: set[int] = set()
        self._started: dict[int, int] = {}
        """Partitions that are read, and the offset that is next."""
        self._end_offset: dict[int, int] = {}
        self._paused: frozenset[int] = frozenset()
        self._generation = 0
        self._without_since_ms: int | None = None
        self._is_suspect = False
        self._beyond_end: frozenset[int] = frozenset()
        self.unreadable: dict[int, Unreadable] = {}

    def subscribe(self) -> None:
        """Join the group."""
        self._kafka.members.add(self._member)
        self._without_since_ms = self._now_ms()

    def poll(self) -> Polled:
        """Return the next records; also serves rebalances."""
        self._listener.noted(self._kafka.membership_of(self._member))
        self._rebalance()
        commands, self._commands = self._commands, []
        for command in commands:
            command.run()
        now_ms = self._now_ms()
        records = self._fetched(now_ms)
        if wanted := self._idle.due(now_ms):
            self._idle.told({lane: len(self._kafka.log(*self._place(lane))) for lane in wanted}, now_ms)
        self.unreadable = self._idle.unreadable(self._started, now_ms, after_ms=OPEN_TRANSACTION_SAID_MS)
        return Polled(records, self._idle.idle(self._started), self._generation)

    def close(self) -> None:
        """Release all partitions and leave the group."""
        self._release(sorted(self._assigned))
        self._kafka.members.discard(self._member)

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Read a partition from an offset on (-1: from its beginning)."""
        low, high = bounds
        self._commands.append(_Command(lambda: self._start(partition, offset_next, low, high), starts=partition))

    def start_again(self, partition: int, offset_next: int, generation: int) -> None:
        """Read a partition, which is read, from another offset; void in another generation."""

        def run() -> None:
            if generation == self._generation:
                self._read_from(partition, offset_next)

        self._commands.append(_Command(run, starts=partition))

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop reading these partitions, and begin another generation."""
        wanted = all_lanes(partitions, len(self._topics))

        def run() -> None:
            self._generation = generation
            self._forget(wanted)

        self._commands.append(_Command(run))

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the started partitions."""

        def run() -> None:
            self._paused = partitions & self._started.keys()
            self._idle.pause(self._paused, self._now_ms())

        self._commands.append(_Command(run))

    def positions(self) -> dict[int, int]:
        """By partition that is read: the offset up to which nothing is left to take."""
        return {p: max(taken, self._end_offset.get(p, 0)) for p, taken in self._started.items()}

    def taken(self) -> dict[int, int]:
        """By partition that is read: the offset after the last record that was handed over."""
        return dict(self._started)

    def is_spare(self, now_ms: int) -> bool:
        """Whether no partition was left for this member for longer than a rebalance takes."""
        since_ms = self._without_since_ms
        return since_ms is not None and now_ms - since_ms >= SPARE_AFTER_MS

    def take_suspicion(self) -> bool:
        """Whether a log was found to be truncated since the last call."""
        found, self._is_suspect = self._is_suspect, False
        return found

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found to end before the offset that is next."""
        found, self._beyond_end = self._beyond_end, frozenset()
        return found

    # --- rebalances -------------------------------------------------------------------------------------------------

    def _rebalance(self) -> None:
        owners, wanted = self._kafka.owners, self._kafka.wanted(self._member)
        if lost := sorted(p for p in self._assigned if owners.get(p) != self._member):
            self._drop(lost)
            self._listener.lost(lost)
        self._release(sorted(self._assigned - wanted))
        for partition in wanted - owners.keys():
            self._kafka.give(partition, self._member)
        new = sorted(p for p, owner in owners.items() if owner == self._member and p not in self._assigned)
        if new:
            self._assigned.update(new)
            self._without_since_ms = None
            self._listener.noted(self._kafka.membership_of(self._member))
            self._listener.assigned(new)

    def _release(self, partitions: list[int]) -> None:
        if not partitions:
            return
        self._drop(partitions)
        self._listener.revoked(partitions)
        for partition in partitions:
            self._kafka.take_back(partition)

    def _drop(self, partitions: list[int]) -> None:
        self._assigned.difference_update(partitions)
        lanes = all_lanes(partitions, len(self._topics))
        self._commands = [each for each in self._commands if each.starts not in lanes]
        self._forget(lanes)
        if not self._assigned:
            self._without_since_ms = self._now_ms()

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._started.pop(partition, None)
            self._end_offset.pop(partition, None)
            self._idle.moved(partition)
        self._paused &= self._started.keys()
        self._idle.pause(self._paused, self._now_ms())

    # --- reading ----------------------------------------------------------------------------------------------------

    def _start(self, partition: int, offset_next: int, low: int, high: int) -> None:
        offset = low if offset_next < 0 else offset_next
        if offset > high:
            self._is_suspect = True
            self._beyond_end |= {partition}
            return
        if offset < low:
            self._lost.note(partition, offset, low)
            offset = low
        self._read_from(partition, offset)

    def _read_from(self, partition: int, offset_next: int) -> None:
        if partition_of_lane(partition) in self._assigned:
            self._started[partition] = offset_next
            self._end_offset.pop(partition, None)
            self._idle.moved(partition)

    def _place(self, lane: int) -> tuple[str, int]:
        return self._topics[input_of(lane)], partition_of_lane(lane)

    def _fetched(self, now_ms: int) -> Records | None:
        found: list[tuple[int, Entry]] = []
        for partition in sorted(self._started.keys() - self._paused):
            if self._is_readable(partition):
                taken = self._next_of(partition, self._batch_records_max - len(found), now_ms)
                found += [(partition, entry) for entry in taken]
        return _records_of(found) if found else None

    def _is_readable(self, partition: int) -> bool:
        """Whether the next offset is in the log; a deleted one is reported, and reading continues after the gap."""
        low = self._kafka.begin_offset.get(self._place(partition), 0)
        high = len(self._kafka.log(*self._place(partition)))
        offset = self._started[partition]
        if low <= offset <= high:
            return True
        self._start(partition, offset, low, high)
        return offset < low

    def _next_of(self, partition: int, count: int, now_ms: int) -> list[Entry]:
        first, end = self._started[partition], self._kafka.stable_end(*self._place(partition))
        readable = [entry for entry in self._kafka.log(*self._place(partition))[first:end] if entry.is_committed]
        taken = readable[: max(0, count)]
        if taken:
            self._started[partition] = taken[-1].offset + 1
            self._idle.moved(partition)
        if len(taken) == len(readable):
            self._end_offset[partition] = end
            self._idle.reached(partition, end, now_ms)
        return taken


def _records_of(found: list[tuple[int, Entry]]) -> Records:
    entries = [entry for _, entry in found]
    headers = [entry.headers for entry in entries]
    return Records(
        np.array([partition for partition, _ in found], np.int64),
        np.array([entry.offset for entry in entries], np.int64),
        np.array([entry.timestamp_ms for entry in entries], np.int64),
        [entry.key for entry in entries],
        [entry.value for entry in entries],
        headers if any(headers) else None,
        leader_epochs={partition: entry.leader_epoch for partition, entry in found},
    )
