"""`docs/add-a-stream.md`, followed: every file that it shows is written, every command that it names is run."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from streams.local.stack import Stack
from tests.integration.guides import ROOT, copied, decoded, environment_of, run, working
from tests.integration.kafka_helpers import Record, committed_records, delete_topics
from tests.integration.workers import wait_until

GUIDE = (ROOT / "docs" / "add-a-stream.md").read_text(encoding="utf-8")
FILE = re.compile(r"`((?:schemas|streams)/[^`]+)`:\n\n```(?:json|python)\n(.*?)```", re.DOTALL)
EXPECTED = [json.loads(line) for line in GUIDE.split("holds\n\n```json\n")[1].split("```")[0].splitlines()]


def shown(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(text)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as it would be after steps 1 and 2."""
    copied(tmp_path)
    written = FILE.findall(GUIDE)
    assert [path for path, _ in written] == [
        "schemas/doors.events.v1-value/1.avsc",
        "schemas/doors.state.v1-value/1.avsc",
        "schemas/doors.hours.v1-value/1.avsc",
        "streams/pipelines/doors.py",
    ]
    for path, text in written:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "doors.csv").write_text(shown("csv"), encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(copy: Path, stack: Stack) -> Iterator[Mapping[str, str]]:
    yield environment_of(copy, stack)
    client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    delete_topics(client, {name for name in client.list_topics(timeout=10).topics if name.startswith("doors.")})


def test_the_guide_makes_a_stream_that_works(copy: Path, environment: Mapping[str, str], stack: Stack) -> None:
    apply, worker, ingest = (line.removeprefix("$ ").removesuffix(" &") for line in shown("console").splitlines())
    run(copy, environment, apply)
    assert "nothing found" in run(copy, environment, "streams schemas lint")
    with working(copy, environment, worker):
        assert "line 7: temperature_c is outside [-100, 200]" in run(copy, environment, ingest, status=100)
        clean = wait_until(lambda: found(stack, "doors.events.v1.clean", 4), "four clean events", timeout_s=90)
        table = {r.key: decoded(copy, "doors.state.v1", r) for r in committed_records(stack, "doors.state.v1")}
        (hour,) = wait_until(lambda: found(stack, "doors.hours.v1", 1), "a closed window")
    assert sorted(record.key for record in clean) == [b"dock-1", b"dock-1", b"dock-1", b"dock-2"]
    assert [row for _, row in sorted(table.items())] == EXPECTED
    row = decoded(copy, "doors.hours.v1", hour)
    assert (row["sensor_id"], row["revision"], row["events"], row["temperature_max_c"]) == ("dock-1", 0, 2, 6.25)


def found(stack: Stack, topic: str, count: int) -> list[Record]:
    records = committed_records(stack, topic)
    assert len(records) <= count, records
    return records if len(records) == count else []
