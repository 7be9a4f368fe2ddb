"""Keys of a partition and the rows that operators keep of each: a write-back cache over the store.

A key has one slot, looked up once for a micro-batch, and all rows of all operators have that slot. Rows are loaded when
their key first occurs, changed in memory, and written when the cycle that changed them is committed; between cycles,
when nothing is in flight, keys can be dropped from memory.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import Bools, Float64, Int64, Objects, objects
from streams.batch.events import NO_FIELDS, Events, FieldColumns, Fields
from streams.batch.refs import ByteColumn, KeyMap, byte_objects
from streams.batch.rows import Rows, pack_rows, put_rows, text_bytes, unpack_rows
from streams.limits import ID_BYTES_MAX, MISROUTED_KEYS_LOGGED
from streams.operators.trace import WatermarkTrace
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_CAPACITY_MIN: Final = 256
_BYTES_PER_KEY: Final = 180 + ID_BYTES_MAX
"""Rough memory of a key beyond its bytes and its places in arrays: dictionary entry, two objects, event id."""
_CHANGED_COPIES: Final = 10
"""Copies of a changed key in memory while its cycle is committed: in rows for the store, the journal and tables."""
_BYTES_PER_CHANGED_KEY: Final = 2_000
"""Rough memory of a changed key until its cycle is committed, beyond the copies of the key."""


@dataclass(frozen=True, slots=True)
class Segments(FieldColumns):
    """Events sorted by key, then in order, cut into segments of one key each."""

    event_time: Int64
    sequence: Int64
    payload: Float64
    texts: Objects
    prior: Int64
    """Watermark just before each event became due: what windows are closed by. Empty where not needed."""
    start: Int64
    """First row of each segment."""
    end: Int64
    """Last row of each segment, inclusive."""
    fields: Fields = NO_FIELDS
    """Names of the rows of `payload` and `texts`."""

    def __len__(self) -> int:
        return len(self.start)

    def pick(self, start: Int64, end: Int64) -> "Segments":
        """Other segments of the same events: rows `start` to `end` inclusive of each."""
        if np.array_equal(start, self.start) and np.array_equal(end, self.end):
            return self
        lengths = end - start + 1
        first = np.cumsum(lengths) - lengths
        rows = np.arange(int(lengths.sum())) - np.repeat(first, lengths) + np.repeat(start, lengths)
        return Segments(
            event_time=self.event_time[rows],
            sequence=self.sequence[rows],
            payload=self.payload[:, rows],
            texts=self.texts[:, rows],
            prior=self.prior[rows],
            start=first,
            end=first + lengths - 1,
            fields=self.fields,
        )


@dataclass(frozen=True, slots=True)
class KeySegments:
    """All events of a batch, one segment for each key. Only the columns that folds read are sorted."""

    segments: Segments
    slot: Int64
    """Slot of each segment's key; each occurs once."""
    last_id: Objects
    """Id of each segment's last event."""

    @staticmethod
    def of(events: Events, prior: Int64) -> "KeySegments":
        """Segments of events that are in order (at least one)."""
        slots = events.slot
        # numpy sorts 16-bit integers by radix: an order of magnitude faster than a comparison sort.
        sortable = slots.astype(np.uint16) if int(slots.max()) < 1 << 16 else slots
        order = np.argsort(sortable, kind="stable")
        sorted_slots = slots.take(order)
        change = (sorted_slots[1:] != sorted_slots[:-1]).nonzero()[0]
        start = np.concatenate([[0], change + 1])
        end = np.concatenate([change, [len(order) - 1]])
        segments = Segments(
            event_time=events.event_time.take(order),
            sequence=events.sequence.take(order),
            payload=events.payload.take(order, axis=1),
            texts=events.texts.take(order, axis=1),
            prior=prior.take(order) if len(prior) else prior,
            start=start,
            end=end,
            fields=events.fields,
        )
        return KeySegments(segments, sorted_slots[start], byte_objects(events.event_id.take(order[end])))


