"""Columns over the dead letters of a topic, and over what was done about them: a million of them fit into 100 MB.

A letter is an id; a record of the topic is one attempt of it. What is said of a letter is said of its latest attempt.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
from numpy.typing import NDArray

from streams.batch.columns import Bools, Int64
from streams.deadletters.letter.audit import Act, Outcome, is_resolution_key, parsed
from streams.deadletters.letter.foreign import NO_SCHEMA_ID, Envelopes, Kind
from streams.deadletters.letter.pin import Pin

ID_TYPE: Final = "S24"
_ACTS: Final = tuple(Act)
_OUTCOMES: Final = (None, *Outcome)
_NO_KEY: Final = -1
_NOT_PLAIN: Final = -1
_MESSAGES_MAX: Final = 50_000
"""Different messages that are remembered; letters with further ones are looked at when it comes to them."""
_INTEGER_END: Final = 1 << 62
_AUDIT_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("resolution", pa.string()),
        ("attempt", pa.int64()),
        ("letter_topic", pa.string()),
        ("letter_partition", pa.int64()),
        ("letter_offset", pa.int64()),
        ("outcome", pa.string()),
        ("at", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Place:
    """A record of a dead-letter topic."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; an empty part says nothing. Times are the records', milliseconds, the end excluded."""

    ids: frozenset[str] = frozenset()
    """Whole ids, or beginnings of them."""
    reasons: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    """Keys of the records: the devices, or orders."""
    schema_ids: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    is_open: bool | None = None
    pin: Pin | None = None
    """Only what was there by then."""

    def opened(self) -> "Filter":
        """Of these letters the open ones."""
        return replace(self, is_open=True)

    def pinned(self, pin: Pin) -> "Filter":
        """Of these letters those that were there by then."""
        return replace(self, pin=pin)

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return self != Filter()


@dataclass(slots=True)
class _Codes:
    """Values that come again and again, as small numbers."""

    values: list[Any] = field(default_factory=list)
    _of: dict[Any, int] = field(default_factory=dict)

    def code(self, value: Any) -> int:
        found = self._of.get(value)
        if found is None:
            found = self._of[value] = len(self.values)
            self.values.append(value)
        return found

    def knows(self, value: Any) -> bool:
        return value in self._of

    def wanted(self, values: frozenset[Any]) -> Int64:
        return np.array([self._of[value] for value in values if value in self._of], dtype=np.int64)


