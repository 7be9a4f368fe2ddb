"""Programs of a load test, here any process at all: told, ended, and said to have ended."""

import re
import time
from pathlib import Path

import pytest

from loadtest.subject import Subject
from streams.errors import StreamsError
from tests.integration.workers import wait_until


def test_a_program_is_told_on_its_standard_input_and_one_that_waits_there_is_ended_at_once(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: None); print(input(), flush=True); input()"
    with Subject("listener", ["-c", code], tmp_path / "log") as subject:
        subject.tell("begin")
        wait_until(lambda: subject.output() == "begin\n", "the program has heard it")
        began_s = time.monotonic()
        subject.stop()
        assert time.monotonic() - began_s < 15.0, "it was killed after the time that it has to end by itself"
        subject.tell("too late")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('╭─ Error ─╮\\n│ No such │\\n╰─────────╯')", "ended with status 1: No such (log"),
        ("import os; print('bye', flush=True); os.kill(os.getpid(), 9)", "was ended by SIGKILL: bye (log"),
        ("raise SystemExit(3)", "ended with status 3: it printed nothing (log"),
    ],
)
def test_a_program_that_ends_is_said_to_have_ended(tmp_path: Path, code: str, words: str) -> None:
    with Subject("sleeper", ["-c", code], tmp_path / "log", environment={"PYTHONIOENCODING": "utf-8"}) as subject:
        wait_until(lambda: subject.status is not None, "the program ends")
        with pytest.raises(StreamsError, match="sleeper " + re.escape(words)):
            subject.is_running()
