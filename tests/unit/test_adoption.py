"""A partition that a growth has brought begins with what its parent had of its keys, and of no others."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest

from streams.batch.key_hash import murmur2
from streams.batch.moved import MOVED_HEADER
from streams.engine import adoption
from streams.engine.adoption import Adoption, Clearing
from streams.engine.config import TaskConfig
from streams.engine.effects import CycleEnd
from streams.engine.journal_chain import RestoreFailed
from streams.engine.restore import restore_partition
from streams.engine.restore_adoption import NotCutYet
from streams.engine.snapshot import changelog_parts, journal_records
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.growth.layouts import Layouts
from streams.growth.stages import Phase, Standing
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.operators.base import ALL
from streams.operators.fold.operator import fold_name
from streams.state.identity import Identity
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.store import StoreOutdated
from tests.unit.test_declaration_changes import World, event, rooms

FLOW = replace(rooms(), bounds=Bounds(100, 10_000, quarantine_rejects=0))
CONFIG = TaskConfig(FLOW, lambda _: nullcontext(), partial(partitions_of, partitions=1))
TO_2 = Layouts.first(1).grown(2, Phase.BEGUN)
STAYS, MOVES = (next(b"room-%d" % n for n in range(99) if murmur2(b"room-%d" % n) % 2 == half) for half in (0, 1))
TABLE = FLOW.tables[0].topic


def a_parent() -> World:
    """Two rooms, each with two released events and one that is held."""
    world = World().restore(rooms())
    assert world is not None
    for key, first in ((STAYS, 1), (MOVES, 11)):
        world.feed(event(first, 1_000, key, warmth=20.0), event(first + 1, 1_200, key, warmth=25.0))
    world.feed(event(3, 1_400, STAYS, warmth=30.0), event(13, 1_400, MOVES, warmth=30.0))
    assert world.task.in_memory()["held"] == 2
    return world


def commit(world: World, task: PartitionTask) -> None:
    closed = task.cycle.close()
    assert closed is not None
    world.kafka.owners[task.partition] = "worker"
    world.committer.commit(CycleEnd([closed]), {task.partition: task}, 0, lambda: world.kafka.membership_of("worker"))


def cut(world: World) -> World:
    world.task.cut(TO_2)
    commit(world, world.task)
    return world


def restored(world: World, partition: int, store: MemoryStore | None = None) -> PartitionTask:
    return restore_partition(
        CONFIG, partition, store or MemoryStore(), MemoryChangelog(world.kafka), ids_in_memory_max=10**6, layouts=TO_2
    )


def has_row(task: PartitionTask, key: bytes) -> bool:
    return task.store.get_many([operator_prefix(fold_name(TABLE)) + key])[0] is not None


def test_a_child_waits_until_its_parent_has_cut() -> None:
    world = a_parent()
    with pytest.raises(NotCutYet, match=r"rooms\.events\.v1-0 has not given the state of its keys away yet"):
        restored(world, 1)
    cut(world)
    assert restored(world, 1).adoption is not None


def test_a_parent_holds_nothing_of_keys_that_have_moved_and_says_its_layout() -> None:
    world = cut(a_parent())
    assert world.task.in_memory()["held"] == 1
    assert world.task.standing == Standing(2)
    found = world.kafka.group[0]
    assert (found.epoch, found.offset_next) == (2, world.offset)
    again = restored(world, 0)
    assert (again.in_memory()["held"], again.identity.epoch) == (1, 2)
    assert (has_row(again, STAYS), has_row(again, MOVES)) == (True, False)


def test_a_child_takes_over_what_its_parent_had_of_its_keys_and_no_others() -> None:
    world = cut(a_parent())
    task = restored(world, 1)
    assert task.standing == Standing(0)
    while task.adoption is not None:
        commit(world, task)
        assert (world.kafka.group[1].epoch or 0) == task.epoch
    assert (task.standing, task.watermark) == (Standing(2), world.task.watermark)
    assert (has_row(task, STAYS), has_row(task, MOVES)) == (False, True)
    again = restored(world, 1)  # by its own journal and tables
    assert again.adoption is None
    assert (again.checkpoint.cycle, again.watermark) == (task.checkpoint.cycle, task.watermark)
    assert again.in_memory() == {"ids": 6, "held": 1}  # ids have no key
    assert (has_row(again, STAYS), has_row(again, MOVES)) == (False, True)
    rows = world.kafka.committed_rows(TABLE, 1)
    assert [row.key for row in rows] == [MOVES]


def test_what_the_child_had_taken_over_is_released_in_order_with_what_comes_to_itself() -> None:
    world = cut(a_parent())
    task = restored(world, 1)
    while task.adoption is not None:
        commit(world, task)
    again = restored(world, 1)
    released = again.on_idle(1_400).of("clean")
    assert [records.events.key.tolist() for records in released] == [[MOVES]]


def test_an_adoption_that_was_broken_off_begins_again_in_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "PORTION_BYTES_MAX", 1)
    world = cut(a_parent())
    store = MemoryStore()
    first = restored(world, 1, store)
    commit(world, first)
    assert first.adoption is not None
    with pytest.raises(StoreOutdated, match="begins again"):
        restored(world, 1, store)
    second = restored(world, 1)
    cycles = 0
    while second.adoption is not None:
        commit(world, second)
        cycles += 1
    again = restored(world, 1)
    assert again.in_memory() == {"ids": 6, "held": 1}
    assert again.checkpoint.cycle == 1 + cycles


def test_a_partition_of_a_layout_that_nobody_knows_is_refused() -> None:
    world = cut(a_parent())
    with pytest.raises(RestoreFailed, match="partition layout 2"):
        restore_partition(
            CONFIG, 0, MemoryStore(), MemoryChangelog(world.kafka), ids_in_memory_max=10**6, layouts=Layouts.first(1)
        )


def test_keys_are_given_away_between_cycles_only() -> None:
    world = a_parent()
    world.task.has_output = True
    with pytest.raises(RuntimeError, match="between cycles"):
        world.task.cut(TO_2)


# --- portions ---------------------------------------------------------------------------------------------------------


def test_an_adoption_is_cut_into_cycles_of_bounded_size_of_which_the_last_one_completes_it() -> None:
    before, after = Identity(epoch=1), Identity(epoch=2)
    sections = {"a": [b"xxx", b"yyy"], "b": [b"z", b"w" * 9]}
    found = Adoption(sections, iter(()), event_time_max=1, before=before, after=after, portion_bytes_max=4)
    portions = []
    while not found.is_closed:
        portions.append(found.next())
    assert [portion.sections for portion in portions] == [
        {"a": [b"xxx"]}, {"a": [b"yyy"], "b": [b"z"]}, {"b": [b"w" * 9]},
    ]  # fmt: skip
    assert [portion.identity.epoch for portion in portions] == [1, 1, 2]


def test_an_adoption_of_nothing_is_one_cycle() -> None:
    found = Adoption({}, iter(()), event_time_max=1, before=Identity(epoch=1), after=Identity(epoch=2))
    assert found.next().identity.epoch == 2
    assert found.is_closed


def test_rows_are_cleared_in_pieces_and_then_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "TOMBSTONES_MAX", 2)
    found = Clearing(0, 2, {"t": iter([b"a", b"b", b"c"]), "u": iter([b"d"])}, header=b"2:1")
    pieces = []
    while piece := found.next():
        pieces += [(one.topic, one.partition, list(one.keys), one.headers) for one in piece]
        assert not found.is_done
    assert found.is_done
    headers = [(MOVED_HEADER, b"2:1")]
    assert pieces == [("t", 0, [b"a", b"b"], headers), ("t", 0, [b"c"], headers), ("u", 0, [b"d"], headers)]


def test_a_parent_that_is_written_again_has_nothing_of_keys_that_have_moved() -> None:
    """As `streams state rebuild --from local` does it: its store has their rows until that is made anew."""
    world = cut(a_parent())
    task = world.task
    task.maintenance.spill(below=ALL, rows_keep=0, keep_keys=False)
    assert has_row(task, MOVES)
    home = CONFIG.home(0)
    TO_2.enter(home, 2)
    parts = list(changelog_parts(CONFIG, task.store, 0, TABLE, home))
    assert [STAYS] == [key for part in parts for key in part.rows.keys.tolist()]
    records = journal_records(
        CONFIG, 0, task.store, task.checkpoint, task.checkpoint.identity, bytes_max=1 << 20, layouts=TO_2
    )
    kafka = MemoryKafka(1)
    kafka.logs[FLOW.source, 0] = world.kafka.log(FLOW.source, 0)
    for record in records:
        kafka.append(FLOW.journal, 0, None, record, 0)
    again = restore_partition(CONFIG, 0, MemoryStore(), MemoryChangelog(kafka), ids_in_memory_max=10**6, layouts=TO_2)
    assert again.epoch == 2
    assert again.in_memory()["held"] == 1