class Letters:
    """The records of one dead-letter topic, in columns that grow."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._parts: list[tuple[Any, ...]] = []
        self._columns: tuple[Any, ...] | None = None
        self._latest: Rows | None = None
        self._reasons, self._sources, self._keys, self._messages = _Codes(), _Codes(), _Codes(), _Codes()

    def __len__(self) -> int:
        return len(self._all()[0])

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
            (
                np.frombuffer(b"".join(envelopes.ids), dtype=ID_TYPE),
                np.array(partitions, dtype=np.int32),
                np.array(offsets, dtype=np.int64),
                np.array(timestamps, dtype=np.int64),
                np.array([_NO_KEY if key is None else key_code(key) for key in keys], dtype=np.int32),
                np.array(list(map(reason_code, envelopes.reasons)), dtype=np.int32),
                np.array(list(map(source_code, envelopes.sources)), dtype=np.int32),
                np.array(envelopes.kinds, dtype=np.int8),
                np.array(envelopes.attempts, dtype=np.int32),
                np.array(envelopes.schema_ids, dtype=np.int64),
                np.array(envelopes.first_failed_at, dtype=np.int64),
                np.array(list(map(self._message_code, envelopes.messages)), dtype=np.int32),
                np.array(envelopes.origins, dtype=np.int64).reshape(-1, 2),
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
        keep = np.ones(len(columns[0]), dtype=np.bool_)
        for partition, low in lows.items():
            keep &= (columns[1] != partition) | (columns[2] >= low)
        if not keep.all():
            self._columns = tuple(column[keep] for column in columns)
            self._parts = [self._columns]

    def sources(self) -> list[str]:
        """Topics to which the records belong, as far as their envelopes say."""
        return sorted(source for source in self._sources.values if source)

    def reasons(self) -> list[str]:
        """Reasons of the records."""
        return sorted(self._reasons.values)

    def latest(self) -> "Rows":
        """The latest attempt of each letter, in no particular order."""
        columns = self._all()
        if self._latest is None or self._latest.columns is not columns:
            ids, offsets, attempts = columns[0], columns[2], columns[8]
            order = np.lexsort((offsets, attempts, ids))
            ordered = ids[order]
            last = np.ones(len(order), dtype=np.bool_)
            last[:-1] = ordered[1:] != ordered[:-1]
            self._latest = Rows(self, columns, order[last])
        return self._latest

    def attempts_of(self, letter_id: bytes) -> "Rows":
        """All attempts of a letter that are still in the topic, the first one first."""
        columns = self._all()
        ids, offsets, attempts = columns[0], columns[2], columns[8]
        rows = np.flatnonzero(ids == letter_id)
        return Rows(self, columns, rows[np.lexsort((offsets[rows], attempts[rows]))])

    def _all(self) -> tuple[Any, ...]:
        if self._columns is None:
            if len(self._parts) > 1:
                self._parts = [tuple(np.concatenate(columns) for columns in zip(*self._parts, strict=True))]
            self._columns = self._parts[0] if self._parts else _EMPTY
        return self._columns


_EMPTY: Final = (
    *(np.empty(0, dtype=kind) for kind in (ID_TYPE, "i4", "i8", "i8", "i4", "i4", "i4", "i1", "i4", "i8", "i8", "i4")),
    np.empty((0, 2), dtype=np.int64),
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some records of a topic, as of the moment when they were asked for."""

    letters: Letters
    columns: tuple[Any, ...]
    index: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.index)

    def where(self, keep: Bools | NDArray[np.intp]) -> "Rows":
        """Some of them, by mask or index."""
        return Rows(self.letters, self.columns, self.index[keep])

    @property
    def ids(self) -> NDArray[np.bytes_]:
        """Ids, 24 hexadecimal digits each."""
        return self._column(0)  # type: ignore[no-any-return]

    @property
    def partition(self) -> Int64:
        """Partitions in the dead-letter topic."""
        return self._column(1)  # type: ignore[no-any-return]

    @property
    def offset(self) -> Int64:
        """Offsets in the dead-letter topic."""
        return self._column(2)  # type: ignore[no-any-return]

    def places(self) -> list[Place]:
        """Where they are."""
        return list(map(Place, self.partition.tolist(), self.offset.tolist()))

    @property
    def timestamp_ms(self) -> Int64:
        """Timestamps of the records."""
        return self._column(3)  # type: ignore[no-any-return]

    @property
    def kind(self) -> NDArray[np.int8]:
        """Who wrote the envelopes (`Kind`)."""
        return self._column(7)  # type: ignore[no-any-return]

    @property
    def attempt(self) -> Int64:
        """Attempts, counted from 1."""
        return self._column(8)  # type: ignore[no-any-return]

    @property
    def first_failed_at(self) -> Int64:
        """When the letters failed for the first time, milliseconds."""
        return self._column(10)  # type: ignore[no-any-return]

    def reasons(self) -> list[str]:
        """Reason of each."""
        return [self.letters._reasons.values[code] for code in self._column(5).tolist()]  # noqa: SLF001 - its other half

    def sources(self) -> list[str]:
        """Topic to which each belongs; empty where nothing says so."""
        return [self.letters._sources.values[code] for code in self._column(6).tolist()]  # noqa: SLF001 - as above

    def keys(self) -> list[bytes | None]:
        """Key of each."""
        values = self.letters._keys.values  # noqa: SLF001 - as above
        return [None if code == _NO_KEY else values[code] for code in self._column(4).tolist()]

    def schema_ids(self) -> list[int | None]:
        """Schema id of each, as far as its envelope gives one."""
        return [None if found == NO_SCHEMA_ID else found for found in self._column(9).tolist()]

    def plain(self) -> list[tuple[bytes, int, int] | None]:
        """Of each plain letter its message, and where in the source it was read: all that its headers say beyond this.

        None for a letter whose headers must be looked at.
        """
        values = self.letters._messages.values  # noqa: SLF001 - its other half
        columns = zip(self._column(11).tolist(), self._column(12).tolist(), strict=True)
        return [None if code == _NOT_PLAIN else (values[code], *origin) for code, origin in columns]

    def of_source(self, source: str) -> "Rows":
        """Those that belong to one topic."""
        return self.where(np.isin(self._column(6), self.letters._sources.wanted(frozenset({source}))))  # noqa: SLF001

    def matching(self, wanted: Filter) -> "Rows":
        """Those that a filter means, its `is_open` apart."""
        letters = self.letters
        keep = np.ones(len(self), dtype=np.bool_)
        if wanted.ids:
            ids = self.ids
            named = np.zeros(len(self), dtype=np.bool_)
            for each in wanted.ids:
                named |= np.char.startswith(ids, each.encode())
            keep &= named
        if wanted.reasons:
            keep &= np.isin(self._column(5), letters._reasons.wanted(wanted.reasons))  # noqa: SLF001 - its other half
        if wanted.keys:
            keep &= np.isin(self._column(4), letters._keys.wanted(wanted.keys))  # noqa: SLF001 - as above
        if wanted.schema_ids:
            keep &= np.isin(self._column(9), np.array(sorted(wanted.schema_ids), dtype=np.int64))
        if wanted.since_ms is not None:
            keep &= self.timestamp_ms >= wanted.since_ms
        if wanted.until_ms is not None:
            keep &= self.timestamp_ms < wanted.until_ms
        if wanted.pin is not None:
            keep &= self._before(wanted.pin.ends.get(letters.topic, ()))
        return self if keep.all() else self.where(keep)

    def _before(self, ends: Sequence[int]) -> Bools:
        """Which of them are before the end of their partition; those of a partition without one are not."""
        partitions = self.partition
        known = np.array([*ends, 0], dtype=np.int64)
        before: Bools = self.offset < known[np.minimum(partitions, len(ends))]
        return before

    def newest_first(self) -> "Rows":
        """By time, the newest first."""
        return self.where(np.lexsort((self.offset, self.partition, self.timestamp_ms))[::-1])

    def oldest_first(self) -> "Rows":
        """By time, the oldest first."""
        return self.where(np.lexsort((self.offset, self.partition, self.timestamp_ms)))

    def in_log_order(self) -> "Rows":
        """By partition and offset."""
        return self.where(np.lexsort((self.offset, self.partition)))

    def counts(self, by: "str") -> Counter[str]:
        """How many there are of each reason, key (`device`), `schema-id`, `source` or `attempt`."""
        ways: dict[str, tuple[int, Callable[[Any], str]]] = {
            "reason": (5, self.letters._reasons.values.__getitem__),  # noqa: SLF001 - its other half
            "device": (4, self._shown_key),
            "schema-id": (9, lambda found: "-" if found == NO_SCHEMA_ID else str(found)),
            "source": (6, self.letters._sources.values.__getitem__),  # noqa: SLF001 - as above
            "attempt": (8, str),
        }
        column, name_of = ways[by]
        codes, numbers = np.unique(self._column(column), return_counts=True)
        counted: Counter[str] = Counter()
        for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
            counted[name_of(code)] += number
        return counted

    def _shown_key(self, code: int) -> str:
        key = None if code == _NO_KEY else self.letters._keys.values[code]  # noqa: SLF001 - its other half
        return "-" if key is None else str(key.decode(errors="backslashreplace"))

    def _column(self, number: int) -> Any:
        return self.columns[number][self.index]


