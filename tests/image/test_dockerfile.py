"""The images' files: bases pinned by digest, installs from locks with hashes, no root, and a health check that tells.

`tests/image/test_image.py` runs the steps of the Dockerfile.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from ruamel.yaml import YAML

from tests.image.dockerfile import NotUnderstood, Stage, parsed, sources, variables
from tests.left_out import hadolint

ROOT: Final = Path(__file__).parents[2]
TEMPLATE: Final = ROOT / "streams/project/template/Dockerfile.template"
PINNED: Final = re.compile(r"[a-z]+:\d+\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}")
FILES: Final = {"the product's": ROOT / "Dockerfile", "a new project's": TEMPLATE}
UNHASHED: Final = re.compile(r"--no-deps|--require-hashes")


def stages(name: str = "the product's") -> list[Stage]:
    return parsed(FILES[name].read_text(encoding="utf-8"))


def faults(found: list[Stage]) -> Iterator[str]:
    """What is wrong with a file, by the rules of this repository and those of hadolint that matter here."""
    names = {stage.name for stage in found}
    for stage in found:
        if stage.base not in names and not PINNED.fullmatch(stage.base):
            yield f"{stage.base} is not a version with a digest"
        for run in stage.all("RUN"):
            if re.search(r"\b(sudo|curl|wget|apt-get|apk|cd)\b", run.rest):
                yield f"RUN {run.rest}: fetches or installs what no lock names, or changes the directory by hand"
            if ";" in run.rest:
                yield f"RUN {run.rest}: a part that fails is not noticed"
            yield from (
                f"RUN {part.strip()}: without hashes"
                for part in run.rest.split("&&")
                if re.search(r"pip\b.*\b(install|wheel)\b", part) and not UNHASHED.search(part)
            )
        for where in stage.all("WORKDIR"):
            if not where.rest.startswith("/"):
                yield f"WORKDIR {where.rest} is not absolute"
    shipped = found[-1]
    user = shipped.last("USER").rest if shipped.all("USER") else "root"
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user):
        yield f"runs as {user}: a number that is not root's lets Kubernetes check it"
    if not (shipped.all("HEALTHCHECK") and shipped.last("ENTRYPOINT").is_exec and shipped.last("CMD").is_exec):
        yield "no health check, or a shell between the signals and the process"
    for variable in variables(shipped):
        if re.search(r"PASSWORD|TOKEN|SECRET", variable):
            yield f"{variable} is in the image"


def test_the_products_file_keeps_to_the_rules() -> None:
    assert [] == list(faults(stages()))


def test_a_new_projects_file_keeps_to_the_rules_but_has_no_lock() -> None:
    assert ["RUN pip install .: without hashes"] == list(faults(stages("a new project's")))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("FROM python:3.11.16-slim-bookworm", "is not a version with a digest"),
        (f"FROM python:3.11-slim@sha256:{'a' * 64}", "is not a version with a digest"),
        ("RUN pip install -r requirements.txt", "without hashes"),
        ("RUN /t/bin/pip --python /o/bin/python install --only-binary=:all: -r a.lock", "without hashes"),
        ("RUN apt-get update && apt-get install -y gcc", "no lock names"),
        ("RUN false; true", "is not noticed"),
        ("WORKDIR app", "is not absolute"),
        ("USER root", "runs as root"),
        ("ENV ADMIN_TOKEN=x", "is in the image"),
        ("CMD streams worker", "a shell between"),
    ],
)
def test_each_rule_finds_what_breaks_it(wrong: str, words: str) -> None:
    text = FILES["the product's"].read_text(encoding="utf-8")
    changed = f"{wrong}\nUSER 1\nHEALTHCHECK CMD a\nENTRYPOINT []\nCMD []" if wrong.startswith("FROM") else wrong

    assert any(words in fault for fault in faults(parsed(f"{text}\n{changed}\n")))


@pytest.mark.parametrize("text", ["ADD a b", "FROM a AS Big Name", "RUN x", "FROM a\nONBUILD RUN x"])
def test_what_is_not_understood_is_said_and_not_passed_over(text: str) -> None:
    with pytest.raises(NotUnderstood):
        parsed(text)


def test_continuations_and_comments_within_them_are_read_as_docker_does() -> None:
    (stage,) = parsed("# c\nFROM a AS b\nRUN x \\\n  # c\n  && y\nENV A=1 \\\n  B='2 3'\n")

    assert ("b", ["x  && y"]) == (stage.name, [run.rest for run in stage.all("RUN")])
    assert {"A": "1", "B": "2 3"} == variables(stage)


def test_both_files_begin_with_the_same_python() -> None:
    assert len({stages(name)[0].base for name in FILES}) == 1


def test_stages_that_are_copied_from_come_before_and_locks_are_there() -> None:
    before: set[str] = set()
    for stage in stages():
        for copied in stage.all("COPY"):
            origin, paths, _ = sources(copied)
            assert origin is None or origin in before
            assert origin is not None or all((ROOT / path).exists() for path in paths)
        before.add(stage.name)


def test_the_shipped_stage_runs_nothing_that_installs() -> None:
    assert not [run.rest for run in stages()[-1].all("RUN") if "pip" in run.rest]


def test_the_locks_of_the_image_are_parts_of_what_is_tested() -> None:
    """Versions and hashes of `runtime.lock` and `wheels.lock` are those of `dev.lock`."""

    def pins(name: str) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for block in re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text(encoding="utf-8").rstrip()):
            first, *rest = block.splitlines()
            found[first.removesuffix(" \\")] = frozenset(re.findall(r"sha256:[0-9a-f]{64}", " ".join(rest)))
        return found

    tested = pins("dev.lock")
    for name in ("runtime.lock", "wheels.lock"):
        for package, hashes in pins(name).items():
            assert hashes, package
            assert tested.get(package) == hashes, f"{name}: {package}"


@pytest.mark.hadolint
@pytest.mark.parametrize("name", FILES)
def test_hadolint_finds_nothing(name: str) -> None:
    program = hadolint()
    assert program is not None
    done = subprocess.run([program, "-"], input=FILES[name].read_text(), capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_versions_of_the_bases_are_looked_after() -> None:
    updates = YAML(typ="safe").load((ROOT / ".github/dependabot.yml").read_text())["updates"]

    assert {"docker", "docker-compose"} <= {update["package-ecosystem"] for update in updates}


PROGRAM: Final = ROOT / "deploy/image/healthcheck.py"
SERVER: Final = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]) if self.path == "/healthz" else 500)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer((sys.argv[1], 0), Handler)
print("up", flush=True)
server.serve_forever()
"""


