"""What an unfinished restore has left, and a store that was away for long: no row comes back whose deletion is gone.

A table topic is compacted: a deletion (`streams forget`) is kept for `delete.retention.ms`, and nothing of the key is
left afterwards.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.engine.log import LogRow
from streams.engine.restore import read_checkpoint, restore_partition
from streams.engine.task import PartitionTask
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.operators.fold.operator import fold_name
from streams.state.memory import MemoryStore
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.space import StoreSpace
from streams.state.store import StoreOutdated, WriteBatch
from tests.unit.test_declaration_changes import World
from tests.unit.test_forget import FLOW, TABLE, forget, warmth

HOUR_MS = 3_600_000


class Killed(BaseException):
    """The process ends here."""


class Dying(MemoryChangelog):
    """The process ends when the table was read, before the restore is done."""

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        yield from super().read(topic, partition, start, end)
        if topic == TABLE:
            raise Killed


class Compacted(MemoryChangelog):
    """As after `delete.retention.ms`: of the key nothing is left in tables."""

    def __init__(self, kafka: MemoryKafka, gone: bytes) -> None:
        super().__init__(kafka)
        self._gone = gone

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        for rows in super().read(topic, partition, start, end):
            yield [row for row in rows if topic != TABLE or row.key != self._gone]


def restored(world: World, disk: dict[bytes, bytes], changelog: MemoryChangelog, *, age_ms: int = 0) -> PartitionTask:
    return restore_partition(world.config, 0, MemoryStore(disk), changelog, ids_in_memory_max=10**6, age_ms=age_ms)


def keys_of(task: PartitionTask) -> set[bytes]:
    return {key for key, _ in StoreSpace(task.store, fold_name(TABLE)).scan()}


@pytest.fixture
def world() -> World:
    """Two keys with rows, and a worker that was stopped."""
    found = World().restore(FLOW)
    found.feed(warmth(1, b"a", 1_000), warmth(2, b"b", 1_010))
    found.feed(warmth(3, b"c", 9_000))
    found.stop(keep=True)
    return found


def killed_in_its_restore(world: World, disk: dict[bytes, bytes]) -> None:
    """A restore that ends in the middle, all that it has written so far being on disk."""
    store = MemoryStore(disk)
    with pytest.raises(Killed):
        restore_partition(world.config, 0, store, Dying(world.kafka), ids_in_memory_max=10**6)
    store.flush()


def test_rows_of_an_unfinished_restore_are_not_built_upon(world: World) -> None:
    disk: dict[bytes, bytes] = {}
    killed_in_its_restore(world, disk)
    assert read_checkpoint(MemoryStore(disk)) is None
    assert disk, "it has left rows"
    world.restore(FLOW)
    forget(world)
    task = restored(world, disk, Compacted(world.kafka, b"a"))
    assert keys_of(task) == {b"b"}
    assert keys_of(task) == keys_of(restored(world, {}, Compacted(world.kafka, b"a")))


def test_so_they_are_not_on_a_real_store(world: World, tmp_path: Path) -> None:
    disk: dict[bytes, bytes] = {}
    killed_in_its_restore(world, disk)
    store = RocksStore(tmp_path / "0", RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))
    store.write(WriteBatch(puts=list(disk.items())))
    store.flush()
    world.restore(FLOW)
    forget(world)
    changelog = Compacted(world.kafka, b"a")
    task = restore_partition(world.config, 0, store, changelog, ids_in_memory_max=10**6)
    assert keys_of(task) == {b"b"}
    store.close()


def test_a_store_that_has_missed_cycles_for_too_long_is_not_brought_forward(world: World) -> None:
    before = copy.deepcopy(world.disk)
    world.restore(FLOW)
    forget(world)
    with pytest.raises(StoreOutdated, match=r"21 h ago.*delete\.retention\.ms"):
        restored(world, before, MemoryChangelog(world.kafka), age_ms=21 * HOUR_MS)
    assert keys_of(restored(world, before, MemoryChangelog(world.kafka), age_ms=19 * HOUR_MS)) == {b"b"}


def test_a_store_that_has_missed_nothing_is_used_however_old(world: World) -> None:
    assert keys_of(restored(world, world.disk, MemoryChangelog(world.kafka), age_ms=1_000 * HOUR_MS)) == {b"a", b"b"}
