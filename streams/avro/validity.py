"""Which decoded records are valid events, and what is wrong with the others, in words."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.avro.reads import ReaderFields
from streams.avro.values import Columns, text_bytes
from streams.avro.wire import text_offsets
from streams.batch.clock import Clock
from streams.batch.columns import Bools, Int64, Objects, object_rows, objects
from streams.batch.event_ids import EVENT_TIME_MAX, time_word
from streams.batch.events import Events, Fields
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.limits import ID_BYTES_MAX, KEY_BYTES_MAX, WHOLE_NUMBER_MAX
from streams.text import far_ahead

_OR_TOO_LARGE: Final = f", or a whole number beyond {WHOLE_NUMBER_MAX} (2^53), which would not be kept exactly"


class Validator:
    """Checks the decoded records of one source. Pure."""

    def __init__(self, reads: ReaderFields, skew_ms_max: int, *, checks_key: bool = True) -> None:
        """`skew_ms_max`: how far an event's time may be ahead of the time it is judged by.

        Without `checks_key` a record may have another key than its key field says.
        """
        self._checks_key = checks_key
        self._reads = reads
        self._skew_ms_max = skew_ms_max
        self.fields = Fields(reads.payload_fields, reads.text_fields)
        """Fields that events have."""

    def limits_ms(self, timestamp_ms: Int64, clock: Clock | None) -> Int64:
        """The latest time that each event may have."""
        judged_by = timestamp_ms if clock is None else clock.judged_by(timestamp_ms)
        limits: Int64 = np.minimum(judged_by, EVENT_TIME_MAX - self._skew_ms_max) + self._skew_ms_max
        return limits

    def events(self, records: Records, fields: Columns, rejects: list[Reject], clock: Clock | None) -> Events:
        """The valid events of decoded records; appends a reject for every other one."""
        rows = fields.rows
        timestamp = records.timestamp_ms[rows]
        ids = text_bytes(fields.event_id)
        offsets = text_offsets(fields.event_id)
        complaints = self._invalid(fields, np.diff(offsets))
        keys, values = (
            objects(column if len(rows) == len(records) else [column[row] for row in rows.tolist()])
            for column in (records.listed_keys(), records.listed_values())
        )
        mismatched = self._mismatched(keys, fields)
        future = fields.event_time > self.limits_ms(timestamp, clock)
        bad = mismatched | future
        for complaint in complaints:
            bad[complaint[0]] = True
        hi, lo, digest = fields.id_words()
        headers = None if records.headers is None else objects([records.headers[row] for row in rows.tolist()])
        events = Events(
            row=rows,
            timestamp_ms=timestamp,
            event_time=fields.event_time,
            sequence=fields.sequence,
            event_id=ids,
            id_hi=hi,
            id_lo=lo,
            id_word=time_word(fields.event_time, digest),
            key=keys,
            value=values,
            headers=headers,
            payload=fields.payload,
            texts=object_rows([text_bytes(column) for column in fields.texts], len(rows)),
            slot=np.full(len(rows), -1, dtype=np.int64),
            fields=self.fields,
        )
        if not bad.any():
            return events
        self._explain(records, fields, complaints, mismatched, future, rejects, clock)
        return events.take(~bad)

    def _mismatched(self, keys: Objects, fields: Columns) -> Bools:
        """Which records have a key that differs from their key field."""
        if not self._checks_key:
            return np.zeros(len(keys), dtype=np.bool_)
        named = pc.equal(pa.array(keys, pa.binary()), fields.key_field.cast(pa.binary()))
        return ~np.asarray(named.fill_null(pa.scalar(value=False)), dtype=np.bool_)

    def _invalid(self, fields: Columns, id_bytes: Int64) -> list[tuple[int, str]]:
        """(position, message) of every invalid event; one message for each."""
        key_bytes = np.diff(text_offsets(fields.key_field))
        found: list[tuple[Bools, str]] = [
            (id_bytes == 0, "the event id is empty"),
            (id_bytes > ID_BYTES_MAX, f"the event id is longer than {ID_BYTES_MAX} bytes"),
            (key_bytes == 0, f"{self._reads.key_field} is empty"),
            (key_bytes > KEY_BYTES_MAX, f"{self._reads.key_field} is longer than {KEY_BYTES_MAX} bytes"),
            (fields.event_time < 0, f"{self._reads.time_field} is negative"),
        ]
        for position, name in enumerate(self._reads.payload_fields):
            column = fields.payload[position]
            found.append((~np.isfinite(column) & ~fields.nulls[position], f"{name} is not a number{_OR_TOO_LARGE}"))
            if name in self._reads.field_ranges:
                low, high = self._reads.field_ranges[name]
                found.append(((column < low) | (column > high), f"{name} is outside [{low:g}, {high:g}]"))
        for name, texts in zip(self._reads.text_fields, fields.texts, strict=True):
            found.append((np.diff(text_offsets(texts)) > ID_BYTES_MAX, f"{name} is longer than {ID_BYTES_MAX} bytes"))
        complaints: dict[int, str] = {}
        for mask, message in found:
            if mask.any():
                for position in np.flatnonzero(mask).tolist():
                    complaints.setdefault(position, message)
        return list(complaints.items())

    def _explain(
        self,
        records: Records,
        fields: Columns,
        complaints: list[tuple[int, str]],
        mismatched: Bools,
        future: Bools,
        rejects: list[Reject],
        clock: Clock | None,
    ) -> None:
        """Append the reject of every event that is not valid, the first reason that applies."""
        said = dict(complaints)
        for position in sorted(said.keys() | set(np.flatnonzero(mismatched | future).tolist())):
            row = int(fields.rows[position])
            if position in said:
                reason, message = Reason.INVALID, said[position]
            elif mismatched[position]:
                reason = Reason.KEY_MISMATCH
                message = f"the record's key is not the event's {self._reads.key_field}"
            else:
                reason = Reason.FUTURE_TIMESTAMP
                message = self._how_far_ahead(
                    int(fields.event_time[position]), records.timestamp_ms[row : row + 1], clock
                )
            rejects.append(Reject(row, reason, message))

    def _how_far_ahead(self, event_time: int, timestamp_ms: Int64, clock: Clock | None) -> str:
        stamp_ms = int(timestamp_ms[0])
        if clock is None or clock.is_time(timestamp_ms)[0]:
            return f"{self._reads.time_field} is {far_ahead(event_time - stamp_ms)} ahead of the record's timestamp"
        ahead = f"{self._reads.time_field} is {far_ahead(event_time - clock.now_ms)} ahead of the worker's clock"
        return f"{ahead}; {clock.complaint(stamp_ms)}"
