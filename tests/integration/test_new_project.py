"""`streams new`: the repository that it writes passes its own tests, lint and schema gate, and its app runs.

`docs/tutorial.md` begins with it; it is followed here, from an empty folder to a point on the map.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from streams.local import ports
from streams.local.stack import Stack
from tests.integration.forked import run_forked
from tests.integration.guides import decoded, working
from tests.integration.guides import environment_of as environment_on
from tests.integration.kafka_helpers import committed_records, delete_topics
from tests.integration.workers import wait_until

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


TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILE = re.compile(r"`([a-z]+/[^`]+)`:\n\n```(?:json|python)\n(.*?)```", re.DOTALL)
FILES = dict(FILE.findall(TUTORIAL))
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL)
    for line in block.splitlines()
]
HAS_FLEET_PAGE = importlib.util.find_spec("streams.flow.fleet_map") is not None


def command(beginning: str) -> str:
    (found,) = (line for line in COMMANDS if line.startswith(beginning))
    return str(found).removesuffix(" &")


@pytest.fixture
def courier(tmp_path: Path) -> Path:
    """The project of the tutorial, with all files that it shows."""
    streams(tmp_path, *shlex.split(command("streams new"))[1:])
    at = tmp_path / command("cd ").removeprefix("cd ")
    for path, text in FILES.items():
        if HAS_FLEET_PAGE or path != "courier/flows/fleet.py":
            (at / path).parent.mkdir(exist_ok=True)
            (at / path).write_text(text, encoding="utf-8")
    return at


def test_the_flow_of_the_tutorial_passes_its_test_and_is_shown_as_the_page_has_it(courier: Path) -> None:
    assert list(FILES) == [
        "schemas/bikes.positions.v1-value/1.avsc", "schemas/bikes.state.v1-value/1.avsc", "courier/flows/bikes.py",
        "tests/test_bikes.py", "courier/flows/fleet.py",
    ]  # fmt: skip
    assert "6 passed" in run(
        [sys.executable, *command("python -m pytest").split()[1:], "-p", "no:cacheprovider"], courier
    )
    assert "nothing found" in streams(courier, "schemas", "lint", STREAMS_APP="courier")
    (shown,) = re.findall(r"```text\n(source .*?)```", TUTORIAL, re.DOTALL)
    assert shown in streams(courier, *command("streams flows show").split()[1:], STREAMS_APP="courier")


@pytest.mark.timeout(600, func_only=True)
def test_a_bike_of_the_tutorial_becomes_a_row_and_a_point_on_the_map(courier: Path, stack: Stack) -> None:
    name, _, app = command("export ").removeprefix("export ").partition("=")
    environment = {**environment_on(ROOT, stack), name: app, "STREAMS_DATA_DIR": str(courier / ".data")}
    for line in ("streams schemas lock", "streams topics apply"):
        done = run_forked(command(line).split()[1:], environment, directory=courier)
        assert done.returncode == 0, done.stderr
    gateway, monitor = ports.free_port(), ports.free_port()
    try:
        with (
            working(courier, environment, f"{command('streams worker')} --web-port {ports.free_port()}"),
            working(courier, environment, command("streams gateway").replace("8088", str(gateway))),
            working(courier, environment, command("streams monitor").replace("8080", str(monitor))),
        ):
            wait_until(lambda: answers(f"http://127.0.0.1:{gateway}/readyz"), "the gateway", timeout_s=120)
            line = command("curl").replace("8088", str(gateway))
            assert '"accepted":1' in run(["bash", "-c", line], courier)
            refused = run(["bash", "-c", line.replace("52.5163", "525.163")], courier)
            assert '"rejected":1' in refused
            assert "latitude" in refused
            (row,) = wait_until(lambda: committed_records(stack, "bikes.state.v1"), "a row of the bike", timeout_s=90)
            row_of_bike = decoded(courier, "bikes.state.v1", row)
            assert (row_of_bike["bike_id"], row_of_bike["positions"], row_of_bike["speed_max_kmh"]) == (
                "bike-1",
                1,
                18.0,
            )
            if HAS_FLEET_PAGE:
                fleet = f"http://127.0.0.1:{monitor}/fleet"
                assert answers(f"{fleet}/")
                with urllib.request.urlopen(f"{fleet}/api/stream", timeout=30):  # noqa: S310 - as the page does
                    wait_until(has_one_vehicle(monitor), "the bike on the map", timeout_s=60)
    finally:
        client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        topics = client.list_topics(timeout=10).topics
        delete_topics(client, {topic for topic in topics if topic.startswith(("bikes.", "parcels."))})


def answers(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - of this machine
            return str(answer.read().decode()) or "-"
    except (urllib.error.URLError, OSError):
        return None


def has_one_vehicle(monitor: int) -> Callable[[], bool]:
    return lambda: "streams_fleet_vehicles 1.0" in (answers(f"http://127.0.0.1:{monitor}/metrics") or "").splitlines()
