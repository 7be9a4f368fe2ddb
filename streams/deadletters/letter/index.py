"""Columns over the dead letters of a topic: a million of them fit into 100 MB.

A letter is an id; a record of the topic is one attempt of it. Everything about a letter refers to its latest attempt.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import Bools, Int8, Int32, Int64
from streams.deadletters.letter.codes import Codes
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.foreign import NO_SCHEMA_ID, Envelopes, Kind

ID_TYPE: Final = "S24"
_NO_KEY: Final = -1
_NOT_PLAIN: Final = -1
_MESSAGES_MAX: Final = 50_000
"""Different messages that are remembered; letters with further ones are read when they are needed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A record of a dead-letter topic."""

    partition: int
    offset: int


class Columns(NamedTuple):
    """Columns over records of a dead-letter topic. `key`, `reason`, `source` and `message` are codes (`Codes`)."""

    ids: NDArray[np.bytes_]
    partition: Int32
    offset: Int64
    timestamp_ms: Int64
    key: Int32
    reason: Int32
    source: Int32
    kind: Int8
    attempt: Int32
    schema_id: Int64
    first_failed_at: Int64
    message: Int32
    origin: Int64
    """Partition and offset in the source, two columns."""

    def rows(self, index: Any) -> "Columns":
        """These rows of all columns, by mask or index."""
        return Columns(*(column[index] for column in self))


def _no_columns() -> Columns:
    def empty(kind: str) -> NDArray[Any]:
        return np.empty(0, dtype=kind)

    return Columns(
        ids=empty(ID_TYPE),
        partition=empty("i4"),
        offset=empty("i8"),
        timestamp_ms=empty("i8"),
        key=empty("i4"),
        reason=empty("i4"),
        source=empty("i4"),
        kind=empty("i1"),
        attempt=empty("i4"),
        schema_id=empty("i8"),
        first_failed_at=empty("i8"),
        message=empty("i4"),
        origin=np.empty((0, 2), dtype=np.int64),
    )


class Letters:
    """The records of one dead-letter topic, in columns that grow."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._parts: list[Columns] = []
        self._columns: Columns | None = None
        self._latest: Rows | None = None
        self._reasons, self._sources, self._keys, self._messages = Codes(), Codes(), Codes(), Codes()

    def __len__(self) -> int:
        return len(self._all().ids)

    def add(
        self,
        partitions: Sequence[int],
        offsets: Sequence[int],
        timestamps: Sequence[int],
        keys: Sequence[bytes | None],
        envelopes: Envelopes,
    ) -> None:
        """Add records, row by row; each partition's in the order of its log."""
        if not envelopes.ids:
            return
        key_code, reason_code, source_code = self._keys.code, self._reasons.code, self._sources.code
        self._parts.append(
            Columns(
                ids=np.frombuffer(b"".join(envelopes.ids), dtype=ID_TYPE),
                partition=np.array(partitions, dtype=np.int32),
                offset=np.array(offsets, dtype=np.int64),
                timestamp_ms=np.array(timestamps, dtype=np.int64),
                key=np.array([_NO_KEY if key is None else key_code(key) for key in keys], dtype=np.int32),
                reason=np.array(list(map(reason_code, envelopes.reasons)), dtype=np.int32),
                source=np.array(list(map(source_code, envelopes.sources)), dtype=np.int32),
                kind=np.array(envelopes.kinds, dtype=np.int8),
                attempt=np.array(envelopes.attempts, dtype=np.int32),
                schema_id=np.array(envelopes.schema_ids, dtype=np.int64),
                first_failed_at=np.array(envelopes.first_failed_at, dtype=np.int64),
                message=np.array(list(map(self._message_code, envelopes.messages)), dtype=np.int32),
                origin=np.array(envelopes.origins, dtype=np.int64).reshape(-1, 2),
            )
        )
        self._columns = None

    def _message_code(self, message: bytes | None) -> int:
        if message is None or (len(self._messages.values) >= _MESSAGES_MAX and not self._messages.knows(message)):
            return _NOT_PLAIN
        return self._messages.code(message)

    def forget_before(self, lows: Mapping[int, int]) -> None:
        """Drop what the broker has deleted: records before the first offset of their partition."""
        columns = self._all()
        keep = np.ones(len(columns.ids), dtype=np.bool_)
        for partition, low in lows.items():
            keep &= (columns.partition != partition) | (columns.offset >= low)
        if not keep.all():
            self._columns = columns.rows(keep)
            self._parts = [self._columns]

    def sources(self) -> list[str]:
        """Topics that the records belong to, according to their envelopes."""
        return sorted(source for source in self._sources.values if source)

    def reasons(self) -> list[str]:
        """Reasons of the records."""
        return sorted(self._reasons.values)

    def latest(self) -> "Rows":
        """The latest attempt of each letter, in no particular order."""
        columns = self._all()
        if self._latest is None or self._latest.columns is not columns:
            ids, offsets, attempts = columns.ids, columns.offset, columns.attempt
            order = np.lexsort((offsets, attempts, ids))
            ordered = ids[order]
            last = np.ones(len(order), dtype=np.bool_)
            last[:-1] = ordered[1:] != ordered[:-1]
            self._latest = Rows(self, columns, order[last])
        return self._latest

    def attempts_of(self, letter_id: bytes) -> "Rows":
        """All attempts of a letter that are still in the topic, the first one first."""
        columns = self._all()
        ids, offsets, attempts = columns.ids, columns.offset, columns.attempt
        rows = np.flatnonzero(ids == letter_id)
        return Rows(self, columns, rows[np.lexsort((offsets[rows], attempts[rows]))])

    def _all(self) -> Columns:
        if self._columns is None:
            if len(self._parts) > 1:
                self._parts = [Columns(*map(np.concatenate, zip(*self._parts, strict=True)))]
            self._columns = self._parts[0] if self._parts else _no_columns()
        return self._columns


