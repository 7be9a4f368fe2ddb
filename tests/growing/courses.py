"""The courses: a growth of the flow `gps` from 3 to 12 partitions, each with a trouble of its own.

Traffic comes all the time from three groups of producers, of which one keeps the number of partitions that it knows
until a course releases it. What came out is counted by somebody who knows nothing of partitions
(`tests.integration.growing`): for each key all that was sent, once and in its order, and one row.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from loadtest.growth.visible import VisibleEvents
from logistics.flows.gps import GPS
from streams.kafka.admin import partition_counts
from streams.local.stack import Stack
from tests.integration.growing import Count, GrowingTraffic, Growth, clean_count, counted, still
from tests.integration.kafka_helpers import admin_of, settings_of
from tests.integration.workers import Worker, fresh_world, wait_until, workers

AFTER: Final = 12
BACKLOG: Final = 240_000
KILLS: Final = 5
KILLED_EVERY_S: Final = 4.0
AWAY_S: Final = 60.0
UNTOLD_S: Final = 300.0
STEADY_S: Final = 10.0
"""Traffic before the growth, by which its latency is judged."""
QUIET_MS: Final = 2_000
SETTINGS: Final = {"STREAMS_GROWTH_QUIET_MS": str(QUIET_MS)}
OVER_S_MAX: Final = 300.0
MARGIN_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a course."""

    course: str
    count: Count
    pause_s: float | None
    """By how much the latest event was visible later than half of them were before the growth; None: not measured."""
    pause_at_s: float | None
    """When that event was to be sent: so long after the growth began."""
    grown_s: float
    """From the command's start until every key has moved."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a course plays in."""

    stack: Stack
    workers: list[Worker]
    traffic: GrowingTraffic
    chance: random.Random
    group_protocol: str

    def start(self, worker: Worker) -> None:
        """Start a worker with this scene's settings."""
        worker.start({**SETTINGS, "STREAMS_GROUP_PROTOCOL": self.group_protocol})

    def start_all(self) -> None:
        """Start every worker and wait until it is ready."""
        for worker in self.workers:
            self.start(worker)
        for worker in self.workers:
            worker.wait_ready(timeout_s=180)


def live(scene: Scene, growth: Growth) -> None:
    """Nothing else happens."""
    moved(growth)


def killed(scene: Scene, growth: Growth) -> None:
    """Workers are killed at random, one after the other, and start again at once."""
    wait_until(lambda: growth.has_come_to("Write"), "the growth is under way")
    for _ in range(KILLS):
        worker = scene.chance.choice(scene.workers)
        worker.kill()
        scene.start(worker)
        time.sleep(scene.chance.uniform(0.5, KILLED_EVERY_S))
    moved(growth)


def away(scene: Scene, growth: Growth) -> None:
    """A worker of parents dies as its keys are about to move, and is away for a minute; the other takes over."""
    wait_until(lambda: growth.has_come_to("adopted"), "parents have cut")
    worker = scene.workers[0]
    worker.kill()
    time.sleep(AWAY_S)
    scene.start(worker)
    moved(growth)


def untold(scene: Scene, growth: Growth) -> None:
    """Some producers know three partitions for five minutes more."""
    moved(growth)
    time.sleep(UNTOLD_S)


def moved(growth: Growth) -> None:
    """Wait until every key is at home; what is left are producers that learn of it late."""
    wait_until(lambda: growth.has_come_to("settled"), f"all keys have moved: {growth.steps[-3:]}", timeout_s=OVER_S_MAX)


@dataclass(frozen=True, slots=True)
class Course:
    """A trouble, and what happens before the growth begins."""

    what: str
    run: Callable[[Scene, Growth], None]
    backlog: int = 0


COURSES: Final = {
    "live": Course("under load", live),
    "backlog": Course(f"with a backlog of {BACKLOG:,} records", live, BACKLOG),
    "kills": Course(f"{KILLS} SIGKILLs of random workers", killed),
    "away": Course(f"a parent's worker is away for {AWAY_S:.0f} s", away),
    "untold": Course(f"a producer that keeps 3 partitions for {UNTOLD_S / 60:.0f} minutes", untold),
}


def run(
    stack: Stack, directory: Path, name: str, *, records_per_s: int, devices: int, seed: int, group_protocol: str
) -> Result:
    """Play one course on fresh topics.

    Raises:
        AssertionError: it did not come to its end.

    """
    course = COURSES[name]
    fresh_world(stack)
    # Names of their own: a static member that comes back within its session is given what it had, of the former topic.
    with workers(stack, directory / name, f"{name}-a", f"{name}-b") as made:
        traffic = GrowingTraffic(stack, devices=devices, records_per_s=records_per_s, slow=devices // 8)
        scene = Scene(stack, list(made), traffic, random.Random(seed), group_protocol)
        if course.backlog:
            traffic.send(course.backlog)
        with VisibleEvents(settings_of(stack), GPS.clean) as seen:
            scene.start_all()
            with traffic:
                if not course.backlog:
                    time.sleep(STEADY_S)
                began_s = time.time()
                growth = Growth(stack, AFTER).start()
                course.run(scene, growth)
                grown_s = time.time() - began_s
                traffic.release_slow()
                growth.wait(OVER_S_MAX)
            still(stack, lambda: clean_count(stack), traffic.sent.count, timeout_s=OVER_S_MAX)
        count = counted(stack, traffic.sent)
        if partition_counts(admin_of(stack))[GPS.source] != AFTER:
            count.details.append(f"the source has not got {AFTER} partitions")
        for worker in made:
            assert worker.terminate() == 0, worker.printed()[-3000:]
    pause_s, pause_at_s = (None, None) if course.backlog else _pause(seen, began_s)
    return Result(course.what, count, pause_s, pause_at_s, grown_s)


def _pause(seen: VisibleEvents, began_s: float) -> tuple[float, float]:
    """By how much the latest event since the growth began was later than half of those before it; when it was due."""
    began_ms = began_s * 1000 - MARGIN_MS
    _, before = seen.latencies_ms(0, began_ms)
    due, since = seen.latencies_ms(began_ms, time.time() * 1000)
    latest = int(since.argmax())
    return float(since[latest] - np.median(before)) / 1000, float(due[latest]) / 1000 - began_s


def lines(results: list[Result]) -> list[str]:
    """A table in Markdown."""
    head = (
        "| growth from 3 to 12 | events | lost | doubled | out of order | late | rows wrong | longest pause | moved in"
    )
    found = [f"{head} |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for one in results:
        count = one.count
        rows_wrong = count.rows_wrong + count.rows_not_at_home + count.keys_with_two_rows
        pause = "-" if one.pause_s is None else f"{one.pause_s:.1f} s, due at {one.pause_at_s:.0f} s"
        found.append(
            f"| {one.course} | {count.clean:,} | {count.lost} | {count.doubled} | {count.out_of_order} "
            f"| {count.late + count.dead} | {rows_wrong} | {pause} | {one.grown_s:.0f} s |"
        )
    return found