def checked(directory: Path, *, command: str) -> subprocess.CompletedProcess[str]:
    """The health check, looking for processes that run `command`: other tests run `streams` beside this one."""
    program = directory / "healthcheck.py"
    program.write_text(PROGRAM.read_text().replace('"streams"', f'"{command}"'))
    return subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(
    ("host", "status", "expected"),
    [("127.0.0.1", 200, 0), ("0.0.0.0", 200, 0), ("127.0.0.1", 503, 1)],  # noqa: S104 - what a container may set
)
def test_the_health_check_finds_the_server_of_the_command_and_believes_its_answer(
    host: str, status: int, expected: int, tmp_path: Path
) -> None:
    command = f"streams-{os.getpid()}-{status}-{expected}-{len(host)}"
    script = tmp_path / command
    script.write_text(SERVER)
    with subprocess.Popen([sys.executable, str(script), host, str(status)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert b"up\n" == server.stdout.readline()
            done = checked(tmp_path, command=command)
        finally:
            server.kill()

    assert expected == done.returncode, done.stderr
    assert expected == 0 or "/healthz answers 503" in done.stderr


def test_a_command_without_a_server_is_healthy_while_it_runs_and_no_command_is_not(tmp_path: Path) -> None:
    command = f"streams-{os.getpid()}-idle"
    script = tmp_path / command
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as idle:
        try:
            assert idle.stdout is not None
            assert b"up\n" == idle.stdout.readline()
            assert 0 == checked(tmp_path, command=command).returncode
        finally:
            idle.kill()

    done = checked(tmp_path, command=command)
    assert 1 == done.returncode
    assert f"no process runs {command}" in done.stderr


def test_a_worker_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    command = f"streams-{os.getpid()}-hung"
    script = tmp_path / command
    script.write_text(
        "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as hung:
        try:
            assert hung.stdout is not None
            assert b"up\n" == hung.stdout.readline()
            done = checked(tmp_path, command=command)
        finally:
            hung.kill()

    assert 1 == done.returncode
    assert "timed out" in done.stderr
