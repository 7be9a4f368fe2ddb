"""Row 33: snapshots. A worker dies in an upload, what was uploaded is damaged or gone, the object store is down.

Whatever befalls them, the worker that begins without a disk comes to the same state: at worst by the journal alone.
"""

import contextlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from tests.faults.harness import READY_S_MAX, Scene, frozen, lines, metric
from tests.integration.workers import PARTITIONS, Worker, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MakeScene = Callable[..., Scene]
REACHED = "failpoint reached"
STALLS = "failpoint reached: this thread stalls"
TAKEN = "snapshot"
_SMALL_BYTES = 100
USED, NONE, DAMAGED, REFUSED, UNAVAILABLE = "used", "none", "damaged", "refused", "unavailable"


def takes_snapshots(scene: Scene, bucket: Path) -> None:
    """All workers of the scene, every second."""
    scene.environment = {
        **scene.environment,
        "STREAMS_GROUP_STATIC": "false",
        "STREAMS_SNAPSHOT_URL": f"file://{bucket}",
        "STREAMS_SNAPSHOT_INTERVAL_S": "1",
    }


def restores(worker: Worker, outcome: str) -> int:
    return int(metric(worker, "streams_snapshot_restores_total", outcome=outcome, pipeline=GPS.name))


def loses_its_disk(scene: Scene, worker: Worker | None = None) -> None:
    """It is killed, and comes back without a data directory."""
    worker = worker or scene.worker
    if worker.is_running:
        worker.kill()
    worker.delete_data()
    scene.start(worker)
    scene.struck()
    worker.wait_ready(READY_S_MAX)


def has_snapshots_of_all(bucket: Path) -> bool:
    return len({path.parent for path in bucket.rglob("manifests/*.json")}) == PARTITIONS


@pytest.mark.timeout(600)
@pytest.mark.fault(row=33, what="worker killed in the upload of a snapshot, then without its disk")
def test_a_snapshot_is_whole_or_not_there_wherever_its_upload_dies(scene: Scene, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    takes_snapshots(scene, bucket)
    with scene.load():
        for step, number in (
            ("snapshot_taken", 1), ("snapshot_object", 2), ("snapshot_uploaded", 2), ("snapshot_manifest", 3),
        ):  # fmt: skip
            scene.start(STREAMS_FAILPOINT=f"{step}:{number}")
            assert scene.worker.wait_ended(120) == -signal.SIGKILL, scene.worker.printed()[-3000:]
            assert scene.worker.said(REACHED)
            whole = len({path.parent for path in bucket.rglob("manifests/*.json")})
            loses_its_disk(scene)
            assert (whole, PARTITIONS - whole) == (restores(scene.worker, USED), restores(scene.worker, NONE))
            scene.recovers()
            scene.worker.kill()
        scene.start()
    scene.exactly_once()


def corrupt_objects(bucket: Path) -> None:
    for path in bucket.rglob("objects/*"):
        content = bytearray(path.read_bytes())
        if content:
            content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)


def lose_objects(bucket: Path) -> None:
    """Tables and lists of tables: no snapshot is without one of them."""
    for path in bucket.rglob("objects/*"):
        if path.stat().st_size > _SMALL_BYTES:
            path.unlink()


def corrupt_manifests(bucket: Path) -> None:
    for path in bucket.rglob("manifests/*.json"):
        path.write_bytes(path.read_bytes().replace(b'"cycle"', b'"cycl3"'))


def empty(bucket: Path) -> None:
    for path in bucket.rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.mark.timeout(600)
