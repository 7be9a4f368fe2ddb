"""What the operators of joins have in common: rows that are kept for a time, and joined rows that are written."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from streams.batch.columns import TIME_MIN
from streams.operators.base import ALL, Operator, OperatorContext, Replayed, RestoreBudget, Spill
from streams.operators.changes import Changes
from streams.operators.join.kept import KeptRows
from streams.operators.join.side import JoinedRows, JoinSpec
from streams.operators.keyed import ChangedKeys
from streams.operators.reorder.section import pack_keys, unpack_keys
from streams.state.store import WriteBatch

Spec = TypeVar("Spec", bound=JoinSpec)


class JoinOperator(Operator, Generic[Spec]):
    """A join in one partition. A subclass joins (`process`); this class commits, restores and spills the kept rows."""

    stage = "join"

    def __init__(self, spec: Spec, context: OperatorContext, kept: Mapping[str, KeptRows]) -> None:
        """`kept`: rows by the name of their part of store and journal."""
        self._spec, self._keys = spec, context.keys
        self._kept = kept
        self._joined = JoinedRows(spec)

    def _pass_to(self, watermark: int) -> None:
        """Before rows are asked for: what comes next is passed at this watermark, or later."""
        for rows in self._kept.values():
            rows.place()
            rows.passed(watermark)

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._joined and not any(rows.has_come for rows in self._kept.values())

    def changes(self, changed: ChangedKeys) -> Changes:
        """Joined rows for the topic, and for the journal what is kept from now on."""
        del changed
        came = {part: rows.take_came() for part, rows in self._kept.items()}
        return Changes(
            sections={part: pieces for part, (pieces, _) in came.items()},
            event_time_max=max((newest for _, newest in came.values()), default=TIME_MIN),
            rows=self._joined.take(),
        )

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Take the rows that the store lacks."""
        count = 0
        if (section := record.sections.get(self._spec.forgotten_part)) is not None and record.is_new:
            gone = unpack_keys(section)
            for rows in self._kept.values():
                rows.forget_keys(gone)
        for part, rows in self._kept.items():
            rows.passed(record.watermark)
            if (section := record.sections.get(part)) is not None:
                count += rows.replay(section, budget.bytes_max // len(self._kept))
        return count

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> int:
        """Rows are bounded as they come."""
        del watermark, budget
        return self._durable_below()

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Rows come into memory with the next events.

        Raises:
            JournalCorrupted: a row of the store is none.

        """
        del marks
        for rows in self._kept.values():
            rows.restored(watermark)

    def forgotten(self, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes]]:
        """That nothing is known of them any more."""
        return {self._spec.forgotten_part: [pack_keys(keys)]}

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """All rows of the store."""
        del watermark, marks
        found = {part: rows.snapshot() for part, rows in self._kept.items()}
        return Changes(
            sections={part: pieces for part, (pieces, _) in found.items()},
            event_time_max=max((newest for _, newest in found.values()), default=TIME_MIN),
        )

    # --- between cycles ---------------------------------------------------------------------------------------------

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Put all rows into the store; from memory they go with their keys."""
        del goal
        for rows in self._kept.values():
            rows.passed(watermark)
            rows.store(batch)
        return ALL

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Forget rows that match nothing any more."""
        for rows in self._kept.values():
            rows.expire(watermark, batch)
        return self._durable_below()

    def _durable_below(self) -> int:
        return min(rows.durable_below() for rows in self._kept.values())

    def keys_moved(self) -> None:
        """Keep rows of kept keys only."""
        for rows in self._kept.values():
            rows.drop_moved()

    @property
    def bytes_used(self) -> int:
        """Memory of joined rows; that of kept rows is the key space's."""
        return self._joined.bytes_used

    @property
    def cycle_bytes(self) -> int:
        """Rows that are to be written."""
        return sum(rows.cycle_bytes for rows in self._kept.values()) + 2 * self._joined.bytes_used

    def in_memory(self) -> Mapping[str, int]:
        """Number of kept rows."""
        return {part: len(rows) for part, rows in self._kept.items()}
