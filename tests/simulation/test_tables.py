"""Whatever becomes of workers, a reader of their tables never sees a row that was not committed, nor one go back.

Rows are read as the workers' tables are read over HTTP (`streams.tables.stored`), after every step of every worker of a
simulation: with aborts, crashes, zombies, rebalances, and commits of which the answer was lost.
"""

from collections import defaultdict
from itertools import count

import pytest

from logistics.flows.gps import GPS
from streams.engine.changelog_rows import OWN_HEADER
from streams.engine.cycle import TaskCycle
from streams.kafka.memory import MemoryKafka
from streams.schemas.catalog import Catalog
from streams.state.identity import DIGEST_BYTES
from streams.tables.shape import tables_of
from streams.tables.stored import FlowState, StoredTables
from tests.simulation.run import simulate
from tests.simulation.worker import SimulatedWorker

pytestmark = pytest.mark.thorough

[TABLE] = tables_of(GPS, Catalog.load())
DEVICES = [b"device-%d" % number for number in range(6)]


class Committed:
    """Rows as the topic of the table has them, as far as their transactions are committed."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._read: dict[int, int] = defaultdict(int)
        self._waiting: dict[int, list[int]] = defaultdict(list)
        self.versions: dict[tuple[bytes, bytes], int] = {}
        """By key and row: a number that grows with the log."""
        self._numbers = count()

    def take(self) -> None:
        """What was committed since the last call."""
        for partition in range(self._kafka.partitions):
            log = self._kafka.log(TABLE.topic, partition)
            new = [*self._waiting.pop(partition, []), *range(self._read[partition], len(log))]
            self._read[partition] = len(log)
            for offset in new:
                entry = log[offset]
                if entry.is_open:
                    self._waiting[partition].append(offset)
                elif entry.is_committed and entry.key is not None:
                    row = dict(entry.headers or ())[OWN_HEADER] or b""
                    self.versions[entry.key, row[DIGEST_BYTES:]] = next(self._numbers)


class Watch:
    """Looks at what workers serve."""

    def __init__(self) -> None:
        self.looks = self.rows = 0
        self._committed: Committed | None = None
        self._seen: dict[tuple[int, bytes], int] = {}

    def look(self, worker: SimulatedWorker) -> None:
        if self._committed is None:
            self._committed = Committed(worker.kafka)
        self._committed.take()
        state = FlowState(lambda: dict(worker.engine.tasks), lambda: None, worker.kafka.partitions)
        keys = {key for key, _ in self._committed.versions} | set(DEVICES)
        found = StoredTables(state).look(TABLE, sorted(keys))
        self.looks += 1
        self.rows += len(found.rows)
        for key, row in found.rows.items():
            number = self._committed.versions.get((key, row))
            assert number is not None, f"{worker.name} serves a row of {key!r} that is not committed"
            assert number >= self._seen.get((id(worker), key), -1), f"{worker.name} serves an older row of {key!r}"
            if not worker.is_zombie:
                self._seen[id(worker), key] = number


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found, step = Watch(), SimulatedWorker.step

    def watched(worker: SimulatedWorker) -> None:
        step(worker)
        found.look(worker)

    monkeypatch.setattr(SimulatedWorker, "step", watched)
    return found


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(30, 42))])
def test_only_committed_rows_are_served_through_aborts_crashes_and_rebalances(seed: int, watch: Watch) -> None:
    simulate(seed)
    assert watch.looks > 50
    assert watch.rows > watch.looks, "there was something to see"


def test_a_worker_that_wrote_rows_before_their_commit_would_be_found_out(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that the check can fail: rows are put into the store when their cycle is closed."""
    close = TaskCycle.close

    def too_early(cycle: TaskCycle) -> object:
        commit = close(cycle)
        if commit is not None:
            cycle._state.store.write(commit.store)
        return commit

    monkeypatch.setattr(TaskCycle, "close", too_early)
    with pytest.raises(AssertionError, match="is not committed"):
        _ = [simulate(seed) for seed in range(3, 9)]
