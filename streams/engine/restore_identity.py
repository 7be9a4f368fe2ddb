"""Checks whose state it is: the identity in checkpoint and journal against what is declared and there now."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

import structlog

from streams.engine.journal_chain import RestoreFailed
from streams.engine.log import LogRow
from streams.engine.partition import PartitionState
from streams.engine.restore_context import RestoreContext
from streams.errors import StreamsError
from streams.sinks.base import Committed
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, IdentityUnreadable, Judgement
from streams.state.journal import JournalEntry, Position
from streams.state.store import StoreCorrupted, StoreOutdated

log = structlog.get_logger(__name__)

_LAST_RECORDS: Final = 100
"""Offsets before the end of another partition's journal in which its identity is looked for."""


class IdentityCheck:
    """Compares identities, and says what follows for the state of one partition."""

    def __init__(self, context: RestoreContext, accepted: Collection[str]) -> None:
        """State goes on although topics in `accepted` were created again: a rebuild writes their rows."""
        self._context, self._accepted = context, accepted

    def require_same_life(
        self, checkpoint: Checkpoint, declared: Identity, committed: Committed | None, journal_end: int
    ) -> None:
        """Compare the store with what is declared and there now.

        Raises:
            RestoreFailed: the declaration has changed in a way that the state does not allow.
            StoreOutdated, StoreCorrupted: the store must be rebuilt.

        """
        pipeline, found = self._context.pipeline, checkpoint.identity
        is_foreign = found.cluster != declared.cluster and bool(found.cluster and declared.cluster)
        known, now = found.topics.get(pipeline.journal), declared.topics.get(pipeline.journal)
        if is_foreign or (known and now and known != now):
            if not is_foreign and committed is not None and committed.cycle is not None and not self._has_journal():
                raise RestoreFailed(
                    f"{self._context.where}: {pipeline.journal} was deleted and created again, the group has committed "
                    f"offset {committed.offset_next} (cycle {committed.cycle}), and the local state ends at offset "
                    f"{checkpoint.offset_next} (cycle {checkpoint.cycle}). {self._context.rebuild('local')} writes the "
                    f"journal again where the two are equal; else begin again with {self._context.rebuild('source')}"
                )
            raise StoreOutdated(f"the local state is of an earlier life of {pipeline.journal}, or of another cluster")
        judgement = self._judged(found, declared)
        if judgement.migrated and found.rows != declared.rows:
            raise StoreOutdated(f"the local state has another layout: {'; '.join(judgement.migrated)}")
        if checkpoint.journal_next > journal_end:
            raise StoreCorrupted(
                f"the local state knows journal position {checkpoint.journal_next}, "
                f"{pipeline.journal}-{self._context.partition} ends at {journal_end}"
            )

    def _has_journal(self) -> bool:
        """Whether the journal that is there now has any record: state that was written again is in it."""
        topic = self._context.pipeline.journal
        low, high = self._context.changelog.bounds(topic, self._context.partition)
        return any(rows for rows in self._context.changelog.read(topic, self._context.partition, low, high))

    def _judged(self, found: Identity, declared: Identity) -> Judgement:
        judgement = self._context.config.judged(found.without(self._accepted), declared)
        if judgement.refused:
            raise RestoreFailed(f"{self._context.where}: {'; '.join(judgement.refused)}")
        return judgement

    def under_declared(self, state: PartitionState, reached: Checkpoint, declared: Identity) -> Checkpoint:
        """The checkpoint under the declared identity, with what follows from the change.

        Raises:
            RestoreFailed: the state does not allow the change.

        """
        judgement = self._judged(reached.identity, declared)
        for text in judgement.migrated:
            log.warning(
                "what is declared or set has changed; the state goes on", partition=self._context.where, change=text
            )
        names = self._context.config.further_names
        positions = reached.positions(names)
        for name, operator in state.operators.items():
            watermark = self._context.config.watermark_of(name, positions)
            operator.bounds_changed(reached.identity.bounds, watermark)
        added = {
            topic: self._context.changelog.bounds(topic, self._context.partition)[1]
            for topic in self._context.tables
            if topic not in reached.identity.tables
        }
        identity = declared.taking_over(reached.identity, added_from=added)
        for number, one in enumerate(self._context.config.inputs):
            if one.topic in judgement.recreated:
                log.warning(
                    "the source topic was deleted and created again: its records are processed from the first one; "
                    "what is known of earlier ones stays, so that copies of them are dropped",
                    partition=self._context.where_of(number),
                )
                positions[number] = Position(-1, positions[number].watermark)
        return replace(reached.at(positions, names), identity=identity)

    def require_no_rows(self) -> None:
        """A partition without any state must not take over rows of a table of an earlier life."""
        for topic in self._context.tables:
            low, high = self._context.changelog.bounds(topic, self._context.partition)
            for rows in self._context.changelog.read(topic, self._context.partition, low, high):
                if any(row.value is not None for row in rows):
                    raise RestoreFailed(
                        f"{self._context.where}: {topic} has rows, and {self._context.pipeline.journal} knows of no "
                        f"state: they are of an earlier life. Delete {topic} and run `streams topics apply`, or empty "
                        f"all outputs with {self._context.rebuild('source')}"
                    )

    def require_same_division(self, declared: Identity) -> None:
        """A partition without any state must not begin where others have state that is divided otherwise."""
        layouts = self._context.layouts
        for other in (number for number in range(declared.partitions) if number != self._context.partition):
            found = self._identity_of_other(other)
            if found is not None:
                is_known = layouts is not None and layouts.of(found.epoch) is not None
                self._judged(found.divided(), self._context.declared(found.epoch) if is_known else declared)
                return

    def _identity_of_other(self, partition: int) -> Identity | None:
        """The latest identity in another partition's journal; None where it has none, or cannot be read.

        What is wrong there is the other partition's own: this one neither fails with it nor waits for it.
        """
        try:
            return newest_identity(self._context, partition)
        except StreamsError as error:
            log.warning("another partition's journal was not looked at", partition=partition, error=str(error))
            return None


