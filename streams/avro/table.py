"""Decode: rows of a compacted topic to columns of events. A row has no id: it is known by its place in the log."""

from dataclasses import replace
from typing import Final

import numpy as np

from streams.avro.decode import Decoder
from streams.avro.decoded import Decoded, Known
from streams.batch.clock import Clock
from streams.batch.columns import Int64, objects
from streams.batch.event_ids import time_word
from streams.batch.events import Events
from streams.batch.moved import is_moved
from streams.batch.records import Records
from streams.limits import KEY_BYTES_MAX

LAST: Final = int(np.iinfo(np.int64).max)
"""Sequence number of a deletion: it comes after all rows of its time."""


class TableDecoder(Decoder):
    """Decoder of a table. It ignores the id field; everything is decoded in Python.

    A record with a key and no value is an event too: that the row of the key is deleted, at the record's timestamp. Its
    value is empty, its fields are null.
    """

    def decode(
        self, records: Records, known: Known, skip: frozenset[int] = frozenset(), clock: Clock | None = None
    ) -> Decoded:
        """As every decoder; tombstones left by a growth are neither events nor rejects."""
        found = super().decode(records, known, skip, clock)
        gone = [reject.row for reject in found.rejects if _is_tombstone(records, reject.row)]
        events = _named_by_place(found.events, records.offset[found.events.row])
        if not gone:
            return replace(found, events=events)
        deleted = np.array([row for row in gone if not _has_moved(records, row)], dtype=np.int64)
        events = Events.concat([events, _deletions(records, deleted, events, clock)])
        tombstones = set(gone)
        return replace(
            found,
            events=events.take(np.argsort(events.row, kind="stable")),
            rejects=[reject for reject in found.rejects if reject.row not in tombstones],
        )


def _is_tombstone(records: Records, row: int) -> bool:
    key = records.key[row]
    return records.value[row] is None and key is not None and 0 < len(key) <= KEY_BYTES_MAX


def _has_moved(records: Records, row: int) -> bool:
    return is_moved(None if records.headers is None else records.headers[row])


def _named_by_place(events: Events, offset: Int64) -> Events:
    """The events with ids made from the offsets of their records, written so that they sort like the log."""
    digest = np.ones(len(events), dtype=np.bool_)
    return replace(
        events,
        event_id=objects([b"%020d" % one for one in offset.tolist()]),
        id_hi=np.zeros(len(events), dtype=np.uint64),
        id_lo=offset.astype(np.uint64),
        id_word=time_word(events.event_time, digest),
    )


def _deletions(records: Records, rows: Int64, like: Events, clock: Clock | None) -> Events:
    """Make events of records without a value, which delete a row."""
    timestamp = records.timestamp_ms[rows]
    time = np.maximum(timestamp if clock is None else clock.judged_by(timestamp), 0)
    none = Events.none(like.fields)
    made = replace(
        none,
        row=rows,
        timestamp_ms=timestamp,
        event_time=time,
        sequence=np.full(len(rows), LAST, dtype=np.int64),
        key=objects([records.key[row] for row in rows.tolist()]),
        value=objects([b""] * len(rows)),
        headers=None if records.headers is None else objects([records.headers[row] for row in rows.tolist()]),
        payload=np.full((len(none.payload), len(rows)), np.nan),
        texts=np.full((len(none.texts), len(rows)), None, dtype=object),
        slot=np.full(len(rows), -1, dtype=np.int64),
    )
    return _named_by_place(made, records.offset[rows])
