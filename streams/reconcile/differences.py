"""What a comparison finds: differences, each with the first event that explains it, and what was not checked."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from streams.reconcile.model.events import Event, Reject

KEPT_MAX: Final = 1_000
"""Differences that are kept with all they say; the others are counted."""


class Kind(StrEnum):
    """What may be wrong."""

    LOST = "lost event"
    DOUBLED = "doubled event"
    OUT_OF_ORDER = "out of order"
    CHANGED = "bytes changed"
    UNEXPECTED = "event without source"
    LATE_WITHOUT_REASON = "late without reason"
    NOT_LATE = "clean instead of late"
    LATE_HEADERS = "wrong late headers"
    WRONG_ROW = "wrong table row"
    MISSING_ROW = "missing table row"
    SURPLUS_ROW = "surplus table row"
    WRONG_WINDOW = "wrong window rows"
    MISSING_WINDOW = "missing window rows"
    SURPLUS_WINDOW = "surplus window rows"
    MISSING_LETTER = "missing dead letter"
    SURPLUS_LETTER = "surplus dead letter"
    WRONG_LETTER = "wrong dead letter"
    SINK = "target differs from topic"


class Unchecked(StrEnum):
    """What cannot be checked, and why."""

    EVENTS_BEFORE = "events whose history begins before what is checked"
    ROWS_BEFORE = "table rows whose history begins before what is checked"
    WINDOWS_BEFORE = "windows whose history begins before what is checked"
    LETTERS_BEFORE = "dead letters of records before what is checked"
    OPEN_WINDOWS = "windows that are still open"
    IN_MOTION = "keys whose events were being processed"
    FORGOTTEN = "keys that were forgotten"
    MISROUTED = "keys with records in a partition that is not theirs"
    TARGET_BEFORE = "rows of a target whose records are gone from the topic"
    TARGET_LETTERS = "rows of a target that have a dead letter of the sink as well"
    LETTERS_ELSEWHERE = "dead letters that name no record of the source (gateway, bridge, pull)"


class Place(NamedTuple):
    """A record of the source."""

    partition: int
    offset: int
    event_id: str = ""
    event_time_ms: int | None = None

    @staticmethod
    def of(partition: int, record: Event | Reject) -> "Place":
        """Return the place of an event, or of a record that is no event."""
        if isinstance(record, Reject):
            return Place(partition, record.offset)
        return Place(partition, record.offset, record.event_id, record.event_time_ms)


class Column(NamedTuple):
    """A column of a row that is not what it must be."""

    name: str
    expected: Any
    actual: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference from what the flow should have written."""

    kind: Kind
    key: bytes | None
    topic: str
    """Topic in which something is wrong."""
    text: str
    """What is wrong, in a sentence."""
    event: Place | None = None
    """The first event that explains it, where one does."""
    columns: tuple[Column, ...] = ()


@dataclass(slots=True)
class Findings:
    """Findings in a part of what is compared; those of several parts can be added up."""

    differences: list[Difference] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    """Records and rows that were compared, by what they are."""
    unchecked: Counter[Unchecked] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    """What is worth knowing and no difference, in words."""

    def note(self, difference: Difference) -> None:
        """Count a difference; the first ones are kept."""
        self.counts[difference.kind] += 1
        if len(self.differences) < KEPT_MAX:
            self.differences.append(difference)

    def add(self, other: "Findings") -> None:
        """Add the findings of another part."""
        self.counts += other.counts
        self.checked.update(other.checked)  # what there was none of stays, as 0
        self.unchecked += other.unchecked
        self.remarks += other.remarks
        self.differences += other.differences[: KEPT_MAX - len(self.differences)]

    @property
    def total(self) -> int:
        """Number of differences."""
        return self.counts.total()


def instant(time_ms: float) -> str:
    """A time in words."""
    try:
        moment = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (ValueError, OverflowError):
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{int(time_ms) % 1000:03d} UTC"


def differing(
    expected: Mapping[str, Any], actual: Mapping[str, Any], slack: Mapping[str, tuple[float, float]] | None = None
) -> tuple[Column, ...]:
    """Columns of a row that differ. A column that only one side has is one that the row's schema did not have yet.

    `slack`: by column, how far a number may be off, and which share of itself.
    """
    return tuple(
        Column(name, expected[name], actual[name])
        for name in expected
        if name in actual
        and not _is_same(expected[name], actual[name])
        and not (slack and name in slack and _is_near(expected[name], actual[name], *slack[name]))
    )


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - not a number


def _is_near(one: Any, other: Any, by: float, share: float) -> bool:
    is_number = isinstance(one, int | float) and isinstance(other, int | float)
    return is_number and abs(one - other) <= by + share * abs(one)
