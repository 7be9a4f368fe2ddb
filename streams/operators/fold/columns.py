"""Columns of a fold: what each keeps per key, how events change it, and its public values.

Every column is exact (counts, integers, extremes, newest values), so that the result does not depend on how events were
cut into batches; a sum of doubles would, so `Total` sums integers of a unit that is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from streams.batch.columns import Bools, Float64, Int64
from streams.batch.rows import Rows
from streams.limits import WHOLE_NUMBER_MAX
from streams.operators.fold.aggregate import Segments

_TOTAL_MAX: Final = 9e15
"""Larger single values, in units, are left out, so that a thousand of them fit into 64 bits."""
_TIME: Final = pa.timestamp("ms")


class Column(Protocol):
    """One column of a fold: its part of the state, and its public values."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of its state; zeros are the state before the first event."""

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """State after the events of each segment."""

    def arrow(self, state: Rows) -> pa.Array:
        """The column's public values."""


@dataclass(frozen=True, slots=True)
class Count:
    """Number of events. Avro: long."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of the state: an integer."""
        return np.dtype([("count", "<i8")])

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Add the number of events."""
        after = state.copy()
        after["count"] += segments.end - segments.start + 1
        return after

    def arrow(self, state: Rows) -> pa.Array:
        """The counts."""
        return pa.array(np.ascontiguousarray(state["count"]))


@dataclass(frozen=True, slots=True)
class FirstTime:
    """Event time of the first event. Avro: timestamp-millis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout: a time, and whether there is one."""
        return np.dtype([("known", "?"), ("time", "<i8")])

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Keep the first time."""
        after = state.copy()
        after["time"] = np.where(state["known"], state["time"], segments.event_time[segments.start])
        after["known"] = True
        return after

    def arrow(self, state: Rows) -> pa.Array:
        """The times."""
        return pa.array(np.ascontiguousarray(state["time"])).cast(_TIME)


@dataclass(frozen=True, slots=True)
class LastTime:
    """Event time of the last event. Avro: timestamp-millis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of the state: a time."""
        return np.dtype([("time", "<i8")])

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Take the time of each segment's last event."""
        after = state.copy()
        after["time"] = segments.event_time[segments.end]
        return after

    def arrow(self, state: Rows) -> pa.Array:
        """The times."""
        return pa.array(np.ascontiguousarray(state["time"])).cast(_TIME)


_WHOLE_TYPES: Final[Mapping[pa.DataType, tuple[int, int]]] = {
    pa.bool_(): (0, 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-WHOLE_NUMBER_MAX, WHOLE_NUMBER_MAX),
    _TIME: (-WHOLE_NUMBER_MAX, WHOLE_NUMBER_MAX),
}
"""Types of whole numbers, with the smallest and the largest one that a payload field holds exactly."""
_TEXT: Final = np.dtype("O")
_KNOWN_VALUE: Final = np.dtype([("known", "?"), ("value", "<f8")])


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest known value of a payload field. Avro: null or double, or what `type` is.

    `type` may be `pa.float64()`, `pa.bool_()`, `pa.int32()`, `pa.int64()` or `pa.timestamp("ms")`. A value that is none
    of it (0.5 where whole numbers are wanted, 2 for a boolean, a number beyond 2^53) counts as unknown, as null does.

    Raises:
        ValueError: `type` is another one.

    """

    field: str
    type: pa.DataType = pa.float64()  # noqa: RUF009 - immutable

    def __post_init__(self) -> None:
        if self.type != pa.float64() and self.type not in _WHOLE_TYPES:
            allowed = ", ".join(map(str, (pa.float64(), *_WHOLE_TYPES)))
            raise ValueError(f"Latest({self.field!r}): {self.type} is none of {allowed}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout: a value, and whether there is one."""
        return _KNOWN_VALUE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Take each segment's last known value."""
        values = segments.number(self.field)
        rows = np.where(self._fits(values), np.arange(len(values)), -1)
        newest = np.maximum.reduceat(rows, segments.start)
        return _known(state, newest >= 0, values[newest])

    def arrow(self, state: Rows) -> pa.Array:
        """The values, null where none is known."""
        values = np.ascontiguousarray(state["value"])
        known = state["known"] & self._fits(values)
        if self.type == pa.float64():
            return pa.array(values, mask=~known)
        return pa.array(np.where(known, values, 0.0).astype(np.int64), mask=~known).cast(self.type)

    def _fits(self, values: Float64) -> Bools:
        """Which values are valid for `type`; a null (NaN) is not."""
        limits = _WHOLE_TYPES.get(self.type)
        if limits is None:
            return ~np.isnan(values)
        low, high = limits
        fits: Bools = (values >= low) & (values <= high) & (values == np.rint(values))
        return fits


