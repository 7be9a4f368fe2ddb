"""The paced writer over the sink in memory, with a clock that moves only when somebody sleeps."""

from dataclasses import dataclass, field

import pytest

from streams.errors import FencedError
from streams.kafka.memory import MemoryKafka
from streams.limits import WRITER_BYTES_MAX, WRITER_RECORDS_MAX
from streams.sinks.base import Checkpoint, Outgoing, WriteInterrupted
from streams.sinks.memory import MemoryCheckpoints, MemoryTransactions
from streams.sinks.paced import PacedWriter
from streams.sinks.transactional import TransactionalSink


@dataclass
class Scene:
    """A topic, a clock, and writers of one name."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(1))
    now_s: float = 1_000.0
    commits: list[tuple[float, int]] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    def writer(self, rate: int | None = None, open_ms_max: int = 500) -> PacedWriter:
        transactions = MemoryTransactions(
            self.kafka, "w", verdict=lambda: self.verdicts.pop(0) if self.verdicts else "committed"
        )
        checkpoints = MemoryCheckpoints(self.kafka, transactions, name="w")
        sink = TransactionalSink(transactions, checkpoints, fenced="another one")
        return PacedWriter(
            sink, open_ms_max=open_ms_max, rate=rate, monotonic_s=lambda: self.now_s, sleep=self.sleep,
            on_commit=lambda records: self.commits.append((self.now_s - 1_000, records)),
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds

    def visible(self) -> list[bytes | None]:
        return [entry.value for entry in self.kafka.committed_rows("t", 0)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def write(writer: PacedWriter, *values: bytes, done: int | None = None, bytes_used: int = 0) -> None:
    checkpoint = None if done is None else Checkpoint(done, "")
    outgoing = Outgoing("t", [b"k"] * len(values), list(values), 1_000)
    writer.write([outgoing], records=len(values), bytes_used=bytes_used, checkpoint=checkpoint)


def write_paced(writer: PacedWriter, count: int) -> None:
    left = count
    while left:
        portion = min(left, writer.portion(10_000))
        writer.wait()
        write(writer, *[b"x"] * portion)
        left -= portion


def test_a_commit_carries_the_checkpoint_of_the_last_portion_for_the_writer_that_opens_next(
    scene: Scene,
) -> None:
    writer = scene.writer()
    assert writer.open() is None
    write(writer, b"a", done=1)
    write(writer, b"b", b"c", done=3)
    assert scene.visible() == []
    writer.commit()
    writer.commit()  # nothing is open
    write(writer, b"d", done=4)
    assert (scene.visible(), scene.commits, writer.committed) == ([b"a", b"b", b"c"], [(0, 3)], 3)

    again = scene.writer()
    assert again.open() == Checkpoint(3, "")
    with pytest.raises(FencedError, match="another one"):
        writer.commit()
    assert len(scene.visible()) == 3


def test_a_transaction_ends_by_its_records_by_its_bytes_and_by_its_age(scene: Scene) -> None:
    writer = scene.writer()
    writer.open()
    write(writer, *[b"x"] * WRITER_RECORDS_MAX)
    write(writer, b"x", bytes_used=WRITER_BYTES_MAX)
    write(writer, b"x")
    scene.now_s += 0.499
    write(writer, b"x")
    assert [records for _, records in scene.commits] == [WRITER_RECORDS_MAX, 1]
    scene.now_s += 0.001
    write(writer, b"x")
    assert [records for _, records in scene.commits] == [WRITER_RECORDS_MAX, 1, 3]


@pytest.mark.parametrize("rate", [1, 7, 100, 20_000])
def test_a_rate_is_kept_from_the_first_record_on(scene: Scene, rate: int) -> None:
    writer = scene.writer(rate)
    writer.open()
    write_paced(writer, rate * 3)
    writer.commit()
    last_portion_s = writer.portion(10_000) / rate
    assert 3 - last_portion_s - 0.001 < scene.now_s - 1_000 < 3
    assert sum(records for _, records in scene.commits) == rate * 3


def test_records_of_a_slow_rate_are_visible_in_time_and_not_only_when_the_next_one_is_due(scene: Scene) -> None:
    writer = scene.writer(rate=1)
    writer.open()
    for _ in range(3):
        writer.wait()
        write(writer, b"x")
    assert scene.commits == [(0, 1), (1, 1)], "each before the wait for the next one"


def test_time_that_was_lost_is_made_up_for_by_a_second_and_no_more(scene: Scene) -> None:
    writer = scene.writer(rate=100)
    writer.open()
    write_paced(writer, 100)
    scene.now_s += 60
    before = scene.now_s
    write_paced(writer, 300)
    assert 1.94 < scene.now_s - before < 2.0


def test_without_a_rate_nothing_waits_and_a_portion_is_as_large_as_asked_for(scene: Scene) -> None:
    writer = scene.writer()
    writer.open()
    writer.wait()
    assert (writer.portion(10_000), scene.now_s) == (10_000, 1_000.0)
    assert [scene.writer(rate).portion(10_000) for rate in (1, 100, 10**9)] == [1, 5, 10_000]


@pytest.mark.parametrize(
    ("verdict", "visible"), [("aborted", []), ("unknown-happened", [b"a"]), ("unknown-not-happened", [])]
)
def test_after_a_commit_that_failed_the_checkpoint_says_what_is_left(
    scene: Scene, verdict: str, visible: list[bytes]
) -> None:
    scene.verdicts = [verdict]
    writer = scene.writer()
    writer.open()
    write(writer, b"a", done=1)
    with pytest.raises(WriteInterrupted):
        writer.commit()
    assert writer.open() == (Checkpoint(1, "") if visible else None)
    assert scene.visible() == visible
    writer.commit()
    assert (scene.visible(), writer.committed) == (visible, 0), "what was open is void"
    write(writer, b"b", done=2)
    writer.commit()
    assert scene.visible() == [*visible, b"b"]
