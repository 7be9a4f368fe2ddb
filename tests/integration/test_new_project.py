"""`streams new`: the repository that it writes passes its own tests, lint and schema gate, and its app runs."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.integration.forked import run_forked

ROOT = Path(__file__).parents[2]


def environment_of(changed: Mapping[str, str]) -> dict[str, str]:
    values = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **changed}
    values.pop("PYTEST_ADDOPTS", None)
    return values


def run(words: Sequence[str], at: Path) -> str:
    done = subprocess.run(
        words, cwd=at, env=environment_of({}), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def streams(at: Path, *arguments: str, status: int = 0, **environment: str) -> str:
    done = run_forked(arguments, environment_of(environment), directory=at)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("projects")
    said = streams(at, "new", "east-warehouse")
    assert "wrote east-warehouse/east_warehouse/flows/parcels.py" in said
    return at / "east-warehouse"


def test_a_new_project_passes_its_own_tests(project: Path) -> None:
    said = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
    assert "4 passed" in said


def test_a_new_project_passes_lint_and_the_schema_gate(project: Path) -> None:
    run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], project)
    run([sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "."], project)
    assert "nothing found" in streams(project, "--app", "east_warehouse", "schemas", "lint")
    streams(project, "schemas", "check", "--offline", "--locked", STREAMS_APP="east_warehouse")


def test_the_app_of_a_new_project_is_found_from_its_folder(project: Path) -> None:
    (row,) = json.loads(streams(project, "--app", "east_warehouse", "flows", "list", "--format", "json"))
    assert (row["name"], row["declared_in"]) == ("parcels", "east_warehouse.flows.parcels:flow")
    said = streams(project.parent, "--app", "east_warehouse", "flows", "list", status=2)
    assert "no module 'east_warehouse' here" in said


def test_a_new_version_of_a_topic_is_written_into_the_users_project(project: Path) -> None:
    said = streams(project, "schemas", "new-version", "parcels.scans.v1", STREAMS_APP="east_warehouse")
    made = ["schemas/parcels.scans.v2-value/1.avsc", "schemas/parcels.state.v2-value/1.avsc"]
    made += ["east_warehouse/flows/parcels_v2.py"]
    for path in made:
        assert f"wrote {path}" in said
        assert (project / path).is_file()
    listed = streams(project, "--app", "east_warehouse", "flows", "list")
    assert "parcels_v2: parcels.scans.v2 -> parcels.scans.v2.clean, parcels.state.v2" in listed


def test_nothing_is_left_unfilled_and_the_files_say_what_they_should(project: Path) -> None:
    files = {path.relative_to(project).as_posix(): path for path in project.rglob("*") if path.is_file()}
    assert {".gitignore", ".github/workflows/ci.yml", "Dockerfile", "Makefile", "schemas/versions.lock"} <= files.keys()
    for mark in ("__project__", "__distribution__", "__version__", ".template"):
        assert [] == [name for name, path in files.items() if mark in path.read_text(encoding="utf-8")]
    assert [] == [name for name, path in files.items() if "__package__" in path.read_text(encoding="utf-8")]
    declared = tomllib.loads(files["pyproject.toml"].read_text(encoding="utf-8"))
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    assert declared["project"]["dependencies"][0].startswith(f"{ours}>=")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Upper", "is no name of a project"),
        ("9lives", "is no name of a project"),
        ("logistics", "Python has a module 'logistics' already"),
        ("json", "Python has a module 'json' already"),
        ("class", "Python has a module 'class' already"),
    ],
)
def test_a_name_that_does_not_work_is_refused(tmp_path: Path, name: str, says: str) -> None:
    assert says in streams(tmp_path, "new", name, status=2)
    assert [] == list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "yard").mkdir()
    (tmp_path / "yard" / "mine").write_text("x", encoding="utf-8")
    assert "is there already: nothing was written" in streams(tmp_path, "new", "yard", status=2)
    assert ["mine"] == [path.name for path in (tmp_path / "yard").iterdir()]
