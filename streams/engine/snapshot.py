"""Everything that a partition's store holds, as what a journal and its tables would have to say to restore it.

For a rebuild from local state: the store must be complete (everything in memory was moved to it by a clean stop).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, objects
from streams.batch.event_ids import event_time_of
from streams.batch.events import Events
from streams.batch.rows import Rows, unpack_rows
from streams.engine.effects import TableRows
from streams.engine.keys import due_rows, windows_of
from streams.engine.task import TaskConfig
from streams.flow.declaration import Table
from streams.operators.dedup.pages import SpilledIds
from streams.operators.reorder.held import held_in_store
from streams.state.checkpoint import BREAKER, LAST_DUE, Checkpoint, table_prefix, window_prefix
from streams.state.identity import Identity
from streams.state.journal import JournalEntry
from streams.state.store import Store

_ROWS_EACH: Final = 5_000


def journal_entry(config: TaskConfig, store: Store, checkpoint: Checkpoint, identity: Identity) -> JournalEntry:
    """The first cycle of a new journal: what a restore from nothing needs to stand where the store stands."""
    ids = SpilledIds(store).all()
    held = held_in_store(store, config.fields, checkpoint.watermark)
    due = due_rows([(key[len(LAST_DUE) :], row) for key, row in store.scan(LAST_DUE)])
    newest = max(
        int(event_time_of(ids.word).max()) if len(ids) else TIME_MIN,
        int(due.event_time.max()) if len(due) else TIME_MIN,
    )
    return JournalEntry(
        cycle=1,
        event_time_max=newest,
        ids=ids,
        held=held if held is not None else Events.none(config.fields),
        due=due,
        breakers=[(key[len(BREAKER) :], row) for key, row in store.scan(BREAKER)],
        positions={config.pipeline.source: checkpoint.position},
        identity=identity.packed,
        ids_known_from=checkpoint.ids_known_from,
    )


def table_rows(config: TaskConfig, store: Store, partition: int, table: Table) -> Iterator[TableRows]:
    """The rows of one table with the newest windows of their keys, some thousands at a time."""
    prefix = table_prefix(table.topic)
    for pairs in _in_pieces(store.scan(prefix)):
        keys = [key[len(prefix) :] for key, _ in pairs]
        rows = unpack_rows(table.aggregate.dtype, [row for _, row in pairs])
        windows = []
        for window, operator in zip(config.pipeline.windows, windows_of(config.pipeline), strict=True):
            found = store.get_many([window_prefix(window.topic) + key for key in keys])
            windows.append((window, _window_rows(operator.empty(len(keys)), found)))
        yield TableRows(table, partition, objects(keys), rows, windows)


def _window_rows(rows: Rows, found: Sequence[bytes | None]) -> Rows:
    places = [place for place, row in enumerate(found) if row is not None]
    known: list[Any] = [found[place] for place in places]
    if places:
        rows[np.array(places)] = unpack_rows(rows.dtype, known)
    return rows


def _in_pieces(pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    piece: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        piece.append(pair)
        if len(piece) == _ROWS_EACH:
            yield piece
            piece = []
    if piece:
        yield piece
