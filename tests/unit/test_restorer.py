"""Restores side by side: one that waits or fails holds up no other; long local reads are signs of life."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.engine.journal_chain import RestoreFailed
from streams.errors import StreamsError
from streams.kafka.changelog import Unsettled
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.limits import RESTORES_MAX, SCAN_SIGN_ROWS
from streams.operators.window.operator import window_name
from streams.operators.window.windows import Windows
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.state.identity import Places
from streams.state.journal import JournalEntry, Position
from streams.state.names import CHECKPOINT, operator_prefix
from streams.state.rocks import RocksMemory, RocksStore, open_or_quarantine
from streams.state.store import WriteBatch
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.ports import Restored
from streams.worker.restorer import Restorer
from tests.unit.test_journal import entry
from tests.unit.test_restore import CONFIG, OURS, checkpoint


class Reader(MemoryChangelog):
    """A changelog reader of which each partition may have something wrong with it."""

    def __init__(self, kafka: MemoryKafka, wrong: dict[int, Exception], hangs: dict[int, threading.Event]) -> None:
        super().__init__(kafka)
        self._wrong, self._hangs = wrong, hangs

    def require_settled(self, topics: Sequence[str], partition: int) -> None:
        assert [GPS.journal, *(table.topic for table in GPS.tables)] == topics
        if partition in self._hangs:
            self._hangs[partition].wait()
        if isinstance(self._wrong.get(partition), Unsettled):
            raise self._wrong[partition]

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:
        if topic == GPS.source:
            if isinstance(self._wrong.get(partition), StreamsError):
                raise self._wrong[partition]
            return 0, 100
        if isinstance(self._wrong.get(partition), RestoreFailed):
            raise self._wrong[partition]
        return super().bounds(topic, partition, stable=stable)


class Readers:
    def __init__(self, partitions: int) -> None:
        self.kafka = MemoryKafka(partitions)
        self.wrong: dict[int, Exception] = {}
        self.hangs: dict[int, threading.Event] = {}
        self.lent = self.lent_max = 0
        self._lock = threading.Lock()

    @contextmanager
    def reader(self, wanted: Callable[[], bool]) -> Iterator[Reader]:
        assert wanted()
        with self._lock:
            self.lent += 1
            self.lent_max = max(self.lent, self.lent_max)
        try:
            yield Reader(self.kafka, self.wrong, self.hangs)
        finally:
            with self._lock:
                self.lent -= 1

    def close_idle(self) -> None: ...


class World:
    def __init__(self, directory: Path, *, partitions: int) -> None:
        self.readers = Readers(partitions)
        self.signs = 0
        readers: Any = self.readers
        self.memory = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)
        self.directory = DataDirectory(directory)
        self.restorer = Restorer(
            CONFIG,
            self.directory,
            self.memory,
            Settings(),
            WorkerMetrics(),
            places=Places,
            layouts=lambda: None,
            retrier=Retrier(),
            readers=readers,
            on_progress=self.sign,
        )

    def sign(self) -> None:
        self.signs += 1

    def begin(self, partition: int) -> "asyncio.Task[Restored | None]":
        return asyncio.create_task(self.restorer.restore(partition, lambda: True))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - threads set what is waited for
        await asyncio.sleep(0.01)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, partitions=RESTORES_MAX + 3)


@pytest.mark.parametrize(
    "wrong",
    [
        RestoreFailed("the journal is damaged"),
        Unsettled("a transaction is open"),
        StreamsError("the source partition has no leader"),
    ],
)
def test_partitions_that_cannot_be_restored_stand_alone_however_many(world: World, wrong: StreamsError) -> None:
    async def story() -> None:
        bad = set(range(RESTORES_MAX + 1))
        world.readers.wrong = dict.fromkeys(bad, wrong)
        stuck = [world.begin(partition) for partition in sorted(bad)]
        good = [world.begin(partition) for partition in (RESTORES_MAX + 1, RESTORES_MAX + 2)]
        for restored in await asyncio.gather(*good):
            assert restored is not None
            assert (0, 100) == restored.source_bounds
        await until(lambda: world.restorer.stuck.keys() == bad)
        assert all(str(wrong) in said and GPS.source in said for said in world.restorer.stuck.values())
        assert world.readers.lent_max <= RESTORES_MAX
        for task in stuck:
            task.cancel()

    asyncio.run(story())


def test_a_partition_that_can_be_restored_after_all_is(world: World) -> None:
    async def story() -> None:
        world.readers.wrong[0] = StreamsError("the source partition has no leader")
        restoring = world.begin(0)
        await until(lambda: bool(world.restorer.stuck))
        world.readers.wrong.clear()
        restored = await restoring
        assert restored is not None
        assert 0 == restored.task.partition
        assert not world.restorer.stuck

    asyncio.run(story())


def test_a_release_does_not_wait_for_the_restores_of_others(world: World) -> None:
    async def story() -> None:
        restored = await world.begin(0)
        assert restored is not None
        ends = threading.Event()
        world.readers.hangs = dict.fromkeys(range(1, RESTORES_MAX + 1), ends)
        hanging = [world.begin(partition) for partition in range(1, RESTORES_MAX + 1)]
        await until(lambda: world.readers.lent == RESTORES_MAX)
        await asyncio.to_thread(world.restorer.release, 0, restored.task)
        ends.set()
        await asyncio.gather(*hanging)

    asyncio.run(story())


def test_a_restore_that_reads_a_large_store_gives_signs_of_life_all_the_way(world: World) -> None:
    """Before it has read a single record: the check of every block, and the scan for open windows."""
    rows = 5 * SCAN_SIGN_ROWS
    path = world.directory.store_path(GPS.name, 0)
    path.parent.mkdir(parents=True)
    store = RocksStore(path, world.memory)
    closed, prefix = bytes(window_row_bytes()), operator_prefix(window_name(GPS.windows[0].topic))
    windows = [(prefix + b"%08d" % number, closed) for number in range(rows)]
    store.write(WriteBatch(puts=[(CHECKPOINT, checkpoint().pack()), *windows]))
    store.close()

    async def story() -> None:
        restored = await world.begin(0)
        assert restored is not None
        before = world.signs
        assert before >= 2 * (rows // SCAN_SIGN_ROWS)
        list(restored.task.store.scan(b""))
        assert before == world.signs, "a store that is in use tells nobody"

    asyncio.run(story())


def test_a_store_of_an_earlier_format_is_set_aside_and_the_partition_restored_from_its_journal(world: World) -> None:
    path = world.directory.store_path(GPS.name, 0)
    path.parent.mkdir(parents=True)
    store = RocksStore(path, world.memory)
    store.write(
        WriteBatch(puts=[(CHECKPOINT, b'{"format": 2, "cycle": 7, "offset_next": 70}'), (b"k" + b"d1", b"row")])
    )
    store.close()

    async def story() -> None:
        restored = await world.begin(0)
        assert restored is not None
        assert (0, -1) == (restored.task.checkpoint.cycle, restored.task.offset_next)
        assert [None] == restored.task.store.get_many([b"kd1"])

    asyncio.run(story())
    aside = [one for one in path.parent.iterdir() if one != path]
    assert 1 == len(aside), "what may hold the only copy is kept"


def window_row_bytes() -> int:
    window = GPS.windows[0]
    return int(Windows(window.aggregate, size_ms=1, grace_ms=0).dtype.itemsize)


def test_a_scan_that_is_no_longer_wanted_ends_and_leaves_the_store_unlocked(tmp_path: Path) -> None:
    memory = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)
    store = RocksStore(tmp_path / "0", memory)
    store.write(WriteBatch(puts=[(b"%08d" % number, b"") for number in range(2 * SCAN_SIGN_ROWS)]))
    store.close()

    def no_longer() -> None:
        raise StreamsError("no longer ours")

    with pytest.raises(StreamsError, match="no longer ours"):
        open_or_quarantine(tmp_path / "0", memory, no_longer)
    open_or_quarantine(tmp_path / "0", memory).close()
    assert [tmp_path / "0"] == list(tmp_path.iterdir())


HOUR_MS = 3_600_000


class Aging(World):
    """A worker's stores as time goes on."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = 100 * HOUR_MS
        super().__init__(directory, partitions=1)
        self.restorer._wall_ms = lambda: self.now_ms

    def commit(self, cycle: int) -> None:
        """Another worker commits a cycle."""
        at = {GPS.source: Position(10 * cycle, cycle)}
        head = JournalEntry(cycle, 2**40, positions=at, identity=OURS.packed)
        for record in replace(entry(ids_count=4), head=head).packed(1_000):
            self.readers.kafka.append(GPS.journal, 0, None, record, 0)
        self.readers.kafka.group[0] = Committed(10 * cycle, cycle)

    def restore(self) -> None:
        assert asyncio.run(self.restorer.restore(0, lambda: True)) is not None

    @property
    def was_moved_aside(self) -> bool:
        return self.restorer.store_path(0).with_name("0.outdated").exists()


