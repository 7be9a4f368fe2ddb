"""`streams sink` into PostgreSQL: exactly once, whoever is killed, frozen or taken over."""

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.local.stack import Stack
from tests.databases import Database, Postgres
from tests.integration.guides import ROOT, run
from tests.integration.kafka_helpers import committed_records
from tests.integration.sinks import JUNK, PARTITIONS, PREFIX, STATES, Yard, asked, lag_of
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return postgres.database()


@pytest.fixture
def yard(stack: Stack, database: Database, tmp_path: Path) -> Iterator[Yard]:
    made = Yard(stack, tmp_path, postgres_url=database.url)
    yield made
    made.close()


def states_in(database: Database) -> list[tuple[str, int]]:
    return database.rows("select device_id, events from vehicles order by 1")


def test_a_table_is_copied_with_its_deletions_and_what_is_no_row_is_a_dead_letter(
    yard: Yard, database: Database
) -> None:
    yard.states(200)
    yard.states(30, aborted=True)
    sink = yard.sink("vehicles")
    sink.wait_ready()
    yard.raw(STATES, b"van-3", JUNK)
    yard.states(20, deleted=["van-1", "nobody"])
    wait_until(lambda: states_in(database) == yard.expected_states(), "the table is copied")
    assert len(states_in(database)) == 49
    (letter,) = wait_until(
        lambda: committed_records(yard.stack, f"{PREFIX}sinks.vehicles.dlq", PARTITIONS), "there is a dead letter"
    )
    assert letter.value == JUNK
    assert sink.metric("streams_sink_records_total") == 200 + 1 + 22
    wait_until(
        lambda: lag_of(yard, STATES, f"{PREFIX}streams.sink.vehicles") <= PARTITIONS, "the group has heard of it"
    )
    page = (ROOT / "docs/sinks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- run by a test -->\n```sql\n(.*?)```", page, re.DOTALL)
    for statement in filter(None, map(str.strip, block.split(";"))):
        assert database.rows(statement) or "van-1" in statement
    assert sink.stop() == 0
    again = yard.sink("vehicles")
    again.wait_ready()
    yard.states(10)
    wait_until(lambda: states_in(database) == yard.expected_states(), "it goes on")
    assert len(committed_records(yard.stack, f"{PREFIX}sinks.vehicles.dlq", PARTITIONS)) == 1
    assert again.metric("streams_sink_records_total") == 10
    said = run(yard.folder, yard.environment, "streams reconcile --sink vehicles")
    assert "the target holds what its topic says" in said
    assert "1  records with a dead letter" in said
    database.run("update vehicles set events = 0 where device_id = 'van-5'")
    database.run("delete from vehicles where device_id = 'van-6'")
    database.run("update vehicles set device_id = 'nobody' where device_id = 'van-7'")
    line = f"streams reconcile --sink vehicles --html {yard.folder}/sink.html --metrics-file {yard.folder}/sink.prom"
    said = run(yard.folder, yard.environment, line, status=100)
    assert "4 differences of 4 keys" in said
    assert "its row is not what the record says (events)" in said
    assert "events: expected" in said
    assert said.count("its row is not in the target") == 2
    assert "its row is there, and the topic has deleted it" in said
    assert "table vehicles, against" in (yard.folder / "sink.html").read_text(encoding="utf-8")
    counted = (yard.folder / "sink.prom").read_text(encoding="utf-8")
    assert 'kind="target differs from topic",pipeline="sink.vehicles"} 4.0' in counted


def test_sinks_that_are_killed_lose_and_double_nothing(yard: Yard, database: Database) -> None:
    """The short form of row 34 of the faults."""
    chance = random.Random(1)
    living = [yard.sink("minutes"), yard.sink("minutes")]
    for _ in range(3):
        for _ in range(4):
            yard.minutes(250)
            time.sleep(chance.uniform(0, 0.3))
        living.pop(chance.randrange(2)).kill()
        living.append(yard.sink("minutes"))
        time.sleep(chance.uniform(0, 2))
    expected = yard.expected_minutes()
    assert len(expected) == 3 * 1000

    def found() -> list[int]:
        rows = database.rows("select (extract(epoch from window_start) * 1000)::bigint from minutes order by 1")
        return [row[0] for row in rows]

    wait_until(lambda: len(found()) >= len(expected), "all rows are there", timeout_s=120)
    time.sleep(1)
    assert found() == expected


@pytest.mark.slow
def test_a_database_that_is_away_stalls_its_sink_and_is_said(
    yard: Yard, database: Database, postgres: Postgres
) -> None:
    sink = yard.sink("minutes")
    sink.wait_ready()
    yard.minutes(100)
    wait_until(lambda: database.rows("select count(*) from minutes") == [(100,)], "the first rows are there")
    database.run("alter table minutes rename to hidden")
    yard.minutes(100)
    wait_until(lambda: sink.ready()[0] == 503 and "minutes" in sink.ready()[1], "it is said")
    wait_until(lambda: sink.metric("streams_sink_unwritten_seconds") > 1, "the age of what waits is told")
    with yard.monitor(sink) as monitor:
        wait_until(lambda: any(row["lag"] for row in overview_of(monitor)["sinks"]), "it is seen with its lag")
        (row,) = overview_of(monitor)["sinks"]
        assert (row["sink"], row["ready"]) == ("minutes", False)
        assert 100 <= row["lag"] <= 100 + 3 * PARTITIONS, "with markers of transactions"
        assert "minutes" in row["state"]
        assert row["unwritten_s"] > 1
        database.run("alter table hidden rename to minutes")
        wait_until(lambda: database.rows("select count(*) from minutes") == [(200,)], "it catches up", timeout_s=90)
        assert sink.ready()[0] == 200
        postgres.kill()
        yard.minutes(100)
        wait_until(lambda: overview_of(monitor)["sinks"][0]["breaker"] == "open", "its breaker rests", timeout_s=90)
        postgres.start()
    wait_until(lambda: database.rows("select count(*) from minutes") == [(300,)], "it catches up", timeout_s=90)


def overview_of(port: int) -> Any:
    """What the monitor's page is told."""
    return json.loads(asked(port, "/api/overview")[1])


def test_what_is_wrong_from_the_start_is_one_line(yard: Yard, database: Database) -> None:
    database.run("create table vehicles (device_id text primary key, events text)")
    failed = yard.sink("vehicles")
    assert failed.wait() == 1
    assert "column events is text, the schema's field needs bigint" in failed.log.read_text().splitlines()[-1]
    said = run(yard.folder, yard.environment, "streams sink nothing", status=2)
    assert "no sink 'nothing': there is vehicles, lake-vehicles, hook, minutes, lake" in said
    bare = {**yard.environment, "STREAMS_POSTGRES_URL": ""}
    assert "STREAMS_POSTGRES_URL names no database" in run(yard.folder, bare, "streams sink vehicles", status=2)


def test_a_flow_shows_its_sinks(yard: Yard) -> None:
    said = run(yard.folder, yard.environment, "streams flows show gps")
    assert f"vehicles       {STATES} to postgres, table vehicles" in said
    shown = json.loads(run(yard.folder, yard.environment, "streams flows show gps --format json"))
    assert shown["sinks"][0]["group"] == f"{PREFIX}streams.sink.vehicles"
