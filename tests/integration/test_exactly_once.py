"""Workers are killed, stopped, robbed of their state and joined by others under load: nothing is lost or doubled."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streams.engine.commit import STEPS
from streams.local.stack import Stack
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Probe,
    Traffic,
    Worker,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = int(os.environ.get("SEED", "1"))
"""Of the traffic and of when the blows fall: `SEED=7 pytest tests/integration/test_exactly_once.py`."""
RECORDS_PER_S = 1_500


@dataclass
class Ordeal:
    """Blows that fall on one worker under load, each at a moment that the seed chooses."""

    worker: Worker
    probe: Probe
    chance: random.Random
    copy: Path
    story: list[str] = field(default_factory=list)
    """What has happened so far: printed when the oracle finds something."""

    def run(self, blows: list[str]) -> None:
        after: dict[str, Callable[[], None]] = {
            "copy": lambda: self.worker.copy_data(self.copy),
            "put back": lambda: self.worker.put_back(self.copy),
            "delete": self.worker.delete_data,
        }
        for blow in blows:
            before = time.monotonic()
            name, _, step = blow.partition(":")
            if name == "fail":
                self._fail_at(step)
            elif name == "terminate":
                self.worker.start(NEVER_IDLE).wait_ready()
                assert self.worker.terminate() == 0, self.worker.printed()[-4000:]
            else:
                self.worker.start(NEVER_IDLE)
                self._at_a_random_moment()
                self.worker.kill()
            self.story.append(f"{blow} after {time.monotonic() - before:.2f} s")
            if name in after:
                after[name]()
        self.worker.start(NEVER_IDLE)

    def _at_a_random_moment(self) -> None:
        """Mostly while it works; sometimes while it starts and restores."""
        if self.chance.random() < 0.2:
            time.sleep(self.chance.uniform(0.5, 2.5))
        else:
            self.worker.wait_ready()
            time.sleep(self.chance.uniform(0.0, 1.2))

    def _fail_at(self, step: str) -> None:
        """It kills itself when it comes to `step` of the commit cycle for the n-th time."""
        self.worker.start({**NEVER_IDLE, "STREAMS_FAILPOINT": f"{step}:{self.chance.randint(1, 6)}"})
        assert self.worker.wait_ended() == -signal.SIGKILL, self.worker.printed()[-4000:]
        assert self.worker.said("failpoint reached")


def blows_of(chance: random.Random, kills: int, rounds: int) -> list[str]:
    """An ordeal of random kills, a kill at each step of the commit cycle, a clean stop, and two losses of state."""
    mixed = ["kill"] * kills + [f"fail:{step}" for step in STEPS] * rounds + ["terminate"] * rounds
    chance.shuffle(mixed)
    quarter = len(mixed) // 4
    return [
        "kill",
        "terminate",
        *mixed[:quarter],
        "copy",
        *mixed[quarter:-quarter],
        "put back",
        *mixed[-quarter:],
        "delete",
    ]


SHORT = ["kill", "fail:produced", "copy", "fail:offsets_sent", "put back", "fail:committed", "delete"]
"""Of each kind one: a kill at a moment of chance, one before, within and behind the commit, and two losses of state."""


def undergo(stack: Stack, directory: Path, seed: int, blows: Callable[[random.Random], list[str]]) -> None:
    probe = fresh_world(stack)
    chance = random.Random(seed)
    with workers(stack, directory, "a") as (worker,):
        ordeal = Ordeal(worker, probe, chance, directory / "copy")
        with Traffic(stack, rough_shape(stack), seed=seed, records_per_s=RECORDS_PER_S) as traffic:
            ordeal.run(blows(chance))
            worker.wait_ready()
        end_of_run(worker, signal.SIGKILL)
        report = assert_exactly_once(stack, probe, worker, seed=seed, about=ordeal.story)
    assert report.events == traffic.sent
    assert min(report.duplicates, report.late, report.rejected) > 100


def test_nothing_is_lost_or_doubled_however_often_the_worker_is_killed(stack: Stack, tmp_path: Path) -> None:
    undergo(stack, tmp_path, SEED, lambda _: SHORT)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seed", "kills", "rounds"), [(SEED, 2, 1), *((SEED + one, 40, 4) for one in (1, 2, 3))])
def test_nothing_is_lost_or_doubled_in_a_long_ordeal(
    stack: Stack, tmp_path: Path, seed: int, kills: int, rounds: int
) -> None:
    """In the first one the worker is killed once at each step of the commit cycle."""
    undergo(stack, tmp_path, seed, lambda chance: blows_of(chance, kills, rounds))


def test_workers_join_leave_and_take_over_in_the_middle(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a", "b") as (first, second):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            first.start(NEVER_IDLE).wait_ready()
            wait_for_progress(probe)
            second.start(NEVER_IDLE).wait_ready()
            assert first.said('"revoked"')
            assert not first.said("releasing partitions takes long")
            wait_for_progress(probe)
            assert second.terminate() == 0, second.printed()[-4000:]
            wait_for_progress(probe)
            second.start(NEVER_IDLE).wait_ready()
            wait_for_progress(probe)
            first.kill()
        wait_until(probe.all_is_committed, "the second worker has caught up alone")
        end_of_run(second)
        assert_exactly_once(stack, probe, second, seed=SEED)


def wait_for_progress(probe: Probe, *, timeout_s: float = 60.0) -> None:
    """Wait until every partition has come further than it is now."""
    before = probe.committed() or {}

    def further() -> bool:
        now = probe.committed() or {}
        return len(now) == PARTITIONS and all(offset > before.get(partition, -1) for partition, offset in now.items())

    wait_until(further, f"every partition comes further than {before}", timeout_s=timeout_s)
