"""`streams backfill` against a real Kafka: a version of a flow is made of its history, exactly once."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import logistics
from loadtest.fleet import Fleet
from loadtest.fleet.fill import Filler
from loadtest.oracle.check import Topics, check
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from logistics.flows.gps import GPS
from streams.local import ports
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess, run_forked
from tests.integration.kafka_helpers import admin_of, committed_records, decoded, delete_topics
from tests.integration.workers import (
    LIMITS,
    NEVER_IDLE,
    PARTITIONS,
    SETTINGS,
    Probe,
    fresh_world,
    rough_shape,
    wait_until,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("SEED", "1"))
RECORDS: Final = 45_000
"""More than two micro-batches: after two commits something is always left."""


def environment(stack: Stack, directory: Path) -> dict[str, str]:
    return {**os.environ, **stack.environment(), **SETTINGS, "STREAMS_DATA_DIR": str(directory)}


def backfill(stack: Stack, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_forked(
        ["backfill", "--flow", "gps", "--web-port", "0", *arguments], environment(stack, directory), timeout_s=200
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
    filled_world(stack, RECORDS, "v2")
    command = ["backfill", "--flow", "gps", "--into", "v2", "--to", "now", "--web-port", "0", "--format", "json"]
    # The first and the third commit at most a micro-batch each: each of them is reached however fast the machine is.
    for failpoint in ("produced:2", "offsets_sent:1", "committed:1"):
        killed = ForkedProcess(
            command,
            {**environment(stack, tmp_path), "STREAMS_FAILPOINT": failpoint, "STREAMS_COMMIT_INTERVAL_MS": "20"},
            stdout=tmp_path / "killed.log",
        )
        assert killed.wait(150) == -signal.SIGKILL, (tmp_path / "killed.log").read_text()[-3000:]
    status = backfill(stack, tmp_path, "--status")
    assert (status.returncode, "gps v2: running" in status.stdout) == (100, True), status

    done = backfill(stack, tmp_path, "--into", "v2", "--to", "now", "--format", "json")

    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert (said["status"], said["closed"]) == ("finished", True)
    assert said["outputs"]["vehicles.state.v1"] == "vehicles.state.v1.run.v2"
    report = verdict(stack, "v2")
    assert report.ok, f"SEED={SEED}\n{report}\n{done.stderr[-3000:]}"
    assert report.events == RECORDS
    assert min(report.duplicates, report.late, report.rejected) > 10
    assert committed_records(stack, GPS.clean) == []  # the live flow's topics have nothing of it
    again = backfill(stack, tmp_path, "--into", "v2", "--to", "now")
    assert (again.returncode, "gps.run.v2 was finished already" in again.stdout) == (0, True), again


def test_files_and_a_table_become_versions_of_their_own(stack: Stack, tmp_path: Path) -> None:
    """The same events as NDJSON and as a Delta table: the same rows, each event once, also when killed on the way."""
    filled_world(stack, 10, "files", "table")
    start_ms = 1_700_000_000_000
    rows: list[dict[str, Any]] = [
        {
            "event_id": f"e-{number}",
            "device_id": f"d-{number % 20}",
            "sequence": number,
            "event_time": datetime.fromtimestamp((start_ms + number * 1_000) / 1000, UTC),
            "latitude": 48.0 + number / 10_000,
            "longitude": 11.0,
            "speed_kmh": float(number % 90),
            "heading_deg": 0.0,
        }
        for number in range(2_000)
    ]
    file = tmp_path / "day.ndjson"
    written = [{**row, "event_time": row["event_time"].isoformat()} for row in rows]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in [*written, written[7], {"event_id": "no position"}]))
    table = str(tmp_path / "table")
    write_deltalake(table, pa.Table.from_pylist(rows[1_000:]))  # a table has no order
    write_deltalake(table, pa.Table.from_pylist(rows[:1_000]), mode="append")
    killed = ForkedProcess(
        ["backfill", "--flow", "gps", "--into", "files", "--source", "files", str(file), "--web-port", "0"],
        {**environment(stack, tmp_path), "STREAMS_FAILPOINT": "committed:1"},
        stdout=tmp_path / "killed.log",
    )
    assert killed.wait(150) == -signal.SIGKILL, (tmp_path / "killed.log").read_text()[-3000:]

    made = {}
    for version, arguments in {"files": ["files", str(file)], "table": ["delta", table]}.items():
        done = backfill(stack, tmp_path, "--into", version, "--source", *arguments, "--format", "json")
        assert done.returncode == 0, done.stderr[-3000:]
        made[version] = json.loads(done.stdout)

    assert [made[one]["bad_rows"] for one in made] == [1, 0]
    assert made["table"]["table_version"] == 1
    states = {}
    for version in made:
        flow = GPS.as_version(version)
        clean = decoded(committed_records(stack, flow.clean), GPS.subject)
        assert sorted(row["event_id"] for row in clean) == sorted(row["event_id"] for row in rows)
        table_rows = decoded(committed_records(stack, flow.tables[0].topic), flow.tables[0].subject)
        states[version] = {row["device_id"]: row for row in table_rows}
    assert states["files"] == states["table"]
    assert {row["events"] for row in states["files"].values()} == {100}


WRONG_APP: Final = """
from logistics.flows.gps import positions
from logistics.folds.vehicle_state import VehicleState
from streams import Flow


