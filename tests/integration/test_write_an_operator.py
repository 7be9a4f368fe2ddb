"""`docs/write-an-operator.md`, followed: every file that it shows is written, every command that it names is run."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.test_new_project import ROOT, run, streams

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


def commands(section: str) -> list[str]:
    (text,) = re.findall(r"```console\n(.*?)```", SECTIONS[section], re.DOTALL)
    return [line.removeprefix("$ ") for line in text.splitlines()]


def files(at: Path) -> dict[str, bytes]:
    found = (path for path in at.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(at)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("projects")
    new, enter, _ = commands("A project")
    streams(at, *new.split()[1:])
    return at / enter.removeprefix("cd ")


def shell(project: Path, words: Sequence[str]) -> str:
    return streams(project, *words[1:], STREAMS_APP="yard")


def test_the_guide_makes_an_operator_that_works(project: Path) -> None:
    before, product = files(project), files(ROOT / "streams")
    written = FILE.findall(GUIDE)
    assert tuple(path for path, _ in written) == FILES
    for path, text in written:
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    test, lint, check, lock, show = (line.split() for line in commands("Test it"))
    assert test == ["python", "-m", "pytest"]
    assert re.search(r"14 passed", run([sys.executable, *test[1:], "-q", "-p", "no:cacheprovider"], project))
    assert "nothing found" in shell(project, lint)
    shell(project, check)
    assert "devices.crossings.v1-value version 1 is locked" in shell(project, lock)
    (text,) = re.findall(r"```text\n(.*?)```", SECTIONS["Test it"], re.DOTALL)
    assert text in shell(project, show)
    run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], project)
    run([sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "."], project)
    after = files(project)
    assert {path for path in after if before.get(path) != after[path]} == {*FILES, "schemas/versions.lock"}
    assert product == files(ROOT / "streams")
