"""Restore: what is not our state is refused in words, never guessed at."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.engine.config import TaskConfig
from streams.engine.journal_chain import RestoreFailed
from streams.engine.log import LogRow
from streams.engine.restore import restore_partition
from streams.flow.bounds import Bounds
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.sinks.base import Committed
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Places
from streams.state.journal import JournalEntry, Position
from streams.state.memory import MemoryStore
from streams.state.names import CHECKPOINT, operator_prefix
from streams.state.store import StoreCorrupted
from tests.unit.test_journal import entry

CONFIG = TaskConfig(
    replace(GPS, bounds=Bounds(1_000, 60_000, quarantine_rejects=0)),
    lambda _: nullcontext(),
    partial(partitions_of, partitions=1),
)
OURS = CONFIG.identity(Places())


def a_broker() -> MemoryKafka:
    """One partition, whose source has a hundred records."""
    kafka = MemoryKafka(1)
    for number in range(100):
        kafka.append(GPS.source, 0, b"d", b"%d" % number, 0)
    return kafka


def checkpoint(**changed: Any) -> Checkpoint:
    values = {"cycle": 3, "offset_next": 40, "watermark": 0, "journal_next": 0, "replay_from": 0, "identity": OURS}
    return Checkpoint(**{**values, **changed})


def restore(kafka: MemoryKafka, store: MemoryStore | None = None) -> None:
    restore_partition(CONFIG, 0, store or MemoryStore(), MemoryChangelog(kafka), ids_in_memory_max=1_000)


def test_a_journal_record_of_something_else_stops_the_partition_and_names_its_offset() -> None:
    kafka = a_broker()
    kafka.append(GPS.journal, 0, None, b"not ours", 0)
    with pytest.raises(RestoreFailed, match=r"offset 0 of gps\.positions\.v1\.journal"):
        restore(kafka)


def test_a_committed_offset_without_its_journal_stops_the_partition() -> None:
    kafka = a_broker()
    kafka.group[0] = Committed(100, 7)
    with pytest.raises(RestoreFailed, match="it was emptied, or deleted and created again"):
        restore(kafka)


def test_an_offset_that_someone_set_without_state_is_where_a_new_group_begins() -> None:
    kafka = a_broker()
    kafka.group[0] = Committed(100, None)
    task = restore_partition(CONFIG, 0, MemoryStore(), MemoryChangelog(kafka), ids_in_memory_max=1_000)
    assert task.offset_next == 100


def test_offsets_reset_by_hand_stop_the_partition_and_say_both() -> None:
    kafka = a_broker()
    kafka.group[0] = Committed(5, None)
    store = MemoryStore({CHECKPOINT: checkpoint().pack()})
    with pytest.raises(RestoreFailed, match=r"offset 40 .*offset 5"):
        restore(kafka, store)


def test_a_group_whose_offsets_expired_goes_on_where_its_state_ends() -> None:
    store = MemoryStore({CHECKPOINT: checkpoint().pack()})
    task = restore_partition(CONFIG, 0, store, MemoryChangelog(a_broker()), ids_in_memory_max=1_000)
    assert task.offset_next == 40


@pytest.mark.parametrize(
    "rows",
    [
        {CHECKPOINT: b"{}"},
        {CHECKPOINT: b"\xff"},
        {CHECKPOINT: checkpoint(journal_next=9).pack()},
        {CHECKPOINT: checkpoint().pack(), operator_prefix("reorder.held") + bytes(20): b"garbage"},
    ],
    ids=["no marker", "not text", "ahead of the journal", "bad page"],
)
def test_a_store_that_is_not_sound_is_called_corrupt(rows: dict[bytes, bytes]) -> None:
    with pytest.raises(StoreCorrupted):
        restore(a_broker(), MemoryStore(rows))


class Forgetful(MemoryChangelog):
    """Leaves out one record of the journal, as a broker may that has lost the end of its transaction."""

    def __init__(self, kafka: MemoryKafka, left_out: int) -> None:
        super().__init__(kafka)
        self._left_out = left_out

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        for rows in super().read(topic, partition, start, end):
            yield [row for row in rows if topic != GPS.journal or row.offset != self._left_out]


def a_journal(kafka: MemoryKafka) -> None:
    """Cycles 1 to 4, the second one in two parts: records 0 to 4."""
    for cycle in (1, 2, 3, 4):
        at = {GPS.source: Position(10 * cycle, cycle)}
        head = JournalEntry(cycle, 2**40, positions=at, identity=OURS.packed)
        for record in replace(entry(ids_count=4), head=head).packed(60 if cycle == 2 else 1_000):
            kafka.append(GPS.journal, 0, None, record, 0)


@pytest.mark.parametrize("left_out", range(5))
@pytest.mark.parametrize("with_store", [False, True])
def test_a_journal_with_a_gap_stops_the_partition(left_out: int, *, with_store: bool) -> None:
    """The store's marker alone would say that all is well: the cycle has happened."""
    kafka = a_broker()
    a_journal(kafka)
    assert len(kafka.log(GPS.journal, 0)) == 5
    kafka.group[0] = Committed(40, 4)
    marker = Checkpoint(identity=OURS, cycle=4, offset_next=40, watermark=4, journal_next=5, replay_from=0)

    def again(changelog: MemoryChangelog) -> int:
        store = MemoryStore({CHECKPOINT: marker.pack()} if with_store else {})
        return restore_partition(CONFIG, 0, store, changelog, ids_in_memory_max=1_000).offset_next

    with pytest.raises(RestoreFailed, match=r"is not complete|the group at offset 40"):
        again(Forgetful(kafka, left_out))
    assert again(MemoryChangelog(kafka)) == 40
