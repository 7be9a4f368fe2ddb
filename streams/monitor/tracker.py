"""Tracks every group from round to round: windows of samples, timelines, verdicts. Pure.

One round goes `note` -> `questions` (what a reader should look up) -> `learn` (its answers) -> `judge`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from streams.batch.columns import Bools, Float64, Int64
from streams.flow.declaration import Pipeline
from streams.kafka.round import Group, Round
from streams.monitor.flow_states import FlowStates
from streams.monitor.group_lag import GroupLag
from streams.monitor.group_samples import GroupSamples
from streams.monitor.lookups import Answer, Partition, Question
from streams.monitor.open_transactions import OpenTransactions
from streams.monitor.policies import GroupPolicies
from streams.monitor.policy import Policy
from streams.monitor.timeline import Timeline
from streams.monitor.verdict import evaluate
from streams.monitor.window import ABSENT, Owned, Window

MARKERS_MAX: Final = 16
"""A lag of up to so many offsets may consist of transaction markers: it is looked up."""
SPREAD_SHARE: Final = 0.1
"""A time that is known to this share of the age is not looked up."""
FLOW_COMMITS_S: Final = 1.0
"""The workers of a declared flow commit at least this often while there is anything to commit."""
UNSEEN_ROUNDS_MAX: Final = 3
"""A group whose offsets cannot be read for so many rounds is forgotten."""


class LagTracker:
    """The state of all groups. One thread."""

    def __init__(
        self,
        policies: GroupPolicies,
        *,
        window_s: float,
        interval_s: float,
        flows: Sequence[Pipeline] = (),
    ) -> None:
        """Windows reach back `window_s`, at one round per `interval_s`. `flows`: the flows that are declared."""
        if not 0 < interval_s <= window_s:
            raise ValueError("a window is at least as long as the interval between its samples")
        self._policies = policies
        self._flows = {flow.group: flow for flow in flows}
        self.states = FlowStates(flows)
        """States of the flows: whether committed offsets fit the workers' state. It asks Kafka by itself."""
        self._samples_kept = max(2, math.ceil(window_s / interval_s) + 1)
        self._interval_ms = interval_s * 1000.0
        self._groups: dict[str, GroupSamples] = {}
        self._timelines: dict[Partition, Timeline] = {}
        self._open = OpenTransactions()
        self._kept: frozenset[str] = frozenset()
        self._time_ms = 0
        self._behind: dict[Partition, list[tuple[GroupSamples, int]]] = {}
        """Groups with lag in each partition, as of the newest round: each log is looked up once for all groups."""

    @property
    def is_new(self) -> bool:
        """Whether there was no round yet: then the newest timestamps of all logs are worth reading."""
        return not self._time_ms

    def note(self, found: Round) -> None:
        """Process a round."""
        self._open.note(found)
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
                samples = self._groups.get(group.name)
                if samples is not None:
                    samples.unseen += 1
                    if samples.unseen > UNSEEN_ROUNDS_MAX:
                        del self._groups[group.name]
                continue
            mine = order[edges[number] : edges[number + 1]]
            self._note_group(found, group, mine, counts)
        self._see(found)
        self._behind = {}
        for samples in self._groups.values():
            for row in np.flatnonzero(samples.lag[:, -1] > 0).tolist() if len(samples.time_ms) else ():
                self._behind.setdefault(samples.rows[row], []).append((samples, row))

    def _note_group(self, found: Round, group: Group, mine: Int64, counts: dict[str, int]) -> None:
        committed = found.commit_partition[mine]
        group = self._with_beside(found, group, counts)
        assigned = [partition for member in group.members or () for partition in member.partitions]
        topics = {found.partitions[number][0] for number in [*committed.tolist(), *assigned]}
        numbers = np.array(
            [found.base[topic] + partition for topic in sorted(topics) for partition in range(counts[topic])],
            dtype=np.int64,
        )
        if not len(numbers):
            self._groups.pop(group.name, None)
            return
        samples = self._groups.setdefault(group.name, GroupSamples(self._samples_kept))
        samples.unseen, samples.group = 0, group
        samples.move_to([found.partitions[number] for number in numbers.tolist()], found.time_ms)
        row_of = np.full(len(found.end), -1, dtype=np.int64)
        row_of[numbers] = np.arange(len(numbers))
        offset, mark = np.full(len(numbers), ABSENT, dtype=np.int64), np.full(len(numbers), -1, dtype=np.int64)
        offset[row_of[committed]] = found.commit_offset[mine]
        mark[row_of[committed]] = found.commit_mark[mine]
        end, low, high = found.end[numbers], np.maximum(found.low[numbers], 0), found.high[numbers]
        known = end >= 0
        last = samples.lag[:, -1] if samples.lag.shape[1] else np.zeros(len(numbers), dtype=np.int64)
        position = np.maximum(offset, low)
        timelines = [self._timeline(key) for key in samples.rows]
        for row in np.flatnonzero(position < end).tolist():
            position[row] = timelines[row].position(int(position[row]))
        # A partition without a leader has no end to compare with: its lag stays as it was.
        lag = np.where(known, np.maximum(end - position, 0), last)
        samples.end, samples.position = end, position
        samples.deleted = np.where(known & (offset != ABSENT), np.maximum(low - offset, 0), 0)
        samples.beyond = np.where(known, np.maximum(offset - np.maximum(high, end), 0), 0)
        samples.owned = np.full(len(numbers), Owned.UNKNOWN if group.members is None else Owned.NOBODY, dtype=np.int8)
        samples.owners = {}
        samples.lose(group, found.time_ms)
        for member in group.members or ():
            for number in member.partitions:
                row = int(row_of[number])
                samples.owned[row] = Owned.SOMEBODY
                samples.owners[row] = member.client_id or member.member_id
                samples.owned_ms[row] = found.time_ms
                samples.holders[samples.rows[row]] = member.member_id
        # A member that had it within the window and is gone: that may be an outage.
        is_read = {found.partitions[number][0] for number in assigned}
        is_missed = found.time_ms - samples.owned_ms <= self._samples_kept * self._interval_ms
        is_elsewhere = np.array([bool(is_read) and topic not in is_read for topic, _ in samples.rows], dtype=np.bool_)
        samples.left = is_elsewhere & ~is_missed
        samples.unplaced = self._unplaced(samples, counts)
        if len(samples.time_ms) and samples.time_ms[-1] >= found.time_ms:
            return  # the clock was set back: this sample would be older than the last
        samples.add(found.time_ms, offset, lag, mark)

    def _with_beside(self, found: Round, group: Group, counts: dict[str, int]) -> Group:
        """The group, whose members read beside each partition of their flow's source those that are merged with it.

        The group divides those of the source only (`Intake`), and so the broker does not tell of the others.
        """
        flow = self._flows.get(group.name)
        if flow is None or not flow.further_inputs or group.members is None:
            return group
        topics = [one.topic for one in flow.further_inputs if one.topic in counts]

        def beside(numbers: Iterable[int]) -> Iterator[int]:
            for number in numbers:
                topic, partition = found.partitions[number]
                if topic == flow.source:
                    yield from (found.base[one] + partition for one in topics if partition < counts[one])

        members = tuple(
            replace(member, partitions=(*member.partitions, *beside(member.partitions))) for member in group.members
        )
        return replace(group, members=members)

    def _unplaced(self, samples: GroupSamples, counts: dict[str, int]) -> Bools:
        """Partitions of a flow's source for which its journal has no partition of the same number."""
        flow = self._flows.get(samples.group.name)
        places = 0 if flow is None else counts.get(flow.journal, 0)
        if flow is None or not places:
            return np.zeros(len(samples.rows), dtype=np.bool_)
        return np.array([topic == flow.source and number >= places for topic, number in samples.rows], dtype=np.bool_)

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

    def keep(self, groups: frozenset[str]) -> None:
        """Have no alarm for these groups while they have no members: they are of versions that nobody is to run."""
        self._kept = groups

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
            for samples, row in behind:
                if samples.end[row] >= 0:
                    place = (int(samples.position[row]), int(samples.end[row]))
                    asked[place] = asked.get(place, False) or samples.is_still(row)
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
        """Process answers."""
        for answer in answers:
            question = answer.question
            key = (question.topic, question.partition)
            timeline = self._timelines.get(key)
            if timeline is None:
                continue
            timeline.skip(question.offset, question.end if answer.found is None else min(answer.found, question.end))
            if answer.found is not None and answer.timestamp_ms is not None:
                timeline.tell(answer.found, answer.timestamp_ms)
            for samples, row in self._behind.get(key, ()):
                if samples.end[row] >= 0:
                    samples.position[row] = position = timeline.position(int(samples.position[row]))
                    samples.lag[row, -1] = max(int(samples.end[row]) - position, 0)

    def open_questions(self, count_max: int) -> list[Question]:
        """First records of open transactions whose beginning was not seen; to be read uncommitted."""
        return self._open.questions(count_max)

    def learn_open(self, answers: Iterable[Answer]) -> None:
        """Process answers to `open_questions`."""
        self._open.learn(answers)

    def _policy(self, group: str) -> Policy:
        """Limits for a group; workers of a flow commit all the time, so their rhythm need not be learned."""
        policy = self._policies.policy(group)
        if group in self._flows and policy.commits_s is None:
            return replace(policy, commits_s=FLOW_COMMITS_S)
        return policy

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def judge(self) -> dict[str, GroupLag]:
        """Verdicts on all groups as of the newest round, by name."""
        ages = self._ages()
        return {
            name: self._judge(samples, *ages[name]) for name, samples in self._groups.items() if len(samples.time_ms)
        }

    def _judge(self, samples: GroupSamples, lag_s: Float64, is_bound: Bools) -> GroupLag:
        policy = self._policy(samples.group.name)
        opened = self._open.by_row(samples.rows)
        unreadable, open_s = np.zeros(len(samples.rows), dtype=np.int64), np.zeros(len(samples.rows))
        for row, one in opened.items():
            unreadable[row], open_s[row] = one.records, one.open_s
        window = Window(
            time_ms=samples.time_ms,
            offset=samples.offset,
            lag=samples.lag,
            active=samples.active,
            lag_s=lag_s,
            owned=samples.owned,
            deleted=samples.deleted,
            beyond=samples.beyond,
            unreadable=unreadable,
            open_s=open_s,
            left=samples.left,
            unplaced=samples.unplaced,
            kept=np.full(len(samples.rows), samples.group.name in self._kept),
            state_at=self.states.column(samples.group.name, samples.rows),
            moves=samples.moves.moves,
            unowned_s=samples.unowned_s,
            flaps=samples.flaps(int(samples.time_ms[-1]), policy.flaps_s),
            peers_s=samples.moves.peers_s,
        )
        verdicts = evaluate(window, policy)
        samples.since_ms = np.where(verdicts.status == samples.status, samples.since_ms, samples.time_ms[-1])
        samples.status = verdicts.status
        return GroupLag(
            group=samples.group,
            time_ms=int(samples.time_ms[-1]),
            partitions=samples.rows,
            end=samples.end,
            window=window,
            verdicts=verdicts,
            lag_s_is_bound=is_bound,
            since_ms=samples.since_ms,
            owners=samples.owners,
            complete=len(samples.time_ms) / self._samples_kept,
            policy=policy,
            is_flow=samples.group.name in self._flows,
            open_since={row: _instant(one.since_ms) for row, one in opened.items()},
        )

    def _ages(self) -> dict[str, tuple[Float64, Bools]]:
        """Age in seconds of the oldest record not committed, by group and row; and whether it is at least so old.

        One look-up per partition, whatever the number of groups.
        """
        found = {
            name: (np.zeros(len(samples.rows)), np.zeros(len(samples.rows), dtype=np.bool_))
            for name, samples in self._groups.items()
        }
        for key, behind in self._behind.items():
            positions = np.array([samples.position[row] for samples, row in behind], dtype=np.int64)
            timeline = self._timelines[key]
            times, _, _ = timeline.times_ms(positions)
            seconds = np.maximum(np.nan_to_num((self._time_ms - times) / 1000.0), 0.0).tolist()
            bounds = (positions < timeline.first).tolist()
            for (samples, row), age, bound in zip(behind, seconds, bounds, strict=True):
                if samples.lag[row, -1] > 0:
                    ages, is_bound = found[samples.group.name]
                    ages[row], is_bound[row] = age, bound
        return found


def _instant(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _rank_of(ranked: tuple[tuple[int, float], Question]) -> tuple[int, float]:
    return ranked[0]