class Resolutions:
    """What was done about the letters of one source, in columns that grow: of each id the latest resolution counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[Any, ...]] = []
        self._topics = _Codes()
        self._count = 0
        self._is_sorted = False

    def add(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        partitions: Sequence[int],
        offsets: Sequence[int],
    ) -> None:
        """Add audit records, in the order of the log; what is no resolution is left out."""
        at = [row for row, key in enumerate(keys) if values[row] and is_resolution_key(key)]
        lines = [values[row] or b"" for row in at]
        table = _columnar(lines) if lines else None
        if table is None:
            good = [(row, found) for row, line in zip(at, lines, strict=True) if (found := parsed(line)) is not None]
            at = [row for row, _ in good]
            table = pa.Table.from_pylist([_plain(found) for _, found in good], schema=_AUDIT_SCHEMA)
        ids = table["id"].to_pylist()
        acts, outcomes = table["resolution"].to_pylist(), table["outcome"].to_pylist()
        rows = [row for row, act in enumerate(acts) if act in _ACTS and ids[row] is not None and len(ids[row]) == 24]
        if not rows:
            return
        taken = table.take(rows) if len(rows) < len(ids) else table
        topics = [self._topics.code(topic) for topic in taken["letter_topic"].to_pylist()]
        self._parts.append(
            (
                np.array([ids[row] for row in rows], dtype=ID_TYPE),
                np.arange(self._count, self._count + len(rows)),
                _integers(taken["attempt"]),
                np.array([_ACTS.index(acts[row]) for row in rows], dtype=np.int8),
                np.array([_outcome_code(outcomes[row]) for row in rows], np.int8),
                np.array(topics, dtype=np.int32),
                _integers(taken["letter_partition"]),
                _integers(taken["letter_offset"]),
                _integers(taken["at"]),
                np.array([partitions[at[row]] for row in rows], dtype=np.int32),
                np.array([offsets[at[row]] for row in rows], dtype=np.int64),
            )
        )
        self._count += len(rows)
        self._is_sorted = False

    def of(self, rows: Rows) -> "States":
        """What was done about the letters of `rows`."""
        count = len(rows)
        acts = np.full(count, -1, dtype=np.int8)
        outcomes = np.zeros(count, dtype=np.int8)
        at_ms = np.zeros(count, dtype=np.int64)
        if not self._parts or not count:
            return States(acts, outcomes, at_ms)
        ids, *rest = self._latest()
        attempts, kinds, found_outcomes, topics, partitions, offsets, times, *_ = rest
        place = np.minimum(np.searchsorted(ids, rows.ids), len(ids) - 1)
        applies = ids[place] == rows.ids
        # A place of the source comes again when the topic is created again: a resolution is of a record, not of an id.
        applies &= attempts[place] >= rows.attempt
        mine = self._topics.wanted(frozenset({rows.letters.topic}))
        same = np.isin(topics[place], mine) & (attempts[place] == rows.attempt) & (partitions[place] == rows.partition)
        applies &= ~(same & (rows.offset > offsets[place]))
        acts[applies] = kinds[place][applies]
        outcomes[applies] = found_outcomes[place][applies]
        at_ms[applies] = times[place][applies]
        return States(acts, outcomes, at_ms)

    def place_of(self, letter_id: bytes) -> Place | None:
        """Where in the audit topic the resolution of a letter is that counts."""
        if not self._parts:
            return None
        ids, *_, partitions, offsets = self._latest()
        place = int(np.searchsorted(ids, np.array([letter_id], dtype=ID_TYPE))[0])
        if place == len(ids) or ids[place] != letter_id:
            return None
        return Place(int(partitions[place]), int(offsets[place]))

    def _latest(self) -> tuple[Any, ...]:
        """The resolution of each id that counts: of its highest attempt the one with an outcome, else the last."""
        if not self._is_sorted:
            columns = [np.concatenate(each) for each in zip(*self._parts, strict=True)]
            ids, arrival, attempts, _, outcomes, *_ = columns
            order = np.lexsort((arrival, outcomes > 0, attempts, ids))
            ordered = ids[order]
            last = np.ones(len(order), dtype=np.bool_)
            last[:-1] = ordered[1:] != ordered[:-1]
            kept = order[last]
            self._parts = [tuple(column[kept] for column in columns)]
            self._is_sorted = True
        ids, _, *rest = self._parts[0]
        return (ids, *rest)


@dataclass(frozen=True, slots=True)
class States:
    """What was done about some letters, row by row."""

    acts: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    at_ms: Int64

    @property
    def is_open(self) -> Bools:
        """Nothing was done about the latest attempt."""
        return self.acts < 0

    def named(self) -> list[tuple[Act | None, Outcome | None]]:
        """Act and outcome of each; None while there is none."""
        return [
            (None if act < 0 else _ACTS[act], _OUTCOMES[outcome])
            for act, outcome in zip(self.acts.tolist(), self.outcomes.tolist(), strict=True)
        ]

    def where(self, keep: Bools | NDArray[np.intp]) -> "States":
        """Some of them."""
        return States(self.acts[keep], self.outcomes[keep], self.at_ms[keep])


@dataclass(frozen=True, slots=True)
class Figures:
    """What a dashboard shows of one dead-letter topic."""

    topic: str
    by_reason: Mapping[str, int]
    """Letters, open or not."""
    open_by_reason: Mapping[str, int]
    oldest_open_at_ms: int | None
    """When the oldest open letter failed for the first time."""


def figures(topic: str, rows: Rows, states: States) -> Figures:
    """Count letters (the latest attempt of each), and those that nothing was done about."""
    still = rows.where(states.is_open)
    oldest = int(still.first_failed_at.min()) if len(still) else None
    return Figures(topic, rows.counts("reason"), still.counts("reason"), oldest)


def replayable(rows: Rows) -> Bools:
    """Which of `rows` have a whole envelope."""
    whole: Bools = rows.kind != Kind.BROKEN
    return whole


def _columnar(lines: list[bytes]) -> pa.Table | None:
    """All lines at once; None when one of them is not what we write (somebody else may write, too)."""
    if any(b"\n" in line for line in lines):
        return None
    options = pj.ParseOptions(explicit_schema=_AUDIT_SCHEMA, unexpected_field_behavior="ignore")
    try:
        table = pj.read_json(pa.BufferReader(b"\n".join(lines) + b"\n"), parse_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if len(table) != len(lines) or any(table[name].null_count for name in ("id", "resolution", "attempt")):
        return None
    return table


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of a record that is well-formed in its main parts; what is of another type is none."""
    plain: dict[str, Any] = {}
    for name, kind in zip(_AUDIT_SCHEMA.names, _AUDIT_SCHEMA.types, strict=True):
        value = found.get(name)
        if pa.types.is_integer(kind):
            fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGER_END
        else:
            fits = isinstance(value, str)
        plain[name] = value if fits else None
    return plain


def _outcome_code(name: str | None) -> int:
    return _OUTCOMES.index(name) if name in _OUTCOMES else 0


def _integers(column: pa.ChunkedArray) -> Int64:
    found: Int64 = column.fill_null(-1).to_numpy()
    return found