@pytest.mark.fault(row=33, what="snapshots damaged, and the worker's disk lost")
@pytest.mark.parametrize(
    ("damage", "outcome"),
    [
        pytest.param(corrupt_objects, DAMAGED, id="corrupt objects"),
        pytest.param(lose_objects, DAMAGED, id="missing objects"),
        pytest.param(corrupt_manifests, REFUSED, id="corrupt manifests"),
        pytest.param(empty, NONE, id="bucket emptied"),
    ],
)
def test_a_snapshot_that_is_not_what_was_written_is_never_used(
    scene: Scene, tmp_path: Path, damage: Callable[[Path], None], outcome: str
) -> None:
    bucket = tmp_path / "bucket"
    takes_snapshots(scene, bucket)
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        wait_until(lambda: has_snapshots_of_all(bucket), "there is a snapshot of each partition", timeout_s=60)
        scene.flows()
        scene.worker.kill()
        damage(bucket)
        loses_its_disk(scene)
        assert restores(scene.worker, outcome) >= PARTITIONS
        assert restores(scene.worker, USED) == 0
        scene.recovers()
    scene.exactly_once()


def goes_down(bucket: Path, away: Path) -> None:
    """No folder can be made where it was: nothing of it is listed, read or written."""
    bucket.rename(away)
    while not bucket.is_file():
        shutil.rmtree(bucket, ignore_errors=True)  # an upload may have made it again
        with contextlib.suppress(IsADirectoryError):
            bucket.write_bytes(b"no folder")


@pytest.mark.timeout(600)
@pytest.mark.fault(row=33, what="object store down, while it runs and while it is without its disk")
def test_an_object_store_that_is_down_stops_nothing_and_is_said(scene: Scene, tmp_path: Path) -> None:
    bucket, away = tmp_path / "bucket", tmp_path / "away"
    takes_snapshots(scene, bucket)
    with scene.load() as traffic:
        scene.start().wait_ready(READY_S_MAX)
        wait_until(lambda: has_snapshots_of_all(bucket), "there is a snapshot of each partition", timeout_s=60)
        goes_down(bucket, away)
        scene.struck()
        wait_until(
            lambda: metric(scene.worker, "streams_snapshot_failures_total", reason="object_store") >= PARTITIONS,
            "the worker has tried and says so", timeout_s=60,
        )  # fmt: skip
        assert lines(scene.worker, "no snapshot could be taken; events are processed as before")
        traffic.wait_for(traffic.sent + 1_000)
        scene.recovers()
        loses_its_disk(scene)
        assert restores(scene.worker, UNAVAILABLE) == PARTITIONS
        scene.recovers()
        taken = len(lines(scene.worker, TAKEN))
        assert not taken
        bucket.unlink()
        away.rename(bucket)
        wait_until(lambda: lines(scene.worker, TAKEN), "it takes snapshots again by itself", timeout_s=120)
    scene.exactly_once()


@pytest.mark.timeout(600)
@pytest.mark.fault(row=33, what="two workers take snapshots of one partition: a zombie ends its upload late")
def test_a_snapshot_that_a_zombie_uploads_late_is_not_the_newest(make_scene: MakeScene, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    scene = make_scene("a", "b")
    takes_snapshots(scene, bucket)
    zombie, heir = scene.workers
    with scene.load():
        scene.start(zombie, STREAMS_FAILPOINT="stall:snapshot_uploaded:1").wait_ready(READY_S_MAX)
        wait_until(lambda: lines(zombie, STALLS), "an upload stalls before its manifest", timeout_s=60)
        assert not list(bucket.rglob("manifests/*.json"))
        with frozen(zombie.pid):
            scene.start(heir).wait_ready(READY_S_MAX)
            scene.struck()
            wait_until(lambda: has_snapshots_of_all(bucket), "the heir has taken snapshots of all", timeout_s=120)
            scene.recovers()
            heirs = set(bucket.rglob("manifests/*.json"))
        wait_until(
            lambda: not zombie.is_running or lines(zombie, TAKEN), "the zombie has ended its upload", timeout_s=90
        )
        late = set(bucket.rglob("manifests/*.json")) - heirs
        scene.note(f"{len(late)} manifests after the zombie woke up")
        for worker in (zombie, heir):
            if worker.is_running:
                worker.kill()
        loses_its_disk(scene, heir)
        assert restores(heir, USED) == PARTITIONS
        scene.recovers()
    scene.exactly_once(heir)
