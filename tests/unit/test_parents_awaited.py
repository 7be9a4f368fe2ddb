"""When it is said that a partition waits for the one that its keys came from."""

from dataclasses import dataclass, field
from typing import cast

from streams.engine.task import PartitionTask
from streams.growth.state import GrowthState
from streams.state.journal import Position
from streams.worker.parents import SAID_AFTER_S, ParentsAwaited


@dataclass
class Task:
    offset_next: int
    growth: GrowthState = field(default_factory=GrowthState)

    @property
    def positions(self) -> list[Position]:
        return [Position(self.offset_next, 0)]


def look(parents: ParentsAwaited, now_s: float, **offsets: int) -> frozenset[int]:
    tasks = {int(name[1:]): Task(offset) for name, offset in offsets.items()}
    parents.look(tasks.keys(), cast("dict[int, PartitionTask]", tasks), now_s)
    return parents.waited_for


def test_only_one_that_gets_no_further_for_long_is_named() -> None:
    parents = ParentsAwaited()
    assert not look(parents, 0.0, p3=10, p4=10)
    assert not look(parents, SAID_AFTER_S - 1, p3=10, p4=11)
    assert look(parents, SAID_AFTER_S, p3=10, p4=11) == {3}
    assert look(parents, 2 * SAID_AFTER_S, p3=10, p4=11) == {3, 4}


def test_one_that_gets_on_is_not_named_any_more() -> None:
    parents = ParentsAwaited()
    look(parents, 0.0, p3=10)
    assert look(parents, SAID_AFTER_S, p3=10) == {3}
    assert not look(parents, SAID_AFTER_S + 1, p3=11)
    assert not look(parents, SAID_AFTER_S + 2)
    assert not look(parents, 9 * SAID_AFTER_S, p3=11)
