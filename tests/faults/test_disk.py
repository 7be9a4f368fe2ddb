"""Rows 11, 13 and 14: the worker's state is on a full disk, damaged, or an old copy."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from logistics.flows.gps import GPS
from streams.limits import CHECKPOINT_INTERVAL_MS
from tests.faults.disk import SmallDisk
from tests.faults.harness import BOTH_FLOWS, READY_S_MAX, Scene, for_seconds, lines, metric
from tests.integration.kafka_helpers import admin_of
from tests.integration.workers import PARTITIONS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MakeScene = Callable[..., Scene]
ALL = {PARTITIONS}
ANY = set(range(PARTITIONS + 1))
QUARANTINED = "local state is not sound: moved aside, to be rebuilt from Kafka"


# --- 11: the disk is full ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "small", mb=64) as disk:
        yield disk


@pytest.mark.timeout(600)
@pytest.mark.fault(row=11, what="state disk full, then enlarged")
def test_offsets_stand_still_while_the_state_disk_is_full(small_disk: SmallDisk, scene: Scene) -> None:
    worker = scene.worker
    worker.data_dir = small_disk.path / "data"
    with scene.load() as traffic:
        scene.start().wait_ready(READY_S_MAX)
        pid = worker.pid
        scene.flows()
        small_disk.fill()
        wait_until(
            lambda: metric(worker, "streams_aborts_total", reason="state_disk") > 0,
            "the worker notices",
            timeout_s=3 * CHECKPOINT_INTERVAL_MS / 1000,
        )
        wait_until(lambda: worker.readiness()[0] == 503, "the worker says that it is not ready")
        frozen_at, sent = scene.committed(), traffic.sent
        for_seconds(20, lambda: worker.readiness()[0] == 503, "the worker is not ready")
        assert frozen_at == scene.committed()
        assert traffic.sent > sent
        assert "No space left" in worker.readiness()[1]
        small_disk.enlarge(mb=256)
        scene.struck()
        scene.recovers()
        wait_until(lambda: worker.readiness()[0] == 200, "the worker is ready")
        assert pid == worker.pid
    scene.exactly_once()


# --- 13: damage -------------------------------------------------------------------------------------------------------


def newest(store: Path, pattern: str) -> Path:
    return max(store.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def flip_bytes(store: Path) -> None:
    path = max(store.glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 8, len(content) // 2):
        content[place] ^= 0xFF
    path.write_bytes(content)


def truncate_table(store: Path) -> None:
    path = max(store.glob("*.sst"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-100])


def spoil_log(store: Path) -> None:
    """The write-ahead log is off, so there is nothing in it to cut off: there is something that is none."""
    newest(store, "*.log").write_bytes(b"no log of ours" * 1_000)


def lose_manifest(store: Path) -> None:
    newest(store, "MANIFEST-*").unlink()


def truncate_manifest(store: Path) -> None:
    path = newest(store, "MANIFEST-*")
    path.write_bytes(path.read_bytes()[:-7])


def lose_current(store: Path) -> None:
    (store / "CURRENT").unlink()


@BOTH_FLOWS
@pytest.mark.fault(row=13, what="damaged state")
@pytest.mark.parametrize(
    ("damage", "quarantined"),
    [
        pytest.param(flip_bytes, ALL, id="flipped bytes in an SST"),
        pytest.param(truncate_table, ALL, id="truncated SST"),
        pytest.param(lose_manifest, ALL, id="lost MANIFEST"),
        pytest.param(truncate_manifest, ANY, id="truncated MANIFEST"),
        pytest.param(lose_current, ALL, id="lost CURRENT"),
        pytest.param(spoil_log, ANY, id="garbage as write-ahead log"),
    ],
)
def test_damaged_state_is_never_served(scene: Scene, damage: Callable[[Path], None], quarantined: set[int]) -> None:
    """`quarantined` is how many stores may be moved aside: RocksDB sees through some damage."""
    worker = scene.worker
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        assert worker.terminate() == 0
        for partition in range(PARTITIONS):
            damage(worker.data_dir / scene.flow / str(partition))
        scene.start()
        scene.struck()
        worker.wait_ready(READY_S_MAX)
        aside = sorted(path.name for path in (worker.data_dir / scene.flow).glob("*.corrupt-*"))
        assert len(aside) in quarantined
        assert len(aside) == len(lines(worker, QUARANTINED))
        scene.recovers()
        rebuilt = metric(worker, "streams_restore_records_total")
        assert rebuilt > 0 or not aside
    scene.note(f"{len(aside)} of {PARTITIONS} stores quarantined, {rebuilt:.0f} records replayed")
    scene.exactly_once()


# --- 14: an old copy --------------------------------------------------------------------------------------------------


def copy_is_put_back(scene: Scene, copy: Path, between: Callable[[], Any]) -> None:
    """Stop, copy, work on, kill, put the copy back."""
    worker = scene.worker
    scene.start().wait_ready(READY_S_MAX)
    scene.flows()
    assert worker.terminate() == 0
    worker.copy_data(copy)
    scene.start().wait_ready(READY_S_MAX)
    scene.flows()
    between()
    worker.kill()
    shutil.move(worker.data_dir, worker.data_dir.with_name("newest"))
    shutil.copytree(copy, worker.data_dir)


@pytest.mark.fault(row=14, what="old copy of the state put back")
def test_an_old_copy_is_replayed_forward(scene: Scene, tmp_path: Path) -> None:
    with scene.load() as traffic:
        sent = traffic.sent
        later = lambda: wait_until(lambda: traffic.sent > sent + 30_000, "more comes")  # noqa: E731
        copy_is_put_back(scene, tmp_path / "copy", later)
        scene.struck()
        scene.start().wait_ready(READY_S_MAX)
        replayed = metric(scene.worker, "streams_restore_records_total")
        assert replayed > 0
        assert not lines(scene.worker, QUARANTINED)
        scene.recovers()
    scene.note(f"{replayed:.0f} records replayed")
    scene.exactly_once()


@pytest.mark.fault(row=14, what="old copy of the state put back, and the journal since then deleted")
def test_an_old_copy_without_its_journal_is_refused_until_the_newest_is_back(scene: Scene, tmp_path: Path) -> None:
    worker = scene.worker

    def delete_journal() -> None:
        ends = scene.probe.log_ends(GPS.journal)
        assert ends is not None
        wanted = [TopicPartition(GPS.journal, partition, end) for partition, end in ends.items()]
        admin = admin_of(scene.stack)
        for future in admin.delete_records(wanted).values():
            future.result(30)

    with scene.load():
        copy_is_put_back(scene, tmp_path / "copy", lambda: None)
        delete_journal()
        before = scene.committed()
        scene.start()
        scene.struck()
        wait_until(lambda: "state stands at offset" in worker.readiness()[1], "the worker says why it does not go on")
        for_seconds(5, lambda: worker.readiness()[0] == 503, "the worker does not go on")
        assert before == scene.committed()
        worker.kill()
    scene.note("refused, not rebuilt: what is in no journal cannot be known")
