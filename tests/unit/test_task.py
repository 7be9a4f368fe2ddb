from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.batch.columns import TIME_MIN, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_values
from streams.engine.config import TaskConfig
from streams.engine.cycle import Written
from streams.engine.effects import TaskCommit
from streams.engine.journal_index import read_journal_index
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.limits import JOURNAL_INDEX_RECORDS
from streams.operators.quarantine.breakers import DeviceBreakers
from streams.operators.quarantine.operator import QuarantineOperator
from streams.state.checkpoint import Checkpoint
from streams.state.journal import Position
from streams.state.memory import MemoryStore
from streams.state.names import CHECKPOINT, operator_prefix
from streams.state.store import Store
from tests.effects import clean, duplicates, late
from tests.journalled import Journalled, unpacked

LATENESS_MS, HORIZON_MS = 10, 1_000
HELD, LAST_DUE, SPILLED_IDS = map(operator_prefix, ("reorder.held", "reorder.last", "dedup"))
FIELDS = Fields(GPS.payload_fields, GPS.text_fields)


class ClosingStore(MemoryStore):
    def __init__(self, durable: dict[bytes, bytes] | None = None) -> None:
        super().__init__(durable)
        self.is_closed = False

    def close(self) -> None:
        super().close()
        self.is_closed = True

    def opened_again(self) -> MemoryStore:
        return MemoryStore(self._durable)


def task_over(store: ClosingStore, **options: Any) -> PartitionTask:
    limits: dict[str, Any] = {"lateness_ms": LATENESS_MS, "horizon_ms": HORIZON_MS, **options}
    config = TaskConfig(
        replace(
            GPS,
            windows=limits.get("windows", GPS.windows),
            bounds=Bounds(limits["lateness_ms"], limits["horizon_ms"], quarantine_rejects=0),
        ),
        lambda _: nullcontext(),
        lambda keys: np.array([key.startswith(b"other") for key in keys], dtype=np.int64),
    )
    return PartitionTask(config, 0, store, None)


@pytest.fixture
def store() -> ClosingStore:
    return ClosingStore()


@pytest.fixture
def task(store: ClosingStore) -> PartitionTask:
    return task_over(store)


def events(*rows: tuple[int, int], key: bytes = b"d") -> Events:
    """Events of (id number, event time)."""
    number, times = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    count = len(rows)
    return Events(
        row=np.arange(count),
        timestamp_ms=times,
        event_time=times,
        sequence=number,
        event_id=objects([b"e%d" % i for i in number]),
        id_hi=number.astype(np.uint64),
        id_lo=number.astype(np.uint64),
        id_word=(2 * times + 2).astype(np.uint64),
        key=objects([key] * count),
        value=objects([b"v%d" % i for i in number]),
        headers=None,
        payload=np.ones((4, count)),
        texts=object_rows([], count),
        slot=np.full(count, -1),
        fields=FIELDS,
    )


def closed(task: PartitionTask) -> TaskCommit:
    """The open cycle, with something in it, before it is committed."""
    commit = task.cycle.close()
    assert commit is not None
    return commit


def checkpoint_in(store: Store) -> Checkpoint:
    [found] = store.get_many([CHECKPOINT])
    assert found is not None
    return Checkpoint.unpack(found)


def none() -> Events:
    return events((0, 0)).take(slice(0, 0))


class Cycles:
    """Commits cycles: a journal of one record each, from position 0 on."""

    def __init__(self, task: PartitionTask) -> None:
        self.task = task
        self.next = 0
        self.entries: list[Journalled] = []

    def __call__(self) -> TaskCommit | None:
        commit = self.task.cycle.close()
        if commit is None:
            return None
        self.apply(commit)
        return commit

    def close(self) -> TaskCommit:
        """A cycle that has happened, with something in it."""
        commit = self()
        assert commit is not None
        return commit

    def apply(self, commit: TaskCommit) -> None:
        first, self.next = self.next, self.next + len(commit.journal)
        self.entries += [unpacked(record, FIELDS) for record in commit.journal]
        self.task.cycle.applied(commit, Written(first, self.next, {"vehicles.state.v1": self.next * 10}))


@pytest.fixture
def cycle(task: PartitionTask) -> Cycles:
    return Cycles(task)


def values(released: Events | None) -> list[bytes]:
    return [] if released is None else byte_values(released.value)


def test_a_new_task_has_done_nothing(task: PartitionTask) -> None:
    assert task.is_settled
    assert task.cycle.close() is None
    assert task.maintenance.truncate_journal_before() is None
    assert (task.watermark, task.offset_next) == (TIME_MIN, -1)


