"""A worker and sinks that use S3: the store goes down and comes back, processes are killed, buckets are emptied."""

import json
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.integration.guides import ROOT, environment_of, run
from tests.integration.sinks import Yard, minutes_in
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
from tests.object_store.server import Bucket, S3Server

pytestmark = [pytest.mark.s3, pytest.mark.kafka, pytest.mark.slow]


def restores(worker: Worker, outcome: str) -> float:
    return worker.metric(f'streams_snapshot_restores_total{{outcome="{outcome}",pipeline="{GPS.name}"}}')


def test_a_worker_goes_on_while_its_store_is_down_and_begins_with_snapshots_after_it_lost_its_disk(
    stack: Stack, s3: S3Server, bucket: Bucket, tmp_path: Path
) -> None:
    probe = fresh_world(stack)
    url = f"{bucket.url}/streams"
    taking = {
        **NEVER_IDLE, "STREAMS_GROUP_STATIC": "false", "STREAMS_SNAPSHOT_URL": url, "STREAMS_SNAPSHOT_INTERVAL_S": "1",
    }  # fmt: skip

    def partitions_with_one() -> int:
        return len({name.split("/")[3] for name in bucket.names() if "/manifests/" in name})

    with workers(stack, tmp_path, "a") as (worker,):
        with Traffic(stack, rough_shape(stack), seed=63, records_per_s=500) as traffic:
            worker.start(taking).wait_ready()
            wait_until(lambda: partitions_with_one() == PARTITIONS, "there are snapshots of all partitions")
            s3.kill()
            try:
                wait_until(lambda: worker.said("nothing answers at http://127.0.0.1"), "it says that the store is down")
                traffic.wait_for(1_000)  # and goes on all the same
                assert worker.readiness()[0] == 200
            finally:
                s3.start()
            before = worker.metric(f'streams_snapshot_uploads_total{{pipeline="{GPS.name}"}}')
            wait_until(
                lambda: worker.metric(f'streams_snapshot_uploads_total{{pipeline="{GPS.name}"}}') > before,
                "snapshots are taken again",
            )
            worker.kill()
            worker.delete_data()
            worker.start(taking).wait_ready()
            assert restores(worker, "used") == PARTITIONS
            traffic.wait_for(500)
        wait_until(probe.all_is_committed, "all is committed")
        assert worker.terminate() == 0

        environment = {**environment_of(ROOT, stack), "STREAMS_SNAPSHOT_URL": url, "STREAMS_DATA_DIR": str(tmp_path)}
        found = json.loads(run(tmp_path, environment, "streams snapshot list --pipeline gps --format json"))
        assert {(one["partition"]) for one in found if one["verdict"] == "fits"} == set(range(PARTITIONS))
        brought = f"--pipeline gps --data-dir {tmp_path}/brought"
        said = run(tmp_path, environment, f"streams snapshot restore {brought}")
        assert said.count("restored") == PARTITIONS
        assert said.count("cycle") == PARTITIONS

        bucket.empty()  # costs time, loses nothing
        worker.delete_data()
        end_of_run(worker, environment={"STREAMS_SNAPSHOT_URL": url})
        assert restores(worker, "none") == PARTITIONS
        assert_exactly_once(stack, probe, worker, seed=63)


def test_a_sink_into_s3_is_killed_and_its_store_is_too_and_each_row_is_there_once(
    stack: Stack, s3: S3Server, bucket: Bucket, tmp_path: Path
) -> None:
    yard = Yard(stack, tmp_path)
    url = f"{bucket.url}/lake"
    yard.environment = {**yard.environment, "STREAMS_DELTA_URL": url}
    try:
        sink = yard.sink("lake")
        for _ in range(5):
            before = len(minutes_in(f"{url}/minutes"))
            yard.minutes(200)
            wait_until(lambda before=before: len(minutes_in(f"{url}/minutes")) > before, "rows come", timeout_s=90)  # type: ignore[misc]
            yard.minutes(200)
            sink.kill()
            sink = yard.sink("lake")
        sink.wait_ready()
        s3.kill()
        try:
            yard.minutes(100)
            wait_until(lambda: "or the store is down" in sink.ready()[1], "/readyz says that the store is down")
        finally:
            s3.start()
        wait_until(lambda: minutes_in(f"{url}/minutes") == yard.expected_minutes(), "all are there", timeout_s=120)
        said = run(yard.folder, yard.environment, "streams reconcile --sink lake")
        assert "the target holds what its topic says" in said
        assert sink.stop() == 0
    finally:
        yard.close()
