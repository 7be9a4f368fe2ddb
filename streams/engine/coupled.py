"""Records that tasks in a later layout read from two logs: their own one, and records that others forward.

That is so of each input of a flow. Everything here goes by lane (`batch.lanes`): the partition of an input.
`growth.coupling` decides which records are processed now and in which order. The rest waits here. A log with many
waiting records is paused, so that memory is bounded; other logs are read on, since pausing means fetching again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from streams.avro.decoded import Decoded
from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Bools, Int64, header_memory
from streams.batch.lanes import input_of, partition_of_lane, partitions_of
from streams.batch.records import Records
from streams.batch.refs import RecordBytes
from streams.batch.rejects import DeadLetter, Reject
from streams.engine.effects import Forwards
from streams.engine.forwarded import ForwardedRecords, forwards, hashes_of, homes
from streams.engine.key_hashes import KeyHashes
from streams.engine.task import PartitionTask
from streams.growth.coupling import NO_REACH, ForwardedLog, Merged, OwnLog
from streams.limits import COUPLED_BYTES_MAX, COUPLED_RECORDS_MAX
from streams.operators.trace import WatermarkTrace
from streams.sources.base import Idle

Decode = Callable[[Records, frozenset[int], Clock, int], Decoded]
"""Decodes records of an input, by its number, except those at some rows."""
ClockOf = Callable[[Records, int], Clock]
"""The clock for judging records of an input, by its number."""
NEVER_READ_MS: Final = -1
_RECORD_BYTES: Final = 100
"""Approximate memory of each part of a waiting record, beyond its bytes."""


@dataclass(slots=True)
class _Waiting:
    """Waiting records of one lane."""

    own: list[Records] = field(default_factory=list)
    forwarded: list[ForwardedRecords] = field(default_factory=list)
    forwarded_ms: int = NEVER_READ_MS
    """When the newest forwarded record was read, monotonic."""
    own_ended_ms: int = NEVER_READ_MS
    """Until when the own log was known to be at its end, monotonic."""
    is_new: bool = False
    """Whether something that may release records has arrived since the last check."""

    @property
    def is_empty(self) -> bool:
        return not (self.own or self.forwarded)


@dataclass(frozen=True, slots=True)
class Ready:
    """Records of one lane to process now, of both logs in merged order."""

    task: PartitionTask
    input_number: int
    records: Records
    """Those that are processed here; `partition` is the task's."""
    decoded: Decoded
    place: Int64
    """For each of `records`, its place among all merged ones."""
    time: Int64
    """For each merged record, its contribution to the watermark if it is processed; `TIME_MIN`: none."""
    is_progress: Bools
    """Whether each merged record is a progress record."""
    read_in: Int64
    """For each of `records`, the partition"""
    read_at: Int64
    """and the offset from which it was read."""
    forwards: tuple[Forwards, ...]
    strangers: Sequence[bytes]
    """Keys of records of the own log that are forwarded without a growth that explains it."""
    merged: Merged
    offset_next: int
    forwarded_next: int
    leader_epoch: int

    def where_read(self, letter: DeadLetter) -> DeadLetter:
        """The dead letter with the place in the source that its record was read from, where it is known."""
        row = letter.reject.row
        if row < 0 or self.read_in[row] < 0:
            return letter
        partition, offset = int(self.read_in[row]), int(self.read_at[row])
        return replace(letter, partition=partition, offset=offset, processed_in=self.task.partition)

    def trace(self, decoded: Decoded) -> WatermarkTrace:
        """The watermark over all merged records, counting only events that passed the gates."""
        here = self.place[decoded.events.row]
        time = np.where(self.is_progress, self.time, TIME_MIN)
        time[here] = self.time[here]
        start = self.task.positions[self.input_number].watermark
        return WatermarkTrace(start, np.maximum(np.maximum.accumulate(time), start), here)


