"""Restore: from a partition's store and changelogs to a task that stands exactly at the group's committed offset.

The store is as of its last flush, the marker in it says which commit cycle that was. The journal and the table topics
bring it forward, always to their end: a cycle that only released idle events moves them and not the offset.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog

from streams.engine.held import without_repeats
from streams.engine.keys import due_puts, windows_of
from streams.engine.log import Changelog, Committed, LogRow
from streams.engine.task import PartitionTask, TaskConfig, note_breakers, read_journal_groups
from streams.errors import StreamsError
from streams.operators.columns import Events
from streams.state import journal
from streams.state.journal import JournalEntry
from streams.state.layout import BREAKER, JOURNAL_INDEX, MARKER, Marker, aggregate_prefix, window_prefix
from streams.state.store import Store, StoreCorrupted, WriteBatch, prefix_end

log = structlog.get_logger(__name__)

FOLD_HEADER = "state.fold"
"""Header of a table row with the fold's private state: what the public row alone could not be continued from."""
WINDOWS_HEADER = "state.windows"
"""Header of a row of the first table with the key's newest window of each declaration, one after the other."""
_PUTS_MAX = 50_000
OnRows = Callable[[int, int], None]


class RestoreFailed(StreamsError):
    """State cannot be brought to the committed offset; the partition must not be processed."""


def restore_partition(
    config: TaskConfig,
    partition: int,
    store: Store,
    changelog: Changelog,
    *,
    ids_in_memory_max: int,
    on_rows: OnRows = lambda _records, _rows: None,
) -> PartitionTask:
    """Task for `partition`, its state equal to what the group has committed.

    `on_rows` is told how many changelog records were read, and how many rows of state they held (ids, held events, rows
    of keys and windows).

    Raises:
        RestoreFailed: the state and the committed offset cannot be reconciled; the message says why and what to do.
        StoreCorrupted: the store holds something else than our state; quarantine it and restore from nothing.

    """
    pipeline = config.pipeline
    committed = changelog.committed([partition])[partition]
    marker = _read_marker(store)
    low, high = changelog.bounds(pipeline.journal, partition)
    if marker is not None and marker.journal_next > high:
        raise StoreCorrupted(
            f"the local state knows journal position {marker.journal_next}, "
            f"{pipeline.journal}-{partition} ends at {high}"
        )
    task = PartitionTask(config, partition, store, marker)
    start = max(low, marker.replay_from if marker else low)
    marker = _replay_journal(task, changelog, config, marker, start, high, ids_in_memory_max, on_rows)
    marker = replace(marker, tables_next=_replay_tables(task, changelog, config, marker, on_rows))
    marker = replace(marker, offset_next=_start_offset(config, partition, committed, marker))
    task.restored(marker)
    if marker.cycle:
        store.write(WriteBatch(puts=[(MARKER, task.marker.pack())]))
    return task


def _read_marker(store: Store) -> Marker | None:
    row = store.get_many([MARKER])[0]
    if row is None:
        return None
    try:
        return Marker.unpack(row)
    except ValueError as error:
        raise StoreCorrupted(f"unreadable marker: {error}") from None


