"""The command line in a process of its own that is forked off one which has imported it.

A command then costs what it does, and not the two seconds that its imports take. How commands are started, end and
react to signals is tested with processes that are started from nothing (`tests/unit/test_ending.py`,
`kafka_helpers.start`).
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.integration.preloaded"])


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = 120.0
) -> "subprocess.CompletedProcess[str]":
    """Run `streams` with arguments; what it printed is read from files, so that it never waits for a reader."""
    with tempfile.TemporaryDirectory() as directory:
        printed = [Path(directory, name) for name in ("stdout", "stderr")]
        process = _CONTEXT.Process(
            target=_command, args=(list(arguments), dict(environment), str(Path.cwd()), *map(str, printed))
        )
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["streams", *arguments], timeout_s)
        out, err = (path.read_text(encoding="utf-8") for path in printed)
        assert process.exitcode is not None
        return subprocess.CompletedProcess(["streams", *arguments], process.exitcode, out, err)


def _command(arguments: list[str], environment: dict[str, str], directory: str, stdout: str, stderr: str) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["streams", *arguments]
    from streams.__main__ import main

    main()
