"""`docs/add-a-stream.md`, followed: every file that it shows is written, every command that it names is run."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest
from confluent_kafka.admin import AdminClient

from streams.local import ports
from streams.local.stack import Stack
from tests.integration.guides import ROOT, decoded, environment_of, run, working
from tests.integration.kafka_helpers import Record, committed_records, delete_topics
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

GUIDE = (ROOT / "docs" / "add-a-stream.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## \d\. ", GUIDE, flags=re.MULTILINE)[1:]}
FILE = re.compile(r"`([a-z]+/[^`]+)`:\n\n```(?:json|python)\n(.*?)```", re.DOTALL)
EXPECTED = [json.loads(line) for line in GUIDE.split("holds\n\n```json\n")[1].split("```")[0].splitlines()]
FILES = (
    "schemas/doors.events.v1-value/1.avsc",
    "schemas/doors.state.v1-value/1.avsc",
    "schemas/doors.hours.v1-value/1.avsc",
    "warehouse/flows/doors.py",
    "tests/test_doors.py",
)


def shown(section: str, language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return str(text)


def commands(section: str) -> list[str]:
    return [line.removeprefix("$ ") for line in shown(section, "console").splitlines()]


@pytest.fixture
def environment(stack: Stack) -> Iterator[Mapping[str, str]]:
    yield environment_of(ROOT, stack)
    client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    names = client.list_topics(timeout=10).topics
    delete_topics(client, {name for name in names if name.startswith(("doors.", "parcels."))})


@pytest.fixture
def project(tmp_path: Path, environment: Mapping[str, str]) -> Path:
    """Section 1, and the files of the sections after it."""
    new, enter, _ = commands("A project")
    run(tmp_path, environment, new)
    directory = tmp_path / enter.removeprefix("cd ")
    written = FILE.findall(GUIDE)
    assert tuple(path for path, _ in written) == FILES
    for path, text in written:
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(text, encoding="utf-8")
    (directory / "doors.csv").write_text(shown("Run it", "csv"), encoding="utf-8")
    return directory


@pytest.fixture
def app(environment: Mapping[str, str]) -> Mapping[str, str]:
    name, value = commands("A project")[2].removeprefix("export ").split("=")
    return {**environment, name: value}


def test_the_sections_are_those_that_are_followed_here() -> None:
    assert list(SECTIONS) == [
        "A project", "The schemas", "The declaration", "Test it", "Run it", "Notice its silence",
    ]  # fmt: skip


def test_the_guide_makes_a_stream_that_works(project: Path, app: Mapping[str, str], stack: Stack) -> None:
    pytest_line, show = commands("Test it")
    environment = {name: value for name, value in app.items() if name != "PYTEST_ADDOPTS"}
    tested = subprocess.run(
        [sys.executable, *pytest_line.split()[1:]], cwd=project, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "6 passed" in tested.stdout
    assert shown("Test it", "text") in run(project, app, show)

    lint, check, lock, apply, worker, ingest = commands("Run it")
    assert "nothing found" in run(project, app, lint)
    run(project, app, check)
    assert "doors.hours.v1-value version 1 is locked" in run(project, app, lock)
    run(project, app, apply)
    with working(project, app, worker.removesuffix(" &")):
        assert "line 7: temperature_c is outside [-100, 200]" in run(project, app, ingest, status=100)
        clean = wait_until(lambda: found(stack, "doors.events.v1.clean", 4), "four clean events", timeout_s=90)
        table = {r.key: decoded(project, "doors.state.v1", r) for r in committed_records(stack, "doors.state.v1")}
        (hour,) = wait_until(lambda: found(stack, "doors.hours.v1", 1), "a closed window")
        flagged = metrics_of_a_monitor(project, app)
    assert sorted(record.key for record in clean) == [b"dock-1", b"dock-1", b"dock-1", b"dock-2"]
    assert [row for _, row in sorted(table.items())] == EXPECTED
    row = decoded(project, "doors.hours.v1", hour)
    assert (row["sensor_id"], row["revision"], row["events"], row["temperature_max_c"]) == ("dock-1", 0, 2, 6.25)
    silence = json.loads(run(project, app, f"{show} --format json"))["silent_after_ms"]
    assert silence == {"doors.events.v1": 3_600_000, "doors.events.v1/docks": 900_000}
    for line in shown("Notice its silence", "text").splitlines():
        assert any(one.startswith(line) for one in flagged), flagged


def metrics_of_a_monitor(project: Path, app: Mapping[str, str]) -> list[str]:
    """What `streams monitor` says of the silence of sources, once it has looked at them."""
    port = ports.free_port()
    environment = {**app, "STREAMS_MONITOR_INTERVAL_S": "1", "STREAMS_MONITOR_WINDOW_S": "30"}

    def silent() -> list[str]:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return []
        return [line for line in lines if line.startswith("streams_source_silent{")]

    with working(project, environment, f"streams monitor --web-port {port}"):
        return wait_until(silent, "the monitor's figures", timeout_s=60)


def found(stack: Stack, topic: str, count: int) -> list[Record]:
    records = committed_records(stack, topic)
    assert len(records) <= count, records
    return records if len(records) == count else []
