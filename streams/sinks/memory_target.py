"""A target in memory: twin of the real ones, for tests of the sink process."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from streams.sinks.target import RowsRefused, TakenOver, TargetBatch, TargetUnavailable


class MemoryStore:
    """What a memory target has written; several targets share one, as processes share a database."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        """Of a target without a key, in the order of writing, each with its place."""
        self.table: dict[tuple[Any, ...], dict[str, Any]] = {}
        """Of a target with a key."""
        self.offsets: dict[int, int] = {}
        self.epochs: dict[int, int] = {}


class MemoryTarget:
    """`sinks.target.Target`; `fails` is asked before each write and may raise, `then` after it (the answer is lost)."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        key: tuple[str, ...] = (),
        refuses: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
        fails: Callable[[], str | None] = lambda: None,
        answer_is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._key = store, key
        self._refuses, self._fails, self._answer_is_lost = refuses, fails, answer_is_lost
        self._held: dict[int, int] = {}

    def prepare(self) -> None:
        """Do nothing: nothing can be missing."""
        self._available()

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take partitions over."""
        self._available()
        for partition in partitions:
            self._store.epochs[partition] = self._held[partition] = self._store.epochs.get(partition, 0) + 1
        return {partition: self._store.offsets.get(partition, -1) for partition in partitions}

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Where each of them stands."""
        self._available()
        self._check(partitions)
        return {partition: self._store.offsets.get(partition, -1) for partition in partitions}

    def write(self, batch: TargetBatch) -> None:
        """Write all of it or nothing."""
        self._available()
        self._check(batch.offsets)
        rows = batch.rows.to_pylist()
        places = list(zip(batch.partition.tolist(), batch.offset.tolist(), strict=True))
        refused = {place: why for place, row in zip(places, rows, strict=True) if (why := self._refuses(row))}
        if refused:
            raise RowsRefused(refused)
        for row, (partition, offset) in zip(rows, places, strict=True):
            placed = {**row, "streams_partition": partition, "streams_offset": offset}
            if not self._key:
                self._store.rows.append(placed)
                continue
            key = tuple(row[name] for name in self._key)
            there = self._store.table.get(key)
            if there is None or there["streams_partition"] <= partition:
                self._store.table[key] = placed
        gone = batch.deleted_partition
        for at, text in enumerate(batch.deleted):
            there = self._store.table.get((text,))
            if there is not None and gone is not None and there["streams_partition"] <= int(gone[at]):
                del self._store.table[text,]
        self._store.offsets.update(batch.offsets)
        if self._answer_is_lost():
            raise TargetUnavailable("the answer was lost")

    def release(self, partitions: Collection[int]) -> None:
        """Forget partitions that this process no longer writes."""
        for partition in partitions:
            self._held.pop(partition, None)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _check(self, partitions: Collection[int]) -> None:
        taken = [one for one in partitions if self._held.get(one) != self._store.epochs.get(one)]
        if taken:
            raise TakenOver(taken)

    def _available(self) -> None:
        if (why := self._fails()) is not None:
            raise TargetUnavailable(why)
