"""`streams backfill` against a real Kafka: a version of a flow is made of its history, exactly once."""

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from loadtest.fleet import Fleet
from loadtest.fleet.fill import Filler
from loadtest.oracle.check import Topics, check
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess, run_forked
from tests.integration.kafka_helpers import admin_of, committed_records, delete_topics
from tests.integration.workers import LIMITS, SETTINGS, fresh_world, rough_shape

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("SEED", "1"))


def environment(stack: Stack, directory: Path) -> dict[str, str]:
    return {**os.environ, **stack.environment(), **SETTINGS, "STREAMS_DATA_DIR": str(directory)}


def backfill(stack: Stack, directory: Path, *arguments: str) -> "Any":
    return run_forked(
        ["backfill", "--flow", "gps", "--web-port", "0", *arguments], environment(stack, directory), timeout_s=120
    )


def filled_world(stack: Stack, records: int, *versions: str) -> None:
    """Fresh topics, with so many records in the source, and nothing left of earlier versions."""
    flows = [GPS.as_version(version) for version in versions]
    delete_topics(
        admin_of(stack),
        {GPS.versions, *(one.history for one in flows)}
        | {topic.name for one in flows for topic in (*one.topics(), *one.growth_topics())} - {GPS.source},
    )
    fresh_world(stack)
    fill(stack, records)


def fill(stack: Stack, records: int, seed: int = SEED) -> None:
    filler = Filler(stack.bootstrap_servers, {"topic.metadata.refresh.interval.ms": 1_000})
    for batch in Fleet(seed, rough_shape(stack)).batches(records):
        filler.send(GPS.source, batch)
    filler.flush()
    assert filler.refused == 0


def verdict(stack: Stack, version: str) -> Report:
    """What the oracle says of all topics of a version."""
    return check(
        stack.bootstrap_servers,
        registry_schemas(stack.registry_url),
        Topics.of_pipeline("gps", version=version),
        LIMITS,
    )


def test_a_killed_backfill_goes_on_and_each_event_is_there_once(stack: Stack, tmp_path: Path) -> None:
    filled_world(stack, 20_000, "v2")
    command = ["backfill", "--flow", "gps", "--into", "v2", "--to", "now", "--web-port", "0", "--format", "json"]
    for failpoint in ("produced:2", "committed:1", "offsets_sent:2"):
        killed = ForkedProcess(
            command,
            {**environment(stack, tmp_path), "STREAMS_FAILPOINT": failpoint, "STREAMS_COMMIT_INTERVAL_MS": "20"},
            stdout=tmp_path / "killed.log",
        )
        assert killed.wait(90) == -signal.SIGKILL, (tmp_path / "killed.log").read_text()[-3000:]
    status = backfill(stack, tmp_path, "--status")
    assert (status.returncode, "gps v2: running" in status.stdout) == (100, True), status

    done = backfill(stack, tmp_path, "--into", "v2", "--to", "now", "--format", "json")

    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert (said["status"], said["closed"]) == ("finished", True)
    assert said["outputs"]["vehicles.state.v1"] == "vehicles.state.v1.run.v2"
    report = verdict(stack, "v2")
    assert report.ok, f"SEED={SEED}\n{report}\n{done.stderr[-3000:]}"
    assert report.events == 20_000
    assert min(report.duplicates, report.late, report.rejected) > 100
    assert committed_records(stack, GPS.clean) == []  # the live flow's topics have nothing of it
    again = backfill(stack, tmp_path, "--into", "v2", "--to", "now")
    assert (again.returncode, "gps.run.v2 was over already" in again.stdout) == (0, True), again