def test_a_store_that_was_away_for_too_long_is_moved_aside_and_one_in_use_is_not(tmp_path: Path) -> None:
    world = Aging(tmp_path)
    world.commit(1)
    world.restore()
    for _ in range(30):  # owned, and idle
        world.now_ms += HOUR_MS
        world.restorer.flush()
    world.restorer.release(0, None)
    world.commit(2)
    world.now_ms += 19 * HOUR_MS
    world.restore()
    assert not world.was_moved_aside
    world.restorer.flush()
    world.restorer.release(0, None)
    world.commit(3)
    world.now_ms += 21 * HOUR_MS
    world.restore()
    assert world.was_moved_aside


def test_a_worker_that_was_held_up_for_long_does_not_call_its_stores_complete(tmp_path: Path) -> None:
    world = Aging(tmp_path)
    world.commit(1)
    world.restore()
    world.restorer.flush()
    world.now_ms += 10 * HOUR_MS
    world.restorer.flush()
    world.restorer.release(0, None)
    world.commit(2)
    world.now_ms += 11 * HOUR_MS
    world.restore()
    assert world.was_moved_aside


def test_a_store_of_an_earlier_version_has_no_note_and_is_used(tmp_path: Path) -> None:
    world = Aging(tmp_path)
    world.commit(1)
    world.restore()
    world.restorer.release(0, None)
    (world.restorer.store_path(0) / "complete_at_ms").unlink()
    world.commit(2)
    world.now_ms += 100 * HOUR_MS
    world.restore()
    assert not world.was_moved_aside


@pytest.mark.parametrize("note", ["", "no number", str(10**15)])
def test_a_note_that_says_nothing_is_too_old(tmp_path: Path, note: str) -> None:
    world = Aging(tmp_path)
    world.commit(1)
    world.restore()
    world.restorer.release(0, None)
    (world.restorer.store_path(0) / "complete_at_ms").write_text(note)
    world.commit(2)
    world.restore()
    assert world.was_moved_aside
