"""Runs the steps of a Dockerfile and the image that they make, without a container engine: layers are overlay mounts.

This machine stands for what a base image has (Debian, Python, Rust): each stage is a layer above `/`, its steps run in
a `chroot` of their own mount namespace, and the image runs as in Docker with `--read-only`, without privileges, as the
image's user, and with process numbers of its own. Nothing outside of the directory is changed.

A stage that begins with another one begins with a copy of its layer: the kernel refuses a stack of layers that are all
below `/`, which is the lowest of them.

Needs root, and a kernel that permits overlay mounts (`may_mount`).
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from tests.image.dockerfile import Instruction, Stage, sources

STEP_S_MAX: Final = 1_200
PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
NOT_OF_A_BASE: Final = shutil.ignore_patterns("site-packages", "__pycache__", "test", "tests", "idlelib", "*.a")
NOT_OURS: Final = ("PYTHON", "VIRTUAL_ENV", "STREAMS_", "KAFKA_", "SCHEMA_REGISTRY_", "COV_", "PYTEST_")


class StepFailed(Exception):
    """An instruction did not do what it should; the message has what it printed."""


@dataclass(frozen=True, slots=True)
class Layers:
    """An image, or what there is of it so far."""

    upper: Path
    """What it has that this machine has not."""
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"


def may_mount(directory: Path) -> bool:
    """Whether layers can be made here."""
    try:
        _in_namespace(_mounted(directory / "probe"), directory)
    except (StepFailed, OSError):
        return False
    return True


class Builder:
    """Builds the stages of a Dockerfile below a directory."""

    def __init__(self, directory: Path, root: Path) -> None:
        """`root`: the repository, of which the build context is made."""
        self._directory = directory
        self._stages: dict[str, Layers] = {}
        self.context = directory / "context"
        _copy_context(root, self.context)

    def build(self, stages: Sequence[Stage]) -> Layers:
        """All stages; returns the last one.

        Raises:
            StepFailed: an instruction failed.

        """
        for number, stage in enumerate(stages):
            layer = self._directory / f"stage-{number}"
            before = self._stages.get(stage.base)
            if before is None:
                image = self._base(stage.base, layer)
            else:
                subprocess.run(["cp", "-a", str(before.upper), str(layer)], check=True, timeout=STEP_S_MAX)
                image = replace(before, upper=layer)
            for instruction in stage.instructions:
                image = self._done(image, instruction)
            self._stages[stage.name] = image
        return image

    def _base(self, name: str, upper: Path) -> Layers:
        """What stands for an image of a registry."""
        if not name.startswith("python:"):
            path = f"{PATH}:{Path(shutil.which('cargo') or '/nothing').parent}"
            return Layers(upper, {"PATH": path, "HOME": os.environ.get("HOME", "/root")})
        local, home = upper / "usr/local", Path(sys.base_prefix)
        (local / "bin").mkdir(parents=True)
        if home != Path("/usr"):
            shutil.copytree(home / "lib" / PYTHON, local / "lib" / PYTHON, symlinks=True, ignore=NOT_OF_A_BASE)
            for library in (home / "lib").glob("libpython*.so*"):
                shutil.copy2(library, local / "lib", follow_symlinks=False)
            shutil.copy2(home / "bin" / PYTHON, local / "bin")
            (local / "bin/python").symlink_to(PYTHON)
        else:
            (local / "bin/python").symlink_to(f"/usr/bin/{PYTHON}")
        image = Layers(upper, {"PATH": PATH, "HOME": "/root"})
        return self._run(image, "ldconfig")

    def _done(self, image: Layers, instruction: Instruction) -> Layers:
        match instruction.word:
            case "ENV":
                now = dict(image.environment)
                for word in instruction.words:
                    name, _, value = word.partition("=")
                    now[name] = value.replace("$PATH", now["PATH"])
                return replace(image, environment=now)
            case "WORKDIR":
                image = self._run(image, f"mkdir -p {shlex.quote(instruction.rest)}")
                return replace(image, workdir=instruction.rest)
            case "RUN":
                return self._run(image, instruction.rest)
            case "COPY":
                return self._copied(image, *sources(instruction))
            case _:
                return image  # what a container is told when it starts

    def _run(self, image: Layers, command: str) -> Layers:
        """The image with what the command has changed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)} | dict(
            image.environment
        )
        inside = _environment(environment, ["/bin/sh", "-c", f"cd {shlex.quote(image.workdir)} && {command}"])
        _in_namespace(
            f"{_mounted(image.upper)}\nexec chroot {_merged(image.upper)} {shlex.join(inside)}",
            self._directory,
            what=f"RUN {command}",
        )
        return image

    def _copied(self, image: Layers, stage: str | None, paths: Sequence[str], to: str) -> Layers:
        merged, lines = _merged(image.upper), [_mounted(image.upper)]
        if stage is None:
            origin = self.context
        else:
            origin = _merged(self._stages[stage].upper)
            lines.append(_mounted(self._stages[stage].upper))
        target = merged / os.path.join(image.workdir, to).lstrip("/")  # noqa: PTH118 - `to` may be absolute
        into = to.endswith("/") or len(paths) > 1
        for path in paths:
            one = origin / path.lstrip("/")
            lines.append(
                f"if [ -d {one} ]; then mkdir -p {target} && cp -a {one}/. {target}/\n"
                f"elif {'true' if into else 'false'}; then mkdir -p {target} && cp -a {one} {target}/\n"
                f"else mkdir -p {target.parent} && cp -a {one} {target}; fi"
            )
        _in_namespace("\n".join(lines), self._directory, what=f"COPY {' '.join(paths)} {to}")
        return image


