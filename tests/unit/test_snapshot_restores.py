"""A partition without local state begins with the newest sound snapshot, else with the journal alone."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.kafka.memory import MemoryKafka
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.snapshots.objects import ObjectStore
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Places
from streams.state.names import CHECKPOINT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import WriteBatch
from streams.worker.metrics import SNAPSHOT_OUTCOMES, WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.restorer import Restorer
from streams.worker.snapshot_restores import SnapshotRestores
from streams.worker.snapshots import SnapshotUploads
from tests.unit.test_restore import CONFIG
from tests.unit.test_restorer import Readers

PLACES = Places("cluster-1", {GPS.journal: "journal-1"}, 1)
MEMORY = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)


class World:
    """Snapshots, mostly of cycle 0, so that the journal may be empty; and what a restorer makes of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bucket = directory / "bucket"
        self.objects = ObjectStore(f"file://{self.bucket}")
        self.metrics = WorkerMetrics()
        readers: Any = Readers(1)
        self.kafka: MemoryKafka = readers.kafka
        self.restorer = Restorer(
            CONFIG,
            DataDirectory(directory / "data"),
            MEMORY,
            Settings(),
            self.metrics,
            places=lambda: PLACES,
            layouts=lambda: None,
            retrier=Retrier(),
            readers=readers,
            on_progress=lambda: None,
            snapshots=SnapshotRestores(self.objects, GPS, self.metrics),
        )

    def snapshot(self, offset_next: int, **changed: Any) -> None:
        """One of a store that ends at an offset."""
        place = self.directory / f"made-{offset_next}"
        store = RocksStore(place, MEMORY)
        identity = CONFIG.identity(PLACES)
        checkpoint = Checkpoint(
            cycle=0, offset_next=offset_next, watermark=offset_next, journal_next=0, replay_from=0, identity=identity
        )
        store.write(WriteBatch(puts=[(CHECKPOINT, replace(checkpoint, **changed).pack())]))
        store.checkpoint(place.with_suffix(".snapshot"))
        store.close()
        uploads = SnapshotUploads(self.objects, GPS, MEMORY, worker="a", keep=3, failpoint=lambda _: None)
        uploads.upload(0, place.with_suffix(".snapshot"))

    def restored(self) -> int:
        """Watermark of the state that a worker begins with."""
        found = asyncio.run(self.restorer.restore(0, lambda: True))
        assert found is not None
        return found.task.watermark

    def outcomes(self) -> dict[str, int]:
        """How often each came, of those that came."""
        count = self.metrics.snapshot_restores.labels
        values = {one: int(count(GPS.name, one)._value.get()) for one in SNAPSHOT_OUTCOMES}
        return {one: value for one, value in values.items() if value}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_partition_without_state_begins_with_a_snapshot(world: World) -> None:
    world.snapshot(7)
    assert 7 == world.restored()
    assert {"used": 1} == world.outcomes()
    assert {0} == world.restorer.restored


def test_a_partition_with_local_state_does_not_ask(world: World) -> None:
    world.snapshot(7)
    assert 7 == world.restored()
    world.restorer.release(0, None)
    shutil.rmtree(world.bucket)
    assert 7 == world.restored()
    assert {"used": 1} == world.outcomes()


def test_without_snapshots_the_journal_alone_is_read(world: World) -> None:
    assert world.restored() < 0
    assert {"none": 1} == world.outcomes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_snapshot_is_passed_over_and_nothing_of_it_stays(
    world: World, damage: Callable[[Path], None]
) -> None:
    world.snapshot(7)
    damage(max(world.bucket.rglob("objects/*"), key=lambda path: path.stat().st_size))
    assert world.restored() < 0
    assert {"damaged": 1, "none": 1} == world.outcomes()
    assert ["0"] == [path.name for path in (world.directory / "data" / GPS.name).iterdir()]


def test_a_snapshot_that_the_journal_cannot_reach_is_given_up_for_the_journal(world: World) -> None:
    """The local checks of a restore count: it knows a position that the journal does not have."""
    world.snapshot(7, journal_next=100)
    assert world.restored() < 0
    assert {"refused": 1, "none": 1} == world.outcomes()


def test_a_snapshot_under_which_the_restore_fails_is_given_up_for_the_journal(world: World) -> None:
    """It does not stand where the group does, which may be the group's fault or the snapshot's."""
    world.kafka.group[0] = Committed(5, None)
    world.snapshot(7, cycle=3)
    assert world.restored() < 0
    assert {"refused": 1, "none": 1} == world.outcomes()


def test_an_object_store_that_cannot_be_used_holds_nothing_up(world: World) -> None:
    world.bucket.parent.mkdir(exist_ok=True)
    world.bucket.write_text("no folder")
    assert world.restored() < 0
    assert {"unavailable": 1} == world.outcomes()


def test_a_store_in_use_is_copied_and_one_that_is_not_restored_is_not(world: World) -> None:
    folder = world.directory / "data" / GPS.name / "0.snapshot"
    assert not world.restorer.checkpoint(0, folder)
    world.snapshot(7)
    world.restored()
    assert world.restorer.checkpoint(0, folder)
    assert (folder / "CURRENT").exists()
    world.restorer.release(0, None)
    assert not world.restorer.checkpoint(0, folder.with_name("again"))