def test_a_flow_without_windows_waits_for_its_held_events_alone(store: ClosingStore) -> None:
    """The orders pipeline has none: a worker of it ended with its first idle partition."""
    task = task_over(store, windows=())
    assert task.next_timer() > 10**15
    task.on_batch(events((1, 100)), 1)
    assert task.next_timer() == 100
    assert values(clean(task.on_idle(100))) == [b"v1"]


def test_an_event_is_held_until_the_watermark_has_passed_it(task: PartitionTask) -> None:
    assert values(clean(task.on_batch(events((1, 100)), 1))) == []
    assert task.next_timer() == 100
    assert values(clean(task.on_batch(events((2, 110)), 2))) == [b"v1"]
    assert values(clean(task.on_idle(110))) == [b"v2"]


def test_a_batch_of_rejects_only_moves_the_offset_and_makes_a_cycle(task: PartitionTask, cycle: Cycles) -> None:
    assert values(clean(task.on_batch(none(), 7))) == []
    commit = cycle.close()
    assert (commit.offset_next, commit.cycle, commit.watermark) == (7, 1, TIME_MIN)
    assert checkpoint_in(task.store).offset_next == 7


def test_the_second_copy_is_counted_and_goes_nowhere(task: PartitionTask) -> None:
    found = task.on_batch(events((1, 100), (1, 100)), 2)
    assert (duplicates(found), late(found)) == (1, [])
    assert duplicates(task.on_batch(events((1, 100)), 3)) == 1
    assert task.in_memory()["held"] == 1


def test_an_event_beyond_the_horizon_is_late_and_not_remembered(task: PartitionTask) -> None:
    task.on_batch(events((1, 5_000)), 1)
    horizon = 5_000 - LATENESS_MS - HORIZON_MS
    for _ in range(2):
        [part] = late(task.on_batch(events((2, horizon - 1)), 2))
        assert (part.beyond_horizon, part.by_ms.tolist()) == (True, [1])
    assert late(task.on_batch(events((2, horizon)), 3)) == []


def test_events_of_another_partitions_keys_are_processed_and_counted(task: PartitionTask) -> None:
    effects = task.on_batch(events((1, 5), key=b"other"), 1)
    assert effects.misrouted == 1
    assert effects.misrouted_keys == [b"other"]


def test_a_watermark_that_idles_never_goes_back(task: PartitionTask) -> None:
    task.on_batch(events((1, 100)), 1)
    task.on_idle(50)
    assert task.watermark == 90


# --- cycles -------------------------------------------------------------------------------------------------------


def test_a_cycle_holds_what_happened_since_the_last_one(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    commit = cycle.close()
    [entry] = cycle.entries
    found = entry.entry
    assert (found.cycle, found.positions, found.event_time_max) == (1, {GPS.source: Position(2, 190)}, 200)
    assert (len(entry.ids), entry.held.value.tolist(), entry.due.event_id.tolist()) == (2, [b"v2"], [b"e1"])
    assert [table.keys.tolist() for table in commit.changelogs] == [[b"d"]]
    assert cycle() is None
    task.on_batch(events((3, 205)), 3)
    cycle()
    assert (cycle.entries[1].entry.cycle, len(cycle.entries[1].ids), cycle.entries[1].held.value.tolist()) == (
        2,
        1,
        [b"v3"],
    )


def test_an_idle_release_alone_makes_a_cycle_at_the_same_offset(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100)), 1)
    cycle()
    task.on_idle(100)
    commit = cycle.close()
    assert (commit.cycle, commit.offset_next, commit.watermark) == (2, 1, 100)