@contextmanager
def container(
    image: Layers, directory: Path, command: Sequence[str], *, user: int, data: str, environment: Mapping[str, str]
) -> Iterator["Container"]:
    """A container of the image with a read-only root, a volume at `data` and no privileges; killed at the end."""
    root, volume = directory / "root", directory / "volume"
    for one in (root, volume):
        one.mkdir(parents=True)
    os.chown(volume, user, user)
    inside = _environment({**image.environment, "HOME": "/nonexistent", **environment}, command)
    script = "\n".join(
        [
            _mounted(image.upper),
            f"mount --bind {_merged(image.upper)} {root}",
            f"mount -o remount,bind,ro {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs -o mode=1777 none {root}/tmp",  # noqa: S108 - the container's own
            f"mount --bind {volume} {root}{data}",
            f"exec {_as_user(root, user, image.workdir)} {shlex.join(inside)}",
        ]
    )
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    running = Container(process, log, root, user, image, environment)
    try:
        yield running
    finally:
        # By itself: `--kill-child` is void once the first process has changed its user.
        for left in psutil.Process(process.pid).children() if process.poll() is None else ():
            with suppress(psutil.NoSuchProcess):
                left.kill()
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs."""

    process: "subprocess.Popen[bytes]"
    log: Path
    root: Path
    user: int
    image: Layers
    environment: Mapping[str, str]

    def execute(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as its user."""
        inside = _environment({**self.image.environment, "HOME": "/nonexistent", **self.environment}, command)
        whole = ["nsenter", f"--target={self._first().pid}", "--mount", "--pid", "/bin/sh", "-c"]
        script = f"exec {_as_user(self.root, self.user, self.image.workdir)} {shlex.join(inside)}"
        return subprocess.run([*whole, script], capture_output=True, text=True, timeout=120, check=False)

    def signal(self, number: signal.Signals) -> None:
        """Signal the first process of the container, as `docker stop` and `docker kill` do."""
        self._first().send_signal(number)

    def _first(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]


def _as_user(root: Path, user: int, workdir: str) -> str:
    privileges = f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --bounding-set=-all"
    change = shlex.quote(f'cd {shlex.quote(workdir)} && exec "$@"')
    return f"chroot {root} {privileges} /bin/sh -c {change} --"


def _environment(values: Mapping[str, str], command: Sequence[str]) -> list[str]:
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in values.items()), *command]


def _merged(upper: Path) -> Path:
    """Where a layer is mounted above this machine's files."""
    return upper.with_name(f"{upper.name}-merged")


def _mounted(upper: Path) -> str:
    """Shell that mounts a layer above this machine's files, to be written to."""
    merged, work, scratch = (upper.with_name(f"{upper.name}-{part}") for part in ("merged", "work", "scratch"))
    for path in (upper, merged, work, scratch):
        path.mkdir(parents=True, exist_ok=True)
    return "\n".join(
        [
            "set -e",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={work} {merged}",
            f"mount --rbind /proc {merged}/proc",
            f"mount --rbind /dev {merged}/dev",
            f"mount --bind {scratch} {merged}/tmp",  # noqa: S108 - the stage's own
        ]
    )


def _in_namespace(script: str, directory: Path, what: str = "mounting layers") -> None:
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", script], capture_output=True, text=True, timeout=STEP_S_MAX,
        cwd=directory, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StepFailed(f"{what}: status {done.returncode}\n{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}")


def _copy_context(root: Path, to: Path) -> None:
    """What `.dockerignore` lets through: everything is left out but what is named with `!`."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    again = [line for line in lines[1:] if not line.startswith("!")]
    left_out = shutil.ignore_patterns(*(line.rpartition("/")[2] for line in again))
    for line in lines:
        if not line.startswith("!"):
            continue
        path = line.removeprefix("!")
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        if (root / path).is_dir():
            shutil.copytree(root / path, to / path, ignore=left_out)
        else:
            shutil.copy2(root / path, to / path)
