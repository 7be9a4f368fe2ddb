"""One seeded run of the model, compared with one log for each partition that there was at the beginning."""

import random
from collections import Counter
from dataclasses import dataclass

from streams.batch.columns import TIME_MIN
from tests.simulation.growth.broker import Record
from tests.simulation.growth.task import LATENESS, hash_of
from tests.simulation.growth.world import World, new_world

STEPS = 900


@dataclass(frozen=True)
class Grown:
    """What a run has shown."""

    partitions: tuple[int, ...]
    sent: int
    forwarded: int
    late: int
    kills: int


def simulate_growth(seed: int, *, steps: int = STEPS) -> Grown:
    """Run one seed and check what came of it; AssertionError names the seed."""
    try:
        return _run(seed, steps)
    except Exception as error:
        error.add_note(f"failed: make simulate-grow SEED={seed}")
        raise


def _run(seed: int, steps: int) -> Grown:
    rng = random.Random(seed)
    world = new_world(rng)
    first = world.broker.layout.partitions
    begins_at = rng.randint(0, steps // 3)
    backlog = rng.random() < 0.3
    for _ in range(steps):
        world.now += 1
        for _ in range(rng.choice((0, 1, 2))):
            world.send()
        if backlog and begins_at - 100 < world.now < begins_at:
            continue  # nobody works
        if world.now == begins_at - 30:
            world.add_by_hand()
        if world.now > begins_at and rng.random() < 0.3:
            world.command()
        for _ in range(rng.choice((1, 3, 6)) * (2 if world.now > begins_at else 1)):
            world.work()
    world.finish()
    _check(world, first)
    broker = world.broker
    forwarded = sum(item.record is not None for items in broker.forwarded.values() for item in items)
    return Grown((first, *world.targets), len(world.all_sent), forwarded, len(broker.late), world.kills)


def _check(world: World, first: int) -> None:
    broker = world.broker
    sent = Counter(record.number for record in world.all_sent)
    came = Counter(record.number for record in (*broker.clean, *broker.late, *broker.duplicates))
    assert came == sent, f"I1: {len(sent - came)} lost, {len(came - sent)} doubled"
    events = Counter(record.ident for record in (*broker.clean, *broker.late))
    assert not [ident for ident, count in events.items() if count > 1], "I2: an event twice"
    last: dict[int, Record] = {}
    counts: Counter[int] = Counter()
    for record in broker.clean:
        before = last.get(record.key)
        assert before is None or before.order <= record.order, f"I3: {before} before {record}"
        last[record.key] = record
        counts[record.key] += 1
    _check_table(world, last, counts)
    if world.is_by_hand:
        return  # records of new partitions may be older than the cut
    in_time = _in_time(world.all_sent, first)
    needless = [record for record in broker.late if record.number in in_time and not record.is_exempt]
    assert not needless, f"late by the growth: {needless}"


def _check_table(world: World, last: dict[int, Record], counts: Counter[int]) -> None:
    partitions = world.broker.counts["table"]
    found: dict[int, tuple[int, int]] = {}
    for partition in range(partitions):
        for key, row in world.broker.rows(partition).items():
            assert key not in found, f"two rows of key {key}"
            assert hash_of(key) % partitions == partition, f"key {key} in partition {partition}"
            found[key] = (row.count, row.last)
    assert found == {key: (counts[key], record.ident) for key, record in last.items()}, "I4: the table differs"


def _in_time(sent: list[Record], partitions: int) -> set[int]:
    """Records that are ahead of the watermark at their place in the one log that they would have been in."""
    watermarks = dict.fromkeys(range(partitions), TIME_MIN)
    found = set()
    for record in sent:
        at = record.key_hash % partitions
        watermarks[at] = max(watermarks[at], record.event_time - LATENESS)
        if record.event_time > watermarks[at]:
            found.add(record.number)
    return found
