"""The Python decoder and the native one on the same records: every output must be the same."""

from dataclasses import fields
from typing import Any

import numpy as np

from streams.avro.decode import Decoded, Decoder, Known
from streams.avro.native import choose
from streams.avro.reads import ReaderFields
from streams.batch.clock import Clock
from streams.batch.events import Events
from streams.batch.records import Records


class TwinDecoder:
    """Decodes with both and compares; with Python alone where there is no native decoder."""

    def __init__(self, reads: ReaderFields, *, record_bytes_max: int, skew_ms_max: int) -> None:
        self._python = Decoder(reads, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max)
        native = choose("auto").native
        self._native = None
        if native is not None:
            self._native = Decoder(reads, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max, native=native)

    def decode(
        self, records: Records, known: Known, skip: frozenset[int] = frozenset(), clock: Clock | None = None
    ) -> Decoded:
        """What the Python decoder makes of a batch."""
        found = self._python.decode(records, known, skip, clock)
        if self._native is not None:
            assert_same(found, self._native.decode(records, known, skip, clock))
        return found


def assert_same(one: Decoded, other: Decoded) -> None:
    """Every column, reject and note is the same, to the bit and to the type."""
    assert one.rejects == other.rejects, (one.rejects, other.rejects)
    assert dict(one.unresolved) == dict(other.unresolved)
    assert set(one.schemas) == set(other.schemas)
    noted = [[(plan.schema_id, rows.tolist()) for plan, rows in each.unexpected] for each in (one, other)]
    assert noted[0] == noted[1]
    assert_same_events(one.events, other.events)


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
