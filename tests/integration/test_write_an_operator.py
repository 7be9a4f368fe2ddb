"""`docs/write-an-operator.md`, followed: every file that it shows is written, every command that it names is run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from confluent_kafka.admin import AdminClient

from streams.local import ports
from streams.local.stack import Stack
from tests.integration.guides import command, decoded, environment_of, working
from tests.integration.guides import run as run_line
from tests.integration.kafka_helpers import committed_records, delete_topics
from tests.integration.test_new_project import ROOT, run, streams
from tests.integration.workers import wait_until

TOPIC = "devices.crossings.v1"
GUIDE = (ROOT / "docs" / "write-an-operator.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## \d\. ", GUIDE, flags=re.MULTILINE)[1:]}
FILE = re.compile(r"`([a-z]+/[^`]+)`:\n\n```(?:json|python)\n(.*?)```", re.DOTALL)
FILES = (
    "schemas/positions.v1-value/1.avsc",
    "schemas/devices.state.v1-value/1.avsc",
    "schemas/devices.crossings.v1-value/1.avsc",
    "yard/geofence.py",
    "yard/flows/positions.py",
    "tests/test_positions.py",
)


def shown(section: str, language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return str(text)


def commands(section: str) -> list[str]:
    return [line.removeprefix("$ ") for line in shown(section, "console").splitlines()]


def files(at: Path) -> dict[str, bytes]:
    found = (path for path in at.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(at)): path.read_bytes() for path in found}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project."""
    new, enter, _ = commands("A project")
    streams(tmp_path, *new.split()[1:])
    return tmp_path / enter.removeprefix("cd ")


def write_files(project: Path) -> None:
    written = FILE.findall(GUIDE)
    assert tuple(path for path, _ in written) == FILES
    for path, text in written:
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")


def shell(project: Path, words: Sequence[str]) -> str:
    return streams(project, *words[1:], STREAMS_APP="yard")


def test_the_guide_makes_an_operator_that_works(project: Path) -> None:
    before, product = files(project), files(ROOT / "streams")
    write_files(project)
    test, lint, check, lock, show = (line.split() for line in commands("Test it"))
    assert test == ["python", "-m", "pytest"]
    assert re.search(r"14 passed", run([sys.executable, *test[1:], "-q", "-p", "no:cacheprovider"], project))
    assert "nothing found" in shell(project, lint)
    shell(project, check)
    assert "devices.crossings.v1-value version 1 is locked" in shell(project, lock)
    assert shown("Test it", "text") in shell(project, show)
    run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], project)
    run([sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "."], project)
    after = files(project)
    assert {path for path in after if before.get(path) != after[path]} == {*FILES, "schemas/versions.lock"}
    assert product == files(ROOT / "streams")
    said = shell(project, ["streams", "schemas", "new-version", "positions.v1"])
    assert "wrote schemas/devices.crossings.v2-value/1.avsc" in said
    listed = shell(project, ["streams", "flows", "list"])
    assert "positions_v2: positions.v2 -> positions.v2.clean, devices.state.v2, devices.crossings.v2" in listed


@pytest.fixture
def environment(stack: Stack, project: Path) -> Iterator[Mapping[str, str]]:
    yield {**environment_of(ROOT, stack), "STREAMS_APP": "yard", "STREAMS_DATA_DIR": str(project / "data")}
    client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    names = client.list_topics(timeout=10).topics
    delete_topics(client, {name for name in names if name.startswith(("positions.", "devices.", "parcels."))})


@contextmanager
def killed_at_the_end(project: Path, environment: Mapping[str, str], line: str) -> Iterator[None]:
    process = subprocess.Popen(command(line), cwd=project, env=dict(environment), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.kafka
def test_its_state_survives_a_killed_worker_and_a_lost_disk(
    project: Path, environment: Mapping[str, str], stack: Stack
) -> None:
    write_files(project)
    apply, worker, ingest = commands("Run it")
    port = ports.free_port()
    worker = worker.removesuffix(" &").replace("6066", str(port))
    header, *lines = shown("Run it", "csv").splitlines()
    expected = [json.loads(line) for line in shown("Run it", "json").splitlines()]

    def crossings(count: int) -> list[dict[str, Any]]:
        found = [decoded(project, TOPIC, record) for record in committed_records(stack, TOPIC)]
        assert found == expected[: len(found)]
        return found if len(found) == count else []

    def counted() -> list[str]:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                told = answer.read().decode().splitlines()
        except OSError:
            return []
        return [line for line in told if line.startswith(("streams_operator_rows_total", "streams_window_rows_total"))]

    run_line(project, environment, apply)
    (project / "positions.csv").write_text("\n".join([header, *lines[:3], ""]), encoding="utf-8")
    with killed_at_the_end(project, environment, worker):
        run_line(project, environment, ingest)
        wait_until(lambda: crossings(1), "the device is in the depot", timeout_s=90)
    shutil.rmtree(project / "data")
    (project / "positions.csv").write_text("\n".join([header, *lines[3:], ""]), encoding="utf-8")
    with working(project, environment, worker):
        run_line(project, environment, ingest)
        wait_until(lambda: crossings(2), "the device has left", timeout_s=90)
        (line,) = wait_until(counted, "the worker's figures")
    whole = shown("Run it", "text").strip()
    assert line == whole.replace("2.0", "1.0")  # of this process: the one before has counted the other row
