import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from streams.local.stack import Stack, recorded_stack
from tests.integration.kafka_helpers import fresh_topics

pytestmark = pytest.mark.kafka

START_S_MAX = 150.0
TOUR_S_MAX = 400.0


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

    def start(self, *flags: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        ports = [word for name in ("kafka", "registry", "monitor", "gateway") for word in (f"--{name}-port", "0")]
        command = [sys.executable, "-m", "streams", "demo", "--dir", str(self.directory), *ports, *flags]
        with self._printed.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=stdin, stdout=out, stderr=out, env={**os.environ, "TEST_DEMO": str(self.directory)}
            )
        return self.process

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def wait_for(self, what: Callable[[str], object], seconds: float = START_S_MAX) -> None:
        deadline = time.monotonic() + seconds
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
    r"worker ready \| gps: clean [1-9][\d,]*/s  late \d+/s  duplicate \d+/s  rejected \d+/s  lag [\d,]+ \| orders: ",
    r"watermark age \d",
    r"vehicle \S+: [\d,]+ events, [\d,.]+ km",
)


def shows_all(printed: str) -> bool:
    return all(re.search(one, printed) for one in SHOWN)


@pytest.mark.slow  # in short: the tour shows the same
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
        pytest.param(shows_all, signal.SIGINT, 0, id="Ctrl-C in the middle", marks=pytest.mark.slow),
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


def link(printed: str, what: str) -> str:
    found = re.search(rf"^  {what} +(?:POST )?http://(127\.0\.0\.1:\d+/\S*)$", printed, re.MULTILINE)
    assert found is not None, printed
    return found[1]


def counted(pattern: str, printed: str) -> list[int]:
    found = re.search(pattern, printed)
    assert found is not None, printed
    return [int(number.replace(",", "")) for number in found.groups()]


@pytest.mark.timeout(600, func_only=True)  # two minutes on a machine that does nothing else
def test_the_tour_shows_and_counts_everything_on_a_stack_that_runs_and_is_left(stack: Stack) -> None:
    fresh_topics(stack)
    demo = Demo(stack.directory)
    process = demo.start("--tour", "--fast", "--rate", "400")
    try:
        demo.wait_for(lambda printed: "[2/10] Traffic" in printed)
        for what in ("monitor", "dead letters"):
            with urlopen(f"http://{link(demo.printed, what)}", timeout=10) as answer:
                assert answer.status == 200
        gateway = link(demo.printed, "gateway").partition("/v1/")[0]
        with urlopen(f"http://{gateway}/readyz", timeout=10) as answer:
            assert answer.status == 200

        assert 0 == process.wait(TOUR_S_MAX), demo.printed
    finally:
        process.kill()
        process.wait()
    printed = demo.printed
    assert [str(number) for number in range(1, 11)] == re.findall(r"^\[(\d+)/10\]", printed, re.MULTILINE)
    stored, clean, late = counted(
        r"Tunnel: ([\d,]+) stored .* time\. ([\d,]+) are in .* vehicle; ([\d,]+) were late", printed
    )
    assert stored == clean + late
    assert min(clean, late) > 0
    assert "Poison: 25 dead letters in gps.positions.v1.dlq, 75 of 75 good positions" in printed, printed
    assert "5 went through, in order" in printed, printed
    assert counted(r"The worker was ready again after (\d+) s; it had caught up after (\d+) s", printed)
    verdicts = re.findall(r"Of [\d,]+ different events that came meanwhile: (.*)$", printed, re.MULTILINE)
    assert ["0 lost, 0 doubled."] * 6 == verdicts, (
        f"of three troubles, when they were counted and at the end\n{printed}"
    )
    assert "Traceback" not in printed
    assert [True, True] == [one.pid is not None for one in stack.status()]
    assert [] == [line for line in processes_of(demo.directory) if "java" not in line]


def has_vehicles(printed: str) -> bool:
    """Whether the sink has written rows into the demo's PostgreSQL."""
    url = re.search(r"PostgreSQL +(\S+) \(table vehicles\)", printed)
    assert url is not None, printed
    try:
        with psycopg.connect(url[1]) as connection:
            return connection.execute("select count(*) from vehicles").fetchone() != (0,)
    except psycopg.errors.UndefinedTable:
        return False


@pytest.mark.slow  # a PostgreSQL and two sinks more
def test_with_sinks_a_query_over_postgres_and_delta_ends_it(demo: Demo) -> None:
    process = demo.start("--with-sinks", stdin=subprocess.PIPE)
    minutes = demo.directory / "lake" / "minutes"  # its first commits have no rows
    demo.wait_for(lambda _: bool(list(minutes.rglob("*.parquet"))), 2 * START_S_MAX)
    demo.wait_for(has_vehicles, START_S_MAX)
    assert process.stdin is not None
    process.stdin.write(b"q")
    process.stdin.flush()

    assert 0 == process.wait(90), demo.printed
    assert "One query over both targets of the sinks" in demo.printed
    assert re.search(r"│ \w+ +│ +\d+ │ +[\d.]+ │ +\d+ │ +[\d.]+ │", demo.printed), demo.printed
    assert [] == processes_of(demo.directory)


@pytest.mark.slow  # in short: the unit test of what a child says at its end
def test_a_worker_that_dies_by_itself_is_reported(stack: Stack) -> None:
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