def _replay_journal(
    task: PartitionTask,
    changelog: Changelog,
    config: TaskConfig,
    marker: Marker | None,
    start: int,
    end: int,
    ids_in_memory_max: int,
    on_rows: OnRows,
) -> Marker:
    """Bring ids, held events and last released events forward; returns the marker of the journal's last cycle."""
    reached = marker or task.marker
    known_cycle = reached.cycle
    task.restore_journal_groups([group for group in read_journal_groups(task.store) if group[0] < start])
    batch = WriteBatch(delete_ranges=[(JOURNAL_INDEX + start.to_bytes(8, "big"), prefix_end(JOURNAL_INDEX))])
    if marker is None or marker.journal_next < start:
        # Between the store and the journal's beginning breakers may have been forgotten: the journal has all that live.
        batch.delete_ranges.append((BREAKER, prefix_end(BREAKER)))
    held: list[Events] = []
    breakers: dict[bytes, bytes] = {}
    # A journal that was never truncated begins with cycle 1, wherever aborted ones have moved it to; and the marker
    # names a record.
    is_named = marker is not None and start == marker.replay_from < marker.journal_next
    chain = _Chain(f"{config.pipeline.journal}-{task.partition}", start if is_named else None, is_whole=start == 0)
    for rows in changelog.read(config.pipeline.journal, task.partition, start, end):
        state_rows = 0
        for row in rows:
            entry = _entry(row, config.pipeline.journal)
            if not chain.goes_on(row.offset, entry):
                continue
            task.remember(entry.ids)
            held.append(entry.held)
            state_rows += len(entry.ids) + len(entry.held) + len(entry.due)
            task.note_journal(row.offset, 1, entry.event_time_max, batch)
            if entry.cycle > known_cycle:
                batch.puts += due_puts(entry.due)
                breakers |= dict(entry.breakers)
                reached = replace(reached, cycle=entry.cycle, offset_next=entry.offset_next, watermark=entry.watermark)
        on_rows(len(rows), state_rows)
        held = [events.take(events.event_time > reached.watermark) for events in held if len(events)]
        task.watermark = reached.watermark
        if len(batch.puts) + len(breakers) > _PUTS_MAX:
            note_breakers(list(breakers.items()), batch)
            task.store.write(batch)
            batch, breakers = WriteBatch(), {}
        if task.ids_in_memory > ids_in_memory_max:
            task.spill_ids_while_restoring()
    chain.ends(known_cycle if marker is not None and start < marker.journal_next else 0)
    note_breakers(list(breakers.items()), batch)
    task.store.write(batch)
    try:
        task.breakers.restore((key[len(BREAKER) :], row) for key, row in task.store.scan(BREAKER))
    except ValueError as error:
        raise StoreCorrupted(str(error)) from None
    try:
        pages = task.held.restore_pages(task.store, reached.watermark)
    except journal.JournalCorrupted as error:
        raise StoreCorrupted(f"a page of held events: {error}") from None
    waiting = without_repeats([*pages, *held])
    if waiting is not None:
        task.hold_restored(waiting)
    return replace(reached, journal_next=end)


class _Chain:
    """Whether a journal, as it was read, has every part of every cycle.

    A record that is not there (as when a broker has lost a transaction's end, docs/adr/0014) must not go unnoticed:
    the store's marker alone says that a cycle has happened, not what its ids and held events were.
    """

    def __init__(self, where: str, first_offset: int | None, *, is_whole: bool) -> None:
        self._where, self._first_offset = where, first_offset
        self._next = (1, 0) if is_whole else None
        """Cycle and part that must come next; None: any, nothing has come yet."""
        self._last: JournalEntry | None = None
        self._offset = -1

    def goes_on(self, offset: int, entry: JournalEntry) -> bool:
        """Whether the record is new: a client may give the same ones twice.

        Raises:
            RestoreFailed: something is missing before it.

        """
        if offset <= self._offset:
            return False
        if self._last is None and self._first_offset not in {None, offset}:
            raise self._gap(f"it begins with {_part(entry)} at offset {offset}")
        if self._next not in {None, (entry.cycle, entry.part)}:
            behind = f"behind {_part(self._last)}" if self._last else "first"
            raise self._gap(f"{behind} comes {_part(entry)}")
        self._last, self._offset = entry, offset
        self._next = (entry.cycle, entry.part + 1) if entry.part + 1 < entry.parts else (entry.cycle + 1, 0)
        return True

    def ends(self, cycle_least: int) -> None:
        """Check the end: it must not be before cycle `cycle_least`.

        Raises:
            RestoreFailed: something is missing.

        """
        last = self._last
        if last is None and cycle_least:
            raise self._gap(f"cycle {cycle_least} is not there")
        if last is not None and (last.part + 1 < last.parts or last.cycle < cycle_least):
            raise self._gap(f"it ends with {_part(last)}")

    def _gap(self, what: str) -> RestoreFailed:
        return RestoreFailed(
            f"{self._where} is not complete: {what}. Reading it again; should it stay so, the broker has lost records "
            "that it had committed (docs/adr/0014)"
        )