@dataclass(frozen=True, slots=True)
class Rows:
    """Some records of a topic, as of one moment."""

    letters: Letters
    columns: Columns
    index: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.index)

    def where(self, keep: Bools | NDArray[np.intp]) -> "Rows":
        """Some of the rows, by mask or index."""
        return Rows(self.letters, self.columns, self.index[keep])

    @property
    def ids(self) -> NDArray[np.bytes_]:
        """Ids, 24 hexadecimal digits each."""
        return self.columns.ids[self.index]

    @property
    def partition(self) -> Int32:
        """Partitions in the dead-letter topic."""
        return self.columns.partition[self.index]

    @property
    def offset(self) -> Int64:
        """Offsets in the dead-letter topic."""
        return self.columns.offset[self.index]

    def places(self) -> list[Place]:
        """Partition and offset of each in the dead-letter topic."""
        return list(map(Place, self.partition.tolist(), self.offset.tolist()))

    @property
    def timestamp_ms(self) -> Int64:
        """Timestamps of the records."""
        return self.columns.timestamp_ms[self.index]

    @property
    def kind(self) -> Int8:
        """Who wrote the envelopes (`Kind`)."""
        return self.columns.kind[self.index]

    @property
    def attempt(self) -> Int32:
        """Attempts, counted from 1."""
        return self.columns.attempt[self.index]

    @property
    def first_failed_at(self) -> Int64:
        """When the letters failed for the first time, milliseconds."""
        return self.columns.first_failed_at[self.index]

    def reasons(self) -> list[str]:
        """Reason of each."""
        return [self.letters._reasons.values[code] for code in self.columns.reason[self.index].tolist()]  # noqa: SLF001 - its other half

    def sources(self) -> list[str]:
        """Topic to which each belongs; empty where nothing says so."""
        return [self.letters._sources.values[code] for code in self.columns.source[self.index].tolist()]  # noqa: SLF001 - as above

    def keys(self) -> list[bytes | None]:
        """Key of each."""
        values = self.letters._keys.values  # noqa: SLF001 - as above
        return [None if code == _NO_KEY else values[code] for code in self.columns.key[self.index].tolist()]

    def schema_ids(self) -> list[int | None]:
        """Schema id of each, as far as its envelope gives one."""
        return [None if found == NO_SCHEMA_ID else found for found in self.columns.schema_id[self.index].tolist()]

    def plain(self) -> list[tuple[bytes, int, int] | None]:
        """For each plain letter, return its message and its place in the source: its headers say nothing else.

        None for a letter whose headers must be looked at.
        """
        values = self.letters._messages.values  # noqa: SLF001 - its other half
        columns = zip(self.columns.message[self.index].tolist(), self.columns.origin[self.index].tolist(), strict=True)
        return [None if code == _NOT_PLAIN else (values[code], *origin) for code, origin in columns]

    def of_source(self, source: str) -> "Rows":
        """Return the rows that belong to one source topic."""
        return self.where(np.isin(self.columns.source[self.index], self.letters._sources.wanted(frozenset({source}))))  # noqa: SLF001

    def matching(self, wanted: Filter) -> "Rows":
        """Rows that match a filter, apart from its `is_open`."""
        letters = self.letters
        keep = np.ones(len(self), dtype=np.bool_)
        if wanted.ids:
            ids = self.ids
            named = np.zeros(len(self), dtype=np.bool_)
            for each in wanted.ids:
                named |= np.char.startswith(ids, each.encode())
            keep &= named
        if wanted.reasons:
            keep &= np.isin(self.columns.reason[self.index], letters._reasons.wanted(wanted.reasons))  # noqa: SLF001 - its other half
        if wanted.keys:
            keep &= np.isin(self.columns.key[self.index], letters._keys.wanted(wanted.keys))  # noqa: SLF001 - as above
        if wanted.schema_ids:
            keep &= np.isin(self.columns.schema_id[self.index], np.array(sorted(wanted.schema_ids), dtype=np.int64))
        if wanted.since_ms is not None:
            keep &= self.timestamp_ms >= wanted.since_ms
        if wanted.until_ms is not None:
            keep &= self.timestamp_ms < wanted.until_ms
        if wanted.pin is not None:
            keep &= self._before(wanted.pin.ends.get(letters.topic, ()))
        return self if keep.all() else self.where(keep)

    def _before(self, ends: Sequence[int]) -> Bools:
        """Rows before the end of their partition; rows of partitions without an end are left out."""
        partitions = self.partition
        known = np.array([*ends, 0], dtype=np.int64)
        before: Bools = self.offset < known[np.minimum(partitions, len(ends))]
        return before

    def newest_first(self) -> "Rows":
        """Return the rows sorted by time, the newest first."""
        return self.where(np.lexsort((self.offset, self.partition, self.timestamp_ms))[::-1])

    def oldest_first(self) -> "Rows":
        """Return the rows sorted by time, the oldest first."""
        return self.where(np.lexsort((self.offset, self.partition, self.timestamp_ms)))

    def in_log_order(self) -> "Rows":
        """Return the rows sorted by partition and offset."""
        return self.where(np.lexsort((self.offset, self.partition)))

    def counts(self, by: "str") -> Counter[str]:
        """How many there are of each reason, key (`device`), `schema-id`, `source` or `attempt`."""
        ways: dict[str, tuple[NDArray[Any], Callable[[Any], str]]] = {
            "reason": (self.columns.reason, self.letters._reasons.values.__getitem__),  # noqa: SLF001 - its other half
            "device": (self.columns.key, self._shown_key),
            "schema-id": (self.columns.schema_id, lambda found: "-" if found == NO_SCHEMA_ID else str(found)),
            "source": (self.columns.source, self.letters._sources.values.__getitem__),  # noqa: SLF001 - as above
            "attempt": (self.columns.attempt, str),
        }
        column, name_of = ways[by]
        codes, numbers = np.unique(column[self.index], return_counts=True)
        counted: Counter[str] = Counter()
        for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
            counted[name_of(code)] += number
        return counted

    def _shown_key(self, code: int) -> str:
        key = None if code == _NO_KEY else self.letters._keys.values[code]  # noqa: SLF001 - its other half
        return "-" if key is None else str(key.decode(errors="backslashreplace"))


def replayable(rows: Rows) -> Bools:
    """Rows with a complete envelope."""
    whole: Bools = rows.kind != Kind.BROKEN
    return whole
