"""State on the command line, and offsets that something else has committed: what is said works."""

import json
import re
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.faults.test_identity import set_offsets
from tests.integration.kafka_helpers import run
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Traffic,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = pytest.mark.kafka

LEAVES = {**NEVER_IDLE, "STREAMS_GROUP_STATIC": "false"}
"""No place is kept for one that is stopped: offsets can be set at once."""


def test_offsets_of_a_stray_consumer_are_refused_and_the_command_that_is_named_sets_them_back(
    stack: Stack, tmp_path: Path
) -> None:
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        with Traffic(stack, rough_shape(stack), seed=61, records_per_s=500):
            worker.start(LEAVES).wait_ready()
            wait_until(lambda: sum((probe.committed() or {}).values()) > 1_000, "something is committed")
        wait_until(probe.all_is_committed, "all is committed")
        assert worker.terminate() == 0
        before = probe.committed()
        assert before is not None
        set_offsets(stack, {partition: max(0, offset - 100) for partition, offset in before.items()})

        worker.start(LEAVES)
        told = wait_until(
            lambda: found if len(found := set(_advised(worker.readiness()[1]))) == PARTITIONS else None,
            "each partition is refused with a command",
        )
        assert set(before.items()) == told
        assert worker.terminate() == 0

        set_offsets(stack, dict(told))
        end_of_run(worker)
        assert_exactly_once(stack, probe, worker, seed=61)


def _advised(text: str) -> list[tuple[int, int]]:
    found = re.findall(
        rf"--group {GPS.group} --topic {GPS.source}:(\d+) --reset-offsets --to-offset (\d+) --execute", text
    )
    return [(int(partition), int(offset)) for partition, offset in found]


def test_inspect_tells_what_state_belongs_to_while_a_worker_runs_and_finds_what_does_not_fit(
    stack: Stack, tmp_path: Path
) -> None:
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        with Traffic(stack, rough_shape(stack), seed=3, records_per_s=500):
            worker.start(LEAVES).wait_ready()
            # So many that each partition has released some: they wait for 2.5 s, and come at 100 to 200 a second.
            wait_until(lambda: min((probe.committed() or {0: 0}).values()) > 1_000, "every partition comes so far")
        running = run(stack, "state", "inspect", "--pipeline", "gps", "--data-dir", worker.data_dir)
        assert running.returncode == 0, running.stderr
        assert worker.terminate() == 0

        done = run(stack, "state", "inspect", "--pipeline", "gps", "--data-dir", worker.data_dir, "--format", "json")
        assert done.returncode == 0, done.stderr
        reports = json.loads(done.stdout)
        assert [*range(PARTITIONS)] == [report["partition"] for report in reports]
        assert {"fits, and stands at the committed offset"} == {report["verdict"] for report in reports}
        assert {GPS.source, GPS.journal} <= reports[0]["checkpoint"]["identity"]["topics"].keys()
        assert reports[0]["rows"]["last released events"] > 0

        set_offsets(stack, {0: 1})
        found = run(stack, "state", "inspect", "--pipeline", "gps", "--data-dir", worker.data_dir)
        assert found.returncode == 100
        assert "gps partition 0: refused" in found.stdout


def test_a_rebuild_is_refused_while_a_worker_has_the_state(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        worker.start().wait_ready()
        done = run(stack, "state", "rebuild", "--pipeline", "gps", "--from", "local", "--data-dir", worker.data_dir)
        assert done.returncode == 1
        assert "is in use by another worker" in done.stderr
