"""Folds assembled from columns, for tables and windows that need no code of their own.

    Fold("sensor_id", FIELDS, {"events": Count(), "warmest_c": Greatest("temperature_c"), "last_seen": LastTime()})

The columns are in `columns.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streams.batch.columns import Int64, Objects
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import Segments
from streams.operators.fold.columns import _TIME, Column, LatestSymbol


class Fold:
    """A table's fold: an `Aggregate` whose public rows are the key and the columns, by name."""

    def __init__(
        self, key: str, fields: Sequence[str], columns: Mapping[str, Column], *, texts: Sequence[str] = ()
    ) -> None:
        """`key` names the key in the table's schema, `fields` and `texts` those of the flow's source.

        Raises:
            ValueError: a column reads a field that is not among them.

        """
        self._key = key
        self._columns = dict(columns)
        for name, column in self._columns.items():
            read, known = getattr(column, "field", None), texts if column.dtype.hasobject else fields
            if read is not None and read not in known:
                kind = "texts" if column.dtype.hasobject else "fields"
                raise ValueError(f"column {name!r} reads {read!r}, which is not one of the {kind} {list(known)}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The layouts of all columns together."""
        return np.dtype([(name, column.dtype) for name, column in self._columns.items()])

    @property
    def symbols(self) -> dict[str, tuple[str, ...]]:
        """All values of the columns that publish symbols: an enum in the table's schema has every one of them."""
        return {name: one.symbols for name, one in self._columns.items() if isinstance(one, LatestSymbol)}

    @property
    def meanings(self) -> dict[str, str]:
        """What each column computes: stored values of a column are used only by one that computes the same."""
        return {name: repr(column) for name, column in self._columns.items()}

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment."""
        rows = state.copy()
        for name, column in self._columns.items():
            rows[name] = column.fold(state[name], segments)
        return rows

    def table(self, keys: Objects, state: Rows) -> pa.RecordBatch:
        """The key and the columns."""
        return self._batch(keys, {}, state)

    def _batch(self, keys: Objects, between: Mapping[str, pa.Array], state: Rows) -> pa.RecordBatch:
        columns = {self._key: pa.array(keys, pa.binary()).cast(pa.string()), **between}
        columns |= {name: column.arrow(state[name]) for name, column in self._columns.items()}
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


class WindowFold:
    """A window's fold: a `WindowAggregate` whose rows are key, window_start, window_end, revision and the columns."""

    def __init__(self, key: str, fields: Sequence[str], columns: Mapping[str, Column]) -> None:
        """As `Fold`, but without text.

        Raises:
            ValueError: a column reads a field that is not among `fields`, or its state is text.

        """
        if texts := [name for name, column in columns.items() if column.dtype.hasobject]:
            raise ValueError(f"column {texts[0]!r} is text: rows of a window hold numbers only")
        self._fold = Fold(key, fields, columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The layouts of all columns together."""
        return self._fold.dtype

    @property
    def symbols(self) -> dict[str, tuple[str, ...]]:
        """Enum symbols by column, as `Fold.symbols`."""
        return self._fold.symbols

    @property
    def meanings(self) -> dict[str, str]:
        """What each column computes, as `Fold.meanings`."""
        return self._fold.meanings

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment."""
        return self._fold.fold(state, segments)

    def carry(self, state: Rows) -> Rows:
        """The next window of a key begins empty: nothing is carried over."""
        return np.zeros_like(state)

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        """The key, the window and the columns."""
        window = {
            "window_start": pa.array(start).cast(_TIME),
            "window_end": pa.array(end).cast(_TIME),
            "revision": pa.array(revision).cast(pa.int32()),
        }
        return self._fold._batch(keys, window, state)  # noqa: SLF001 - of this module
