"""Dictionary encoding: repeated values as small numbers in a column."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.batch.columns import Int64


@dataclass(slots=True)
class Codes:
    """Repeated values, as small numbers."""

    values: list[Any] = field(default_factory=list)
    _of: dict[Any, int] = field(default_factory=dict)

    def code(self, value: Any) -> int:
        """Number of a value; a new value gets the next one."""
        found = self._of.get(value)
        if found is None:
            found = self._of[value] = len(self.values)
            self.values.append(value)
        return found

    def knows(self, value: Any) -> bool:
        """Whether a value has a number."""
        return value in self._of

    def wanted(self, values: frozenset[Any]) -> Int64:
        """Numbers of the values that have one."""
        return np.array([self._of[value] for value in values if value in self._of], dtype=np.int64)
