"""Decodes framed Avro records to columns of valid events; other records become rejects with a reason.

The columnar path decodes a whole micro-batch at once. When it refuses (one short record is enough), the batch is halved
until the records concerned stand alone, and those are judged one by one by fastavro: one bad record costs one record.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from streams.avro.decoded import Decoded, Known, merged, note_unexpected, without
from streams.avro.framing import FRAME_BYTES, NOT_FRAMED, SCHEMA_ID_HEADER, SchemaKey, id_in_frame, key_in_header
from streams.avro.native import Native, PartByReference, Programs, decode_by_reference, decode_natively
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan
from streams.avro.validity import Validator
from streams.avro.values import (
    Columns,
    concat_fields,
    decode_columns,
    decode_one,
    from_rows,
    text_bytes,
)
from streams.batch.clock import Clock
from streams.batch.columns import Headers, Int64, header_bytes, object_rows, objects
from streams.batch.events import Events
from streams.batch.records import Records
from streams.batch.refs import ByteRefs
from streams.batch.rejects import Reason, Reject

_EXACT_RECORDS_MAX: Final = 16
"""Below this a refused batch is no longer halved but judged record by record."""
_SAMPLES: Final = 8
"""Records whose frame is checked before the whole batch is assumed to have the usual schema."""
_LOST: Final = (
    "headers whose names are not UTF-8, which could not be kept: {}; key, value and all other headers are as they "
    "came. Have the producer name its headers in UTF-8; a replay sends the record without these headers"
)


class Decoder:
    """Decoder of one source. Pure: the same records and known schemas give the same result."""

    def __init__(
        self,
        reads: ReaderFields,
        *,
        record_bytes_max: int,
        skew_ms_max: int,
        native: Native | None = None,
        checks_key: bool = True,
    ) -> None:
        """`native` (`streams.avro.native.choose`) decodes what it can, to the same result; None: all in Python.

        Without `checks_key` a record may have another key than its key field says; all is decoded in Python then.
        """
        self._reads = reads
        self._programs = Programs(native, reads) if native is not None and checks_key else None
        self._validator = Validator(reads, skew_ms_max, checks_key=checks_key)
        self._record_bytes_max = record_bytes_max
        self.skew_ms_max = skew_ms_max
        """How far an event's time may be ahead of the time it is judged by."""
        self._usual: Plan | None = None

    def decode(
        self, records: Records, known: Known, skip: frozenset[int] = frozenset(), clock: Clock | None = None
    ) -> Decoded:
        """Decode a micro-batch with the schemas in `known`; rows in `skip` are not looked at.

        `clock` says which record timestamps are a time, and what stands in for the others; None takes all as they are.
        """
        if isinstance(records.value, list) or isinstance(records.key, list):
            return self._decode(records.with_objects(), known, skip, clock)
        part = self._valid_by_reference(records, records.value, records.key, known, skip, clock)
        if part is None:
            return self._decode(records.with_objects(), known, skip, clock)
        usual, events = part
        unexpected: list[tuple[Plan, Int64]] = []
        note_unexpected(usual, events.row, unexpected)
        valid = Decoded(events, [], {}, unexpected, (usual.schema_id,))
        if len(events) == len(records):
            return valid
        others = np.delete(np.arange(len(records)), events.row)
        rest = self._decode(
            records.take(others).with_objects(),
            known,
            frozenset(place for place, row in enumerate(others.tolist()) if row in skip),
            clock,
        )
        if len(others) * 2 < len(records):
            self._usual = usual  # the rest differs from most records
        return merged(valid, rest, others)

    def _decode(self, records: Records, known: Known, skip: frozenset[int], clock: Clock | None) -> Decoded:
        """Decode keys and values that are bytes objects."""
        rejects: list[Reject] = []
        unexpected: list[tuple[Plan, Int64]] = []
        fields = None if skip else self._decode_usual(records, known, rejects)
        unresolved: dict[SchemaKey, list[int]] = {}
        by_guid: Mapping[int, int] = {}
        schemas: Collection[SchemaKey] = () if self._usual is None else (self._usual.schema_id,)
        if fields is None:
            parts: list[Columns] = []
            groups = self._by_schema(records, skip, rejects)
            for reference, rows in groups.items():
                self._decode_group(records, reference, rows, known, parts, rejects, unresolved)
                note_unexpected(known.get(reference[0]), rows, unexpected)
            self._set_usual(groups, known)
            schemas = {schema_id for schema_id, _ in groups}
            fields = concat_fields(parts, self._reads)
            by_guid = _ids_by_guid(groups, known)
        elif self._usual is not None:
            note_unexpected(self._usual, fields.rows, unexpected)
        events = self._validator.events(records, fields, rejects, clock)
        if by_guid:
            rejects = [reject.of_schema(by_guid.get(reject.row)) for reject in rejects]
        rejects.sort(key=lambda reject: reject.row)
        return Decoded(events, rejects, unresolved, without(rejects, unexpected), schemas)

    # --- by reference -----------------------------------------------------------------------------------------------

    def _valid_by_reference(
        self,
        records: Records,
        values: ByteRefs,
        keys: ByteRefs,
        known: Known,
        skip: frozenset[int],
        clock: Clock | None,
    ) -> tuple[Plan, Events] | None:
        """The usual schema and its valid events; None where there is no native program for it.

        Records whose headers name their schema, are too large or cannot be read are left out.
        """
        plan = self._usual
        if plan is None or plan.framed_json is None or plan.schema_id not in known or self._programs is None:
            return None
        program = self._programs.of(plan)
        if program is None:
            return None
        limits_ms = self._validator.limits_ms(records.timestamp_ms, clock)
        rows = np.arange(len(records))
        if left_out := self._left_out(records, skip):
            rows = np.delete(rows, left_out)
            values, keys, limits_ms = values.take(rows), keys.take(rows), limits_ms[rows]
        found = decode_by_reference(program, values, keys, limits_ms, bytes_max=self._record_bytes_max)
        if found is None:
            return None
        if len(found.others):
            rows, values, keys = rows[found.rows], values.take(found.rows), keys.take(found.rows)
        return plan, self._events_by_reference(records, rows, values, keys, found)

    def _left_out(self, records: Records, skip: frozenset[int]) -> list[int]:
        """Rows that are skipped, and those whose headers decide about them."""
        left_out = {*skip, *(records.headers_lost or ())}
        if records.headers is not None:
            left_out.update(_keys_in_headers(records.headers))
            left_out.update(
                row
                for row, headers in enumerate(records.headers)
                if headers and header_bytes(headers) > self._record_bytes_max
            )
        return sorted(left_out)

    def _events_by_reference(
        self, records: Records, rows: Int64, values: ByteRefs, keys: ByteRefs, found: PartByReference
    ) -> Events:
        hi, lo, word = found.words
        return Events(
            row=rows,
            timestamp_ms=records.timestamp_ms[rows],
            event_time=found.event_time,
            sequence=found.sequence,
            event_id=found.event_id,
            id_hi=hi,
            id_lo=lo,
            id_word=word,
            key=keys,
            value=values,
            headers=None if records.headers is None else objects([records.headers[row] for row in rows.tolist()]),
            payload=found.payload,
            texts=object_rows([text_bytes(column) for column in found.texts], len(rows)),
            slot=np.full(len(rows), -1, dtype=np.int64),
            fields=self._validator.fields,
        )

    # --- framing ----------------------------------------------------------------------------------------------------

    def _decode_usual(self, records: Records, known: Known, rejects: list[Reject]) -> Columns | None:
        """The whole batch in one go, if all of it is written with the schema that most batches are written with."""
        plan, values = self._usual, records.listed_values()
        if plan is None or plan.framed_json is None or plan.schema_id not in known:
            return None
        if not values or records.headers is not None or records.headers_lost is not None:
            return None
        frame, rows = _frame(plan.schema_id), np.arange(len(records))
        if any(value is None or value[:FRAME_BYTES] != frame for value in values[:: max(1, len(values) // _SAMPLES)]):
            return None
        parts: list[Columns] = []
        if self._decode_natively(plan, values, rows, parts, rejects, framed=True):
            return concat_fields(parts, self._reads)
        try:
            sizes = _sizes(values)
        except TypeError:  # a record without a value
            return None
        is_usual = sizes.max() <= self._record_bytes_max and sizes.min() >= FRAME_BYTES
        return decode_columns(plan, values, sizes, rows, self._reads, framed=True) if is_usual else None

    def _set_usual(self, groups: Mapping[tuple[SchemaKey, bool], list[int]], known: Known) -> None:
        """Make the schema of most of the framed records the usual one."""
        framed = {key: len(rows) for (key, framed), rows in groups.items() if framed and isinstance(key, int)}
        plans = [plan for schema_id in framed if isinstance(plan := known.get(schema_id), Plan)]
        if plans:
            self._usual = max(plans, key=lambda plan: framed[plan.schema_id])

    def _by_schema(
        self, records: Records, skip: frozenset[int], rejects: list[Reject]
    ) -> dict[tuple[SchemaKey, bool], list[int]]:
        """Rows by (schema id or GUID, framed); the rest is rejected as too large or not framed."""
        in_headers = _keys_in_headers(records.headers)
        apart = self._refused_by_headers(records, skip)
        rejects += apart.values()
        by_frame: dict[bytes, list[int]] = defaultdict(list)
        groups: dict[tuple[SchemaKey, bool], list[int]] = defaultdict(list)
        for row, value in enumerate(records.listed_values()):
            if row in skip or row in apart:
                continue
            if value is None:
                rejects.append(Reject(row, Reason.NOT_FRAMED, "the record has no value"))
            elif len(value) > self._record_bytes_max:
                rejects.append(
                    Reject(row, Reason.TOO_LARGE, f"{len(value)} bytes; at most {self._record_bytes_max} are accepted")
                )
            elif row in in_headers:
                groups[in_headers[row], False].append(row)
            else:
                by_frame[value[:FRAME_BYTES]].append(row)
        for frame, rows in by_frame.items():
            schema_id = id_in_frame(frame)
            if schema_id is not None:
                groups[schema_id, True] += rows
            else:
                rejects += [Reject(row, Reason.NOT_FRAMED, NOT_FRAMED) for row in rows]
        return groups

    def _refused_by_headers(self, records: Records, skip: frozenset[int]) -> dict[int, Reject]:
        """Rejects of records whose headers cannot be read, or are too large, by row."""
        found: dict[int, Reject] = {}
        for row, lost in (records.headers_lost or {}).items():
            value = records.value[row]
            if row not in skip and (value is None or len(value) <= self._record_bytes_max):
                found[row] = Reject(row, Reason.BAD_HEADER, _LOST.format(lost))
        for row, headers in enumerate(records.headers or ()):
            if headers and row not in skip and (size := header_bytes(headers)) > self._record_bytes_max:
                message = f"{size} bytes of headers; at most {self._record_bytes_max} are accepted"
                found[row] = Reject(row, Reason.TOO_LARGE, message)
        return found

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _decode_group(
        self,
        records: Records,
        reference: tuple[SchemaKey, bool],
        rows: list[int],
        known: Known,
        parts: list[Columns],
        rejects: list[Reject],
        unresolved: dict[SchemaKey, list[int]],
    ) -> None:
        schema_id, framed = reference
        plan = known.get(schema_id)
        if plan is None:
            unresolved.setdefault(schema_id, []).extend(rows)
            return
        if isinstance(plan, Reject):
            rejects += [Reject(row, plan.reason, plan.message, plan.schema_id) for row in rows]
            return
        values, places = [records.value[row] for row in rows], np.array(rows, dtype=np.int64)
        if not self._decode_natively(plan, values, places, parts, rejects, framed=framed):
            self._halve(plan, values, _sizes(values), places, parts, rejects, framed=framed)

    def _decode_natively(
        self,
        plan: Plan,
        values: list[Any],
        rows: Int64,
        parts: list[Columns],
        rejects: list[Reject],
        *,
        framed: bool,
    ) -> bool:
        """Decode with the native library, and records that it doubts with fastavro; False if it cannot decode any."""
        program = None if self._programs is None else self._programs.of(plan)
        if program is None or not values:
            return False
        part = decode_natively(program, values, rows, framed=framed, bytes_max=self._record_bytes_max)
        if part is None:
            return False
        parts.append(part.columns)
        if len(part.doubted):
            doubted = [values[position] for position in part.doubted.tolist()]
            self._decode_exactly(plan, doubted, rows[part.doubted], parts, rejects, framed=framed)
        return True

    def _halve(
        self,
        plan: Plan,
        values: list[Any],
        sizes: Int64,
        rows: Int64,
        parts: list[Columns],
        rejects: list[Reject],
        *,
        framed: bool,
    ) -> None:
        decoded = decode_columns(plan, values, sizes, rows, self._reads, framed=framed)
        if decoded is not None:
            parts.append(decoded)
        elif len(values) <= _EXACT_RECORDS_MAX or plan.framed_json is None:
            self._decode_exactly(plan, values, rows, parts, rejects, framed=framed)
        else:
            middle = len(values) // 2
            for half in (slice(None, middle), slice(middle, None)):
                self._halve(plan, values[half], sizes[half], rows[half], parts, rejects, framed=framed)

    def _decode_exactly(
        self, plan: Plan, values: list[Any], rows: Int64, parts: list[Columns], rejects: list[Reject], *, framed: bool
    ) -> None:
        """Decode one by one with fastavro, which decides what a record is."""
        decoded: list[dict[str, Any]] = []
        good: list[int] = []
        for row, value in zip(rows.tolist(), values, strict=True):
            result = decode_one(plan, value[FRAME_BYTES:] if framed else value)
            if isinstance(result, dict):
                decoded.append(result)
                good.append(row)
            else:
                rejects.append(Reject(row, result[0], result[1], plan.schema_id))
        if decoded:
            parts.append(from_rows(plan, decoded, np.array(good, dtype=np.int64), self._reads))


def _frame(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big", signed=True)


def _keys_in_headers(headers: Sequence[Headers | None] | None) -> dict[int, SchemaKey]:
    """Schema ids and GUIDs of the rows whose headers name one; of several usable headers the first one counts."""
    found: dict[int, SchemaKey] = {}
    known: dict[bytes | None, SchemaKey | None] = {}
    for row, header in enumerate(headers or ()):
        for name, value in header or ():
            if name == SCHEMA_ID_HEADER:
                if value not in known:
                    known[value] = key_in_header(value)
                key = known[value]
                if key is not None:
                    found[row] = key
                    break
    return found


def _ids_by_guid(groups: Mapping[tuple[SchemaKey, bool], list[int]], known: Known) -> dict[int, int]:
    """Schema ids of the rows that name their schema by GUID."""
    plans = [(known.get(key), rows) for (key, _), rows in groups.items() if isinstance(key, str)]
    return {row: plan.schema_id for plan, rows in plans if isinstance(plan, Plan) for row in rows}


def _sizes(values: Sequence[Any]) -> Int64:
    return np.fromiter(map(len, values), dtype=np.int64, count=len(values))
