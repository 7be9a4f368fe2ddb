"""`streams sink` into Delta Lake and to an endpoint: exactly once, and at least once with ids."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from streams.local.stack import Stack
from tests.endpoint import Endpoint
from tests.integration.guides import run
from tests.integration.kafka_helpers import committed_records
from tests.integration.sinks import PARTITIONS, PREFIX, Yard, minutes_in
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


@pytest.fixture
def yard(stack: Stack, endpoint: Endpoint, tmp_path: Path) -> Iterator[Yard]:
    made = Yard(stack, tmp_path, endpoint=endpoint.url)
    yield made
    made.close()


def windows_in(yard: Yard) -> list[int]:
    return minutes_in(f"{yard.folder}/lake/minutes")


def states_in(yard: Yard) -> list[tuple[str, int]]:
    try:
        vehicles = DeltaTable(str(yard.folder / "lake/vehicles")).to_pyarrow_table()
    except TableNotFoundError:
        return []
    found = duckdb.execute("select device_id, events from vehicles order by 1").fetchall()
    assert len(found) == len(vehicles)
    return found


def test_windows_are_appended_and_a_table_is_merged_and_upkeep_goes_beside(yard: Yard) -> None:
    rows, table = yard.sink("lake"), yard.sink("lake-vehicles")
    yard.minutes(300)
    yard.states(200)
    wait_until(
        lambda: windows_in(yard) == yard.expected_minutes(),
        "the windows are there",
        timeout_s=90,
    )
    wait_until(lambda: states_in(yard) == yard.expected_states(), "the table is there", timeout_s=90)
    yard.states(20, deleted=["van-1"])
    yard.minutes(100)
    said = run(yard.folder, yard.environment, "streams delta compact lake")
    assert "now; version" in said
    wait_until(lambda: states_in(yard) == yard.expected_states(), "a row is deleted")
    wait_until(lambda: windows_in(yard) == yard.expected_minutes(), "and rows are added")
    assert "were removed" in run(yard.folder, yard.environment, "streams delta vacuum lake --retention-hours 1")
    for sink in ("lake", "lake-vehicles"):
        said = run(yard.folder, yard.environment, f"streams reconcile --sink {sink}")
        assert "the target holds what its topic says" in said
    DeltaTable(str(yard.folder / "lake/vehicles")).delete("device_id = 'van-2'")
    said = run(yard.folder, yard.environment, "streams reconcile --sink lake-vehicles", status=100)
    assert "1 difference of 1 key" in said
    assert "key van-2" in said
    said = run(yard.folder, yard.environment, "streams reconcile --sink hook", status=2)
    assert "keeps no rows that could be compared" in said
    assert "has no Delta table" in run(yard.folder, yard.environment, "streams delta compact vehicles", status=2)
    assert rows.stop() == 0
    assert table.stop() == 0


@pytest.mark.slow
def test_an_endpoint_gets_every_change_and_one_that_it_refuses_is_a_dead_letter(yard: Yard, endpoint: Endpoint) -> None:
    sink = yard.sink("hook")
    yard.states(100)
    wait_until(
        lambda: len({row["row"]["device_id"] for row in endpoint.taken}) == 50, "all vehicles are known", timeout_s=90
    )
    endpoint.status = 503
    yard.states(10)
    wait_until(lambda: sink.ready()[0] == 503, "the outage is said")
    endpoint.status = 200
    endpoint.refused = {"van-3"}
    yard.states(50, deleted=["van-7"])
    wait_until(lambda: [row for row in endpoint.taken if row["op"] == "delete"], "the deletion is known", timeout_s=90)
    letters = wait_until(
        lambda: committed_records(yard.stack, f"{PREFIX}sinks.hook.dlq", PARTITIONS), "what is refused is a dead letter"
    )
    assert {letter.key for letter in letters} == {b"van-3"}
    newest = {row["row"]["device_id"]: row["row"].get("events") for row in endpoint.taken if row["op"] != "delete"}
    expected = dict(yard.expected_states())
    assert {name: events for name, events in newest.items() if name not in {"van-3", "van-7"}} == {
        name: events for name, events in expected.items() if name != "van-3"
    }
    ids = [row["id"] for row in endpoint.taken]
    assert len(ids) == len(set(ids))
    assert sink.stop() == 0
    again = yard.sink("hook")
    again.wait_ready()
    taken = len(endpoint.taken)
    yard.states(1)
    wait_until(lambda: len(endpoint.taken) > taken, "it goes on")
    assert len(endpoint.taken) == taken + 1