def test_nothing_of_an_open_cycle_is_in_the_store(task: PartitionTask, store: ClosingStore, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    commit = closed(task)
    assert list(store.scan(b"")) == []
    cycle.apply(commit)
    marker = checkpoint_in(store)
    assert (marker.cycle, marker.offset_next, marker.watermark, marker.journal_next) == (1, 2, 190, 1)
    assert marker.tables_next == {"vehicles.state.v1": 10}
    assert store.get_many([LAST_DUE + b"d"]) != [None]


def test_the_next_batch_may_be_processed_while_a_commit_is_in_flight(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    commit = closed(task)
    found = task.on_batch(events((2, 200), (3, 300)), 4)
    assert (values(clean(found)), duplicates(found)) == ([b"v2"], 1)
    settled = [task.is_settled]
    cycle.apply(commit)
    settled.append(task.is_settled)
    cycle()
    settled.append(task.is_settled)
    assert settled == [False, False, True]
    assert task.checkpoint.offset_next == 4


# --- moving state -------------------------------------------------------------------------------------------------


def spill(task: PartitionTask, **options: int) -> None:
    given: dict[str, Any] = {"below": 10**12, "rows_keep": 0, "keep_keys": False}
    task.maintenance.spill(**{**given, **options})


def test_keys_of_events_that_wait_come_back_into_memory_only_when_the_events_are_due(task: PartitionTask) -> None:
    cycles = Cycles(task)
    task.on_batch(events((1, 10_000), key=b"a"), 1)
    task.on_batch(events((2, 10_001), key=b"b"), 2)
    cycles.close()
    task.maintenance.spill(below=0, rows_keep=10, keep_keys=False)
    assert len(task.keys) == 0
    assert task.in_memory()["held"] == 2
    assert values(clean(task.on_idle(10_000))) == [b"v1"]
    assert len(task.keys) == 1


def test_state_cannot_be_moved_while_a_cycle_is_open_or_in_flight(
    task: PartitionTask, store: ClosingStore, cycle: Cycles
) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    with pytest.raises(RuntimeError, match="partition 0: state can be moved between cycles only"):
        spill(task)
    commit = closed(task)
    with pytest.raises(RuntimeError, match="between cycles only"):
        spill(task)
    assert list(store.scan(b"")) == []
    cycle.apply(commit)
    spill(task)
    task.on_idle(200)
    with pytest.raises(RuntimeError, match="between cycles only"):
        spill(task)


def test_state_cannot_be_moved_when_only_duplicates_came(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100)), 1)
    cycle()
    task.on_batch(events((1, 100)), 2)
    with pytest.raises(RuntimeError, match="between cycles only"):
        spill(task)


def test_moved_ids_are_still_known_and_moved_events_still_come(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 105), (3, 140)), 3)
    cycle()
    spill(task)
    assert (task.in_memory()["ids"], task.in_memory()["held"]) == (0, 0)
    assert duplicates(task.on_batch(events((1, 100), (2, 105), (3, 140)), 6)) == 3
    assert task.next_timer() == 140
    assert values(clean(task.on_idle(140))) == [b"v3"]


def test_ids_behind_the_horizon_are_forgotten_without_any_pressure(task: PartitionTask, cycle: Cycles) -> None:
    """They had stayed until memory was short: ten minutes of a short horizon grew by 40%."""
    task.on_batch(events((1, 100), (2, 200)), 2)
    cycle()
    task.maintenance.expire()
    assert task.in_memory()["ids"] == 2
    task.on_batch(events((3, 200 + HORIZON_MS), (4, 215 + HORIZON_MS)), 4)
    cycle()
    task.maintenance.expire()
    assert task.in_memory()["ids"] == 2
    found = task.on_batch(events((1, 100), (3, 200 + HORIZON_MS)), 6)
    assert [one.beyond_horizon for one in late(found)] == [True]
    assert duplicates(found) == 1


def test_ids_are_forgotten_in_steps_and_between_cycles_only(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 111 + HORIZON_MS)), 2)
    with pytest.raises(RuntimeError, match="between cycles only"):
        task.maintenance.expire()
    cycle()
    task.maintenance.expire()
    assert task.in_memory()["ids"] == 1
    task.on_batch(events((3, 112 + HORIZON_MS), (4, 200 + HORIZON_MS)), 4)
    cycle()
    task.maintenance.expire()
    assert task.in_memory()["ids"] == 3, "nothing was expected: less than an eighth of the horizon has passed"


@pytest.mark.thorough
def test_a_journal_of_expired_ids_is_neither_replayed_nor_kept(task: PartitionTask, cycle: Cycles) -> None:
    for number in range(2 * JOURNAL_INDEX_RECORDS):
        task.on_batch(events((number, 100 + number)), number + 1)
        cycle()
    assert task.maintenance.truncate_journal_before() is None
    task.on_batch(events((9_999, 10 * HORIZON_MS)), 9_999)
    cycle()
    task.maintenance.expire()
    assert task.checkpoint.replay_from >= JOURNAL_INDEX_RECORDS
    assert task.maintenance.truncate_journal_before() is not None