def newest_identity(context: RestoreContext, partition: int) -> Identity | None:
    """The latest identity in the journal of a partition; None where it has none."""
    topic = context.pipeline.journal
    latest: Identity | None = None
    low, high = context.changelog.bounds(topic, partition, stable=True)
    for rows in context.changelog.read(topic, partition, max(low, high - _LAST_RECORDS), high):
        latest = next(filter(None, map(_identity_in, reversed(rows))), latest)
    return latest


def _identity_in(row: LogRow) -> Identity | None:
    try:
        packed = journal.unpack(row.value or b"").identity
        return Identity.unpack(packed) if packed else None
    except (journal.JournalCorrupted, IdentityUnreadable):
        return None


class JournalIdentities:
    """Identities of journal records, each unpacked once; checks that they are of the journal they stand in."""

    def __init__(self, context: RestoreContext) -> None:
        self._context, self._topic = context, context.pipeline.journal
        self._packed = b""

    def of(self, entry: JournalEntry, offset: int) -> Identity | None:
        """The record's identity; None where it is that of the record before.

        Raises:
            RestoreFailed: the record was written into another topic or cluster.

        """
        if not entry.identity or entry.identity == self._packed:
            return None
        try:
            found = Identity.unpack(entry.identity)
        except IdentityUnreadable as error:
            raise self._refused(offset, str(error)) from None
        cluster, now = self._context.places.cluster, self._context.places.topics.get(self._topic, "")
        known = found.topics.get(self._topic, "")
        if (cluster and found.cluster and cluster != found.cluster) or (now and known and now != known):
            raise self._refused(offset, "it was written into another cluster, or into an earlier topic of this name")
        self._packed = entry.identity
        return found

    def _refused(self, offset: int, why: str) -> RestoreFailed:
        return RestoreFailed(
            f"the record at offset {offset} of {self._topic}-{self._context.partition} is not of this journal: {why}. "
            f"State of another place is not used: begin again with {self._context.rebuild('source')}"
        )
