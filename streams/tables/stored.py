"""Committed rows, read from the stores of a worker's partitions beside the thread that writes them.

A store has what the last committed cycle has made true and nothing else: rows of a cycle are written to it once its
transaction is committed (step 5, docs/adr/0003), whether or not they are flushed to disk. What a cycle has staged is in
the memory of its operators, and is not looked at here. So whatever is read here was committed, and is the newest but
for cycles that are committed just now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Final

import pyarrow as pa

from streams.batch.key_hash import murmur2, murmur2_all
from streams.engine.task import PartitionTask
from streams.growth.layouts import Layouts
from streams.limits import QUERY_SCAN_ROWS_MAX
from streams.state.store import StoreClosed
from streams.tables.asked import Asked, after
from streams.tables.portion import KEY, Part, Portion, joined, merged, no_rows, with_keys
from streams.tables.shape import TableShape
from streams.tables.where import matching

_CHUNK_ROWS: Final = 1_000
"""Rows that are read in one go: a store is closed between two."""


@dataclass(frozen=True, slots=True)
class FlowState:
    """What is asked of a flow that runs in this worker; both may be called in any thread."""

    tasks: Callable[[], Mapping[int, PartitionTask]]
    """Tasks at work, by partition."""
    layouts: Callable[[], Layouts | None]
    """Layouts of the flow's partitions; None: the flow was never grown."""
    partitions: int
    """By how many the state is divided where it was never grown."""

    def divisions(self) -> list[int]:
        """By how many keys are divided, or were: the newest number first."""
        layouts = self.layouts()
        if layouts is None:
            return [self.partitions]
        return list(dict.fromkeys(layout.partitions for layout in reversed(layouts.known)))

    def homes(self, key: bytes) -> list[int]:
        """Partitions that may have the row of a key: the newest layout's, then those of earlier ones."""
        hashed = murmur2(key)
        return list(dict.fromkeys(hashed % partitions for partitions in self.divisions()))

    def part(self, partition: int, task: PartitionTask) -> Part:
        """Which keys a task has."""
        return Part(partition, task.identity.partitions if task.home.has_moved else self.partitions)


@dataclass(frozen=True, slots=True)
class Look:
    """What came of looking for keys here."""

    rows: Mapping[bytes, bytes]
    """Rows as the store has them."""
    absent: frozenset[bytes]
    """Keys that have none."""
    elsewhere: frozenset[bytes]
    """Keys that no partition has which is at work here."""


class StoredTables:
    """Reads committed rows of one flow from the stores. For any thread."""

    def __init__(self, state: FlowState) -> None:
        self._state = state

    def look(self, table: TableShape, keys: Sequence[bytes]) -> Look:
        """Rows of keys, where the partitions that have them are at work here."""
        tasks = dict(self._state.tasks())
        rows: dict[bytes, bytes] = {}
        absent: set[bytes] = set()
        by_partition, elsewhere = self._where(tasks, list(dict.fromkeys(keys)))
        for partition, some in by_partition.items():
            try:
                found = tasks[partition].store.get_many([table.prefix + key for key in some])
            except StoreClosed:
                elsewhere.update(some)
                continue
            for key, row in zip(some, found, strict=True):
                if row is None:
                    absent.add(key)
                else:
                    rows[key] = row
        return Look(rows, frozenset(absent), frozenset(elsewhere))

    def _where(
        self, tasks: Mapping[int, PartitionTask], keys: Sequence[bytes]
    ) -> tuple[Mapping[int, list[bytes]], set[bytes]]:
        """Which partition at work here has which keys, and those that none has."""
        left, by_partition = keys, dict[int, list[bytes]]()
        for partitions in self._state.divisions():
            homes: dict[int, list[bytes]] = {}
            for key, home in zip(left, (murmur2_all(left) % partitions).tolist(), strict=True):
                homes.setdefault(home, []).append(key)
            left = []
            for home, some in homes.items():
                task = tasks.get(home)
                mine = [False] * len(some) if task is None else task.home.has(some).tolist()
                for key, is_mine in zip(some, mine, strict=True):
                    (by_partition.setdefault(home, []) if is_mine else left).append(key)
            if not left:
                break
        return by_partition, set(left)

    def scan(self, table: TableShape, asked: Asked) -> Portion:
        """Rows of a range in all partitions that are at work here; it reads `QUERY_SCAN_ROWS_MAX` rows at most."""
        found = Portion(no_rows(table.columns_named(asked.columns)), frozenset())
        tasks = dict(self._state.tasks())
        rows_max = max(_CHUNK_ROWS, QUERY_SCAN_ROWS_MAX // max(1, len(tasks)))
        for partition, task in sorted(tasks.items()):
            end = asked.end if found.through is None else min(asked.end, after(found.through))
            try:
                rows, through = _scanned(table, replace(asked, end=end), task, rows_max=rows_max)
            except StoreClosed:
                continue
            one = Portion(rows, frozenset({self._state.part(partition, task)}), through)
            found = merged([found, one], limit=asked.limit)
        return found


def _scanned(
    table: TableShape, asked: Asked, task: PartitionTask, *, rows_max: int
) -> tuple[pa.RecordBatch, bytes | None]:
    """Rows of one partition, and up to which key; at least `asked.limit` of them where there are so many."""
    start, stop = table.prefix + asked.start, table.prefix + asked.end
    chunk = _CHUNK_ROWS if asked.where else min(_CHUNK_ROWS, asked.limit)
    pieces = [no_rows(table.columns_named(asked.columns))]
    count = read = 0
    through: bytes | None = None
    while pairs := task.store.range(start, stop, chunk):
        read += len(pairs)
        pieces.append(_public(table, asked, task, pairs))
        count += pieces[-1].num_rows
        last = pairs[-1][0]
        if count >= asked.limit or read >= rows_max:
            through = last[len(table.prefix) :]
            break
        if len(pairs) < chunk:
            break
        start = after(last)
    return joined(pieces), through


def _public(
    table: TableShape, asked: Asked, task: PartitionTask, pairs: Sequence[tuple[bytes, bytes]]
) -> pa.RecordBatch:
    """Those of stored rows that satisfy the conditions, without those of keys that are kept elsewhere."""
    keys = [key[len(table.prefix) :] for key, _ in pairs]
    packed = [row for _, row in pairs]
    kept = task.home.kept(keys)
    if kept is not None:
        mine = kept.tolist()
        keys, packed = list(compress(keys, mine)), list(compress(packed, mine))
    rows = matching(with_keys(keys, table.rows(keys, packed)), asked.where)
    return rows if asked.columns is None else rows.select([KEY, *asked.columns])
