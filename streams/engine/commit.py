"""The committer: the one place with side effects, in one order.

A cycle, as numbered in every test and failpoint:

1. begin the transaction (with the first effects of the cycle);
2. produce events and dead letters as they come; at the cycle's end rows of operators (of tables the last one of each
   key) and the journal;
3. send the source offsets, each with its cycle number;
4. commit;
5. only then write rows and checkpoint to the stores.

After a crash before step 4 nothing is visible and the records are processed again; after step 4 the journal brings the
store forward.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import structlog

from streams.batch.columns import Headers
from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.batch.refs import listed
from streams.batch.replayed import is_replayed
from streams.deadletters.letter.audit import Outcome, Settled, settle
from streams.deadletters.letter.envelope import envelope_headers
from streams.engine.cycle import Written
from streams.engine.effects import CycleEnd, Effects, PartitionEffects, TaskCommit
from streams.engine.encode import ChangelogPart, RowEncoder
from streams.engine.forwarded import forwarded_headers, progress_value
from streams.engine.log import Changelog
from streams.engine.placing import placed
from streams.engine.task import PartitionTask
from streams.flow.declaration import Pipeline
from streams.limits import OUTPUT_AGE_MS_MAX
from streams.operators.changes import RowRecords
from streams.operators.output import EventRecords
from streams.sinks.base import Committed, CycleAborted, OutcomeUnknown, TopicRecords, Transactions, one_record
from streams.state.journal import Position

log = structlog.get_logger(__name__)

Claim = Callable[[], object]
"""Called once, before step 3: the group membership in whose name the cycle is committed. Raises CycleAborted when the
worker no longer owns a partition of the cycle (docs/adr/0015)."""
Failpoint = Callable[[str], None]
"""Called with the name of each step between two steps; a test's hook may crash there."""

STEPS: Final = ("begun", "produced", "journalled", "offsets_sent", "committed", "applied")


