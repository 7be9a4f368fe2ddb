"""Quarantine as an operator: it judges records before and after they are decoded, and passes all events on.

All breakers are in memory, in the store, and in the journal: where the journal is cut, those that are still remembered
are written again with the next cycle.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Final

from streams.avro.decoded import Decoded
from streams.batch.clock import Clock
from streams.batch.records import Records
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import Operator, OperatorContext, Replayed, RestoreBudget
from streams.operators.changes import Changes
from streams.operators.keyed import ChangedKeys
from streams.operators.quarantine.breakers import DeviceBreakers
from streams.operators.quarantine.gate import quarantine, quarantined_at_start
from streams.operators.quarantine.section import SECTION, pack_breakers, unpack_breakers
from streams.operators.spec import OperatorSpec, RecordGate, named_for
from streams.state.identity import Consequences, SettingsByName
from streams.state.journal import reading
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

NAME: Final = "quarantine"
REJECTS: Final = "quarantine_rejects"
COOLDOWN_MS: Final = "quarantine_cooldown_ms"
_REPLAYED_MAX: Final = 50_000


class QuarantineGate:
    """Keeps records of quarantined keys out."""

    def at_start(self, records: Records, states: Mapping[int, "QuarantineOperator"], clock: Clock) -> frozenset[int]:
        """Rows that are kept out by what came before the batch."""
        return quarantined_at_start(records, _breakers(states), clock)

    def judge(
        self,
        records: Records,
        decoded: Decoded,
        skip: frozenset[int],
        states: Mapping[int, "QuarantineOperator"],
        clock: Clock,
    ) -> Decoded:
        """What was decoded without the records that are kept out."""
        return quarantine(records, decoded, skip, _breakers(states), clock)


@dataclass(frozen=True)
class Quarantine(OperatorSpec):
    """Declaration: keep out a key with more than `rejects_max` rejects within a minute; 0: never."""

    rejects_max: int
    cooldown_ms: int
    of: str = ""
    """Input whose records it judges, where that is not the flow's first one."""

    @property
    def gate(self) -> RecordGate:
        """The gate that judges records."""
        return QuarantineGate()

    @property
    def name(self) -> str:
        """`quarantine`, and the input."""
        return named_for(NAME, self.of)

    def build(self, context: OperatorContext) -> "QuarantineOperator":
        """An operator that keeps no key out."""
        return QuarantineOperator(self, context)

    @property
    def bounds(self) -> Mapping[str, int]:
        """The bounds that are recorded with the state."""
        return {named_for(REJECTS, self.of): self.rejects_max, named_for(COOLDOWN_MS, self.of): self.cooldown_ms}

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """Keys that are kept out stay so: the new cool-down counts for them too."""
        del settings
        rejects, cooldown_ms = self.bounds
        what = {
            rejects: "counts with the next reject of a key; keys that are kept out stay so until a record is clean",
            cooldown_ms: "counts from now on, also for keys that are kept out",
        }
        return Consequences(
            migrated=tuple(
                f"{name} is {now} now (was {bounds[name]}): it {what[name]}"
                for name, now in self.bounds.items()
                if bounds.get(name, now) != now
            )
        )

    @property
    def parts(self) -> Mapping[str, str]:
        """The operator's parts of the store: breakers."""
        return {self.name: named_for("device breakers", self.of)}


class QuarantineOperator(Operator):
    """The breakers of one partition."""

    def __init__(self, spec: Quarantine, context: OperatorContext) -> None:
        self.breakers = DeviceBreakers(rejects_max=spec.rejects_max, cooldown_ms=spec.cooldown_ms)
        self._home = context.home
        self._space = context.space(spec.name)
        self._section = named_for(SECTION, spec.of)
        self._written: list[tuple[bytes, bytes]] = []
        """Breakers of the newest changes."""
        self._written_at: dict[bytes, int] = {}
        """Journal offset of the newest row of each breaker; where it is not known (since a restart), none."""
        self._replayed: dict[bytes, bytes] = {}

    # --- the commit cycle -------------------------------------------------------------------------------------------

    def changes(self, changed: ChangedKeys) -> Changes:
        """The changed breakers, for journal and store."""
        del changed
        self._written = self.breakers.take_changed()
        pieces = pack_breakers(self._written, bytes_max=JOURNAL_RECORD_BYTES_MAX)
        found = Changes(sections={self._section: pieces}, is_of_cycle_end=bool(pieces))
        _note(self._space, self._written, found.store)
        return found

    def applied(self, journal_first: int) -> None:
        """Remember the journal offset of the newest rows."""
        for key, row in self._written:
            if row:
                self._written_at[key] = journal_first
            else:
                self._written_at.pop(key, None)

    @property
    def is_settled(self) -> bool:
        """Whether no breaker has changed."""
        return self.breakers.is_settled

    def journal_needed(self, cut: int) -> int | None:
        """The oldest row of a breaker that is remembered; those before `cut` are journalled again."""
        needed = {key: at for key in self.breakers.keys if (at := self._written_at.get(key, -1)) < cut}
        if not needed:
            return None
        self.breakers.journal_again(needed)
        return min(needed.values())

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Take the breakers that the store lacks."""
        del budget
        section = record.sections.get(self._section)
        if section is None or not record.is_new:
            return 0
        rows = unpack_breakers(section)
        self._replayed |= dict(rows)
        if len(self._replayed) > _REPLAYED_MAX:
            self._write_replayed()
        return 0

    def begin_again(self, batch: WriteBatch) -> None:
        """Breakers may be missing: the journal has all of those that exist."""
        self._space.clear(batch)

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Begin with the store's breakers.

        Raises:
            JournalCorrupted: a row of the store is none.

        """
        del watermark, marks
        self._write_replayed()
        with reading():
            self.breakers.restore(self._kept(list(self._space.scan())))

    def _write_replayed(self) -> None:
        batch = WriteBatch()
        _note(self._space, self._replayed.items(), batch)
        self._space.write(batch)
        self._replayed = {}

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """All breakers of the store."""
        del watermark, marks
        rows = self._kept(list(self._space.scan()))
        return Changes(sections={self._section: pack_breakers(rows, bytes_max=JOURNAL_RECORD_BYTES_MAX)})

    def keys_moved(self) -> None:
        """Remember the breakers of keys that have their home here only."""
        self.breakers.drop_moved(self._home.has)
        keys = list(self._written_at)
        self._written_at = {key: self._written_at[key] for key in compress(keys, self._home.has(keys))}

    def _kept(self, rows: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Rows of keys whose records are judged in this partition: those of others are forwarded."""
        return list(compress(rows, self._home.has([row[0] for row in rows]))) if self._home.has_moved else rows

    @property
    def bytes_used(self) -> int:
        """Memory of the breakers."""
        return self.breakers.bytes_used


def _breakers(states: Mapping[int, QuarantineOperator]) -> dict[int, DeviceBreakers]:
    return {number: one.breakers for number, one in states.items()}


def _note(space: StoreSpace, rows: Iterable[tuple[bytes, bytes]], batch: WriteBatch) -> None:
    """Rows for the store: put, or deleted where there are no bytes."""
    for key, row in rows:
        if row:
            space.put(batch, [(key, row)])
        else:
            space.delete(batch, [key])
