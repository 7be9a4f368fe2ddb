"""Workers upgraded one after the other under load, and how long any partition stood still meanwhile."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from loadtest.oracle.compare import Report
from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.integration.workers import (
    NEVER_IDLE,
    Probe,
    Traffic,
    assert_exactly_once,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

LOOK_S: Final = 0.1
WORKERS: Final = 4
PARTITIONS: Final = 12
BUILT_FOR: Final = "STREAMS_NATIVE"
"""A revision's native library may not be the one that is installed: old and new decode in Python."""
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """One worker's upgrade."""

    worker: int
    stop_s: float
    """From SIGTERM to its end."""
    start_s: float
    """From its start to its readiness."""
    pause_s: float
    """The longest time for which a partition with records committed nothing, from SIGTERM to readiness and a bit."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an upgrade did."""

    steps: Sequence[Step]
    steady_s: float
    """The longest pause of a partition before the first step: what a cycle takes here."""
    report: Report

    @property
    def pause_s(self) -> float:
        """The longest pause of all."""
        return max(step.pause_s for step in self.steps)


class Pauses:
    """Looks at the committed offsets all the time: for how long each partition has stood still, with records waiting.

    A pause is counted up to the moment of looking: one that goes on is seen, too.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._longest_s = 0.0
        self._offsets: dict[int, int] = {}
        self._since_s: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name="pauses")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def longest_s(self) -> float:
        """The longest since the last call of this."""
        with self._lock:
            longest_s, self._longest_s = self._longest_s, 0.0
            return longest_s

    def _run(self) -> None:
        while not self._ends.wait(LOOK_S):
            committed = self._probe.committed()
            ends = self._probe.log_ends(GPS.source)
            now_s = time.monotonic()
            if committed is None or ends is None:
                continue
            with self._lock:
                for partition, end in ends.items():
                    offset = committed.get(partition, 0)
                    moved = offset != self._offsets.get(partition)
                    since_s = self._since_s.setdefault(partition, now_s)
                    self._longest_s = max(self._longest_s, now_s - since_s)
                    if moved or offset >= end:
                        self._offsets[partition], self._since_s[partition] = offset, now_s


@contextmanager
def tree_of(revision: str, directory: Path) -> Iterator[Path]:
    """The files of a revision of this repository; those that are here for an empty name."""
    if not revision:
        yield ROOT
        return
    tree = directory / "before"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    yield tree


def upgraded(
    stack: Stack, directory: Path, *, before: str = "", records_per_s: int, between_s: float, seed: int
) -> Result:
    """Run four workers of the revision `before`, replace each by one of these files, and have the oracle judge.

    Each goes on with its data directory, as the pod of a StatefulSet does; when it is ready, the next one is stopped.
    """
    probe = fresh_world(stack, PARTITIONS)
    names = [f"r{number}" for number in range(WORKERS)]
    with tree_of(before, directory) as old, workers(stack, directory, *names) as made:
        settings = {**NEVER_IDLE, BUILT_FOR: "off"}
        with Traffic(stack, rough_shape(stack), seed=seed, records_per_s=records_per_s), Pauses(probe) as pauses:
            for worker in made:
                worker.program = [sys.executable, "-m", "streams"]
                worker.start({**settings, "PYTHONPATH": str(old)})
            for worker in made:
                worker.wait_ready(timeout_s=180)
            wait_until(lambda: sum(len(one.partitions()) for one in made) == PARTITIONS, "all is assigned")
            wait_until(lambda: len(probe.committed() or {}) == PARTITIONS, "every partition has committed")
            pauses.longest_s()
            time.sleep(between_s)
            steady_s = pauses.longest_s()
            steps = []
            for number, worker in enumerate(made):
                pauses.longest_s()
                began_s = time.monotonic()
                assert 0 == worker.terminate(), worker.printed()[-4_000:]
                stopped_s = time.monotonic()
                worker.start({**settings, "PYTHONPATH": str(ROOT)}).wait_ready(timeout_s=180)
                ready_s = time.monotonic()
                time.sleep(between_s)
                steps.append(Step(number, stopped_s - began_s, ready_s - stopped_s, pauses.longest_s()))
        for worker in made:
            assert 0 == worker.terminate(), worker.printed()[-4_000:]
        last = made[0]
        last.start({BUILT_FOR: "off", "STREAMS_GROUP_LEAVE": "true", "PYTHONPATH": str(ROOT)}).wait_ready(timeout_s=180)
        report = assert_exactly_once(stack, probe, last, seed=seed, about=steps)
    return Result(steps, steady_s, report)


def lines(result: Result) -> list[str]:
    """A result as a table."""
    found = ["worker   stopped in   ready in   longest pause of a partition"]
    found += [
        f"{one.worker:<8} {one.stop_s:>8.1f} s {one.start_s:>8.1f} s {one.pause_s:>12.1f} s" for one in result.steps
    ]
    found.append(f"longest pause before the upgrade {result.steady_s:.1f} s, of all steps {result.pause_s:.1f} s")
    return [*found, str(result.report)]