@dataclass(frozen=True, slots=True)
class SegmentsOfAll:
    """Segments of several partitions in a row, to be folded with one call."""

    segments: Segments
    parts: Sequence[KeySegments]
    """The segments of each partition."""
    bounds: Sequence[int]
    """Number of each partition's first segment, and of all segments."""

    @staticmethod
    def of(parts: Sequence[KeySegments]) -> "SegmentsOfAll":
        """Combine these parts (at least one)."""
        all_of = [part.segments for part in parts]
        bounds = [0, *itertools.accumulate(map(len, all_of))]
        if len(parts) == 1:
            return SegmentsOfAll(all_of[0], parts, bounds)
        first = [0, *itertools.accumulate(len(one.event_time) for one in all_of)]
        segments = Segments(
            event_time=np.concatenate([one.event_time for one in all_of]),
            sequence=np.concatenate([one.sequence for one in all_of]),
            payload=np.concatenate([one.payload for one in all_of], axis=1),
            texts=np.concatenate([one.texts for one in all_of], axis=1),
            prior=np.concatenate([one.prior for one in all_of]),
            start=np.concatenate([one.start + at for one, at in zip(all_of, first, strict=False)]),
            end=np.concatenate([one.end + at for one, at in zip(all_of, first, strict=False)]),
            fields=all_of[0].fields,
        )
        return SegmentsOfAll(segments, parts, bounds)


@dataclass(frozen=True, slots=True)
class ChangedKeys:
    """Keys that were touched in a cycle, by slot, each once."""

    slots: Int64
    keys: Objects

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, some: Bools) -> "ChangedKeys":
        """Return only the keys at the positions `some`."""
        return ChangedKeys(self.slots[some], self.keys[some])


class KeyedRows(Protocol):
    """Rows of one kind, one for each slot of a key space."""

    def reserve(self, more: int) -> None:
        """Make room for so many more slots, with the rows of keys without events."""

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take the rows of `keys`, which stand from slot `first` on, from the store."""

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows: those of `keys`, by slot, are in the store. `batch` may record what must be found again."""

    @property
    def bytes_used(self) -> int:
        """Approximate memory in bytes."""


Attached = TypeVar("Attached", bound=KeyedRows)