class Committer:
    """Carries effects out, exactly once. One thread at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        transactions: Transactions,
        changelog: Changelog,
        encoders: Sequence[RowEncoder],
        failpoint: Failpoint = lambda _: None,
        *,
        author: str,
        session: str,
        timestamp_ages_ms: Mapping[str, int] | None = None,
        address: str = "",
        code: str | None = None,
    ) -> None:
        """Configure the committer.

        `encoders` are those of all topics that rows go to. `author` is this worker, `session` this process of it: an
        unknown outcome is settled by them. `timestamp_ages_ms` bounds, by topic, how old the timestamp of an event's
        record may be. `address`: where the worker's web server answers, for the positions' metadata; empty: nowhere.
        `code`: digest of the app, which goes into every position.
        """
        self._pipeline = pipeline
        self._inputs = pipeline.inputs
        self._transactions = transactions
        self._changelog = changelog
        self._encoders = {encoder.topic: encoder for encoder in encoders}
        self._failpoint = failpoint
        self._author, self._session = author, session
        self._address, self._code = address or None, code
        self._timestamp_ages_ms = timestamp_ages_ms or {}
        self._open = False

    def write(self, effects: Effects) -> None:
        """Steps 1 and 2: produce the effects of a micro-batch.

        Raises:
            CycleAborted: state must be reloaded and the records run again.

        """
        self._begin()
        for part in effects.partitions:
            origin = part.partition
            for records in part.records:
                originals = self._settled(records, effects.now_ms, origin, part.input_number)
                self._produce_events(records, records.headers(originals), effects.now_ms, part)
            for forwards in part.forwards:
                self._transactions.produce(
                    TopicRecords(
                        self._pipeline.forwarded_of(part.input_number),
                        forwards.keys,
                        forwards.values,
                        forwards.timestamps_ms,
                        forwards.headers,
                        partition=forwards.partition,
                        origin=origin,
                    )
                )
            for outcome, replayed in part.dropped_replayed.items():
                settled = settle(replayed, Outcome(outcome), effects.now_ms)
                self._produce_outcomes(settled, effects.now_ms, origin, part.input_number)
        rejected: dict[tuple[int, int], list[Headers | None]] = {}
        for letter in effects.dead_letters:
            if is_replayed(letter.headers):
                rejected.setdefault((letter.origin, letter.input_number), []).append(letter.headers)
        for (origin, number), headers in rejected.items():
            self._produce_outcomes(settle(headers, Outcome.REJECTED, effects.now_ms), effects.now_ms, origin, number)
        for letter in effects.dead_letters:
            headers_of_letter = envelope_headers(
                letter,
                source=self._inputs[letter.input_number].topic,
                group=self._pipeline.group,
                now_ms=effects.now_ms,
            )
            self._transactions.produce(
                one_record(
                    self._inputs[letter.input_number].dlq,
                    letter.key,
                    letter.value,
                    effects.now_ms,  # its retention counts from its failure
                    headers_of_letter,
                    partition=None if letter.key is not None else letter.origin,
                    origin=letter.origin,
                )
            )
        self._failpoint("produced")

    def commit(self, end: CycleEnd, tasks: Mapping[int, PartitionTask], now_ms: int, claim: Claim) -> None:
        """Steps 2 to 5 of the cycle that `end` describes; `tasks` are those that it came from.

        Raises:
            CycleAborted: nothing of the cycle is visible; state must be reloaded and the records run again.

        """
        journal_at: dict[int, list[int]] = {commit.partition: [] for commit in end.commits}
        tables_at: dict[int, dict[str, int]] = {commit.partition: {} for commit in end.commits}
        self._until_committed(end.commits, journal_at, tables_at, now_ms, claim)
        for commit in end.commits:
            offsets = journal_at[commit.partition]
            written = Written(min(offsets), max(offsets) + 1, tables_at[commit.partition])
            tasks[commit.partition].cycle.applied(commit, written)
        self._failpoint("applied")

    def forget(self, commits: Sequence[TaskCommit], beside: Sequence[TopicRecords], now_ms: int, claim: Claim) -> None:
        """Steps 1 to 4 of cycles that delete keys (`TaskCycle.forgetting`); writes `beside` in the same transaction.

        There is no step 5: the state of these partitions must be restored.

        Raises:
            CycleAborted: nothing of it is visible.

        """
        self._begin()
        for records in beside:
            self._transactions.produce(records)
        journal_at: dict[int, list[int]] = {commit.partition: [] for commit in commits}
        self._until_committed(commits, journal_at, {}, now_ms, claim)

    def _until_committed(
        self,
        commits: Sequence[TaskCommit],
        journal_at: dict[int, list[int]],
        tables_at: dict[int, dict[str, int]],
        now_ms: int,
        claim: Claim,
    ) -> None:
        """The rest of steps 2 to 4; returns the offsets of journal and table records by partition."""
        self._begin()
        self._produce_changelogs(commits, tables_at, now_ms)
        self._produce_rows(commits, now_ms)
        for commit in commits:
            for record in commit.journal:
                self._transactions.produce(
                    one_record(
                        self._pipeline.journal,
                        None,
                        record,
                        now_ms,
                        partition=commit.partition,
                        origin=commit.partition,
                        on_delivered=journal_at[commit.partition].append,
                    )
                )
        self._failpoint("journalled")
        self._produce_of_growth(commits, now_ms)
        positions = {
            lane_of(number, commit.partition): self._position(commit, number, position)
            for commit in commits
            for number, position in enumerate(commit.positions)
            if position.offset_next >= 0  # not for an input from which nothing was read yet
        }
        self._transactions.send_offsets(positions, claim())
        self._failpoint("offsets_sent")
        try:
            self._transactions.commit()
        except OutcomeUnknown as error:
            self._settle(positions, error)
        self._open = False
        self._failpoint("committed")

    def _position(self, commit: TaskCommit, number: int, position: Position) -> Committed:
        found = Committed(
            position.offset_next,
            commit.cycle,
            self._author,
            self._session,
            commit.identity.topics.get(self._inputs[number].topic),
            address=self._address,
            code=self._code,
        )
        standing = commit.standing
        if standing is None:
            return found
        return replace(
            found,
            epoch=standing.epoch,
            ready=standing.ready or None,
            cleared=standing.cleared or None,
            settled=standing.settled or None,
        )

    def abort(self) -> None:
        """Drop the open transaction, if there is one."""
        if self._open:
            self._open = False
            self._transactions.abort()

    def _begin(self) -> None:
        if not self._open:
            self._transactions.begin()
            self._open = True
            self._failpoint("begun")

    def _settle(self, positions: dict[int, Committed], error: OutcomeUnknown) -> None:
        """Find out whether the cycle was committed: it was if the group's offsets are `positions`.

        They name this process: another worker that took a partition over has cycles of the same number.
        If others have committed since, the cycle counts as not committed: reloading the state is correct in both cases.

        Raises:
            CycleAborted: it did not happen.

        """
        log.warning("the outcome of a commit is unknown; re-creating the producer to settle it", error=str(error))
        self._open = False
        self._transactions.reopen()
        if not positions or self._changelog.committed(list(positions)) != positions:
            raise CycleAborted(
                "outcome_settled", "the commit had not happened, or others have committed since"
            ) from error
        log.info("the commit had happened")

    def _produce_events(
        self, records: EventRecords, headers: Sequence[Headers | None] | None, now_ms: int, part: PartitionEffects
    ) -> None:
        topic, events, origin = records.topic, records.events, part.partition
        oldest_ms = max(0, now_ms - self._timestamp_ages_ms.get(topic, OUTPUT_AGE_MS_MAX))
        times = np.clip(events.timestamp_ms, oldest_ms, max(now_ms, oldest_ms))
        made = TopicRecords(topic, listed(events.key), listed(events.value), times, headers, origin=origin)
        is_home = part.all_home and bool((events.slot >= 0).all())
        for some in placed(made, part.partitions, origin, is_home=is_home):
            self._transactions.produce(some)

    def _settled(self, records: EventRecords, now_ms: int, origin: int, number: int) -> list[Headers | None] | None:
        """Headers that events keep; outcomes of replayed ones are added to the audit topic."""
        if records.events.headers is None:
            return None
        settled = settle(records.events.headers.tolist(), Outcome(records.outcome or Outcome.CLEAN), now_ms)
        if records.outcome:
            self._produce_outcomes(settled, now_ms, origin, number)
        return settled.headers

    def _produce_outcomes(self, settled: Settled, now_ms: int, origin: int, number: int) -> None:
        if settled.keys:
            times = [now_ms] * len(settled.keys)
            self._transactions.produce(
                TopicRecords(self._inputs[number].audit, settled.keys, settled.values, times, origin=origin)
            )

    def _produce_changelogs(
        self, commits: Sequence[TaskCommit], tables_at: dict[int, dict[str, int]], now_ms: int
    ) -> None:
        by_topic: dict[str, list[ChangelogPart]] = {}
        for commit in commits:
            for rows in commit.changelogs:
                by_topic.setdefault(rows.topic, []).append(ChangelogPart(commit.partition, rows, commit.carried))
        for topic, parts in by_topic.items():
            for partition, keys, values, headers in self._encoders[topic].encode_changelog(parts):
                self._transactions.produce(
                    TopicRecords(
                        topic,
                        keys,
                        values,
                        [now_ms] * len(keys),
                        headers,
                        partition=partition,
                        origin=partition,
                        on_last_delivered=_noting_next(tables_at[partition], topic),
                    )
                )

    def _produce_of_growth(self, commits: Sequence[TaskCommit], now_ms: int) -> None:
        """Produce tombstones of moved or forgotten keys, and what parents report to their children."""
        for commit in commits:
            for moved in commit.tombstones:
                count = len(moved.keys)
                self._transactions.produce(
                    TopicRecords(
                        moved.topic,
                        moved.keys,
                        [None] * count,
                        [now_ms] * count,
                        [moved.headers] * count,
                        partition=moved.partition,
                        origin=commit.partition,
                    )
                )
            for lane, progress in sorted(commit.progress.items()):
                number, child = input_of(lane), partition_of_lane(lane)
                self._transactions.produce(
                    one_record(
                        self._pipeline.forwarded_of(number),
                        None,
                        progress_value(progress, child),
                        now_ms,
                        forwarded_headers(
                            commit.partition, commit.positions[number].offset_next, commit.identity.epoch
                        ),
                        partition=child,
                        origin=commit.partition,
                    )
                )

    def _produce_rows(self, commits: Sequence[TaskCommit], now_ms: int) -> None:
        by_topic: dict[str, list[tuple[TaskCommit, RowRecords]]] = {}
        for commit in commits:
            for rows in commit.rows:
                by_topic.setdefault(rows.topic, []).append((commit, rows))
        for topic, parts in by_topic.items():
            keys, values = self._encoders[topic].encode([rows for _, rows in parts])
            if not any(commit.partitions for commit, _ in parts):
                self._transactions.produce(TopicRecords(topic, keys, values, [now_ms] * len(keys)))
                continue
            start = 0
            for commit, rows in parts:
                end = start + len(rows)
                made = TopicRecords(
                    topic, keys[start:end], values[start:end], [now_ms] * (end - start), origin=commit.partition
                )
                for some in placed(made, commit.partitions, commit.partition, is_home=False):
                    self._transactions.produce(some)
                start = end


def _noting_next(positions: dict[str, int], topic: str) -> Callable[[int], None]:
    def note(offset: int) -> None:
        positions[topic] = offset + 1

    return note
