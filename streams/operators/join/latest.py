"""Join each event of one input with the latest one of another, as of its event time.

Both come merged (`operators.merge`), so that which event is the latest one follows from the logs alone. Of each key the
latest event of the right input is kept: in memory while its key is, in the store, and in the journal for as long as it
may match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64, Objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_objects
from streams.batch.rows import Rows, empty_rows, pack_rows, unpack_rows
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import ALL, Operator, OperatorContext, Replayed, RestoreBudget
from streams.operators.changes import Changes, RowRecords, ToColumns
from streams.operators.keyed import ChangedKeys, KnownRows
from streams.operators.merge.section import INPUT
from streams.operators.output import Output
from streams.operators.spec import OperatorSpec, OutputTopic
from streams.operators.trace import WatermarkTrace
from streams.state.codec import cuts, pack_pairs, unpack_pairs
from streams.state.journal import reading
from streams.state.store import WriteBatch

MATCHED: Final = "matched"
"""Column of joined rows: whether there is a right event."""
UNMATCHED: Final = "unmatched"
"""What left events are counted as that have no right one and are not written."""
_PUTS_MAX: Final = 50_000
_EXPIRIES: Final = 8
"""Times within `within_ms` that the store is looked through for what is too old to match."""
_LEFT, _RIGHT = 0, 1


@dataclass(frozen=True)
class Side:
    """An input of a join: its name, and the fields of its events."""

    name: str
    fields: Fields

    def columns(self) -> list[tuple[str, str]]:
        """Columns of joined rows for its fields: numbers, NaN for null; texts as bytes or None."""
        numbers = [(f"{self.name}.{field}", "<f8") for field in self.fields.payload]
        return [*numbers, *((f"{self.name}.{field}", "O") for field in self.fields.texts)]


@dataclass(frozen=True)
class JoinLatest(OperatorSpec):
    """Declaration: a row of `topic` for each event of `left`, the first merged input, with the latest one of `right`.

    A right event matches that is at most as late as the left one, and at most `within_ms` earlier. `columns` makes
    public rows of the keys and joined rows, whose columns `row_dtype` names. With `outer`, left events without a right
    one have a row too; else they are counted as `unmatched`.
    """

    passes_all: ClassVar[bool] = True
    topic: str
    left: Side
    right: Side
    within_ms: int
    columns: ToColumns
    outer: bool = False
    subject: str = ""

    @property
    def name(self) -> str:
        """By the topic."""
        return f"join.{self.topic}"

    def build(self, context: OperatorContext) -> "JoinLatestOperator":
        """An operator that knows no right event."""
        return JoinLatestOperator(self, context)

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """Columns of joined rows: of the left event and its fields, whether there is a right one, and of that."""
        own = [("event_id", "O"), ("event_time", "<i8"), ("sequence", "<i8")]
        return np.dtype([*own, *self.left.columns(), (MATCHED, "?"), *self.right_dtype.descr])

    @cached_property
    def right_dtype(self) -> np.dtype[Any]:
        """Columns of what is kept of a right event."""
        return np.dtype([(self.right_time, "<i8"), *self.right.columns()])

    @property
    def right_time(self) -> str:
        """Name of the column with the right event's time."""
        return f"{self.right.name}.event_time"

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """The topic of joined rows."""
        return (OutputTopic(self.topic, self.columns, empty_rows(self.row_dtype, 1), self.subject),)

    @property
    def bounds(self) -> Mapping[str, int]:
        """How much earlier a right event may be."""
        return {f"{self.name}.within_ms": self.within_ms}

    @property
    def journal_ms(self) -> int:
        """An older right event matches nothing."""
        return self.within_ms

    @property
    def parts(self) -> Mapping[str, str]:
        """Right events."""
        return {self.name: f"latest events of {self.right.name}"}