class CoupledInputs:
    """Coupled inputs of all tasks of an engine. One thread."""

    def __init__(self, lateness_ms: Sequence[int], hashes: KeyHashes) -> None:
        """`lateness_ms`: the out-of-orderness bound of each input."""
        self._lateness_ms, self._hashes = lateness_ms, hashes
        self._waiting: dict[int, _Waiting] = {}

    @property
    def own_waiting(self) -> frozenset[int]:
        """Lanes of which records of the own log wait. Any thread may ask."""
        return frozenset(lane for lane, one in dict(self._waiting).items() if one.own)

    @property
    def forwarded_waiting(self) -> frozenset[int]:
        """Lanes of which forwarded records wait. Any thread may ask."""
        return frozenset(lane for lane, one in dict(self._waiting).items() if one.forwarded)

    @property
    def own_full(self) -> frozenset[int]:
        """Lanes with so many waiting records that their own log should not be read further."""
        return self._full(lambda one: one.own)

    @property
    def forwarded_full(self) -> frozenset[int]:
        """Lanes with so many waiting forwarded records that their topic should not be read further."""
        return self._full(lambda one: [part.records for part in one.forwarded])

    @property
    def bytes_used(self) -> int:
        """Approximate memory of all waiting records."""
        return sum(map(memory_of, self._records()))

    def _full(self, waiting_of: Callable[[_Waiting], list[Records]]) -> frozenset[int]:
        waiting = {lane: some for lane, one in self._waiting.items() if (some := waiting_of(one))}
        if not waiting:
            return frozenset()
        if self.bytes_used > COUPLED_BYTES_MAX:
            return frozenset(waiting)
        return frozenset(lane for lane, some in waiting.items() if sum(map(len, some)) >= COUPLED_RECORDS_MAX)

    def is_empty(self, lane: int) -> bool:
        """Whether a lane has no waiting records."""
        return lane not in self._waiting

    def drop(self, lanes: Iterable[int]) -> None:
        """The partitions of these lanes have no task any more."""
        for lane in lanes:
            self._waiting.pop(lane, None)

    def _records(self) -> Iterator[Records]:
        for one in self._waiting.values():
            yield from one.own
            yield from (part.records for part in one.forwarded)

    def add(
        self,
        records: Records | None,
        forwarded: Records | None,
        tasks: Mapping[int, PartitionTask],
        idle: Mapping[int, Idle],
        polled_ms: int,
    ) -> Records | None:
        """Add records; returns those of lanes that read only one log.

        `tasks` are by partition. `polled_ms`: monotonic, when it was read.
        """
        if forwarded is not None:
            self._add_forwarded(forwarded, tasks, polled_ms)
        for lane, one in self._waiting.items():
            if lane in idle and idle[lane].until_ms > one.own_ended_ms:
                one.own_ended_ms = idle[lane].until_ms
                one.is_new |= bool(one.forwarded)
        if records is None or not len(records):
            return records
        mine = [
            lane
            for lane in np.unique(records.partition).tolist()
            if (task := tasks.get(partition_of_lane(lane))) is not None and not self._goes_by_one(task, lane)
        ]
        for lane in mine:
            one = self._waiting.setdefault(lane, _Waiting())
            one.is_new |= not one.own or bool(one.forwarded)  # otherwise it waits for the parent, as earlier records do
            one.own.append(records.take(np.flatnonzero(records.partition == lane)).compact())
        return records.take(np.flatnonzero(~np.isin(records.partition, mine))) if mine else records

    def _goes_by_one(self, task: PartitionTask, lane: int) -> bool:
        return task.growth.of(input_of(lane)).coupling.is_settled and lane not in self._waiting

    def _add_forwarded(self, forwarded: Records, tasks: Mapping[int, PartitionTask], polled_ms: int) -> None:
        for lane in np.unique(forwarded.partition).tolist():
            task = tasks.get(partition_of_lane(lane))
            if task is None:
                continue
            one = self._waiting.get(lane)
            if one is not None and one.forwarded:
                taken = int(one.forwarded[-1].records.offset[-1]) + 1
            else:
                taken = task.growth.of(input_of(lane)).forwarded_next
            rows = np.flatnonzero((forwarded.partition == lane) & (forwarded.offset >= taken))
            if not len(rows):
                continue
            one = self._waiting.setdefault(lane, _Waiting())
            one.forwarded.append(ForwardedRecords.of(forwarded.take(rows)))
            one.forwarded_ms, one.is_new = polled_ms, True

    def ready(
        self,
        tasks: Mapping[int, PartitionTask],
        blocked: frozenset[int],
        decode: Decode,
        clock_of: ClockOf,
        *,
        again: Collection[int],
    ) -> Iterator[Ready]:
        """What can be processed now. Process each result before asking for the next.

        `blocked` lanes are left alone; `again`: numbers of inputs of which those are looked at, too, to which nothing
        has come since, as when a schema is known now.
        """
        for lane in sorted(self._waiting):
            one = self._waiting[lane]
            if lane in blocked or not (one.is_new or input_of(lane) in again):
                continue
            one.is_new = False
            found = self._merged(tasks[partition_of_lane(lane)], lane, one, decode, clock_of)
            if one.is_empty:
                del self._waiting[lane]
            if found is not None:
                yield found

    def _merged(self, task: PartitionTask, lane: int, one: _Waiting, decode: Decode, clock_of: ClockOf) -> Ready | None:
        number = input_of(lane)
        own, forwarded = _joined(one)
        parts = [part for part in (own, None if forwarded is None else forwarded.records) if part is not None]
        both = Records.concat(parts)
        count = 0 if own is None else len(own)
        under = np.zeros(len(both), dtype=np.int64)
        is_progress = np.zeros(len(both), dtype=np.bool_)
        read_in, read_at = partitions_of(both.partition), both.offset.copy()
        if forwarded is not None:
            under[count:], is_progress[count:] = forwarded.epoch, forwarded.is_progress
            read_in[count:], read_at[count:] = forwarded.read_in, forwarded.read_at
        to = homes(hashes_of(both, self._hashes), task.layout, task.partition, under)
        is_away = to != task.partition
        clock = clock_of(both, number)
        decoded = decode(both, frozenset(np.flatnonzero(is_away | is_progress).tolist()), clock, number)
        time = np.full(len(both), TIME_MIN)
        events = decoded.events
        judged = np.minimum(events.event_time, clock.judged_by(events.timestamp_ms))
        time[events.row] = judged - self._lateness_ms[number]
        known = np.ones(len(both), dtype=np.bool_)
        for rows in decoded.unresolved.values():
            known[list(rows)] = False
        own_known, forwarded_known = _before_unknown(known[:count]), _before_unknown(known[count:])
        is_at_end = own_known == count and one.own_ended_ms > one.forwarded_ms
        merged = task.growth.of(number).coupling.merge(
            OwnLog(both.offset[:own_known], time[:own_known], is_at_end),
            _log(task, forwarded, time[count:], forwarded_known),
        )
        self._keep(one, own, forwarded, merged)
        if not len(merged):
            return None
        return self._in_order(
            task, lane, both, decoded, merged, count, time, forwarded, is_progress, is_away, to, read_in, read_at
        )

    def _keep(self, one: _Waiting, own: Records | None, forwarded: ForwardedRecords | None, merged: Merged) -> None:
        """Keep those of the joined records that were not merged."""
        one.own = [] if own is None else [own.take(np.arange(merged.own, len(own)))]
        one.own = [part for part in one.own if len(part)]
        one.forwarded = [] if forwarded is None else [forwarded.take(np.arange(merged.forwarded, len(forwarded)))]
        one.forwarded = [part for part in one.forwarded if len(part)]

    def _in_order(
        self, task: PartitionTask, lane: int, both: Records, decoded: Decoded, merged: Merged, count: int, time: Int64,
        forwarded: ForwardedRecords | None, is_progress: Bools, is_away: Bools, to: Int64, read_in: Int64,
        read_at: Int64,
    ) -> Ready:  # fmt: skip
        """Put decoded events into merged order."""
        number = input_of(lane)
        rows = merged.index + np.where(merged.is_forwarded, count, 0)
        moves = _moves_time(task, number, forwarded, merged)
        if forwarded is not None:
            time[count:][is_progress[count:]] = forwarded.time[is_progress[count:]]
        here = np.flatnonzero(~(is_away | is_progress)[rows])
        records = both.take(rows[here])
        place = np.full(len(both), -1)
        place[rows[here]] = np.arange(len(here))
        events = decoded.events.take(place[decoded.events.row] >= 0)
        events = events.with_rows(place[events.row])
        events = events.take(np.argsort(events.row, kind="stable"))
        rejects = [
            Reject(int(place[each.row]), each.reason, each.message, each.schema_id)
            for each in decoded.rejects
            if place[each.row] >= 0
        ]
        unexpected = [(plan, place[found][place[found] >= 0]) for plan, found in decoded.unexpected]
        away = rows[is_away[rows]]
        position = task.positions[number]
        own_taken = rows[~merged.is_forwarded]
        forwarded_next = task.growth.of(number).forwarded_next
        if forwarded is not None and merged.forwarded:
            forwarded_next = int(forwarded.records.offset[merged.forwarded - 1]) + 1
        records = replace(records, partition=np.full(len(records), task.partition))
        return Ready(
            task,
            number,
            records,
            Decoded(events, sorted(rejects, key=lambda each: each.row), {}, unexpected),
            here,
            np.where(moves, time[rows], TIME_MIN),
            is_progress[rows] & moves,
            read_in[rows[here]],
            read_at[rows[here]],
            tuple(forwards(both, away, to, read_in, read_at, task.identity.epoch)),
            task.home.strangers([key for row in away[away < count].tolist() if (key := both.key[row]) is not None]),
            merged,
            int(both.offset[own_taken[-1]]) + 1 if len(own_taken) else position.offset_next,
            forwarded_next,
            both.leader_epochs.get(lane, position.leader_epoch) if len(own_taken) else position.leader_epoch,
        )


