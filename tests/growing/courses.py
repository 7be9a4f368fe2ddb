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
QUIET_LONG_MS: Final = 30_000
"""More than traffic pauses while nine processes start on two cores. The product's own default is ten minutes."""
OVER_S_MAX: Final = 300.0
SPREAD_S_MAX: Final = 300.0
"""From the start of further workers until every worker has its partition."""
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
    spread_s: float | None = None
    """From the command's start until each of the workers that were added had a partition; None: none were added."""


@dataclass(slots=True)
class Scene:
    """What a course plays in."""

    stack: Stack
    workers: list[Worker]
    """Those that run from the beginning."""
    further: list[Worker]
    """Those that a course starts."""
    traffic: GrowingTraffic
    chance: random.Random
    group_protocol: str
    quiet_ms: int
    spread_at_s: float | None = None
    """When every worker that a course has added had a partition, in seconds since 1970."""

    def start(self, worker: Worker) -> None:
        """Start a worker with this scene's settings."""
        worker.start({"STREAMS_GROWTH_QUIET_MS": str(self.quiet_ms), "STREAMS_GROUP_PROTOCOL": self.group_protocol})

    def start_all(self) -> None:
        """Start every worker that runs from the beginning, and wait until it is ready."""
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


def scaled(scene: Scene, growth: Growth) -> None:
    """As soon as the source has its partitions, as many workers are added as give each partition one of its own.

    All at once, as a StatefulSet with `podManagementPolicy: Parallel` does.
    """
    admin = admin_of(scene.stack)
    wait_until(lambda: partition_counts(admin).get(GPS.source) == AFTER, "the source has its partitions", timeout_s=180)
    for worker in scene.further:
        scene.start(worker)
    every = [*scene.workers, *scene.further]
    wait_until(
        lambda: [1] * AFTER == [len(worker.partitions()) for worker in every],
        "every worker has one partition",
        timeout_s=SPREAD_S_MAX,
    )
    for worker in every:
        worker.wait_ready(timeout_s=SPREAD_S_MAX)
    scene.spread_at_s = time.time()
    moved(growth)


def moved(growth: Growth) -> None:
    """Wait until every key is at home; what is left are producers that learn of it late."""
    wait_until(lambda: growth.has_come_to("settled"), f"all keys have moved: {growth.steps[-3:]}", timeout_s=OVER_S_MAX)


@dataclass(frozen=True, slots=True)
class Course:
    """A trouble, and what happens before the growth begins."""

    what: str
    run: Callable[[Scene, Growth], None]
    backlog: int = 0
    afterwards_s: float = 0.0
    """Traffic with all keys at home, before producers that keep the former number of partitions are released."""
    workers: int = 2
    """So many run from the beginning."""
    further: int = 0
    """So many are started by the course."""
    quiet_ms: int = QUIET_MS
    """After so long without a record by the former number, one that comes later may be late."""


COURSES: Final = {
    "live": Course("under load", live),
    "backlog": Course(f"with a backlog of {BACKLOG:,} records", live, BACKLOG),
    "kills": Course(f"{KILLS} SIGKILLs of random workers", killed),
    "away": Course(f"a parent's worker is away for {AWAY_S:.0f} s", away),
    "untold": Course(
        f"a producer that keeps 3 partitions for {UNTOLD_S / 60:.0f} minutes", live, afterwards_s=UNTOLD_S
    ),
    "scale": Course(
        f"3 workers become {AFTER} at the same time",
        scaled,
        afterwards_s=STEADY_S,
        workers=3,
        further=AFTER - 3,
        quiet_ms=QUIET_LONG_MS,
    ),
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
    with workers(
        stack, directory / name, *(f"{name}-{number}" for number in range(course.workers + course.further))
    ) as made:
        traffic = GrowingTraffic(stack, devices=devices, records_per_s=records_per_s, slow=devices // 8)
        first, further = made[: course.workers], made[course.workers :]
        scene = Scene(stack, first, further, traffic, random.Random(seed), group_protocol, course.quiet_ms)
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
                time.sleep(course.afterwards_s)
                traffic.release_slow()
                growth.wait(OVER_S_MAX)
            still(stack, lambda: clean_count(stack), traffic.sent.count, timeout_s=OVER_S_MAX)
        count = counted(stack, traffic.sent)
        if partition_counts(admin_of(stack))[GPS.source] != AFTER:
            count.details.append(f"the source has not got {AFTER} partitions")
        for worker in made:
            assert worker.terminate() == 0, worker.printed()[-3000:]
    pause_s, pause_at_s = (None, None) if course.backlog else _pause(seen, began_s)
    spread_s = None if scene.spread_at_s is None else scene.spread_at_s - began_s
    return Result(course.what, count, pause_s, pause_at_s, grown_s, spread_s)


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
        spread = "" if one.spread_s is None else f", a worker for each partition after {one.spread_s:.0f} s"
        found.append(
            f"| {one.course} | {count.clean:,} | {count.lost} | {count.doubled} | {count.out_of_order} "
            f"| {count.late + count.dead} | {rows_wrong} | {pause} | {one.grown_s:.0f} s{spread} |"
        )
    return found
