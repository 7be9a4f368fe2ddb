"""What the operators of a flow have written into a journal record, taken apart for a look."""

from dataclasses import dataclass

import numpy as np

from streams.batch.columns import objects
from streams.batch.events import Events, Fields
from streams.operators.dedup.section import SECTION as DEDUP
from streams.operators.dedup.section import Ids, pack_ids, unpack_ids
from streams.operators.quarantine.section import SECTION as QUARANTINE
from streams.operators.quarantine.section import unpack_breakers
from streams.operators.reorder.section import (
    HELD,
    LAST_RELEASED,
    DueRows,
    pack_due,
    pack_held,
    unpack_due,
    unpack_held,
)
from streams.state import journal
from streams.state.journal import JournalEntry


@dataclass(frozen=True)
class Journalled:
    """A record, its sections as columns."""

    entry: JournalEntry
    ids: Ids
    held: Events
    due: DueRows
    breakers: list[tuple[bytes, bytes]]
    ids_known_from: int


def no_due_rows() -> DueRows:
    return DueRows(objects([]), np.empty(0, np.int64), np.empty(0, np.int64), objects([]))


def unpacked(data: bytes, fields: Fields) -> Journalled:
    entry = journal.unpack(data)
    sections = entry.sections
    ids, known_from = unpack_ids(sections[DEDUP]) if DEDUP in sections else (Ids.concat([]), 0)
    return Journalled(
        entry,
        ids,
        unpack_held(sections[HELD], fields) if HELD in sections else Events.none(fields),
        unpack_due(sections[LAST_RELEASED]) if LAST_RELEASED in sections else no_due_rows(),
        unpack_breakers(sections[QUARANTINE]) if QUARANTINE in sections else [],
        known_from,
    )


def packed(
    entry: JournalEntry, ids: Ids, held: Events, due: DueRows, *, ids_known_from: int = 0, record_bytes_max: int
) -> list[bytes]:
    sections = {
        DEDUP: pack_ids(ids, ids_known_from, bytes_max=record_bytes_max),
        HELD: pack_held(held, bytes_max=record_bytes_max),
        LAST_RELEASED: pack_due(due, bytes_max=record_bytes_max),
    }
    return journal.pack(entry, sections, record_bytes_max=record_bytes_max)
