"""Restore: what is not our state is refused in words, never guessed at."""

from contextlib import nullcontext

import pytest

from streams.engine.log import Committed
from streams.engine.restore import RestoreFailed, restore_partition
from streams.engine.task import TaskConfig
from streams.pipelines.gps import GPS
from streams.state.layout import HELD, MARKER, Marker
from streams.state.memory import MemoryStore
from streams.state.store import StoreCorrupted
from tests.simulation.kafka import MemoryChangelog, MemoryKafka

CONFIG = TaskConfig(GPS, 1_000, 60_000, lambda _: nullcontext(), lambda _: 0)


def restore(kafka: MemoryKafka, store: MemoryStore | None = None) -> None:
    restore_partition(CONFIG, 0, store or MemoryStore(), MemoryChangelog(kafka), ids_in_memory_max=1_000)


def test_a_journal_record_of_something_else_stops_the_partition_and_names_its_offset() -> None:
    kafka = MemoryKafka(1)
    kafka.append(GPS.journal, 0, None, b"not ours", 0)
    with pytest.raises(RestoreFailed, match=r"offset 0 of gps\.positions\.v1\.journal"):
        restore(kafka)


def test_a_committed_offset_without_its_journal_stops_the_partition() -> None:
    kafka = MemoryKafka(1)
    kafka.group[0] = Committed(100, 7)
    with pytest.raises(RestoreFailed, match="was the journal topic deleted"):
        restore(kafka)


def test_an_offset_that_someone_set_without_state_is_where_a_new_group_begins() -> None:
    kafka = MemoryKafka(1)
    kafka.group[0] = Committed(100, None)
    task = restore_partition(CONFIG, 0, MemoryStore(), MemoryChangelog(kafka), ids_in_memory_max=1_000)
    assert task.offset_next == 100


def test_offsets_reset_by_hand_stop_the_partition_and_say_both() -> None:
    kafka = MemoryKafka(1)
    kafka.group[0] = Committed(5, None)
    store = MemoryStore({MARKER: Marker(cycle=3, offset_next=40, watermark=0, journal_next=0, replay_from=0).pack()})
    with pytest.raises(RestoreFailed, match=r"offset 40 .*offset 5"):
        restore(kafka, store)


def test_a_group_whose_offsets_expired_goes_on_where_its_state_ends() -> None:
    store = MemoryStore({MARKER: Marker(cycle=3, offset_next=40, watermark=0, journal_next=0, replay_from=0).pack()})
    task = restore_partition(CONFIG, 0, store, MemoryChangelog(MemoryKafka(1)), ids_in_memory_max=1_000)
    assert task.offset_next == 40


@pytest.mark.parametrize(
    "rows",
    [
        {MARKER: b"{}"},
        {MARKER: b"\xff"},
        {MARKER: Marker(cycle=3, offset_next=40, watermark=0, journal_next=9, replay_from=0).pack()},
        {HELD + bytes(20): b"garbage"},
    ],
    ids=["no marker", "not text", "ahead of the journal", "bad page"],
)
def test_a_store_that_is_not_sound_is_called_corrupt(rows: dict[bytes, bytes]) -> None:
    with pytest.raises(StoreCorrupted):
        restore(MemoryKafka(1), MemoryStore(rows))
