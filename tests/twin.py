"""The Python decoder and the native one on the same records: every output must be the same.

The native one is given the records in both forms: as bytes objects, and as columns by reference.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from streams.avro.decode import Decoder
from streams.avro.decoded import Decoded, Known
from streams.avro.native import Native, choose
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan
from streams.batch.clock import Clock
from streams.batch.columns import Int64
from streams.batch.events import Events
from streams.batch.records import Records


class TwinDecoder:
    """Decodes with both and compares; with Python alone where there is no native decoder."""

    def __init__(self, reads: ReaderFields, *, record_bytes_max: int, skew_ms_max: int) -> None:
        self._python = Decoder(reads, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max)
        native = choose("auto").native
        self._library = native
        self._native: list[Decoder] = []
        if native is not None:
            self._native = [
                Decoder(reads, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max, native=native)
                for _ in range(2)
            ]

    def decode(
        self, records: Records, known: Known, skip: frozenset[int] = frozenset(), clock: Clock | None = None
    ) -> Decoded:
        """What the Python decoder makes of a batch."""
        found = self._python.decode(records, known, skip, clock)
        if self._library is not None:
            by_object, by_reference = self._native
            assert_same(found, by_object.decode(records, known, skip, clock))
            columns = by_references(records, self._library)
            for _ in range(2):  # what the usual schema is, it knows after the first batch of it
                assert_same(found, by_reference.decode(columns, known, skip, clock))
        return found


def by_references(records: Records, native: Native) -> Records:
    """The same records with keys and values by reference, each in a buffer with others before and after it."""
    made = native.library.ByteRefs
    rows = np.arange(len(records)) + 1
    key, value = (made.of([b"before", *column, b"after"]).take(rows) for column in (records.key, records.value))
    return replace(records, key=key, value=value)


def assert_same(one: Decoded, other: Decoded) -> None:
    """Every column, reject and note is the same, to the bit and to the type."""
    assert one.rejects == other.rejects, (one.rejects, other.rejects)
    assert dict(one.unresolved) == dict(other.unresolved)
    assert set(one.schemas) == set(other.schemas)
    assert _noted(one.unexpected) == _noted(other.unexpected)
    assert_same_events(one.events, other.events.with_objects())


def _noted(unexpected: Sequence[tuple[Plan, Int64]]) -> dict[int, list[int]]:
    """Rows by schema id; who has found them, and in which turn, is not told."""
    found: dict[int, list[int]] = {}
    for plan, rows in unexpected:
        found.setdefault(plan.schema_id, []).extend(rows.tolist())
    return {schema_id: sorted(rows) for schema_id, rows in found.items() if rows}


def assert_same_events(one: Events, other: Events) -> None:
    """Every column is the same, to the bit and to the type."""
    for column in fields(Events):
        name = column.name
        assert _plain(getattr(one, name)) == _plain(getattr(other, name)), name


def _plain(column: Any) -> Any:
    if not isinstance(column, np.ndarray):
        return column
    kind = (column.dtype.str, column.shape)
    if column.dtype == object:
        values = column.ravel().tolist()
        return kind, values, [type(value) for value in values]
    return kind, np.ascontiguousarray(column).tobytes()
