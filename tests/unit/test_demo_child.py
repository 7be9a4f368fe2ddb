"""A process that the demo starts: what is said when it ends by itself, and what it is told."""

import os
import time
from pathlib import Path

import pytest

from streams.demo.child import Child
from streams.errors import StreamsError
from streams.interrupts import Interrupts


def child(directory: Path, program: str, *, takes_commands: bool = False) -> Child:
    with Interrupts() as interrupts:
        made = Child(
            "the worker", ["-c", program],
            log=directory / "worker.log", environment=os.environ, interrupts=interrupts, takes_commands=takes_commands,
        )  # fmt: skip
        made.start()
    return made


def reason_of(one: Child) -> str:
    deadline = time.monotonic() + 30
    while one.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(StreamsError) as raised:
        one.check()
    return str(raised.value)


def test_one_that_ends_by_itself_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    said = reason_of(child(tmp_path, "import sys; print('no broker'); sys.exit(3)"))
    assert "the worker ended with status 3 by itself" in said
    assert said.endswith("no broker")
    said = reason_of(child(tmp_path, "import os; os.kill(os.getpid(), 9)"))
    assert "the worker was ended by SIGKILL by itself" in said
    assert said.endswith("(nothing)")


def test_one_that_takes_commands_gets_lines_and_one_that_has_ended_does_no_harm(tmp_path: Path) -> None:
    one = child(tmp_path, "print(input().upper())", takes_commands=True)
    one.tell("hold")
    assert reason_of(one).endswith("HOLD")
    one.tell("too late")
    one.stop()