class JoinLatestOperator(Operator):
    """Of one partition."""

    stage = "join"

    def __init__(self, spec: JoinLatest, context: OperatorContext) -> None:
        self._spec, self._keys = spec, context.keys
        self._space = context.space(spec.name)
        empty = empty_rows(spec.right_dtype, 1)
        empty[spec.right_time] = TIME_MIN
        self._latest = context.keys.attach(KnownRows(empty, self._space))
        self._joined: list[tuple[Objects, Rows]] = []
        self._replayed = WriteBatch()
        self._expired_below = TIME_MIN

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Join the left events, remember the right ones, pass all on."""
        if not len(events):
            return Output(events, trace)
        events = self._keys.located(events)
        is_right = events.number(INPUT) == _RIGHT
        order = np.argsort(events.slot, kind="stable")
        latest = _latest_before(events.slot, is_right, order)
        dropped = self._join(events, latest)
        self._remember(events, is_right, order)
        return Output(events, trace, dropped={UNMATCHED: dropped} if dropped else {})

    def _join(self, events: Events, latest: Int64) -> int:
        """Note joined rows of the left events; `latest` is the row of the latest right event before each, or -1."""
        spec = self._spec
        left = (events.number(INPUT) == _LEFT).nonzero()[0]
        if not len(left):
            return 0
        known = self._latest.of(events.slot[left])
        here = latest[left]
        in_batch = (here >= 0).nonzero()[0]
        known[in_batch] = self._right_rows(events, here[in_batch])
        since = known[spec.right_time]
        time = events.event_time[left]
        matched = (since != TIME_MIN) & (since <= time)
        matched &= time - np.where(matched, since, time) <= spec.within_ms
        rows = empty_rows(spec.row_dtype, len(left))
        rows["event_id"], rows["event_time"], rows["sequence"] = (
            byte_objects(events.event_id.take(left)), time, events.sequence[left]
        )  # fmt: skip
        _set_fields(rows, spec.left, events, left)
        rows[MATCHED] = matched
        for name in spec.right_dtype.names or ():
            rows[name] = np.where(matched, known[name], _null_of(spec.right_dtype[name]))
        written = np.ones(len(left), dtype=np.bool_) if spec.outer else matched
        if written.any():
            self._joined.append((byte_objects(events.key.take(left[written])), rows[written]))
        return 0 if spec.outer else int(np.count_nonzero(~matched))

    def _remember(self, events: Events, is_right: Bools, order: Int64) -> None:
        """Keep the last right event of each key."""
        right = order[is_right[order]]
        if not len(right):
            return
        slots = events.slot[right]
        last = right[np.append(slots[1:] != slots[:-1], True)]
        slots = events.slot[last]
        self._latest.put(slots, self._right_rows(events, last), self._latest.of(slots))
        self._keys.touch(slots)

    def _right_rows(self, events: Events, rows: Int64) -> Rows:
        found = empty_rows(self._spec.right_dtype, len(rows))
        found[self._spec.right_time] = events.event_time[rows]
        _set_fields(found, self._spec.right, events, rows)
        return found

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether no rows wait to be written."""
        return not self._joined

    def changes(self, changed: ChangedKeys) -> Changes:
        """Joined rows for the topic; the latest right events of changed keys for store and journal."""
        spec = self._spec
        mine = changed.take(self._latest.known(changed.slots))
        rows = self._latest.of(mine.slots)
        found = Changes(rows=[RowRecords(spec.topic, keys, joined, spec.columns) for keys, joined in self._joined])
        self._joined = []
        if len(mine):
            self._latest.write(mine, rows, found.store)
            pairs = list(zip(mine.keys.tolist(), pack_rows(rows), strict=True))
            sizes = np.array([len(key) + len(row) + 8 for key, row in pairs], dtype=np.int64)
            found.sections = {spec.name: [pack_pairs(pairs[cut]) for cut in cuts(sizes, JOURNAL_RECORD_BYTES_MAX)]}
            found.event_time_max = int(rows[spec.right_time].max())
        return found

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Take the right events that the store lacks."""
        del budget
        section = record.sections.get(self._spec.name)
        if section is None:
            return 0
        with reading():
            pairs = unpack_pairs(section)
        if record.is_new:
            self._space.put(self._replayed, pairs)
            if len(self._replayed.puts) > _PUTS_MAX:
                self._write_replayed()
        return len(pairs)

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Nothing is in memory: rows are loaded with their keys."""
        del watermark, marks
        self._write_replayed()

    def _write_replayed(self) -> None:
        self._space.write(self._replayed)
        self._replayed = WriteBatch()

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """All right events of the store."""
        del watermark, marks
        pairs = list(self._space.scan())
        if not pairs:
            return Changes()
        sizes = np.array([len(key) + len(row) + 8 for key, row in pairs], dtype=np.int64)
        times = unpack_rows(self._spec.right_dtype, [row for _, row in pairs])[self._spec.right_time]
        return Changes(
            sections={self._spec.name: [pack_pairs(pairs[cut]) for cut in cuts(sizes, JOURNAL_RECORD_BYTES_MAX)]},
            event_time_max=int(times.max()),
        )

    # --- between cycles ---------------------------------------------------------------------------------------------

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Delete right events of the store that match nothing any more; now and then, for it reads all of them."""
        oldest = watermark - self._spec.within_ms
        if watermark > TIME_MIN and oldest >= self._expired_below + self._spec.within_ms // _EXPIRIES:
            self._expired_below = oldest
            time_first = np.dtype("<i8").itemsize
            self._space.delete(
                batch,
                [
                    key
                    for key, row in self._space.scan()
                    if int.from_bytes(row[:time_first], "little", signed=True) < oldest
                ],
            )
        return ALL

    def in_memory(self) -> Mapping[str, int]:
        """Nothing that is there only."""
        return {}


def _latest_before(slot: Int64, is_right: Bools, order: Int64) -> Int64:
    """Row of the last right event before each event of the same slot; -1 where there is none. `order` sorts by slot."""
    sorted_slot, place = slot[order], np.arange(len(order))
    last = np.maximum.accumulate(np.where(is_right[order], place, -1))
    starts = np.append(True, sorted_slot[1:] != sorted_slot[:-1])
    first = np.maximum.accumulate(np.where(starts, place, 0))
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.where(last >= first, order[np.maximum(last, 0)], -1)
    return found


def _set_fields(rows: Rows, side: Side, events: Events, of: Int64) -> None:
    for field in side.fields.payload:
        rows[f"{side.name}.{field}"] = events.number(f"{side.name}.{field}")[of]
    for field in side.fields.texts:
        rows[f"{side.name}.{field}"] = events.text(f"{side.name}.{field}")[of]


def _null_of(kind: np.dtype[Any]) -> Any:
    """What stands for a value that is missing: None, NaN, the earliest time."""
    if kind.hasobject:
        return None
    return np.nan if kind.kind == "f" else TIME_MIN
