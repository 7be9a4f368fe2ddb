"""What is known of every group from round to round: windows of samples, timelines, verdicts. Pure.

One round goes `note` -> `questions` (what a reader should look up) -> `learn` (its answers) -> `judge`.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.flow.declaration import Pipeline
from streams.kafka.round import Group, Round
from streams.monitor.flow_states import FlowStates
from streams.monitor.moves import MoveBook
from streams.monitor.policies import GroupPolicies
from streams.monitor.status import Status, group_status
from streams.monitor.timeline import Timeline
from streams.monitor.verdict import (
    ABSENT,
    Bool,
    Float64,
    Int8,
    Int64,
    Owned,
    Policy,
    Reason,
    Verdicts,
    Window,
    evaluate,
)
from streams.monitor.words import Facts, sentence

Partition = tuple[str, int]

MARKERS_MAX: Final = 16
"""A lag of up to so many offsets may be transaction markers and no record: it is looked up."""
SPREAD_SHARE: Final = 0.1
"""A time that is known better than this share of the age is not looked up."""
_NEVER_MS: Final = -(1 << 60)
FLAPS_KEPT: Final = 32
"""Newest losses of a member that are remembered of each partition."""
FLOW_COMMITS_S: Final = 1.0
"""The workers of a declared flow commit at least so often while there is anything to commit."""
UNSEEN_ROUNDS_MAX: Final = 3
"""A group whose offsets cannot be had for so many rounds is forgotten."""


@dataclass(frozen=True, slots=True)
class Question:
    """Asks which is the first record at or behind `offset`, and when it came."""

    topic: str
    partition: int
    offset: int
    end: int
    """End of the log as of the round: no record before it means that there is none to read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The first record at or behind the question's offset; `found` None: there is none before `end`."""

    question: Question
    found: int | None
    timestamp_ms: int | None


@dataclass(frozen=True)
class GroupLag:
    """Verdict on one group as of one round. Rows are its partitions, by topic and number."""

    group: Group
    time_ms: int
    partitions: list[Partition]
    end: Int64
    window: Window
    verdicts: Verdicts
    lag_s_is_bound: Bool
    since_ms: Int64
    """Since when each partition has its status."""
    owners: dict[int, str]
    """Row -> client id of the member that has it."""
    complete: float
    """Share of the window that has samples."""
    open_since: dict[int, str]
    """Row -> since when a transaction has been open, as ISO 8601."""
    policy: Policy
    """By which it was judged."""
    is_flow: bool
    """It is the group of a declared flow's workers."""

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def lag(self) -> Int64:
        """Records that each partition is behind, now."""
        return self.window.lag[:, -1]

    @property
    def offset(self) -> Int64:
        """What is committed now; ABSENT: nothing."""
        return self.window.offset[:, -1]

    @property
    def _counted(self) -> Bool:
        """The partitions that the group is to read: not those of topics that it has left."""
        return np.asarray(self.verdicts.reason != Reason.LEFT_TOPIC, dtype=np.bool_)

    @property
    def lag_sum(self) -> int:
        """Records that the group is behind, without those of topics that it has left."""
        return int(self.lag.sum(where=self._counted))

    @property
    def lag_max(self) -> int:
        """Records that its worst partition is behind, without those of topics that it has left."""
        return int(self.lag.max(initial=0, where=self._counted))

    @property
    def lag_s_max(self) -> float:
        """Seconds that its worst partition is behind, without those of topics that it has left."""
        return float(self.window.lag_s.max(initial=0.0, where=self._counted))

    @property
    def status(self) -> Status:
        """Verdict on the group."""
        return group_status(Status(code) for code in np.unique(self.verdicts.status).tolist())

    @property
    def catch_up_s(self) -> float:
        """Seconds until its slowest partition has caught up; infinite if one does not."""
        return float(self.verdicts.catch_up_s.max(initial=0.0))

    def waiting(self, for_s: float) -> float:
        """Records not committed although they came `for_s` ago, if all have come evenly since the oldest of them."""
        lag_s = self.window.lag_s
        share = np.clip((lag_s - for_s) / np.maximum(lag_s, 1e-9), 0.0, 1.0)
        return float((self.lag * share).sum(where=self._counted))

    @property
    def flaps_max(self) -> int:
        """How often the partition that lost its member most often has lost it lately (`Policy.flaps_s`)."""
        return int(self.window.flaps.max(initial=0, where=self._counted))

    def facts(self, row: int) -> Facts:
        """What the sentence about a partition is made of."""
        verdicts, window = self.verdicts, self.window
        return Facts(
            reason=Reason(int(verdicts.reason[row])),
            lag=int(self.lag[row]),
            lag_s=float(window.lag_s[row]),
            lag_s_is_bound=bool(self.lag_s_is_bound[row]),
            unmoved_s=float(verdicts.unmoved_s[row]),
            unmoved_is_bound=int(window.moves.count[row]) == 0,
            rhythm_s=float(verdicts.rhythm_s[row]),
            flaps=int(window.flaps[row]),
            flaps_s=self.policy.flaps_s,
            batch_s=self.policy.batch_s or 0.0,
            back_by=int(verdicts.back_by[row]),
            deleted=int(window.deleted[row]),
            beyond=int(window.beyond[row]),
            consume_rate=float(verdicts.consume_rate[row]),
            arrive_rate=float(verdicts.arrive_rate[row]),
            catch_up_s=float(verdicts.catch_up_s[row]),
            owned=Owned(int(window.owned[row])),
            owner=self.owners.get(row, ""),
            unreadable=int(window.unreadable[row]),
            open_s=float(window.open_s[row]),
            open_since=self.open_since.get(row, ""),
            offset=int(self.offset[row]),
            state_at=int(window.state_at[row]),
        )

    def why(self, row: int) -> str:
        """The verdict on a partition in words."""
        return sentence(self.facts(row))