class Counted(VehicleState):
    def fold(self, state, segments):
        rows = super().fold(state, segments)
        rows["events"] += {surplus} * (segments.end - segments.start + 1)
        return rows


flow = Flow("gps", positions.to("gps.positions.v1.clean").fold(Counted(), to="vehicles.state.v1"))
"""


def app_of(directory: Path, surplus: int) -> Path:
    """A project with the flow `gps`, whose fold counts each event once, and `surplus` times more."""
    directory.mkdir()
    (directory / "fleetapp.py").write_text(WRONG_APP.format(surplus=surplus))
    (directory / "schemas").symlink_to(Path(logistics.__file__).parents[1] / "schemas")
    return directory


@contextmanager
def running(values: dict[str, str], directory: Path, log: Path) -> Iterator[ForkedProcess]:
    """A worker in a project; it is stopped at the end, if it runs."""
    port = ports.free_port()
    worker = ForkedProcess(
        ["worker", "--web-port", str(port), "--data-dir", str(directory / "data")],
        values,
        stdout=log,
        directory=directory,
    )
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait(60)


def counted(stack: Stack, version: str) -> int:
    """Events that the newest rows of the table of a version say that there were."""
    table = GPS.as_version(version).tables[0]
    rows = decoded(committed_records(stack, table.topic), table.subject)
    return sum(row["events"] for row in {row["device_id"]: row for row in rows}.values())


def test_a_bug_is_found_and_its_rows_are_computed_again(stack: Stack, tmp_path: Path) -> None:
    """What docs/rerun-history.md tells: a fold is corrected, history rerun, the version promoted and gone back from."""
    filled_world(stack, 8_000, "v2")
    wrong, right = app_of(tmp_path / "wrong", 1), app_of(tmp_path / "right", 0)
    values = {**environment(stack, tmp_path), "STREAMS_APP": "fleetapp", **NEVER_IDLE}
    of_old, of_new = Probe(stack), Probe(stack, group=GPS.as_version("v2").group)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_forked(["backfill", "--flow", "gps", *arguments], values, directory=right, timeout_s=200)

    with running(values, wrong, tmp_path / "old.log") as old_worker:
        wait_until(of_old.all_is_committed, "the old code has processed all", timeout_s=200)
        clean = len(committed_records(stack, GPS.clean))
        assert counted(stack, "") == 2 * clean, "the bug"

        done = run("--into", "v2", "--web-port", "0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert counted(stack, "v2") == len(committed_records(stack, GPS.as_version("v2").clean)) == clean

        fill(stack, 4_000, seed=SEED + 1)
        promoted = run("--into", "v2", "--promote", "--web-port", "0", "--format", "json")
        assert promoted.returncode == 0, promoted.stderr[-3000:]
        said = json.loads(promoted.stdout)
        assert (said["current"], said["before"]) == ("v2", "")
        assert old_worker.wait(120) == 1, "the old code does not go on with rows of the new one"
        assert "deploy that version's code" in (tmp_path / "old.log").read_text()
    old_at, new_at = of_old.committed() or {}, of_new.committed() or {}
    assert new_at == old_at == {one: said["positions"][f"{GPS.source}-{one}"] for one in range(PARTITIONS)}

    fill(stack, 2_000, seed=SEED + 2)
    with running(values, right, tmp_path / "new.log"):
        wait_until(of_new.all_is_committed, "the version goes on with the live flow", timeout_s=200)
        limits = replace(LIMITS, is_idle_in_the_end=False)
        topics = Topics.of_pipeline("gps", version="v2").without_windows()
        report = check(stack.bootstrap_servers, registry_schemas(stack.registry_url), topics, limits)
        assert report.ok, report
        assert report.events == 14_000
        assert of_old.committed() == old_at, "one version is written at a time"

        listed = run_forked(["topics", "list", "--format", "json"], values, directory=right)
        current = {row["topic"]: row["current"] for row in json.loads(listed.stdout)}
        assert current["vehicles.state.v1"] == "vehicles.state.v1.run.v2"
        back = run("--rollback")
        assert (back.returncode, "the declared version is current" in back.stdout) == (0, True), back
    with running(values, wrong, tmp_path / "old.log"):
        wait_until(of_old.all_is_committed, "the version before goes on where it stopped", timeout_s=200)