def test_what_is_moved_completely_needs_no_replay(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    cycle()
    assert task.checkpoint.replay_from == 0
    spill(task)
    assert (task.checkpoint.replay_from, task.checkpoint.journal_next) == (1, 1)
    assert checkpoint_in(task.store) == task.checkpoint


def test_what_is_held_in_memory_keeps_its_journal(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    cycle()
    spill(task, rows_keep=10)
    assert task.checkpoint.replay_from == 0
    assert task.in_memory()["held"] == 1


def test_a_parked_task_has_everything_in_its_store(task: PartitionTask, store: ClosingStore, cycle: Cycles) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    cycle()
    task.maintenance.park()
    assert store.is_closed
    kept = store.opened_again()
    marker = checkpoint_in(kept)
    assert marker.replay_from == marker.journal_next == 1
    assert len(list(kept.scan(HELD))) == 1
    assert len(list(kept.scan(SPILLED_IDS))) == 1


@pytest.mark.parametrize("closed", [False, True])
def test_parking_an_unsettled_task_saves_nothing_that_is_not_committed(
    task: PartitionTask, store: ClosingStore, cycle: Cycles, closed: bool
) -> None:
    task.on_batch(events((1, 100), (2, 200)), 2)
    cycle()
    before = list(store.scan(b""))
    task.on_batch(events((3, 300), (4, 400)), 4)
    if closed:
        task.cycle.close()
    task.maintenance.park()
    assert store.is_closed
    assert list(store.scan(b"")) == before


def test_parking_a_task_that_has_done_nothing_leaves_an_empty_store(task: PartitionTask, store: ClosingStore) -> None:
    task.maintenance.park()
    assert store.is_closed
    assert list(store.scan(b"")) == []


def test_ids_behind_the_horizon_are_forgotten(task: PartitionTask, cycle: Cycles) -> None:
    task.on_batch(events((1, 100)), 1)
    cycle()
    spill(task)
    task.on_batch(events((2, 500_000)), 2)
    cycle()
    spill(task, rows_keep=10)
    assert task.in_memory()["ids"] == 1
    assert list(task.store.scan(SPILLED_IDS)) == []


def groups_in(store: Store) -> list[list[int]]:
    return [[group.first_offset, group.event_time_max, group.records] for group in read_journal_index(store)]


# --- the journal's index ------------------------------------------------------------------------------------------


def test_the_journal_is_cut_where_everything_before_is_behind_the_horizon_and_in_the_store(
    task: PartitionTask, cycle: Cycles
) -> None:
    for i in range(JOURNAL_INDEX_RECORDS + 5):
        task.on_batch(events((i, 100 + i)), i + 1)
        cycle()
    assert task.maintenance.truncate_journal_before() is None, "within the horizon"
    task.on_batch(events((10**6, 10_000)), 10**6)
    cycle()
    assert task.maintenance.truncate_journal_before() is None, "a restart would replay it"
    spill(task)
    assert task.maintenance.truncate_journal_before() == JOURNAL_INDEX_RECORDS
    assert task.maintenance.truncate_journal_before() is None
    assert groups_in(task.store) == [[JOURNAL_INDEX_RECORDS, 10_000, 6]]


def test_a_breaker_that_is_still_remembered_is_journalled_again_before_its_part_of_the_journal_is_cut(
    task: PartitionTask, cycle: Cycles
) -> None:
    quarantine = task.operator(QuarantineOperator)
    quarantine.breakers = DeviceBreakers(rejects_max=1, cooldown_ms=10**9)
    for i in range(JOURNAL_INDEX_RECORDS + 5):
        task.on_batch(events((i, 100 + i)), i + 1)
        if i == 2:
            quarantine.breakers.rejected(b"a", 1)
        cycle()
    task.on_batch(events((10**6, 10_000)), 10**6)
    cycle()
    spill(task)
    assert task.maintenance.truncate_journal_before() is None, "the newest row of the breaker is there"
    assert not task.is_settled
    (again,) = cycle.close().journal
    assert [b"a"] == [key for key, _ in unpacked(again, FIELDS).breakers]
    assert JOURNAL_INDEX_RECORDS == task.maintenance.truncate_journal_before()
    assert task.is_settled


def test_the_journals_index_is_read_back_as_it_was(task: PartitionTask, cycle: Cycles) -> None:
    for i in range(3):
        task.on_batch(events((i, 100 + i)), i + 1)
        cycle()
        spill(task)
    groups = groups_in(task.store)
    assert groups == [[0, 100, 1], [1, 101, 1], [2, 102, 1]]


def test_memory_is_counted(task: PartitionTask) -> None:
    before = task.bytes_used()
    task.on_batch(events(*((i, 1000 + i % 5) for i in range(3_000))), 3_000)
    assert task.bytes_used() > before + 3_000 * 300