@dataclass(slots=True)
class _Open:
    """A transaction that is open on a partition: nobody can read the log beyond `offset`."""

    offset: int
    first_ms: int
    """When it was first seen."""
    is_begin_known: bool
    """It was seen to appear, so that it began shortly before `first_ms`."""
    seen_ms: int
    records: int
    told_ms: int | None = None
    """Timestamp of its first record; looked up where its begin is not known."""

    @property
    def since_ms(self) -> int:
        """When it began, as far as it is known."""
        return self.first_ms if self.told_ms is None else min(self.first_ms, self.told_ms)

    @property
    def open_s(self) -> float:
        """How long it has been open; 0 as long as it was seen only once: ends of logs are not asked for at one time."""
        return max(0.0, (self.seen_ms - self.since_ms) / 1000.0) if self.seen_ms > self.first_ms else 0.0


class _GroupBook:
    """Samples of one group."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.rows: list[Partition] = []
        self.time_ms = np.empty(0, dtype=np.int64)
        self.offset = np.empty((0, 0), dtype=np.int64)
        self.lag = np.empty((0, 0), dtype=np.int64)
        self.active = np.empty((0, 0), dtype=np.bool_)
        self.mark = np.empty(0, dtype=np.int64)
        self.status = np.empty(0, dtype=np.int8)
        self.since_ms = np.empty(0, dtype=np.int64)
        self.owned_ms = np.empty(0, dtype=np.int64)
        """When a member was last seen to have each partition; `_NEVER_MS`: never."""
        self.moves = MoveBook()
        self.holders: dict[Partition, str] = {}
        """Id of the member that was last seen to have each partition."""
        self.losses: dict[Partition, deque[int]] = {}
        """When each partition lost its member: it was in the group no more."""
        self.group = Group("", "", None)
        self.unseen = 0
        # Of the newest sample:
        self.end = self.position = self.deleted = self.beyond = self.mark
        self.owned: Int8 = np.empty(0, dtype=np.int8)
        self.left: Bool = np.empty(0, dtype=np.bool_)
        self.unplaced: Bool = np.empty(0, dtype=np.bool_)
        self.owners: dict[int, str] = {}

    def move_to(self, rows: list[Partition], time_ms: int) -> None:
        """Have these rows from now on; a row that was there keeps what it has, a new one begins at `time_ms`."""
        if rows == self.rows:
            return
        place = {key: row for row, key in enumerate(self.rows)}
        taken = np.array([place.get(key, -1) for key in rows], dtype=np.int64)
        self.offset = _taken(self.offset, taken, ABSENT)
        self.lag = _taken(self.lag, taken, 0)
        self.active = _taken(self.active, taken, 0)
        self.mark = _taken(self.mark, taken, -1)
        self.status = _taken(self.status, taken, -1)
        self.since_ms = _taken(self.since_ms, taken, 0)
        self.owned_ms = _taken(self.owned_ms, taken, _NEVER_MS)
        self.moves.move_to(taken, time_ms)
        self.holders = {key: self.holders[key] for key in rows if key in self.holders}
        self.losses = {key: self.losses[key] for key in rows if key in self.losses}
        self.rows = rows

    def is_still(self, row: int) -> bool:
        """Whether the position is what it was a sample ago, or nobody knows."""
        return self.offset.shape[1] < 2 or self.offset[row, -1] == self.offset[row, -2]

    def add(self, time_ms: int, offset: Int64, lag: Int64, mark: Int64) -> None:
        """Append a sample, drop the oldest if there are too many."""
        keep = slice(max(0, len(self.time_ms) + 1 - self.samples), None)
        last = self.offset[:, -1] if self.offset.shape[1] else np.full(len(offset), ABSENT)
        active = (self.mark != mark) & (offset == last) & (offset != ABSENT) & (self.mark != -1)
        self.mark = mark
        if self.offset.shape[1]:
            before_ms = self.time_ms[-1]
            unowned = (self.owned == Owned.NOBODY) & (self.owned_ms < before_ms)
            self.moves.add(time_ms, offset != last, offset, lag, unowned)
            self.moves.owned(self.owned == Owned.SOMEBODY)
        else:
            self.moves.add(time_ms, np.zeros(len(offset), dtype=np.bool_), offset, lag, self.owned == Owned.NOBODY)
        self.time_ms = np.append(self.time_ms[keep], time_ms)
        self.offset = np.column_stack([self.offset[:, keep], offset])
        self.lag = np.column_stack([self.lag[:, keep], lag])
        self.active = np.column_stack([self.active[:, keep], active])

    def lose(self, group: Group, time_ms: int) -> None:
        """Note which partitions have lost the member that had them since the sample before.

        One that another member took over from a member that is still there has lost nobody.
        """
        if group.members is None:
            return  # nobody knows
        there = {member.member_id for member in group.members}
        for key in [key for key, holder in self.holders.items() if holder not in there]:
            del self.holders[key]
            self.losses.setdefault(key, deque(maxlen=FLAPS_KEPT)).append(time_ms)

    def flaps(self, time_ms: int, within_s: float) -> Int64:
        """How often each row has lost its member in the last `within_s`."""
        counts = np.zeros(len(self.rows), dtype=np.int64)
        if not self.losses:
            return counts
        oldest_ms = time_ms - within_s * 1000.0
        for row, key in enumerate(self.rows):
            times = self.losses.get(key)
            if times is None:
                continue
            while times and times[0] < oldest_ms:
                times.popleft()
            counts[row] = len(times)
            if not times:
                del self.losses[key]
        return counts

    @property
    def unowned_s(self) -> Float64:
        """How long no member has had each row; NaN: one has it now, or none was seen to."""
        since_s = (self.time_ms[-1] - self.owned_ms) / 1000.0
        is_missed = (self.owned == Owned.NOBODY) & (self.owned_ms != _NEVER_MS)
        return np.where(is_missed, since_s, np.nan)


class LagBook:
    """Everything that is remembered. One thread."""

    def __init__(
        self,
        policies: GroupPolicies,
        *,
        window_s: float,
        interval_s: float,
        pipelines: Sequence[Pipeline] = (),
    ) -> None:
        """Windows reach back `window_s`, at one round per `interval_s`. `pipelines`: the flows that are declared."""
        if not 0 < interval_s <= window_s:
            raise ValueError("a window is at least as long as the interval between its samples")
        self._policies = policies
        self._flows = {pipeline.group: pipeline for pipeline in pipelines}
        self.states = FlowStates(pipelines)
        """Of the flows; asks questions of its own."""
        self._samples = max(2, math.ceil(window_s / interval_s) + 1)
        self._interval_ms = interval_s * 1000.0
        self._groups: dict[str, _GroupBook] = {}
        self._timelines: dict[Partition, Timeline] = {}
        self._open: dict[Partition, _Open] = {}
        self._looked_at: Round | None = None
        """The round before: what was not open then and is now has just begun."""
        self._time_ms = 0
        self._behind: dict[Partition, list[tuple[_GroupBook, int]]] = {}
        """Who is behind in each partition, as of the newest round: the same log is looked up once for all groups."""

    @property
    def is_new(self) -> bool:
        """Whether nothing is noted yet: then the newest timestamps of all logs are worth asking for."""
        return not self._time_ms

    def note(self, found: Round) -> None:
        """Take a round in."""
        self._see_open(found)
        self.states.note(found)
        self._time_ms = found.time_ms
        order = np.argsort(found.commit_group, kind="stable")
        edges = np.searchsorted(found.commit_group[order], np.arange(len(found.groups) + 1))
        counts = dict(found.topics)
        for name in set(self._groups) - {group.name for group in found.groups}:
            del self._groups[name]
        for number, group in enumerate(found.groups):
            if not self._policies.watches(group.name):
                continue
            if group.name in found.failed:
                book = self._groups.get(group.name)
                if book is not None:
                    book.unseen += 1
                    if book.unseen > UNSEEN_ROUNDS_MAX:
                        del self._groups[group.name]
                continue
            mine = order[edges[number] : edges[number + 1]]
            self._note_group(found, group, mine, counts)
        self._see(found)
        self._behind = {}
        for book in self._groups.values():
            for row in np.flatnonzero(book.lag[:, -1] > 0).tolist() if len(book.time_ms) else ():
                self._behind.setdefault(book.rows[row], []).append((book, row))

    def _note_group(self, found: Round, group: Group, mine: Int64, counts: dict[str, int]) -> None:
        committed = found.commit_partition[mine]
        assigned = [partition for member in group.members or () for partition in member.partitions]
        topics = {found.partitions[number][0] for number in [*committed.tolist(), *assigned]}
        numbers = np.array(
            [found.base[topic] + partition for topic in sorted(topics) for partition in range(counts[topic])],
            dtype=np.int64,
        )
        if not len(numbers):
            self._groups.pop(group.name, None)
            return
        book = self._groups.setdefault(group.name, _GroupBook(self._samples))
        book.unseen, book.group = 0, group
        book.move_to([found.partitions[number] for number in numbers.tolist()], found.time_ms)
        row_of = np.full(len(found.end), -1, dtype=np.int64)
        row_of[numbers] = np.arange(len(numbers))
        offset, mark = np.full(len(numbers), ABSENT, dtype=np.int64), np.full(len(numbers), -1, dtype=np.int64)
        offset[row_of[committed]] = found.commit_offset[mine]
        mark[row_of[committed]] = found.commit_mark[mine]
        end, low, high = found.end[numbers], np.maximum(found.low[numbers], 0), found.high[numbers]
        known = end >= 0
        last = book.lag[:, -1] if book.lag.shape[1] else np.zeros(len(numbers), dtype=np.int64)
        position = np.maximum(offset, low)
        timelines = [self._timeline(key) for key in book.rows]
        for row in np.flatnonzero(position < end).tolist():
            position[row] = timelines[row].position(int(position[row]))
        # A partition without a leader has no end to compare with: its lag is what it was.
        lag = np.where(known, np.maximum(end - position, 0), last)
        book.end, book.position = end, position
        book.deleted = np.where(known & (offset != ABSENT), np.maximum(low - offset, 0), 0)
        book.beyond = np.where(known, np.maximum(offset - np.maximum(high, end), 0), 0)
        book.owned = np.full(len(numbers), Owned.UNKNOWN if group.members is None else Owned.NOBODY, dtype=np.int8)
        book.owners = {}
        book.lose(group, found.time_ms)
        for member in group.members or ():
            for number in member.partitions:
                row = int(row_of[number])
                book.owned[row] = Owned.SOMEBODY
                book.owners[row] = member.client_id or member.member_id
                book.owned_ms[row] = found.time_ms
                book.holders[book.rows[row]] = member.member_id
        # Who had it within the window and is gone is missed: that may be an outage.
        is_read = {found.partitions[number][0] for number in assigned}
        is_missed = found.time_ms - book.owned_ms <= self._samples * self._interval_ms
        is_elsewhere = np.array([bool(is_read) and topic not in is_read for topic, _ in book.rows], dtype=np.bool_)
        book.left = is_elsewhere & ~is_missed
        book.unplaced = self._unplaced(book, counts)
        if len(book.time_ms) and book.time_ms[-1] >= found.time_ms:
            return  # the clock was set back: this sample would be older than the last
        book.add(found.time_ms, offset, lag, mark)

    def _unplaced(self, book: _GroupBook, counts: dict[str, int]) -> Bool:
        """Partitions of a flow's source for which its journal, and with it its state, has none of the same number."""
        flow = self._flows.get(book.group.name)
        places = 0 if flow is None else counts.get(flow.journal, 0)
        if flow is None or not places:
            return np.zeros(len(book.rows), dtype=np.bool_)
        return np.array([topic == flow.source and number >= places for topic, number in book.rows], dtype=np.bool_)

    def _see_open(self, found: Round) -> None:
        """Transactions that are open: where the log goes on beyond its last stable offset."""
        before, self._open = self._open, {}
        looked_at, self._looked_at = self._looked_at, found
        open_now = np.flatnonzero((found.end >= 0) & (found.high > found.end)).tolist()
        watched = _watched(looked_at) if open_now and looked_at is not None else frozenset()
        for number in open_now:
            key, end, high = found.partitions[number], int(found.end[number]), int(found.high[number])
            known = before.get(key)
            if known is None or known.offset != end:
                known = _Open(end, found.time_ms, key in watched, seen_ms=found.time_ms, records=0)
            known.seen_ms, known.records = max(known.seen_ms, found.time_ms), high - end
            self._open[key] = known

    def _see(self, found: Round) -> None:
        counts = dict(found.topics)
        for key, timeline in list(self._timelines.items()):
            topic, partition = key
            if partition >= counts.get(topic, 0):
                del self._timelines[key]
                continue
            number = found.base[topic] + partition
            if found.end[number] < 0:
                continue
            timeline.see(int(found.end[number]), found.time_ms)
            if len(found.newest_ms) and found.newest_ms[number] >= 0:
                timeline.hint(int(found.newest_offset[number]), int(found.newest_ms[number]))

    def _timeline(self, key: Partition) -> Timeline:
        found = self._timelines.get(key)
        if found is None:
            found = self._timelines[key] = Timeline()
        return found

    # --- times ------------------------------------------------------------------------------------------------------

    def questions(self, count_max: int) -> list[Question]:
        """What to look up in the log, the most telling first, one per partition.

        First lag that may be markers only; then the oldest position of each partition that nothing reaches; then
        positions that are late and do not move, at which there may be no record (a large aborted transaction, or a
        compacted part of the log); then times that are known too coarsely.
        """
        ranked: list[tuple[tuple[int, float], Question]] = []
        for key, behind in self._behind.items():
            timeline = self._timelines[key]
            asked: dict[tuple[int, int], bool] = {}
            for book, row in behind:
                if book.end[row] >= 0:
                    place = (int(book.position[row]), int(book.end[row]))
                    asked[place] = asked.get(place, False) or book.is_still(row)
            found = [
                (rank, Question(*key, position, end))
                for (position, end), is_still in asked.items()
                if (rank := self._rank(timeline, position, end, is_still=is_still)) is not None
            ]
            if found:
                ranked.append(min(found, key=_rank_of))
        return [question for _, question in sorted(ranked, key=_rank_of)[:count_max]]

    def _rank(self, timeline: Timeline, position: int, end: int, *, is_still: bool) -> tuple[int, float] | None:
        if timeline.knows(position):
            return None
        if end - position <= MARKERS_MAX:
            return (0, 0.0)
        if position < timeline.first:
            return (1, float(position))
        _, before, after = timeline.times_ms(np.array([position], dtype=np.int64))
        spread_ms, age_ms = float(after[0] - before[0]), float(self._time_ms - before[0])
        if is_still and age_ms >= self._policies.default.tiny_s * 1000.0:
            return (2, -age_ms)
        if spread_ms <= max(2 * self._interval_ms, SPREAD_SHARE * age_ms):
            return None
        return (3, -spread_ms)

    def learn(self, answers: Iterable[Answer]) -> None:
        """Take answers in."""
        for answer in answers:
            question = answer.question
            key = (question.topic, question.partition)
            timeline = self._timelines.get(key)
            if timeline is None:
                continue
            timeline.skip(question.offset, question.end if answer.found is None else min(answer.found, question.end))
            if answer.found is not None and answer.timestamp_ms is not None:
                timeline.tell(answer.found, answer.timestamp_ms)
            for book, row in self._behind.get(key, ()):
                if book.end[row] >= 0:
                    book.position[row] = position = timeline.position(int(book.position[row]))
                    book.lag[row, -1] = max(int(book.end[row]) - position, 0)

    def open_questions(self, count_max: int) -> list[Question]:
        """First records of open transactions of which it is not known when they began; to be read uncommitted."""
        return [
            Question(*key, one.offset, one.offset + one.records)
            for key, one in self._open.items()
            if not one.is_begin_known and one.told_ms is None and one.seen_ms > one.first_ms
        ][:count_max]

    def learn_open(self, answers: Iterable[Answer]) -> None:
        """Take answers to `open_questions` in."""
        for answer in answers:
            one = self._open.get((answer.question.topic, answer.question.partition))
            if one is not None and one.offset == answer.question.offset:
                one.told_ms = answer.timestamp_ms if answer.timestamp_ms is not None else one.first_ms

    def _policy(self, group: str) -> Policy:
        """That of a group; workers of a flow commit every moment, so they need not be watched to learn how often."""
        policy = self._policies.policy(group)
        if group in self._flows and policy.commits_s is None:
            return replace(policy, commits_s=FLOW_COMMITS_S)
        return policy

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def judge(self) -> dict[str, GroupLag]:
        """Verdicts on all groups as of the newest round, by name."""
        ages = self._ages()
        return {name: self._judge(book, *ages[name]) for name, book in self._groups.items() if len(book.time_ms)}

    def _judge(self, book: _GroupBook, lag_s: Float64, is_bound: Bool) -> GroupLag:
        policy = self._policy(book.group.name)
        opened = (
            {row: one for row, key in enumerate(book.rows) if (one := self._open.get(key)) is not None}
            if self._open
            else {}
        )
        unreadable, open_s = np.zeros(len(book.rows), dtype=np.int64), np.zeros(len(book.rows))
        for row, one in opened.items():
            unreadable[row], open_s[row] = one.records, one.open_s
        window = Window(
            time_ms=book.time_ms,
            offset=book.offset,
            lag=book.lag,
            active=book.active,
            lag_s=lag_s,
            owned=book.owned,
            deleted=book.deleted,
            beyond=book.beyond,
            unreadable=unreadable,
            open_s=open_s,
            left=book.left,
            unplaced=book.unplaced,
            state_at=self.states.column(book.group.name, book.rows),
            moves=book.moves.moves,
            unowned_s=book.unowned_s,
            flaps=book.flaps(int(book.time_ms[-1]), policy.flaps_s),
            peers_s=book.moves.peers_s,
        )
        verdicts = evaluate(window, policy)
        book.since_ms = np.where(verdicts.status == book.status, book.since_ms, book.time_ms[-1])
        book.status = verdicts.status
        return GroupLag(
            group=book.group,
            time_ms=int(book.time_ms[-1]),
            partitions=book.rows,
            end=book.end,
            window=window,
            verdicts=verdicts,
            lag_s_is_bound=is_bound,
            since_ms=book.since_ms,
            owners=book.owners,
            complete=len(book.time_ms) / self._samples,
            policy=policy,
            is_flow=book.group.name in self._flows,
            open_since={row: _instant(one.since_ms) for row, one in opened.items()},
        )

    def _ages(self) -> dict[str, tuple[Float64, Bool]]:
        """Age in seconds of the oldest record not committed, by group and row; and whether it is at least so old.

        One look-up per partition, whatever the number of groups.
        """
        found = {
            name: (np.zeros(len(book.rows)), np.zeros(len(book.rows), dtype=np.bool_))
            for name, book in self._groups.items()
        }
        for key, behind in self._behind.items():
            positions = np.array([book.position[row] for book, row in behind], dtype=np.int64)
            timeline = self._timelines[key]
            times, _, _ = timeline.times_ms(positions)
            seconds = np.maximum(np.nan_to_num((self._time_ms - times) / 1000.0), 0.0).tolist()
            bounds = (positions < timeline.first).tolist()
            for (book, row), age, bound in zip(behind, seconds, bounds, strict=True):
                if book.lag[row, -1] > 0:
                    ages, is_bound = found[book.group.name]
                    ages[row], is_bound[row] = age, bound
        return found


def _watched(found: Round) -> frozenset[Partition]:
    """Partitions whose high watermark was asked for in a round: those tell whether a transaction is open."""
    partitions = found.partitions
    return frozenset(partitions[number] for number in np.unique(found.commit_partition).tolist())


def _instant(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _rank_of(ranked: tuple[tuple[int, float], Question]) -> tuple[int, float]:
    return ranked[0]


def _taken(values: npt.NDArray[Any], rows: Int64, fill: int) -> npt.NDArray[Any]:
    """`values[rows]`, with `fill` where a row is -1."""
    shape = (len(rows), *values.shape[1:])
    if not len(values):
        return np.full(shape, fill, dtype=values.dtype)
    return np.where((rows >= 0).reshape(-1, *[1] * (values.ndim - 1)), values[rows], np.array(fill, values.dtype))
