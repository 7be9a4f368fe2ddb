"""The command line in a process of its own that is forked off one which has imported it.

A command then costs what it does, and not the two or three seconds of processor time that its imports take. How
commands are started, end and react to signals is tested with processes that are started from nothing
(`tests/unit/test_ending.py`, `test_stop_early.py`, `test_demo.py`, `kafka_helpers.start`).
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.integration.preloaded"])


class ForkedProcess:
    """`streams` with arguments, whose output is added to files; with the methods of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdout: Path,
        stderr: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start it in a directory, None: this process's; `stderr`: None is where `stdout` goes."""
        self.args = ["streams", *arguments]
        self._process = _CONTEXT.Process(
            target=_command,
            args=(self.args, dict(environment), str(directory or Path.cwd()), str(stdout), str(stderr or stdout)),
            daemon=True,  # it is ended when the tests end
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, -9 after SIGKILL; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status as soon as it has ended."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_forked(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_s: float = 120.0,
    directory: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run `streams` with arguments; what it printed is read from files, so that it never waits for a reader."""
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        process = ForkedProcess(arguments, environment, stdout=printed[0], stderr=printed[1], directory=directory)
        try:
            status = process.wait(timeout_s)
        finally:
            process.kill()
        out, err = (path.read_text(encoding="utf-8") for path in printed)
        return subprocess.CompletedProcess(process.args, status, out, err)


def _command(arguments: list[str], environment: dict[str, str], directory: str, stdout: str, stderr: str) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    os.chdir(directory)
    sys.argv = arguments
    from streams.__main__ import main

    main()
