import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from streams.local.stack import Stack, recorded_stack
from tests.integration.kafka_helpers import fresh_topics

pytestmark = pytest.mark.kafka

START_S_MAX = 150.0


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that work in a directory or name it: servers, worker and traffic."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            inside = Path(process.cwd()).is_relative_to(directory) or any(str(directory) in word for word in words)
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and (inside or environment.get("TEST_DEMO") == str(directory)):
            found.append(" ".join(words))
    return found


class Demo:
    """`streams demo` on free ports, its output in a file; everything of it is marked by an environment variable."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._printed = directory.with_name(f"{directory.name}.txt")

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        ports = ["--kafka-port", "0", "--registry-port", "0"]
        command = [sys.executable, "-m", "streams", "demo", "--dir", str(self.directory), *ports, *flags]
        with self._printed.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, "TEST_DEMO": str(self.directory)}
            )
        return self.process

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def wait_for(self, what: Callable[[str], object]) -> None:
        deadline = time.monotonic() + START_S_MAX
        while not what(self.printed):
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    one = Demo(tmp_path / "demo")
    yield one
    one.process.kill()
    one.process.wait()
    recorded_stack(one.directory).stop()


SHOWN = (
    r"worker ready \| clean [1-9][\d,]*/s  late \d+/s  duplicate \d+/s  rejected \d+/s",
    r"lag [\d,]+ \| watermark age \d",
    r"vehicle \S+: [\d,]+ events, [\d,.]+ km",
)


def shows_all(printed: str) -> bool:
    return all(re.search(one, printed) for one in SHOWN)


@pytest.mark.slow  # in short: what Ctrl-C ends in the middle has shown the same
def test_it_shows_rates_and_vehicles_ends_by_itself_and_leaves_nothing(demo: Demo) -> None:
    assert 0 == demo.start("--seconds", "15").wait(START_S_MAX + 60), demo.printed

    assert "Traceback" not in demo.printed
    assert shows_all(demo.printed), demo.printed
    assert re.search(r"  clean +[1-9][\d,]* ", demo.printed)
    assert [] == processes_of(demo.directory)


@pytest.mark.parametrize(
    ("moment", "how", "status"),
    [
        pytest.param(
            lambda printed: "creating topics" in printed, signal.SIGINT, 130,
            id="Ctrl-C during the start", marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda printed: "starting the worker" in printed, signal.SIGTERM, 130, id="SIGTERM during the start"
        ),
        pytest.param(shows_all, signal.SIGINT, 0, id="Ctrl-C in the middle"),
    ],
)  # fmt: skip
def test_an_interrupt_stops_everything_that_was_started(
    demo: Demo, moment: Callable[[str], object], how: signal.Signals, status: int
) -> None:
    process = demo.start()
    demo.wait_for(moment)
    assert [] != processes_of(demo.directory)

    process.send_signal(how)

    assert status == process.wait(90), demo.printed
    assert "Traceback" not in demo.printed
    assert [] == processes_of(demo.directory)
    if status == 0:
        assert re.search(r"  clean +[1-9][\d,]* ", demo.printed), "what was seen is summed up"


def test_a_stack_that_runs_is_used_and_left_and_a_worker_that_dies_is_reported(stack: Stack) -> None:
    fresh_topics(stack)
    demo = Demo(stack.directory)
    process = demo.start()
    try:
        demo.wait_for(lambda printed: " clean " in printed)
        worker = next(child for child in psutil.Process(process.pid).children() if "worker" in child.cmdline())

        worker.kill()

        assert 1 == process.wait(90), demo.printed
    finally:
        process.kill()
        process.wait()
    assert "the worker was ended by SIGKILL by itself" in demo.printed
    assert "Traceback" not in demo.printed
    assert [True, True] == [one.pid is not None for one in stack.status()]
    assert [] == [line for line in processes_of(demo.directory) if "java" not in line]
