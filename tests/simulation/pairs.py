"""Pairs of random logs, joined: in any interleaving of arrival, with everything that must not matter, against a model.

What must not matter (I8): which input is read first, where the logs are cut into batches and cycles, crashes at any
step that keep the store or lose it, spilling, expiry, and truncation of the journal. Clocks of the inputs are up to an
hour apart, and each may be silent for an hour of event time. Rows are compared in the order in which they were written:

    make simulate SEED=17 ARGS='--runs 100'
"""

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from streams.testing import Crash, FlowDriver
from tests.joined import NONE, Interval, Latest, Model, Table, rows_of
from tests.merged import Fed, random_logs, schemas_of

TIMES_MS = (0, 200, 1_000, 4_000, 20_000)


@dataclass(frozen=True)
class Outcome:
    """Of one seed."""

    model: Model
    rows: int
    matched: int
    crashes: int
    truncations: int


def model_of(rng: random.Random) -> Model:
    """A join of any kind, with any bounds."""
    outer, grace_ms = rng.random() < 0.7, rng.choice(TIMES_MS)
    match rng.randrange(4):
        case 0:
            return Latest(rng.choice(TIMES_MS[1:]), grace_ms, outer)
        case 1:
            return Table("event_time", grace_ms, rng.choice((0, 2_000, 30_000)), outer)
        case 2:
            return Table("arrival", 0, rng.choice((0, 2_000, 30_000)), outer)
        case _:
            return Interval(rng.choice(TIMES_MS), rng.choice(TIMES_MS), grace_ms, outer, rng.choice((1, 2, 100)))


def simulate_pair(seed: int, schemas: Path, *, events: int = 60) -> Outcome:
    """Join the logs of a seed.

    Raises:
        AssertionError: something else came out than the model says.

    """
    rng = random.Random(seed)
    model, partitions = model_of(rng), rng.randint(1, 3)
    begins = rng.choice(((10_000,), (10_000, 30_000), (10_000, 3_600_000)))
    logs = random_logs(rng, events=events, begins=begins, silence=rng.choice((0.0, 0.02)))
    with mock.patch("streams.engine.journal_index.JOURNAL_INDEX_RECORDS", rng.choice((1, 2, 5))):
        driver = FlowDriver(model.flow(), schemas=schemas, partitions=partitions)
        crashes = _fed(driver, {name: list(log) for name, log in logs.items()}, rng)
    cut = sum(topic == driver._pipeline.journal for topic, _ in driver._kafka.begin_offset)
    found, wanted = rows_of(driver), model.due(logs, partitions)
    assert found == wanted, f"seed {seed}, {model}: {found} and not {wanted}"
    return Outcome(model, len(found), sum(row[-1] != NONE for row in found), crashes, cut)


def _fed(driver: FlowDriver, left: dict[str, list[Fed]], rng: random.Random) -> int:
    """Feed the logs with all that happens meanwhile; returns how often the worker was killed."""
    crashes = 0
    while any(left.values()):
        name = rng.choice([name for name, log in left.items() if log])
        count = rng.randint(1, 12)
        if rng.random() < 0.2:
            driver.crash(rng.choice(list(Crash)))
            crashes += 1
        driver.feed(*(each.event() for each in left[name][:count]), of=name)
        del left[name][:count]
        _maintained(driver, rng)
        if rng.random() < 0.1:
            driver.crash()
            crashes += 1
        if rng.random() < 0.05:
            driver.lose_disk()
            crashes += 1
    return crashes


def _maintained(driver: FlowDriver, rng: random.Random) -> None:
    """Between cycles: state is moved to the store, forgotten, and cut off in the journal, in each partition or not."""
    for partition, task in driver._engine.tasks.items():
        if rng.random() < 0.3:
            task.maintenance.spill(below=task.watermark, rows_keep=rng.choice((0, 1, 3)), keep_keys=rng.random() < 0.3)
        if rng.random() < 0.3:
            task.maintenance.expire()
        if rng.random() < 0.3 and (cut := task.maintenance.truncate_journal_before()) is not None:
            driver._kafka.begin_offset[driver._pipeline.journal, partition] = cut


def main() -> int:
    parser = argparse.ArgumentParser(description="Join pairs of seeded logs, disturbed in every way.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--events", type=int, default=60, help="of each log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        schemas = schemas_of(Path(directory))
        for seed in range(options.seed, options.seed + options.runs):
            found = simulate_pair(seed, schemas, events=options.events)
            sys.stdout.write(
                f"pair {seed}: {found.model}: rows {found.rows}, of them matched {found.matched}, crashes "
                f"{found.crashes}: as the model says\n"
            )
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
