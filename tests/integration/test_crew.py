"""Workers of a load test, here any process at all: held and let go."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtest.crew import Crew
from loadtest.subject import Subject
from streams.errors import StreamsError
from tests.integration.workers import wait_until


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[Crew, psutil.Process]]:
    with Subject("sleeper", ["-c", "import time; time.sleep(60)"], tmp_path / "log") as subject:
        workers = Crew()
        workers.add("worker 1", subject, 0)
        yield workers, psutil.Process(subject.pid)


def test_workers_stand_still_while_they_are_held(sleeper: tuple[Crew, psutil.Process]):
    workers, process = sleeper
    with workers.held():
        wait_until(lambda: psutil.STATUS_STOPPED == process.status(), "the worker stands still", timeout_s=5.0)
    wait_until(lambda: psutil.STATUS_STOPPED != process.status(), "the worker goes on", timeout_s=5.0)


def test_held_workers_go_on_when_something_fails(sleeper: tuple[Crew, psutil.Process]):
    workers, process = sleeper
    with pytest.raises(StreamsError, match="no broker"), workers.held():
        raise StreamsError("no broker")
    wait_until(lambda: psutil.STATUS_STOPPED != process.status(), "the worker goes on", timeout_s=5.0)


def test_workers_are_not_held_until_their_group_does_without_them(
    sleeper: tuple[Crew, psutil.Process], monkeypatch: pytest.MonkeyPatch
):
    workers, process = sleeper
    monkeypatch.setattr("loadtest.crew.HELD_S_MAX", 0.1)
    with workers.held():
        wait_until(lambda: psutil.STATUS_STOPPED != process.status(), "the worker goes on", timeout_s=5.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('╭─ Error ─╮\\n│ No such │\\n╰─────────╯')", "ended with status 1: No such (log"),
        ("import os; print('bye', flush=True); os.kill(os.getpid(), 9)", "was ended by SIGKILL: bye (log"),
        ("raise SystemExit(3)", "ended with status 3: it printed nothing (log"),
    ],
)
def test_a_program_that_ends_is_said_to_have_ended(tmp_path: Path, code: str, words: str):
    with Subject("sleeper", ["-c", code], tmp_path / "log", environment={"PYTHONIOENCODING": "utf-8"}) as subject:
        wait_until(lambda: subject.status is not None, "the program ends")
        with pytest.raises(StreamsError, match="sleeper " + re.escape(words)):
            subject.is_running()
