"""A table that a user's own operator keeps, under a prefix: rebuilt from local state, restored elsewhere.

The operator is on one branch of the flow, another one writes some of the events to a topic of its own.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from streams.local.stack import Stack
from tests.integration.guides import ROOT, decoded, environment_of, run, working
from tests.integration.kafka_helpers import committed_records, delete_topics
from tests.integration.workers import wait_until
from tests.unit.test_branches import SHUT
from tests.unit.test_own_operators import SCHEMAS, write_schema

pytestmark = pytest.mark.kafka

PREFIX = "copy."
TABLE, SWITCHES, CLOSED = f"{PREFIX}doors.open.v1", f"{PREFIX}doors.switches.v1", f"{PREFIX}{SHUT}"
WORKER = "streams worker --pipeline doors"
HEADER = "event_id,sensor_id,sequence,event_time,is_open"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    for topic, fields in SCHEMAS.items():
        write_schema(tmp_path / "schemas", topic, fields)
    module = "from tests.unit.test_branches import with_own_table\n\nflow = with_own_table()\n"
    (tmp_path / "yard.py").write_text(module, encoding="utf-8")
    return tmp_path


@pytest.fixture
def client(stack: Stack) -> Iterator[AdminClient]:
    made = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    yield made
    delete_topics(made, {name for name in made.list_topics(timeout=10).topics if name.startswith(PREFIX)})


@pytest.fixture
def environment(stack: Stack, project: Path) -> Mapping[str, str]:
    own = {"STREAMS_APP": "yard", "STREAMS_DATA_DIR": str(project / "data"), "STREAMS_TOPIC_PREFIX": PREFIX}
    return {**environment_of(ROOT, stack), **own}


def test_a_table_of_its_own_is_rebuilt_and_restored(
    stack: Stack, project: Path, client: AdminClient, environment: Mapping[str, str]
) -> None:
    def ingest(*lines: str) -> None:
        (project / "doors.csv").write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
        run(project, environment, f"streams ingest file doors.csv --topic {PREFIX}doors.v1")

    def rows(topic: str, count: int) -> list[tuple[str, bool]]:
        found = [decoded(project, topic.removeprefix(PREFIX), record) for record in committed_records(stack, topic)]
        assert len(found) <= count, found
        return sorted((row["sensor_id"], row["is_open"]) for row in found) if len(found) == count else []

    run(project, environment, "streams topics apply")
    with working(project, environment, WORKER):
        ingest("a1,dock-1,1,1700000000000,true", "a2,dock-2,1,1700000000001,true")
        wait_until(lambda: rows(SWITCHES, 2), "both doors are open", timeout_s=90)
        opened = wait_until(lambda: rows(TABLE, 2), "both doors are in the table")
    delete_topics(client, {TABLE})
    run(project, environment, "streams topics apply")
    assert rows(TABLE, 0) == []
    said = run(project, environment, "streams state inspect --pipeline doors", status=100)
    assert f"{TABLE} was deleted and created again, and its rows are gone" in said
    run(project, environment, "streams state rebuild --pipeline doors --from local")
    assert rows(TABLE, 2) == opened == [("dock-1", True), ("dock-2", True)]
    shutil.rmtree(project / "data")
    with working(project, environment, WORKER):
        ingest("a3,dock-1,2,1700000060000,true", "a4,dock-2,2,1700000060001,false")
        wait_until(lambda: rows(SWITCHES, 3), "one door is closed", timeout_s=90)
    assert rows(SWITCHES, 3) == [("dock-1", True), ("dock-2", False), ("dock-2", True)]
    assert [b"dock-2"] == [record.key for record in committed_records(stack, CLOSED)]
    assert 4 == len(committed_records(stack, f"{PREFIX}doors.v1.clean"))
