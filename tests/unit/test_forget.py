"""A key is forgotten while no worker runs: whatever store one starts with afterwards, the key begins anew.

Production restore, task and committer over an in-memory Kafka.
"""

import copy
import json
from typing import Any

import pytest

from streams.deadletters.letter.audit import Actor
from streams.engine.changelog_rows import FORGOTTEN_HEADER
from streams.engine.commit import Committer
from streams.engine.forget import ForgetRequest, told_beside, unpack_request, waits
from streams.kafka.memory import MemoryChangelog
from streams.operators.fold.operator import fold_name
from streams.operators.reorder.last import due_rows
from streams.operators.window.operator import open_window_name, window_name
from streams.sinks.memory import MemoryTransactions
from streams.state.names import operator_prefix
from streams.state.space import StoreSpace
from tests.unit.test_declaration_changes import World, rooms

FLOW = rooms()
TABLE, WINDOW = "rooms.v1", "minutes.v1"
PARTS = (fold_name(TABLE), window_name(WINDOW), "reorder.last")


def warmth(number: int, key: bytes, time: int) -> tuple[int, bytes, int, dict[str, float]]:
    return number, key, time, {"warmth": float(number), "battery": 1.0}


def forget(world: World, key: bytes = b"a") -> None:
    """As the command does, with nobody at work."""
    kafka = world.kafka
    transactions = MemoryTransactions(kafka, "forget", lambda: "committed")
    committer = Committer(FLOW, transactions, MemoryChangelog(kafka), (), author="forget", session="f")
    kafka.owners[0] = "forget"
    beside = told_beside(FLOW, Actor("me", "a test", "run"), 0, 0)
    committer.forget([world.task.cycle.forgetting([key])], beside, 0, lambda: kafka.membership_of("forget"))


def kept(world: World, part: str) -> list[bytes]:
    """Keys of which a part of the store has a row."""
    return [key for key, _ in StoreSpace(world.task.store, part).scan()]


def events_of(world: World, key: bytes = b"a") -> int:
    return int(world.row(TABLE, key)["events"]["count"])


@pytest.fixture
def world() -> World:
    """Two keys with rows, open windows and released events; a worker that was stopped, its store as it left it."""
    found = World()
    found.restore(FLOW)
    found.feed(warmth(1, b"a", 1_000), warmth(2, b"b", 1_010), warmth(3, b"a", 1_020))
    found.feed(warmth(4, b"b", 2_500))
    found.feed(warmth(5, b"c", 9_000))
    found.stop(keep=True)
    return found


@pytest.mark.parametrize("store", ["kept", "lost"])
def test_a_forgotten_key_has_no_rows_and_begins_anew_and_no_other_key_is_touched(world: World, store: str) -> None:
    assert all({b"a", b"b"} <= set(kept(world, part)) for part in PARTS)
    world.restore(FLOW)
    forget(world)
    if store == "lost":
        world.disk.clear()
    world.restore(FLOW)
    for part in PARTS:
        assert b"a" not in kept(world, part), part
        assert b"b" in kept(world, part), part
    assert not [name for name, keys in world.task.store.scan(operator_prefix(open_window_name(WINDOW))) if b"a" in keys]
    world.feed(warmth(6, b"a", 9_100), warmth(7, b"b", 9_110))
    world.feed(warmth(8, b"c", 9_900))
    assert events_of(world) == 1
    assert events_of(world, b"b") == 3


def test_a_store_from_before_forgets_as_well_and_keeps_what_came_after(world: World) -> None:
    before = copy.deepcopy(world.disk)
    world.restore(FLOW)
    forget(world)
    world.restore(FLOW)
    world.feed(warmth(6, b"a", 9_100))
    world.feed(warmth(7, b"c", 9_900))
    after = last_released(world)
    assert after[b"a"] == 9_100
    for disk in (before, {}):
        world.disk = copy.deepcopy(disk)
        world.restore(FLOW)
        assert events_of(world) == 1
        assert last_released(world) == after


def test_a_key_that_is_forgotten_twice_or_was_never_there_harms_nothing(world: World) -> None:
    world.restore(FLOW)
    for key in (b"a", b"nobody", b"a"):
        forget(world, key)
        world.restore(FLOW)
    world.feed(warmth(6, b"b", 9_100))
    world.feed(warmth(7, b"c", 9_900))
    assert events_of(world, b"b") == 3


def test_a_record_without_value_of_somebody_else_forgets_nothing(world: World) -> None:
    world.kafka.append(TABLE, 0, b"a", None, 0)
    world.disk.clear()
    world.restore(FLOW)
    assert b"a" in kept(world, fold_name(TABLE))


def test_consumers_of_a_table_get_a_record_without_a_value(world: World) -> None:
    world.restore(FLOW)
    forget(world)
    last: Any = next(one for one in reversed(world.kafka.log(TABLE, 0)) if getattr(one, "key", None) == b"a")
    assert last.value is None
    assert [name for name, _ in last.headers or ()] == [FORGOTTEN_HEADER]


def last_released(world: World) -> dict[bytes, int]:
    rows = due_rows(list(StoreSpace(world.task.store, "reorder.last").scan()))
    return dict(zip(rows.key.tolist(), rows.event_time.tolist(), strict=True))


def test_a_key_of_a_partition_without_any_state_is_forgotten_in_its_first_cycle() -> None:
    world = World().restore(FLOW)
    forget(world)
    world.restore(FLOW)
    assert world.task.checkpoint.cycle == 1
    world.feed(warmth(1, b"a", 1_000), warmth(2, b"b", 1_500))
    world.feed(warmth(3, b"b", 3_000))
    assert events_of(world) == 1


def test_events_that_wait_are_found_in_memory_and_in_pages(world: World) -> None:
    world.restore(FLOW)
    assert not waits(world.task, b"a")
    world.feed(warmth(6, b"a", 9_050), warmth(7, b"d", 9_060))
    assert waits(world.task, b"a")
    assert not waits(world.task, b"e")
    world.stop(keep=True)
    world.restore(FLOW)
    assert waits(world.task, b"a"), "in pages, or in the journal"
    world.feed(warmth(8, b"d", 9_900))
    assert not waits(world.task, b"a")


def test_a_request_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    request = ForgetRequest("id", b"\xff\x00key", (7, 0), Actor("me", "because", "run-1"))
    assert unpack_request(b"id", request.pack()) == request
    good = json.loads(request.pack())
    bad: list[bytes | None] = [
        None, b"", b"[]", b"{", b"x" * 100_000,
        *(json.dumps(good | change).encode() for change in (
            {"version": 2}, {"key": "?"}, {"key": ""}, {"key": 7}, {"after": None}, {"after": ["1"]}, {"after": [True]},
            {"after": [0] * 1000}, {"by": "x" * 501}, {"why": None},
        )),
    ]  # fmt: skip
    for value in bad:
        assert unpack_request(b"id", value) is None, value
    assert unpack_request(None, request.pack()) is None