class KeySpace:
    """Slots of keys; rows of operators are indexed by slot."""

    def __init__(self, belong_here: Callable[[Sequence[bytes]], Bools], key_map: KeyMap | None = None) -> None:
        """`belong_here` says which keys belong into this partition; `key_map`, an empty one, finds slots."""
        self._belong_here = belong_here
        self._map = key_map
        self._count = 0
        self._rows: list[KeyedRows] = []
        self._slots: dict[bytes, int] = {}
        """Slots by key; empty where `key_map` has them."""
        self._segments: tuple[Events, KeySegments] | None = None
        self._joined: SegmentsOfAll | None = None
        self._changed_bytes = 0
        self._misrouted_found = 0
        self._misrouted_keys: list[bytes] = []
        self._reset()

    def __len__(self) -> int:
        return self._count

    def attach(self, rows: Attached) -> Attached:
        """Attach an operator's rows, which are loaded and dropped with their keys; before the first key.

        Returns the rows.
        """
        self._rows.append(rows)
        return rows

    @property
    def bytes_used(self) -> int:
        """Approximate memory, attached rows included."""
        arrays = self._keys.nbytes + self._key_bytes.nbytes + sum(rows.bytes_used for rows in self._rows)
        return arrays + self._count * _BYTES_PER_KEY + self._text_bytes

    @property
    def changed_bytes(self) -> int:
        """Approximate memory that committing the touched keys takes."""
        return self._changed_bytes

    # --- slots ------------------------------------------------------------------------------------------------------

    def slots(self, keys: ByteColumn) -> Int64:
        """Slot of each key; loads the rows of new ones."""
        if self._map is not None:
            found_natively, fresh = self._map.slots(keys.tolist() if isinstance(keys, np.ndarray) else keys)
            if fresh:
                self._load(fresh)
            return found_natively
        names: list[Any] = keys.tolist()
        found = list(map(self._slots.get, names))
        if None not in found:
            return np.array(found, dtype=np.int64)
        new = list(dict.fromkeys(name for name, slot in zip(names, found, strict=True) if slot is None))
        self._slots.update(zip(new, range(self._count, self._count + len(new)), strict=True))
        self._load(new)
        return np.fromiter(map(self._slots.__getitem__, names), dtype=np.int64, count=len(names))

    def located(self, events: Events) -> Events:
        """The events with the slots of their keys: looked up where they have none yet."""
        if not len(events) or events.slot[0] >= 0:
            return events
        slots = self.slots(events.key)
        if self._any_misrouted:
            self._misrouted_found += int(np.count_nonzero(self._misrouted[slots]))
            self._misrouted_keys += self._some_misrouted(slots)
        return events.with_slots(slots)

    def segments(self, events: Events, trace: WatermarkTrace) -> KeySegments:
        """Segments of located events (at least one), made once for all operators that get the same events."""
        known = self._segments
        if known is None or known[0] is not events:
            known = self._segments = (events, KeySegments.of(events, trace.prior))
        return known[1]

    def segments_of_all(
        self, spaces: Sequence["KeySpace"], given: Sequence[tuple[Events, WatermarkTrace]]
    ) -> SegmentsOfAll:
        """Segments of several partitions, `spaces`, of which this is the first: made once for all operators."""
        parts = [space.segments(events, trace) for space, (events, trace) in zip(spaces, given, strict=True)]
        known = self._joined
        if known is None or len(known.parts) != len(parts) or any(map(operator.is_not, known.parts, parts)):
            known = self._joined = SegmentsOfAll.of(parts)
        return known

    def keys_at(self, slots: Int64) -> Objects:
        """Keys of slots."""
        found: Objects = self._keys[slots]
        return found

    @property
    def all_home(self) -> bool:
        """Whether all known keys belong to this partition."""
        return not self._any_misrouted

    def take_misrouted(self) -> tuple[int, list[bytes]]:
        """Number of events since the last call whose key belongs to another partition, and some of these keys."""
        found = (self._misrouted_found, self._misrouted_keys)
        self._misrouted_found, self._misrouted_keys = 0, []
        return found

    def _some_misrouted(self, slots: Int64) -> list[bytes]:
        found: list[bytes] = self._keys[np.unique(slots[self._misrouted[slots]])[:MISROUTED_KEYS_LOGGED]].tolist()
        return found

    # --- cycles -----------------------------------------------------------------------------------------------------

    @property
    def has_changed(self) -> bool:
        """Whether a key was touched since the last cycle."""
        return self._changed_bytes > 0

    def touch(self, slots: Int64) -> None:
        """Mark rows of these slots as changed in this cycle: every operator writes their rows at its end."""
        new = slots[~self._touched[slots]]
        self._changed_bytes += len(new) * _BYTES_PER_CHANGED_KEY + _CHANGED_COPIES * int(self._key_bytes[new].sum())
        self._touched[slots] = True

    def take_changed(self) -> ChangedKeys:
        """All keys that were touched since the last call."""
        slots = self._touched.nonzero()[0]
        self._touched[slots] = False
        self._changed_bytes = 0
        self._segments = self._joined = None
        return ChangedKeys(slots, self._keys[slots])

    def forget(self, batch: WriteBatch) -> None:
        """Drop all keys; only between cycles, when every row is in the store.

        `batch` notes what must be found again; it must be written before any other method is called.
        """
        known = self._keys[: self._count]
        for rows in self._rows:
            rows.forget(known, batch)
        self._slots.clear()
        if self._map is not None:
            self._map.clear()
        self._segments = self._joined = None
        self._reset()

    def _reset(self) -> None:
        self._count = 0
        self._keys: Objects = objects([])
        self._touched: Bools = np.empty(0, dtype=np.bool_)
        self._misrouted: Bools = np.empty(0, dtype=np.bool_)
        self._key_bytes: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._any_misrouted = False
        self._text_bytes = 0

    def _load(self, keys: list[bytes]) -> None:
        """Load the rows of new keys from the store; their slots follow the existing ones."""
        first = self._count
        self._reserve(first + len(keys))
        self._count += len(keys)
        self._keys[first : first + len(keys)] = objects(keys)
        sizes = np.fromiter(map(len, keys), np.int32, len(keys))
        self._key_bytes[first : first + len(keys)] = sizes
        self._text_bytes += int(sizes.sum())
        self._misrouted[first : self._count] = ~self._belong_here(keys)
        self._any_misrouted |= bool(self._misrouted[first : self._count].any())
        for rows in self._rows:
            rows.load(first, keys)

    def _reserve(self, count: int) -> None:
        old = len(self._keys)
        if count <= old:
            return
        more = max(_CAPACITY_MIN, count, old * 2) - old
        self._keys = np.concatenate([self._keys, objects([b""] * more)])
        self._touched = np.concatenate([self._touched, np.zeros(more, dtype=np.bool_)])
        self._key_bytes = np.concatenate([self._key_bytes, np.zeros(more, dtype=np.int32)])
        self._misrouted = np.concatenate([self._misrouted, np.zeros(more, dtype=np.bool_)])
        for rows in self._rows:
            rows.reserve(more)