def _part(entry: JournalEntry) -> str:
    return f"part {entry.part + 1} of {entry.parts} of cycle {entry.cycle}"


def _entry(row: LogRow, topic: str) -> JournalEntry:
    try:
        return journal.unpack(row.value or b"")
    except journal.JournalCorrupted as error:
        raise RestoreFailed(
            f"the record at offset {row.offset} of {topic} is {error}: written by another version, or by something else"
        ) from None


def _replay_tables(
    task: PartitionTask, changelog: Changelog, config: TaskConfig, marker: Marker, on_rows: OnRows
) -> dict[str, int]:
    """Bring the aggregates' rows forward; returns the position behind the last row of each table's topic."""
    positions: dict[str, int] = {}
    sizes = [operator.dtype.itemsize for operator in windows_of(config.pipeline)]
    for number, table in enumerate(config.pipeline.tables):
        prefix = aggregate_prefix(number)
        low, high = changelog.bounds(table.topic, task.partition)
        start = max(low, marker.tables_next.get(table.topic, low))
        for rows in changelog.read(table.topic, task.partition, start, high):
            puts: list[tuple[bytes, bytes]] = []
            for row in rows:
                headers = dict(row.headers or [])
                fold = headers.get(FOLD_HEADER)
                if row.key is None or fold is None:
                    continue
                puts.append((prefix + row.key, fold))
                if number == 0:
                    puts += _window_puts(row.key, headers.get(WINDOWS_HEADER), sizes)
            task.store.write(WriteBatch(puts=puts))
            on_rows(len(rows), len(puts))
        positions[table.topic] = high
    # Rows may have been loaded for held events before they were brought forward.
    task.forget_keys()
    task.keys.load_open_windows()
    return positions


def _window_puts(key: bytes, packed: bytes | None, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    """Rows of a key's windows; none where they were written by a pipeline that had other windows."""
    if packed is None or len(packed) != sum(sizes):
        return []
    puts, at = [], 0
    for window, size in enumerate(sizes):
        puts.append((window_prefix(window) + key, packed[at : at + size]))
        at += size
    return puts


def _start_offset(config: TaskConfig, partition: int, committed: Committed | None, marker: Marker) -> int:
    """The offset to consume from, once state and group agree."""
    where = f"{config.pipeline.source}-{partition}"
    if marker.cycle == 0:
        if committed is None:
            return -1
        if committed.cycle is None:
            log.info("no state yet: starting at the group's offset", partition=where, offset=committed.offset_next)
            return committed.offset_next
        raise RestoreFailed(
            f"{where}: the group has committed offset {committed.offset_next} (cycle {committed.cycle}), but "
            f"{config.pipeline.journal} holds no state for it: was the journal topic deleted? To process the history "
            f"again, stop all workers and delete the group {config.pipeline.group}"
        )
    if committed is None:
        log.warning(
            "the group's offset is gone (expired?): going on where the journal ends",
            partition=where, offset=marker.offset_next,
        )  # fmt: skip
        return marker.offset_next
    if (committed.offset_next, committed.cycle) != (marker.offset_next, marker.cycle):
        raise RestoreFailed(
            f"{where}: state stands at offset {marker.offset_next} (cycle {marker.cycle}), the group at offset "
            f"{committed.offset_next} (cycle {committed.cycle}): were offsets reset by hand? They cannot be moved "
            f"alone; set the group back to {marker.offset_next}, or start over with empty output topics"
        )
    return marker.offset_next
