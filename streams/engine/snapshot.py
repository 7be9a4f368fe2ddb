"""Dumps a partition's store as the journal and the table rows that would restore it.

For a rebuild from local state: the store must be complete (everything in memory was moved to it by a clean stop).
"""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, objects
from streams.batch.rows import Rows, unpack_rows
from streams.engine.config import TaskConfig
from streams.engine.encode import ChangelogPart
from streams.engine.partition import PartitionState
from streams.growth.home import Home
from streams.growth.layouts import Layouts
from streams.operators.changes import CarriedRows, ChangelogRows
from streams.operators.spec import KeyedState
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity
from streams.state.journal import JournalEntry
from streams.state.space import StoreSpace
from streams.state.store import Store

_ROWS_EACH: Final = 5_000


def journal_records(
    config: TaskConfig, partition: int, store: Store, checkpoint: Checkpoint, identity: Identity, *, bytes_max: int,
    layouts: Layouts | None = None,
) -> list[bytes]:  # fmt: skip
    """The first cycle of a new journal: what a restore from nothing needs to stand where the store stands.

    `layouts`: of a flow that was grown; what the store still has of keys that have moved is left out.
    """
    state = PartitionState(config, partition, store, checkpoint)
    if layouts is not None:
        layouts.enter(state.home, identity.epoch)
    changes = [one.snapshot(state.watermark_of(name), checkpoint.marks) for name, one in state.operators.items()]
    entry = JournalEntry(
        cycle=1,
        event_time_max=max((one.event_time_max for one in changes), default=TIME_MIN),
        positions=dict(zip(config.position_names, state.positions, strict=True)),
        identity=identity.packed,
    )
    sections = {name: pieces for one in changes for name, pieces in one.sections.items()}
    if packed := checkpoint.growth.packed:
        sections = {journal.GROWTH: [packed], **sections}
    return journal.pack(entry, sections, record_bytes_max=bytes_max)


def marked_sections(state: PartitionState) -> dict[str, list[bytes]]:
    """Sections that say again what the checkpoint keeps, for a journal record that holds nothing else."""
    return {name: list(pieces) for one in state.operators.values() for name, pieces in one.marked_sections().items()}


def changelog_parts(
    config: TaskConfig, store: Store, partition: int, topic: str, home: Home | None = None
) -> Iterator[ChangelogPart]:
    """The rows of one table with what they carry of other operators, some thousands at a time.

    `home`: only those of keys that it keeps; None: all.
    """
    own = next(state for state in config.keyed if state.name == topic)
    if own.table is None:
        raise ValueError(f"{topic} is no table")
    others = [state for state in config.keyed if not state.is_table]
    for stored in _in_pieces(StoreSpace(store, own.part).scan()):
        kept = None if home is None else home.kept([key for key, _ in stored])
        pairs = stored if kept is None else list(compress(stored, kept.tolist()))
        if not pairs:
            continue
        keys = [key for key, _ in pairs]
        rows = unpack_rows(own.dtype, [row for _, row in pairs])
        carried = [CarriedRows(state.digest, _rows_of(state, store, keys)) for state in others]
        found = ChangelogRows(topic, objects(keys), rows, own.table, own.digest)
        yield ChangelogPart(partition, found, carried)


def _rows_of(state: KeyedState, store: Store, keys: Sequence[bytes]) -> Rows:
    rows = np.repeat(state.empty, len(keys))
    found = StoreSpace(store, state.part).get_many(keys)
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