class StoredRows:
    """Rows of a structured dtype, one for each slot, as an operator's part of the store has them."""

    def __init__(self, empty: Rows, space: StoreSpace) -> None:
        """`empty`: one row, that of a key without events."""
        self._empty = empty
        self._space = space
        self.rows: Rows = empty[:0]
        self._text_bytes = 0

    @property
    def bytes_used(self) -> int:
        """Approximate memory in bytes."""
        return self.rows.nbytes + self._text_bytes

    def of(self, slots: Int64) -> Rows:
        """Copies of rows."""
        found: Rows = self.rows.take(slots)
        return found

    def put(self, slots: Int64, after: Rows, before: Rows) -> None:
        """Set rows; `before` is what `of` gave."""
        put_rows(self.rows, slots, after)
        if after.dtype.hasobject:
            self._text_bytes += text_bytes(after) - text_bytes(before)

    def write(self, changed: ChangedKeys, rows: Rows, batch: WriteBatch) -> None:
        """Add the rows of changed keys to `batch`."""
        self._space.put(batch, zip(changed.keys.tolist(), pack_rows(rows), strict=True))

    def reserve(self, more: int) -> None:
        """Make room for so many more slots."""
        self.rows = np.concatenate([self.rows, np.repeat(self._empty, more)])

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take rows from the store."""
        packed = self._space.get_many(keys)
        found = [position for position, row in enumerate(packed) if row is not None]
        if found:
            known: list[Any] = [packed[position] for position in found]
            self._loaded(first + np.array(found), unpack_rows(self.rows.dtype, known))
        self._text_bytes += text_bytes(self.rows[first : first + len(keys)])

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows."""
        del keys, batch
        self.rows = self._empty[:0]
        self._text_bytes = 0

    def _loaded(self, slots: Int64, rows: Rows) -> None:
        put_rows(self.rows, slots, rows)


class KnownRows(StoredRows):
    """Rows of an operator that does not get the events of every key: a key has none before the first one is put."""

    def __init__(self, empty: Rows, space: StoreSpace) -> None:
        super().__init__(empty, space)
        self._known: Bools = np.empty(0, dtype=np.bool_)

    def known(self, slots: Int64) -> Bools:
        """Which of these keys have a row."""
        found: Bools = self._known[slots]
        return found

    @property
    def bytes_used(self) -> int:
        """Approximate memory in bytes."""
        return super().bytes_used + self._known.nbytes

    def put(self, slots: Int64, after: Rows, before: Rows) -> None:
        """Set rows; from now on these keys have one."""
        super().put(slots, after, before)
        self._known[slots] = True

    def reserve(self, more: int) -> None:
        """Make room for so many more slots."""
        super().reserve(more)
        self._known = np.concatenate([self._known, np.zeros(more, dtype=np.bool_)])

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows."""
        super().forget(keys, batch)
        self._known = self._known[:0]

    def _loaded(self, slots: Int64, rows: Rows) -> None:
        super()._loaded(slots, rows)
        self._known[slots] = True