@dataclass(frozen=True, slots=True)
class LatestText:
    """Newest known value of a text field. Avro: null or string. For tables only: rows of windows hold numbers."""

    field: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of the state: bytes or None."""
        return _TEXT

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Take each segment's last known text."""
        texts = segments.text(self.field)
        known = texts != None  # noqa: E711 - elementwise
        newest = np.maximum.reduceat(np.where(known, np.arange(len(texts)), -1), segments.start)
        after: Rows = np.where(newest >= 0, texts[newest], state)
        return after

    def arrow(self, state: Rows) -> pa.Array:
        """The texts, null where none is known."""
        return pa.array(state.tolist(), pa.binary()).cast(pa.string())


@dataclass(frozen=True, slots=True)
class LatestSymbol:
    """Newest known symbol of an enum that is a payload field. Avro: null or an enum of `symbols`, or null or string.

    `symbols` are those of the enum in the source's newest schema, in its order. A position beyond them counts as
    unknown, as null does.

    Raises:
        ValueError: there are no symbols.

    """

    field: str
    symbols: tuple[str, ...] = dataclass_field(repr=False)
    """Not part of the column's meaning: positions are stored, and appending a symbol changes none."""

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError(f"LatestSymbol({self.field!r}): no symbols")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout: a position, and whether there is one."""
        return _KNOWN_VALUE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Take each segment's last known position."""
        values = segments.number(self.field)
        fits = (values >= 0) & (values < len(self.symbols)) & (values == np.rint(values))
        newest = np.maximum.reduceat(np.where(fits, np.arange(len(values)), -1), segments.start)
        return _known(state, newest >= 0, values[newest])

    def arrow(self, state: Rows) -> pa.Array:
        """The symbols, null where none is known."""
        pairs = zip(state["known"].tolist(), state["value"].tolist(), strict=True)
        return pa.array([self.symbols[int(value)] if known else None for known, value in pairs], pa.string())


@dataclass(frozen=True, slots=True)
class Greatest:
    """Greatest known value of a payload field. Avro: null or double."""

    field: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout: a value, and whether there is one."""
        return _KNOWN_VALUE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Keep the greater value."""
        return _extreme(state, segments.number(self.field), segments.start, sign=1.0)

    def arrow(self, state: Rows) -> pa.Array:
        """The values, null where none is known."""
        return pa.array(np.ascontiguousarray(state["value"]), mask=~state["known"])


@dataclass(frozen=True, slots=True)
class Least:
    """Least known value of a payload field. Avro: null or double."""

    field: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout: a value, and whether there is one."""
        return _KNOWN_VALUE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Keep the smaller value."""
        return _extreme(state, segments.number(self.field), segments.start, sign=-1.0)

    def arrow(self, state: Rows) -> pa.Array:
        """The values, null where none is known."""
        return pa.array(np.ascontiguousarray(state["value"]), mask=~state["known"])


@dataclass(frozen=True, slots=True)
class Total:
    """Sum of the known values of a payload field, kept in whole `1 / per_unit`. Avro: double.

    A single value of more than 9e15 such units counts as unknown; so large, a thousand fit into the sum.
    """

    field: str
    per_unit: int = 1_000

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of the state: a sum of integers."""
        return np.dtype([("sum", "<i8")])

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Add the known values, in units."""
        values = segments.number(self.field) * self.per_unit
        # a null counts as unknown too
        units = np.rint(np.where(np.abs(values) <= _TOTAL_MAX, values, 0.0)).astype(np.int64)
        after = state.copy()
        after["sum"] += np.add.reduceat(units, segments.start)
        return after

    def arrow(self, state: Rows) -> pa.Array:
        """The sums in the field's unit."""
        return pa.array(state["sum"] / self.per_unit)


def _known(state: Rows, known: Bools, values: Float64) -> Rows:
    after = state.copy()
    after["value"] = np.where(known, values, state["value"])
    after["known"] = state["known"] | known
    return after


def _extreme(state: Rows, values: Float64, start: Int64, *, sign: float) -> Rows:
    known = ~np.isnan(values)
    # Adding 0.0 turns -0.0 into 0.0: which zero a comparison picks would depend on their places.
    found = np.maximum.reduceat(np.where(known, sign * values, -np.inf), start)
    before = np.where(state["known"], sign * state["value"], -np.inf)
    return _known(state, np.maximum(found, before) > -np.inf, sign * np.maximum(found, before) + 0.0)
