"""Snapshots of a real worker: it dies in an upload, loses its disk, and begins with what the object store has."""

from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Traffic,
    Worker,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = pytest.mark.kafka


def restores(worker: Worker, outcome: str) -> float:
    return worker.metric(f'streams_snapshot_restores_total{{outcome="{outcome}",pipeline="{GPS.name}"}}')


def test_a_worker_that_died_in_an_upload_and_lost_its_disk_begins_with_the_snapshots_that_are_whole(
    stack: Stack, tmp_path: Path
) -> None:
    probe = fresh_world(stack)
    bucket = tmp_path / "bucket"
    taking = {
        **NEVER_IDLE,
        "STREAMS_GROUP_STATIC": "false",
        "STREAMS_SNAPSHOT_URL": f"file://{bucket}",
        "STREAMS_SNAPSHOT_INTERVAL_S": "1",
    }
    with workers(stack, tmp_path, "a") as (worker,):
        with Traffic(stack, rough_shape(stack), seed=62, records_per_s=500) as traffic:
            # The manifest of the last of the first snapshots is not written any more.
            worker.start({**taking, "STREAMS_FAILPOINT": f"snapshot_uploaded:{PARTITIONS}"})
            assert worker.wait_ended(300) != 0
            whole = len(list(bucket.rglob("manifests/*.json")))
            assert whole == PARTITIONS - 1
            worker.delete_data()
            worker.start(taking).wait_ready()
            assert restores(worker, "used") == whole
            assert restores(worker, "none") == PARTITIONS - whole
            assert worker.said("a snapshot is here")
            traffic.wait_for(traffic.sent + 500)
        wait_until(probe.all_is_committed, "all is committed")
        assert worker.terminate() == 0
        # What is damaged now is not used; the journal has all of it.
        for path in bucket.rglob("objects/*"):
            path.write_bytes(path.read_bytes()[:-1])
        worker.delete_data()
        end_of_run(worker, environment={"STREAMS_SNAPSHOT_URL": f"file://{bucket}"})
        assert restores(worker, "damaged") >= PARTITIONS
        assert restores(worker, "used") == 0
        assert_exactly_once(stack, probe, worker, seed=62)
