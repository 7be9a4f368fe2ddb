"""What a target must hold by the records of its topic, against what it holds. Pure.

Rows are compared as plain values: `held.py` gives those of the target, and those of the topic in the same form.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from streams.reconcile.differences import Difference, Findings, Kind, Place, Unchecked, differing
from streams.sink.batches import Place as RecordPlace

ROWS: Final = "rows of the target"
RECORDS: Final = "records of the topic"
LETTERS: Final = "records with a dead letter"
PARTITION: Final = "streams_partition"
OFFSET: Final = "streams_offset"

Values = tuple[Any, ...]
RowKey = tuple[Any, ...]
"""What rows are told apart by: the values of the key's columns, or, without a key, partition and offset."""


class HeldRow(NamedTuple):
    """A row of the target, or what one must be."""

    partition: int
    offset: int
    values: Values
    """By column, in the order of the sink's columns."""

    @property
    def place(self) -> RecordPlace:
        """Where it was read."""
        return self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Shape:
    """Names of the columns, and of those that rows are told apart by."""

    topic: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: HeldRow) -> RowKey:
        """What the row is told apart by."""
        if not self.key:
            return row.place
        return tuple(row.values[self.columns.index(name)] for name in self.key)

    def named(self, row: HeldRow) -> dict[str, Any]:
        """Values by name, with where the row was read."""
        return {**dict(zip(self.columns, row.values, strict=True)), PARTITION: row.partition, OFFSET: row.offset}


@dataclass(slots=True)
class Demanded:
    """What the records of a topic make of a target, as far as it has read. Of one slice of the rows."""

    shape: Shape
    slice: int = 0
    slices: int = 1
    """Of several slices of the rows, each compared by itself so that it fits into memory."""
    rows: dict[RowKey, HeldRow | None] = field(default_factory=dict)
    """None: the newest record of the key deletes its row."""
    later: set[RowKey] = field(default_factory=set)
    """Keys of records that the target has not read yet: compaction may have removed the ones before them."""
    moved: set[RowKey] = field(default_factory=set)
    """Keys with records in several partitions and a deletion among them: which came first is not known."""
    records: int = 0
    rejected: dict[RecordPlace, str] = field(default_factory=dict)
    """Records that are no row of the target, and why."""
    _deleted_in: dict[RowKey, int] = field(default_factory=dict)

    def has(self, key: RowKey) -> bool:
        """Whether a row is in this slice."""
        return self.slices == 1 or zlib.crc32(repr(key).encode()) % self.slices == self.slice

    def take(self, row: HeldRow) -> None:
        """A record that the target has read."""
        key = self.shape.key_of(row)
        if not self.has(key):
            return
        before = self.rows.get(key)
        if key in self._deleted_in and self._deleted_in[key] != row.partition:
            self.moved.add(key)
        if before is None or before.partition <= row.partition:
            self.rows[key] = row

    def delete(self, text: str, partition: int) -> None:
        """A record without a value, of a topic with one field as its key."""
        key: RowKey = (text,)
        if not self.has(key):
            return
        before = self.rows.get(key)
        if before is not None and before.partition != partition:
            self.moved.add(key)
        if before is None or before.partition <= partition:
            self.rows[key] = None
        self._deleted_in[key] = partition

    def note_later(self, key: RowKey) -> None:
        """The target has not read a record of this key yet."""
        if self.has(key):
            self.later.add(key)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which records of the topic stand for the target."""

    low: Mapping[int, int]
    """By partition, the first record that is there."""
    read: Mapping[int, int]
    """By partition, the offset after the last record that the target has."""
    letters: Collection[RecordPlace]
    """Records with a dead letter of the sink."""
    has_all_letters: bool = True
    """Whether no dead letter is gone."""


def compare(demanded: Demanded, held: Iterable[HeldRow], reach: Reach, findings: Findings) -> None:
    """Every difference, into `findings`."""
    shape = demanded.shape
    seen: Counter[RowKey] = Counter()
    for row in held:
        key = shape.key_of(row)
        if not demanded.has(key):
            continue
        findings.checked[ROWS] += 1
        seen[key] += 1
        if seen[key] > 1:
            _note(findings, shape, key, f"{_named(shape, key)} is in the target {seen[key]} times", row)
        else:
            _compare(demanded, key, row, reach, findings)
    for key, wanted in demanded.rows.items():
        if wanted is None or key in seen:
            continue
        if key in demanded.moved:
            findings.unchecked[Unchecked.MISROUTED] += 1
        else:
            _note(findings, shape, key, f"{_named(shape, key)} is not in the target", wanted)
    findings.checked[RECORDS] += demanded.records
    _compare_letters(demanded, reach, findings)


def _compare(demanded: Demanded, key: RowKey, row: HeldRow, reach: Reach, findings: Findings) -> None:
    shape, wanted = demanded.shape, demanded.rows.get(key)
    if key in demanded.moved:
        findings.unchecked[Unchecked.MISROUTED] += 1
    elif row.place in reach.letters:
        findings.unchecked[Unchecked.TARGET_LETTERS] += 1
    elif wanted is not None:
        if columns := differing(shape.named(wanted), shape.named(row)):
            names = ", ".join(column.name for column in columns)
            said = f"{_named(shape, key)} is not what the record says ({names})"
            _note(findings, shape, key, said, wanted, columns)
    elif row.offset >= reach.read.get(row.partition, 0):
        said = f"{_named(shape, key)} is of a record after the offset up to which the target says it has read"
        _note(findings, shape, key, said, row)
    elif key in demanded.later:
        findings.unchecked[Unchecked.IN_MOTION] += 1
    elif key in demanded.rows:
        _note(findings, shape, key, f"{_named(shape, key)} is there, and the topic has deleted it", row)
    elif row.offset < reach.low.get(row.partition, 0):
        findings.unchecked[Unchecked.TARGET_BEFORE] += 1
    else:
        _note(findings, shape, key, f"{_named(shape, key)} is there, and the topic has no record of it", row)


def _compare_letters(demanded: Demanded, reach: Reach, findings: Findings) -> None:
    if demanded.slice:
        return
    for (partition, offset), why in sorted(demanded.rejected.items()):
        if (partition, offset) in reach.letters:
            findings.checked[LETTERS] += 1
        elif not reach.has_all_letters:
            findings.unchecked[Unchecked.LETTERS_BEFORE] += 1
        else:
            text = f"the record is no row of the target ({why}), and no dead letter of the sink says so"
            findings.note(Difference(Kind.MISSING_LETTER, None, demanded.shape.topic, text, Place(partition, offset)))


def _note(findings: Findings, shape: Shape, key: RowKey, text: str, row: HeldRow, columns: Sequence[Any] = ()) -> None:
    name = "|".join(map(str, key)).encode() if shape.key else None
    place = Place(row.partition, row.offset)
    findings.note(Difference(Kind.SINK, name, shape.topic, text, place, tuple(columns)))


def _named(shape: Shape, key: RowKey) -> str:
    return "its row" if shape.key else f"the row of the record at offset {key[1]} of partition {key[0]}"
