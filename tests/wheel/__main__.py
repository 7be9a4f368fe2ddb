"""Builds the wheel and tries it as a user does: a fresh environment, the commands, a new project and its tests.

With the oldest and the newest Python (3.11 and later) on this machine for which all dependencies have wheels.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
OLDEST_MINOR: Final = 11
NEWEST_MINOR: Final = 20
PYENV: Final = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
NOT_SHIPPED: Final = ("loadtest/", "tests/")
SHIPPED: Final = (
    "streams/py.typed",
    "streams/monitor/runbooks/no-progress.md",
    "streams/project/template/Makefile.template",
    "logistics/schemas/versions.lock",
    "logistics/schemas/gps.positions.v1-value/1.avsc",
)


class Failed(Exception):
    """A step did not go as it should; the message says which, and what was printed."""


def main(chosen: Collection[str]) -> None:
    """Try it with the oldest and the newest, or with those that are chosen: `3.12`."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as directory:
        wheel = built(Path(directory))
        looked_through(wheel)
        say(f"built {wheel.name}, {wheel.stat().st_size:,} bytes")
        native = built_native(Path(directory))
        found = [python for python in interpreters() if not chosen or python.name.removeprefix("python") in chosen]
        oldest = next(filter(None, (tried(python, wheel, native, Path(directory)) for python in found)), None)
        if oldest is None:
            raise Failed("no Python here has wheels of all dependencies")
        newest = next(
            filter(None, (tried(python, wheel, native, Path(directory)) for python in until(oldest, found))), oldest
        )
        say(f"works with {oldest.name} and {newest.name}" if newest is not oldest else f"works with {oldest.name}")


def until(oldest: Path, found: list[Path]) -> Iterator[Path]:
    """The newer ones, the newest first."""
    for python in reversed(found):
        if python == oldest:
            return
        yield python


def built(directory: Path) -> Path:
    """The wheel; nothing that an earlier build has left gets into it."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    done(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, "."],
        ROOT,
    )
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def built_native(directory: Path) -> Path | None:
    """The wheel of the native decoder; None, and said so, where there is no cargo."""
    if shutil.which("cargo") is None:
        say("no cargo: the native decoder is not built")
        return None
    at = directory / "native"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # maturin is beside this Python
    done(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", at, "./native"],
        ROOT,
        {"PATH": path},
    )
    (wheel,) = at.glob("*.whl")
    if "-abi3-" not in wheel.name:
        raise Failed(f"{wheel.name} is not for every Python from 3.11 on")
    say(f"built {wheel.name}, {wheel.stat().st_size:,} bytes")
    return wheel


def looked_through(wheel: Path) -> None:
    if not wheel.name.endswith("-py3-none-any.whl"):
        raise Failed(f"{wheel.name} is not for every machine")
    names = zipfile.ZipFile(wheel).namelist()
    if wrong := [name for name in names if name.startswith(NOT_SHIPPED)]:
        raise Failed(f"the wheel has {wrong[0]}, which is not to be shipped")
    if missing := [name for name in SHIPPED if name not in names]:
        raise Failed(f"the wheel lacks {', '.join(missing)}")


def interpreters() -> list[Path]:
    """Pythons that may run it, the oldest first, one of each minor version."""
    found = []
    for minor in range(OLDEST_MINOR, NEWEST_MINOR):
        named = shutil.which(f"python3.{minor}")
        candidates = [*sorted(PYENV.glob(f"3.{minor}.*/bin/python3.{minor}")), *([Path(named)] if named else [])]
        works = next((python for python in candidates if version_of(python) == f"3.{minor}"), None)
        if works is not None:
            found.append(works)
    return found


def version_of(python: Path) -> str:
    """`3.11`; empty if it does not run (a shim of a version that is not chosen)."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    ended = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout.strip()


def tried(python: Path, wheel: Path, native: Path | None, directory: Path) -> Path | None:
    """The Python, if the wheel works with it; None, and said so, if a dependency has no wheel for it."""
    home = directory / python.name
    done([python, "-m", "venv", home], directory)
    bin_ = home / "bin"
    install: list[str | Path] = [
        bin_ / "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--only-binary=:all:",
        wheel,
        "pytest",
    ]
    installed = subprocess.run(install, cwd=directory, env=plain(), capture_output=True, text=True, check=False)
    if installed.returncode:
        lacking = re.search(r"No matching distribution found for (\S+)", installed.stderr)
        if lacking is None:
            raise Failed(f"{python.name}: {installed.stderr}")
        say(f"{python.name}: {lacking[1]} has no wheel for it")
        return None
    version = done([bin_ / "streams", "--version"], directory).strip()
    if f"-{version}-" not in wheel.name:
        raise Failed(f"{python.name}: streams --version says {version!r}, the wheel is {wheel.name}")
    for name in ("gps", "orders"):
        if f"{name}: " not in done([bin_ / "streams", "flows", "list"], directory):
            raise Failed(f"{python.name}: the flow {name} is not declared")
    done([bin_ / "streams", "schemas", "check", "--offline", "--locked"], directory)
    done([bin_ / "streams", "new", "trial"], home)
    done([bin_ / "python", "-m", "pytest", "-q"], home / "trial")
    done([bin_ / "streams", "--app", "trial", "flows", "show", "parcels"], home / "trial")
    runbooks = (
        "from streams.monitor.web.runbooks import runbook_page; assert 'no-progress' in runbook_page('no-progress')"
    )
    done([bin_ / "python", "-c", runbooks], home)
    decodes = "from streams.avro.native import choose; print(choose('auto').reason)"
    if (
        said := done([bin_ / "python", "-c", decodes], home)
    ) != "in Python: logistics-streams-native is not installed\n":
        raise Failed(f"{python.name}: without the native decoder, records are decoded {said}")
    if native is not None:
        done([bin_ / "pip", "install", "--quiet", "--no-index", "--no-deps", native], home)
        done([bin_ / "python", "-c", decodes.replace("auto", "on")], home)
        say(f"{python.name}: the native decoder passes its check")
    say(f"{python.name}: installed, the app and its schemas found, a new project passes its tests")
    return python


def done(words: Iterable[object], at: Path, more: Mapping[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    said = [str(word) for word in words]
    ended = subprocess.run(
        said, cwd=at, env={**plain(), **(more or {})}, capture_output=True, text=True, timeout=600, check=False
    )
    if ended.returncode:
        raise Failed(f"{' '.join(said)}: status {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def plain() -> dict[str, str]:
    """The environment without anything that would bring this checkout in."""
    left_out = ("PYTHONPATH", "PYTEST_ADDOPTS", "VIRTUAL_ENV")
    return {
        name: value for name, value in os.environ.items() if name not in left_out and not name.startswith("STREAMS_")
    }


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failed as failed:
        sys.exit(str(failed))
