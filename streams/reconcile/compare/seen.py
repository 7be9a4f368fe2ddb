"""What the outputs of a flow hold, by key; and from where on it can be compared."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple


class SeenEvent(NamedTuple):
    """A record of the clean topic."""

    raw: bytes
    partition: int
    offset: int


class SeenLateEvent(NamedTuple):
    """A record of the late topic."""

    raw: bytes
    reason: str
    by_ms: int
    partition: int
    offset: int


class SeenRow(NamedTuple):
    """A row of a table or a window; without a value the key was forgotten."""

    value: bytes | None
    partition: int
    offset: int


class SeenLetter(NamedTuple):
    """A dead letter."""

    key: bytes | None
    digest: bytes
    reason: str
    partition: int
    offset: int


@dataclass(slots=True)
class KeyOutputs:
    """Outputs of one key, in the order of each topic."""

    clean: list[SeenEvent] = field(default_factory=list)
    late: list[SeenLateEvent] = field(default_factory=list)
    rows: dict[str, SeenRow] = field(default_factory=dict)
    """The last row, by the table's topic."""
    windows: dict[str, list[SeenRow]] = field(default_factory=dict)
    """Rows of windows, by the windows' topic."""
    was_forgotten: bool = False
    """A table has a row of it without a value."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a partition can be compared. Times are event times in ms; what is at them or before is left out."""

    partition: int
    reached: int
    """Offset that the group had reached at the point: what was before must be there."""
    clean: str | None
    """Topic of clean events."""
    late: str
    dlq: str
    is_whole: bool = True
    """The source is read from its first record, and nothing of it was deleted."""
    clean_after_ms: float = -math.inf
    late_after_ms: float = -math.inf
    windows_after_ms: float = -math.inf
    """Windows that begin later have all of their rows in the topic."""
    letters_from: int = 0
    """Dead letters of records from this offset on are all in the topic."""
    watermark: float = math.inf
    """Watermark at the point of the comparison."""
