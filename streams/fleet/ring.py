"""Rows of the past in columns, the newest so many: memory grows with what is kept, up to a bound. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROWS_FIRST: Final = 4_096


class RowRing:
    """Rows of a structured type in order of arrival; when there are `rows_max`, each new one replaces the oldest."""

    def __init__(self, dtype: "np.dtype[np.void]", rows_max: int) -> None:
        self._rows = np.zeros(min(ROWS_FIRST, rows_max), dtype=dtype)
        self._rows_max = rows_max
        self._next = 0
        """Rows that have ever been added."""

    def __len__(self) -> int:
        return min(self._next, len(self._rows))

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return int(self._rows.nbytes)

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Add rows, the oldest first; every column has as many."""
        count = len(next(iter(columns.values())))
        if count > self._rows_max:
            columns = {name: values[-self._rows_max :] for name, values in columns.items()}
            count = self._rows_max
        while self._next + count > len(self._rows) < self._rows_max:
            self._grow()
        at = np.arange(self._next, self._next + count) % len(self._rows)
        for name, values in columns.items():
            self._rows[name][at] = values
        self._next += count

    def where(self, field: str, value: int) -> NDArray[np.void]:
        """Copies of the rows with this value, the oldest first."""
        return self._chosen(self._rows[field][: len(self)] == value)

    def between(self, field: str, first: int, end: int) -> NDArray[np.void]:
        """Copies of the rows with a value from `first` on and before `end`, the oldest first."""
        values = self._rows[field][: len(self)]
        return self._chosen((values >= first) & (values < end))

    def before(self, field: str, end: int) -> NDArray[np.void]:
        """Copies of the rows with a value before `end`, the oldest first."""
        return self._chosen(self._rows[field][: len(self)] < end)

    def column(self, field: str) -> NDArray[Any]:
        """Copies of all values of a field, in no order."""
        return self._rows[field][: len(self)].copy()

    def _grow(self) -> None:
        """Twice as many places. Only ever called before a row was replaced, so that rows stand in order."""
        size = min(2 * len(self._rows), self._rows_max)
        grown = np.zeros(size, dtype=self._rows.dtype)
        grown[: self._next] = self._rows[: self._next]
        self._rows = grown

    def _chosen(self, mask: NDArray[np.bool_]) -> NDArray[np.void]:
        at = np.flatnonzero(mask)
        if self._next > len(self._rows):
            split = np.searchsorted(at, self._next % len(self._rows))
            at = np.concatenate([at[split:], at[:split]])
        return self._rows[at]