def memory_of(records: Records) -> int:
    """Approximate memory of records that wait."""
    parts = sum(map(_bytes_of, (records.key, records.value)))
    return parts + sum(header_memory(headers) for headers in records.headers or ())


def _bytes_of(column: RecordBytes) -> int:
    sizes = sum(map(len, filter(None, column))) if isinstance(column, list) else int(column.sizes().sum())
    return sizes + _RECORD_BYTES * len(column)


def _joined(one: _Waiting) -> tuple[Records | None, ForwardedRecords | None]:
    return (
        Records.concat(one.own) if one.own else None,
        ForwardedRecords.concat(one.forwarded) if one.forwarded else None,
    )


def _before_unknown(known: Bools) -> int:
    """Number of records before the first one with an unknown schema."""
    return len(known) if known.all() else int(np.argmin(known))


def _log(task: PartitionTask, forwarded: ForwardedRecords | None, time: Int64, count: int) -> ForwardedLog:
    if forwarded is None:
        number, no = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
        return ForwardedLog(number, no, number, no, no, no)
    parent = _parent_of(task)
    told = forwarded.is_progress & (forwarded.read_in == parent) & (forwarded.epoch >= task.identity.epoch)
    log = ForwardedLog(
        time=np.where(told, forwarded.time, time),
        is_of_parent=forwarded.read_in == parent,
        reach=np.where(told, forwarded.reach, NO_REACH),
        idle=told & forwarded.idle,
        is_progress=told,
        settles=told & forwarded.settles,
    )
    return log.first(count)


def _parent_of(task: PartitionTask) -> int:
    """The partition that the task's keys come from; -1: none, the coupling is over."""
    return task.growth.parent


def _moves_time(task: PartitionTask, input_number: int, forwarded: ForwardedRecords | None, merged: Merged) -> Bools:
    """Which merged records move the watermark: those of the own log, and of the parent's while it is coupled."""
    moves = ~merged.is_forwarded
    coupling = task.growth.of(input_number).coupling
    if forwarded is None or coupling.is_settled or not merged.forwarded:
        return moves
    log = _log(task, forwarded, forwarded.time, merged.forwarded)
    coupled = log.is_of_parent.copy()
    if log.settles.any():
        coupled[int(np.argmax(log.settles)) + 1 :] = False
    moves[merged.is_forwarded] = coupled[merged.index[merged.is_forwarded]]
    return moves
