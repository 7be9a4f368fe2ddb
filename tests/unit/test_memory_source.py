"""The source in memory: what only it can be made to do. The rest is in `tests/contract/test_source.py`."""

from dataclasses import dataclass, field

import pytest

from streams.batch.records import Records
from streams.kafka.memory import MemoryKafka, Transaction
from streams.limits import OPEN_TRANSACTION_SAID_MS, SPARE_AFTER_MS
from streams.sources.base import Idle, Unreadable
from streams.sources.memory import MemorySource


@dataclass
class Scene:
    """One member of the group of a topic with two partitions, and its clock."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(2))
    now_ms: int = 0
    told: list[tuple[str, list[int]]] = field(default_factory=list)
    lost_records: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = MemorySource(
            self.kafka, topic="t", member="me", listener=self, now_ms=lambda: self.now_ms, batch_records_max=3,
            on_lost_records=lambda *lost: self.lost_records.append(lost),
        )  # fmt: skip
        self.source.subscribe()

    def assigned(self, partitions: list[int]) -> None:
        self.told.append(("assigned", partitions))

    def revoked(self, partitions: list[int]) -> None:
        self.told.append(("revoked", partitions))

    def lost(self, partitions: list[int]) -> None:
        self.told.append(("lost", partitions))

    def noted(self, membership: object | None) -> None:
        self.membership = membership

    def append(self, partition: int, count: int) -> None:
        for _ in range(count):
            self.kafka.append("t", partition, b"k", b"v", 1)

    def read(self, partition: int) -> list[int]:
        """Offsets that come from a partition until nothing comes any more."""
        found: list[int] = []
        while (records := self.poll()) is not None:
            found += records.offset[records.partition == partition].tolist()
        return found

    def poll(self) -> Records | None:
        return self.source.poll().records


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.poll()
    return made


def test_a_partition_that_the_group_gives_to_another_member_is_lost_and_nothing_of_it_comes_any_more(
    scene: Scene,
) -> None:
    scene.append(0, 5)
    scene.append(1, 1)
    scene.source.start(0, 0, (0, 5))
    scene.source.start(1, 0, (0, 1))
    assert scene.poll() is not None
    before = scene.membership
    scene.kafka.members.add("other")
    scene.kafka.give(0, "other")
    scene.source.start_again(0, 0, 0)
    assert scene.read(0) == []
    assert ("lost", [0]) in scene.told
    assert scene.membership != before


def test_a_batch_is_bounded_and_goes_on_where_the_last_one_ended(scene: Scene) -> None:
    scene.append(0, 7)
    scene.source.start(0, 0, (0, 7))
    assert [len(scene.poll() or ()) for _ in range(4)] == [3, 3, 1, 0]
    assert scene.source.taken() == scene.source.positions() == {0: 7}


def test_a_log_that_is_truncated_or_deleted_from_while_it_is_read_is_noticed(scene: Scene) -> None:
    scene.append(0, 5)
    scene.append(1, 5)
    scene.source.start(0, 0, (0, 5))
    scene.source.start(1, 0, (0, 5))
    assert scene.read(0) == [0, 1, 2, 3, 4]
    scene.kafka.truncate("t", 0, 2)
    scene.append(1, 5)
    scene.kafka.begin_offset["t", 1] = 8
    assert scene.read(1) == [8, 9]
    assert (scene.source.take_beyond_end(), scene.source.take_suspicion()) == (frozenset({0}), True)
    assert scene.lost_records == [(1, 5, 8)]


def test_idle_time_and_what_an_open_transaction_holds_up_are_told_by_the_clock(scene: Scene) -> None:
    transaction = Transaction("p")
    scene.kafka.append("t", 1, b"k", b"v", 1, None, transaction)
    scene.source.start(0, 0, (0, 0))
    scene.source.start(1, 0, (0, 1))
    idle: dict[int, Idle] = {}
    for scene.now_ms in range(0, OPEN_TRANSACTION_SAID_MS + 2_000, 250):
        _, idle, _ = scene.source.poll()
    assert idle.keys() == {0}
    assert (idle[0].since_ms, idle[0].until_ms) == (0, scene.now_ms)
    assert scene.source.unreadable == {1: Unreadable(1, 0, 250)}


def test_a_member_for_which_no_partition_is_left_is_a_spare_after_a_while(scene: Scene) -> None:
    assert not scene.source.is_spare(10**9)
    others = [Scene(scene.kafka), Scene(scene.kafka)]
    for one, name in zip(others, ("a", "b"), strict=True):
        one.source._member = name
        one.source.subscribe()
    for _ in range(2):
        for one in (scene, *others):
            one.poll()
    assert scene.told[-1] == ("revoked", [0, 1])
    assert (scene.source.is_spare(SPARE_AFTER_MS - 1), scene.source.is_spare(SPARE_AFTER_MS)) == (False, True)
