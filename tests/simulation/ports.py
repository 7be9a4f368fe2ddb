"""Twins of what surrounds a worker's core, in memory: what takes time in a worker waits here until it is its turn."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from streams.avro.framing import SchemaKey
from streams.batch.columns import Headers
from streams.batch.lanes import all_lanes, input_of, partition_of_lane
from streams.batch.records import Records
from streams.engine.config import TaskConfig
from streams.engine.restore import restore_partition
from streams.engine.restore_adoption import NotCutYet
from streams.engine.task import PartitionTask
from streams.growth.layouts import Layouts
from streams.kafka.memory import Entry, MemoryChangelog, MemoryKafka
from streams.sinks.base import CycleAborted
from streams.state.memory import MemoryStore
from streams.state.store import StoreCorrupted, WriteBatch
from streams.worker.ownership import Polled
from streams.worker.ports import Attempt, Restored
from tests.simulation.traffic import NOW_MS, SCHEMA_ID, UNREADABLE

Row = tuple[int, int, int, bytes | None, bytes | None, Headers | None]
"""Partition, offset, timestamp, key, value and headers of a record."""


class SimulatedTime:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def wall_ms(self) -> int:
        return NOW_MS + int(self.passed_s * 1000)

    def monotonic_s(self) -> float:
        return self.passed_s


class Killed(BaseException):
    """Unwinds the commit thread of a process that is dead."""


class Commit:
    """A commit in a thread of its own; the scheduler and this thread take turns, so that one seed is one order.

    It begins when the scheduler says so, or at last when somebody waits for it. Where it pauses, others go on.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._thread = threading.Thread(target=self._run_to_the_end, daemon=True)
        self._its_turn, self._our_turn = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = False
        self._is_done = False
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._is_done

    @property
    def is_under_way(self) -> bool:
        """Whether it pauses."""
        return self._thread.ident is not None and not self._is_done

    def run(self) -> None:
        """Let it go on until it pauses or ends; a crash in it is one of the process."""
        if self._is_done:
            return
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._its_turn.release()
        self._our_turn.acquire()
        error = self._error  # set before `_is_done`
        if error is not None and not isinstance(error, Exception):
            raise error

    def pause(self) -> None:
        """In the commit: let others go on."""
        self._our_turn.release()
        self._its_turn.acquire()
        if self._is_killed:
            raise Killed

    def kill(self) -> None:
        """Its process is dead: nothing more of it happens."""
        self._is_killed = True
        if self.is_under_way:
            with suppress(Killed):
                self.run()

    def result(self) -> None:
        while not self._is_done:
            self.run()
        if self._error is not None:
            raise self._error

    def _run_to_the_end(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - as a future does; the scheduler raises what is no `Exception`
            self._error = error
        self._is_done = True
        self._our_turn.release()


class CommitsInFlight:
    """`CommitThread`: some commits are over at once; others are in flight, at any point, while work goes on."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.newest: Commit | None = None

    def submit(self, commit: Callable[[], None], /) -> Commit:
        assert self.newest is None or self.newest.done(), "one commit at a time"
        self.newest = Commit(commit)
        if self._rng.random() < 0.5:
            self.newest.run()
        return self.newest

    @property
    def is_under_way(self) -> bool:
        return self.newest is not None and self.newest.is_under_way

    def run(self) -> None:
        if self.newest is not None:
            self.newest.run()

    def pause(self) -> None:
        """In the newest commit: let others go on."""
        assert self.newest is not None
        self.newest.pause()

    def kill(self) -> None:
        if self.newest is not None:
            self.newest.kill()


class WorkBetweenSteps:
    """`BetweenSteps`: a queue. `bounded` waits for its work only while `has_time` says that it may."""

    def __init__(self, has_time: Callable[[], bool], do: Callable[[Callable[[], None]], None]) -> None:
        self._has_time = has_time
        self._do = do
        self._work: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._work)

    def later(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def bounded(self, work: Callable[[], None], what: str) -> None:
        self._work.append(work)
        if self._has_time():
            self.run()

    def run(self) -> None:
        while self._work:
            self._do(self._work.popleft())


class MemoryIntake:
    """`IntakeCommands`, and the consumer: commands are carried out before the next poll, as the real one does it."""

    def __init__(
        self, kafka: MemoryKafka, topics: Sequence[str], rng: random.Random, *, batch_records_max: int
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._rng = rng
        self._batch_records_max = batch_records_max
        self.position: dict[int, int] = {}
        """Of lanes that are consumed: next offset."""
        self._starts: dict[int, int] = {}
        self.paused: frozenset[int] = frozenset()
        self.generation = 0
        self._next_generation = 0
        self.is_suspect = False

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        low, high = bounds
        assert low <= max(offset_next, low) <= high, "restored beyond the end of the source"
        self._starts[partition] = max(offset_next, low)

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        for partition in partitions:
            self.forget(partition)
        self._next_generation = generation

    def pause_only(self, partitions: frozenset[int]) -> None:
        self.paused = partitions

    def forget(self, partition: int) -> None:
        """It is no longer assigned."""
        for lane in all_lanes([partition], len(self._topics)):
            self._starts.pop(lane, None)
            self.position.pop(lane, None)

    def log(self, lane: int) -> list[Entry]:
        """Of the partition that a lane is."""
        return self._kafka.log(self._topics[input_of(lane)], partition_of_lane(lane))

    def obey(self) -> None:
        self.generation = self._next_generation
        self.position |= self._starts
        self._starts.clear()

    def poll(self) -> Records | None:
        self.obey()
        rows: list[Row] = []
        consumed = sorted(self.position.keys() - self.paused)
        for lane in self._rng.sample(consumed, k=len(consumed)):
            log = self.log(lane)
            count = self._rng.randint(0, self._batch_records_max)
            for entry in log[self.position[lane] : self.position[lane] + count]:
                self.position[lane] = entry.offset + 1
                if entry.is_committed:
                    rows.append((lane, entry.offset, entry.timestamp_ms, entry.key, entry.value, entry.headers))
        return records_of(rows) if rows else None


def records_of(rows: list[Row]) -> Records:
    columns = list(zip(*rows, strict=True))
    numbers = [np.array(column, dtype=np.int64) for column in columns[:3]]
    headers = [[pair for pair in pairs or () if pair[0] != UNREADABLE] or None for pairs in columns[5]]
    lost = {row: 1 for row, pairs in enumerate(columns[5]) if any(name == UNREADABLE for name, _ in pairs or ())}
    return Records(
        numbers[0],
        numbers[1],
        numbers[2],
        list(columns[3]),
        list(columns[4]),
        headers if any(headers) else None,
        lost or None,
    )


class StrictStore(MemoryStore):
    """A store that must not be used once it is closed: its directory may have another one by then."""

    is_closed = False

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        self._require_open()
        return super().get_many(keys)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._require_open()
        return super().scan(prefix)

    def write(self, batch: WriteBatch) -> None:
        self._require_open()
        super().write(batch)

    def flush(self) -> None:
        self._require_open()
        super().flush()

    def close(self) -> None:
        super().close()
        self.is_closed = True

    def _require_open(self) -> None:
        assert not self.is_closed, "a store is used after it was closed"


class MemoryStores:
    """`Stores`: of one process, over disks that outlive it. Restores wait until `go_on` gets round to them."""

    def __init__(
        self,
        kafka: MemoryKafka,
        config: TaskConfig,
        changelog: MemoryChangelog,
        disks: dict[int, dict[bytes, bytes]],
        rng: random.Random,
        layouts: Callable[[], Layouts | None] = lambda: None,
    ) -> None:
        self._layouts = layouts
        self._kafka = kafka
        self._config = config
        self._changelog = changelog
        self._disks = disks
        self._rng = rng
        self._open: dict[int, MemoryStore] = {}
        self._begun: list[Attempt] = []
        self._ready: list[tuple[Attempt, Restored]] = []

    @property
    def is_restoring(self) -> bool:
        return bool(self._begun or self._ready)

    def restore(self, attempt: Attempt, *, after_s: float) -> None:
        self._begun.append(attempt)

    def go_on(self, *, to_the_end: bool = False) -> None:
        """Some of what can happen to restores: one begins to read, one is read, one is installed."""
        while self.is_restoring:
            if self._ready and (not self._begun or self._rng.random() < 0.5):
                attempt, restored = self._ready.pop(self._rng.randrange(len(self._ready)))
                attempt.install(restored)
            else:
                attempt = self._begun.pop(self._rng.randrange(len(self._begun)))
                if attempt.is_wanted():
                    try:
                        self._ready.append((attempt, self._restored(attempt.partition)))
                    except NotCutYet:
                        self._begun.append(attempt)
                        return
            if not to_the_end and self._rng.random() < 0.4:
                return

    def release(self, partition: int, task: PartitionTask | None) -> None:
        store = self._open.pop(partition, None)
        if task is not None:
            task.maintenance.park()
        elif store is not None:
            store.close()

    def flush(self) -> None:
        for store in self._open.values():
            store.flush()

    def _restored(self, partition: int) -> Restored:
        for _ in range(2):
            if partition not in self._open:
                self._open[partition] = StrictStore(self._disks.setdefault(partition, {}))
            few = self._rng.choice((5, 50, 10**6))
            try:
                task = restore_partition(
                    self._config,
                    partition,
                    self._open[partition],
                    self._changelog,
                    ids_in_memory_max=few,
                    held_bytes_max=400 * few,
                    layouts=self._layouts(),
                )
                break
            except StoreCorrupted:
                del self._open[partition]
                self._disks[partition] = {}
        first, *further = ((0, len(self._kafka.log(one.topic, partition))) for one in self._config.inputs)
        return Restored(task, first, tuple(further))


class MemoryJournal:
    """`Truncation`."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka

    def truncate(self, topic: str, before: Mapping[int, int]) -> None:
        for partition, offset in before.items():
            self._kafka.begin_offset[topic, partition] = offset


class ForgetfulSchemas:
    """`SchemaExpiry`: sometimes what was known has to be asked for again."""

    def __init__(self, is_time: Callable[[], bool]) -> None:
        self._is_time = is_time

    def expired(self) -> list[SchemaKey]:
        return [SCHEMA_ID] if self._is_time() else []


class SuspectSource:
    """`SourceCheck`: sometimes the state has to be reloaded for the sake of the source."""

    def __init__(self, is_time: Callable[[], bool]) -> None:
        self._is_time = is_time

    def require_unchanged(self, now_s: float) -> None:
        if self._is_time():
            raise CycleAborted("source_recreated", "the source may be another one")


class NoMemory:
    """`HostMemory` of a process that has enough."""

    def resident_bytes(self) -> int:
        return 0

    def cache_bytes(self) -> int:
        return 0

    def give_back(self) -> None:
        return None


class Channel:
    """Between intake and agent: batches that were polled and not processed yet."""

    def __init__(self) -> None:
        self._batches: deque[Polled] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def put(self, batch: Polled) -> None:
        self._batches.append(batch)

    def get(self) -> Polled:
        return self._batches.popleft()
