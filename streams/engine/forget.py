"""The cycle that makes a partition's state forget keys: what is written in one transaction, while no worker has them.

A worker that restores the partition afterwards, from any store, has no rows of the keys: the records without a value in
the tables take them away, and what travels with them; the journal record takes away what operators keep beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from streams.batch.columns import TIME_MIN
from streams.engine.changelog_rows import FORGOTTEN_HEADER
from streams.engine.partition import PartitionState
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.sinks.base import TopicRecords, one_record
from streams.state import journal
from streams.state.journal import JournalEntry


@dataclass(frozen=True, slots=True)
class ForgettingCycle:
    """Records for topics, and the number of the cycle that they are; the offset does not move."""

    records: tuple[TopicRecords, ...]
    cycle: int | None
    """None: the partition has no state, so that there is no cycle to follow."""


def forgetting_cycle(task: PartitionState, keys: Sequence[bytes], now_ms: int) -> ForgettingCycle:
    """The cycle after the one at which `task` stands. No event of the keys may be held."""
    flow, partition, reached = task.config.pipeline, task.partition, task.checkpoint
    gone = [
        one_record(topic, key, None, now_ms, [(FORGOTTEN_HEADER, b"")], partition=partition)
        for topic in flow.table_topics
        for key in keys
    ]
    if not reached.cycle:
        return ForgettingCycle(tuple(gone), None)
    entry = JournalEntry(
        cycle=reached.cycle + 1,
        event_time_max=TIME_MIN,
        positions={flow.source: reached.position},
        identity=task.identity.packed,
    )
    sections: dict[str, list[bytes]] = {}
    for operator in task.operators.values():
        for part in (operator.marked_sections(), operator.forgotten(keys)):
            sections |= {name: list(pieces) for name, pieces in part.items()}
    packed = journal.pack(entry, sections, record_bytes_max=JOURNAL_RECORD_BYTES_MAX)
    changes = [one_record(flow.journal, None, record, now_ms, partition=partition) for record in packed]
    return ForgettingCycle((*gone, *changes), entry.cycle)
