"""Columns over the audit topic: what was done about the dead letters of one source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
from numpy.typing import NDArray

from streams.batch.columns import Bools, Int8, Int32, Int64
from streams.deadletters.letter.audit import Act, Outcome, is_resolution_key, parsed
from streams.deadletters.letter.codes import Codes
from streams.deadletters.letter.index import ID_TYPE, Place, Rows

_ACTS: Final = tuple(Act)
_OUTCOMES: Final = (None, *Outcome)
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


class Columns(NamedTuple):
    """Columns over resolutions. `topic` is a code (`Codes`); `act` and `outcome` index `_ACTS` and `_OUTCOMES`."""

    ids: NDArray[np.bytes_]
    arrival: Int64
    """Counts the resolutions in the order of the log."""
    attempt: Int64
    act: Int8
    outcome: Int8
    topic: Int32
    partition: Int64
    """Partition of each letter in the dead-letter topic."""
    offset: Int64
    """Offset of each letter in the dead-letter topic."""
    at_ms: Int64
    audit_partition: Int32
    audit_offset: Int64

    def rows(self, index: Any) -> "Columns":
        """These rows of all columns, by mask or index."""
        return Columns(*(column[index] for column in self))


class Resolutions:
    """What was done about the letters of one source, in columns that grow: of each id the latest resolution counts."""

    def __init__(self) -> None:
        self._parts: list[Columns] = []
        self._topics = Codes()
        self._count = 0
        self._is_sorted = False

    def add(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        partitions: Sequence[int],
        offsets: Sequence[int],
    ) -> None:
        """Add audit records, in the order of the log; records that are not resolutions are skipped."""
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
            Columns(
                ids=np.array([ids[row] for row in rows], dtype=ID_TYPE),
                arrival=np.arange(self._count, self._count + len(rows)),
                attempt=_integers(taken["attempt"]),
                act=np.array([_ACTS.index(acts[row]) for row in rows], dtype=np.int8),
                outcome=np.array([_outcome_code(outcomes[row]) for row in rows], np.int8),
                topic=np.array(topics, dtype=np.int32),
                partition=_integers(taken["letter_partition"]),
                offset=_integers(taken["letter_offset"]),
                at_ms=_integers(taken["at"]),
                audit_partition=np.array([partitions[at[row]] for row in rows], dtype=np.int32),
                audit_offset=np.array([offsets[at[row]] for row in rows], dtype=np.int64),
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
        latest = self._latest()
        place = np.minimum(np.searchsorted(latest.ids, rows.ids), len(latest.ids) - 1)
        applies = latest.ids[place] == rows.ids
        # A place of the source comes again when the topic is created again: a resolution is of a record, not of an id.
        attempts = latest.attempt[place]
        applies &= attempts >= rows.attempt
        mine = self._topics.wanted(frozenset({rows.letters.topic}))
        is_of_topic = np.isin(latest.topic[place], mine) & (latest.partition[place] == rows.partition)
        applies &= ~(is_of_topic & (attempts == rows.attempt) & (rows.offset > latest.offset[place]))
        acts[applies] = latest.act[place][applies]
        outcomes[applies] = latest.outcome[place][applies]
        at_ms[applies] = latest.at_ms[place][applies]
        return States(acts, outcomes, at_ms)

    def place_of(self, letter_id: bytes) -> Place | None:
        """Place in the audit topic of the resolution that counts for a letter."""
        if not self._parts:
            return None
        latest = self._latest()
        place = int(np.searchsorted(latest.ids, np.array([letter_id], dtype=ID_TYPE))[0])
        if place == len(latest.ids) or latest.ids[place] != letter_id:
            return None
        return Place(int(latest.audit_partition[place]), int(latest.audit_offset[place]))

    def _latest(self) -> Columns:
        """For each id the resolution that counts: of its highest attempt the one with an outcome, else the last."""
        if not self._is_sorted:
            columns = Columns(*map(np.concatenate, zip(*self._parts, strict=True)))
            order = np.lexsort((columns.arrival, columns.outcome > 0, columns.attempt, columns.ids))
            ordered = columns.ids[order]
            last = np.ones(len(order), dtype=np.bool_)
            last[:-1] = ordered[1:] != ordered[:-1]
            kept = order[last]
            self._parts = [columns.rows(kept)]
            self._is_sorted = True
        return self._parts[0]


@dataclass(frozen=True, slots=True)
class States:
    """What was done about some letters, row by row."""

    acts: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    at_ms: Int64

    @property
    def is_open(self) -> Bools:
        """Rows whose latest attempt is unresolved."""
        return self.acts < 0

    def named(self) -> list[tuple[Act | None, Outcome | None]]:
        """Act and outcome of each; None if there is none."""
        return [
            (None if act < 0 else _ACTS[act], _OUTCOMES[outcome])
            for act, outcome in zip(self.acts.tolist(), self.outcomes.tolist(), strict=True)
        ]

    def where(self, keep: Bools | NDArray[np.intp]) -> "States":
        """Return the states that `keep` selects: a mask, or positions."""
        return States(self.acts[keep], self.outcomes[keep], self.at_ms[keep])


def _columnar(lines: list[bytes]) -> pa.Table | None:
    """All records at once; None when one was not written by this program (others may write, too)."""
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
    """The columns of a record whose main parts are well-formed; values of wrong types become None."""
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
