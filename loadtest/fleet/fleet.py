"""Traffic of a fleet in log order, deterministic in its seed, with as many faults of each kind as asked for.

Every vehicle (or order) reports at its ticks, at a phase of its own, if it has anything to report: when and what that
is, its `Source` knows. A record's timestamp is the moment of its arrival; time starts where the caller says and never
comes from the clock. The same shape and seed give the same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import encode, frame
from loadtest.fleet.layout import Layout
from loadtest.fleet.outages import Outages
from loadtest.fleet.positions import Positions
from loadtest.fleet.rows import Rows
from loadtest.fleet.traffic import CODES, KINDS, Columns, FleetShape, Kind, Source, TrafficBatch

BLOCK_RECORDS: Final = 60_000
LATE_BY_MS: Final = (4_000, 30_000)
"""How much later than lateness and a tick a late event arrives: its successors have left by then."""
_REJECT: Final = CODES[Kind.NOT_FRAMED]
_PLAIN, _DISORDERED, _LATE = CODES[Kind.PLAIN], CODES[Kind.DISORDERED], CODES[Kind.LATE]
_NEWEST_FIRST: Final = CODES[Kind.NEWEST_FIRST]
_NEWEST_FIRST_MS: Final = 1
"""From one stored record to the one before it, where they are sent in reverse."""
_BUFFERED, _SKEWED, _DUPLICATE = CODES[Kind.BUFFERED], CODES[Kind.SKEWED], CODES[Kind.DUPLICATE]

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a block that have an event, and the fault of each."""

    index: NDArray[np.intp]
    """Into the grid of ticks and columns, row by row."""
    column: NDArray[np.intp]
    kinds: NDArray[np.int8]
    back: Integers | None
    """Tick at which the device of a stored event is back; -1 where it is online. None: all are, always."""


class Fleet:
    """A fleet of `shape`, driven by `seed`; its events are positions unless another source is given."""

    def __init__(self, seed: int, shape: FleetShape, source: Callable[[int, FleetShape], Source] = Positions) -> None:
        self.seed = seed
        self.shape = shape
        self._source = source
        self._outages = _outages(seed, shape)
        self._phase_ms = np.random.default_rng([seed, 0]).integers(0, shape.tick_ms, shape.devices)
        self._skew_ms = _skews(np.random.default_rng([seed, 8]), shape)

    def skewed_devices(self) -> list[int]:
        """Numbers of the devices (or places of orders) whose clocks are wrong."""
        if self._skew_ms is None:
            return []
        return [self.shape.device_first + int(place) for place in np.flatnonzero(self._skew_ms)]

    def batches(self, records: int) -> Iterator[TrafficBatch]:
        """The first `records` records of the log, in order, in batches of some ten thousand."""
        shape = self.shape
        maker = _BlockMaker(
            self.seed, shape, self._source(self.seed, shape), self._phase_ms, self._skew_ms, self._outages
        )
        ticks = max(4, BLOCK_RECORDS // maker.layout.columns)
        under_way: Rows | None = None
        block = 0
        while records > 0:
            rows = Rows.join(under_way, maker.block(block, ticks))
            block += 1
            batch, under_way = rows.arrived(shape.start_ms + block * ticks * shape.tick_ms, records)
            records -= len(batch)
            yield batch


class _BlockMaker:
    """Makes block after block of one log."""

    def __init__(
        self,
        seed: int,
        shape: FleetShape,
        source: Source,
        phase_ms: Integers,
        skew_ms: Integers | None,
        outages: Outages | None,
    ) -> None:
        self.layout: Layout = source.layout
        self._seed = seed
        self._shape = shape
        self._source = source
        self._phase_ms = self.layout.phase_ms(phase_ms, shape.tick_ms)
        self._first_phase_ms = phase_ms // np.bincount(self.layout.device)
        self._is_even = self.layout.is_even
        self._delay_ms_max = self.layout.delay_ms_max(shape.delay_ms_max, shape.tick_ms)
        self._skew_ms = None if skew_ms is None else skew_ms[self.layout.device]
        self._outages = outages
        self._reverses = _reversing(np.random.default_rng([seed, 10]), shape)

    def block(self, block: int, ticks: int) -> Rows:
        """Every record whose event belongs to the ticks of this block, copies included."""
        shape = self._shape
        rng = np.random.default_rng([self._seed, 2, block])
        tick_first = block * ticks
        cells = self._cells(rng, tick_first, ticks)
        ticks_ms = shape.start_ms + np.arange(tick_first, tick_first + ticks) * shape.tick_ms
        sent = (ticks_ms[:, None] + self._phase_ms).ravel().take(cells.index)
        arrival = self._arrival(rng, cells, sent)
        columns = self._source.columns(rng, tick_first, ticks, cells.index, sent)
        if self._skew_ms is not None:
            np.add(columns.event_time_ms, self._skew_ms.take(cells.column), out=columns.event_time_ms)
        self._spoil_columns(rng, cells.kinds, columns, arrival)
        value, pool = self._encoded(columns, block)
        originals = self._spoil_values(Rows(arrival, columns.keys, cells.kinds, value, pool))
        return self._with_copies(rng, originals)

    def _cells(self, rng: np.random.Generator, tick_first: int, ticks: int) -> _Cells:
        """Kind of each event of the grid."""
        to_follow = self._source.to_follow(tick_first, ticks)
        kinds = self._drawn_kinds(rng, to_follow.shape)
        if self._skew_ms is not None:
            # An event of a slow clock is so old on its arrival that none may overtake it: it would be late.
            slow = np.flatnonzero(self._skew_ms < 0)
            kinds[:, slow] = np.where(kinds[:, slow] == _DISORDERED, _PLAIN, kinds[:, slow])
        back: Integers | None = None
        if self._outages is not None:
            back = self._outages.back(tick_first, ticks)
            if not self._is_even or shape_zones(self._shape) != self._shape.devices:
                back = back.take(self.layout.device // self._shape.zone_devices, axis=1)
            stored = (back >= 0) & (kinds < _REJECT)
            kinds[stored] = _BUFFERED
            if self._reverses is not None:
                kinds[stored & self._reverses[self.layout.device]] = _NEWEST_FIRST
        # A late event needs successors that leave in time: without two plain ones in this block it is plain itself.
        plain = kinds == _PLAIN
        followed = np.zeros_like(plain)
        followed[:-2] = plain[1:-1] & plain[2:] & (to_follow[:-2] >= 2)
        kinds[(kinds == _LATE) & ~followed] = _PLAIN
        if self._skew_ms is not None:
            wrong = np.flatnonzero(self._skew_ms)
            kinds[:, wrong] = np.where(kinds[:, wrong] == _PLAIN, _SKEWED, kinds[:, wrong])
        index = np.flatnonzero(to_follow >= 0)
        column = index - index // self.layout.columns * self.layout.columns
        return _Cells(index, column, kinds.take(index), None if back is None else back.take(index))

    def _drawn_kinds(self, rng: np.random.Generator, grid: tuple[int, ...]) -> NDArray[np.int8]:
        """Kind of each cell of the grid, whether there is an event or not."""
        shape, layout = self._shape, self.layout
        draw = rng.random(grid)
        kinds = np.zeros(draw.shape, dtype=np.int8)
        low = 0.0
        # Who reports rarely is not overtaken within lateness; the others make up for it.
        more = 1.0 / layout.steady_share if layout.steady_share else 0.0
        for kind, share in ((Kind.DISORDERED, shape.disordered), (Kind.LATE, shape.late), *shape.rejects.items()):
            by_steady = kind in {Kind.DISORDERED, Kind.LATE}
            high = low + share * (more if by_steady else 1.0) / shape.unique_share
            drawn = (draw >= low) & (draw < high)
            if by_steady and more != 1.0:
                drawn &= layout.every == 1
            kinds[drawn] = CODES[kind]
            low = high
        return kinds

    def _arrival(self, rng: np.random.Generator, cells: _Cells, sent: Integers) -> Integers:
        shape, kinds = self._shape, cells.kinds
        delay = rng.integers(0, shape.delay_ms_max, kinds.size, endpoint=True)
        if not self._is_even:
            delay = delay * self._delay_ms_max.take(cells.column) // max(shape.delay_ms_max, 1)
        disordered = kinds == _DISORDERED
        if disordered.any():
            delay[disordered] = rng.integers(*shape.disorder_ms, int(disordered.sum()))
        late = kinds == _LATE
        delay[late] = shape.lateness_ms + shape.tick_ms + rng.integers(*LATE_BY_MS, int(late.sum()))
        if self._skew_ms is not None:
            # The clock of a fast one has to have passed its own event for it to be late.
            delay[late] += np.maximum(self._skew_ms.take(cells.column[late]), 0)
        arrival: Integers = sent + delay
        if cells.back is not None:
            stored = np.flatnonzero(cells.back >= 0)
            device = self.layout.device[cells.column[stored]]
            back_ms = shape.start_ms + cells.back[stored] * shape.tick_ms + self._first_phase_ms[device]
            arrival[stored] = back_ms
            reverse = kinds[stored] == _NEWEST_FIRST
            ago = (back_ms - sent[stored])[reverse] // shape.tick_ms
            arrival[stored[reverse]] += np.maximum(ago, 0) * _NEWEST_FIRST_MS
        return arrival

    def _spoil_columns(
        self, rng: np.random.Generator, kinds: NDArray[np.int8], columns: Columns, arrival: Integers
    ) -> None:
        future = np.flatnonzero(kinds == CODES[Kind.FUTURE_TIMESTAMP])
        columns.event_time_ms[future] = (
            arrival[future] + self._shape.skew_ms_max + rng.integers(1, 3_600_000, future.size)
        )
        invalid = np.flatnonzero(kinds == CODES[Kind.INVALID])
        columns.latitude[invalid[0::4]] = 91.5
        columns.latitude[invalid[1::4]] = columns.no_number
        columns.longitude[invalid[2::4]] = -200.0
        columns.event_time_ms[invalid[3::4]] = -1

    def _encoded(self, columns: Columns, block: int) -> tuple[NDArray[np.intp], pa.BinaryArray]:
        """The framed values, and where among them each record's is."""
        shape = self._shape
        count = columns.event_time_ms.size
        if not shape.version_2:
            return np.arange(count), encode(columns.batch(1), shape.schema, shape.schema_id)
        newer = np.random.default_rng([self._seed, 7, block]).random(count) < shape.version_2
        old, new = np.flatnonzero(~newer), np.flatnonzero(newer)
        place = np.empty(count, np.intp)
        place[old], place[new] = np.arange(old.size), old.size + np.arange(new.size)
        parts = [
            encode(columns.batch(1).take(pa.array(old)), shape.schema, shape.schema_id),
            encode(columns.batch(2).take(pa.array(new)), shape.schema_2 or "", shape.schema_2_id or 0),
        ]
        return place, pa.concat_arrays(parts)

    def _spoil_values(self, rows: Rows) -> Rows:
        spoilt = np.flatnonzero(rows.kinds >= _REJECT)
        if not spoilt.size:
            return rows
        values = [self._spoil(row, rows) for row in spoilt.tolist()]
        rows.value[spoilt] = len(rows.pool) + np.arange(spoilt.size)
        pool = pa.concat_arrays([rows.pool, pa.array(values, pa.binary())])
        return Rows(rows.arrival_ms, rows.keys, rows.kinds, rows.value, pool)

    def _spoil(self, row: int, rows: Rows) -> bytes:
        """The value of a record that is to be rejected; may change its key."""
        shape = self._shape
        key: bytes = rows.keys[row]
        value: bytes = rows.pool[rows.value[row]].as_py()
        match KINDS[rows.kinds[row]]:
            case Kind.NOT_FRAMED:
                return b'{"device_id": "' + key + b'"}'
            case Kind.UNKNOWN_SCHEMA:
                return frame(shape.unknown_schema_id) + value[5:]
            case Kind.MALFORMED:
                return value[:25] if row % 2 else value + b"\0\1"
            case Kind.INCOMPATIBLE_SCHEMA:
                return frame(shape.incompatible_schema_id or 0) + value[5:]
            case Kind.TOO_LARGE:
                return value + bytes(shape.record_bytes_max + 1 - len(value))
            case Kind.KEY_MISMATCH:
                rows.keys[row] = key + b"-other"
        return value

    def _with_copies(self, rng: np.random.Generator, originals: Rows) -> Rows:
        shape = self._shape
        valid = np.flatnonzero(originals.kinds < _REJECT)
        copied_of = shape.unique_share - sum(shape.rejects.values())
        arrivals = [originals.arrival_ms]
        index = [np.arange(originals.arrival_ms.size)]
        for share, delay_ms in (
            (shape.duplicate_immediate, (1, 20)),
            (shape.duplicate_delayed, (1_000, shape.duplicate_delay_ms_max + 1)),
        ):
            copied = valid[rng.random(valid.size) < share / copied_of]
            index.append(copied)
            arrivals.append(originals.arrival_ms.take(copied) + rng.integers(*delay_ms, copied.size))
        place = np.concatenate(index)
        kinds = originals.kinds.take(place)
        kinds[originals.arrival_ms.size :] = _DUPLICATE
        return Rows(
            np.concatenate(arrivals), originals.keys.take(place), kinds, originals.value.take(place), originals.pool
        )


def _outages(seed: int, shape: FleetShape) -> Outages | None:
    if not shape.buffered:
        return None
    shortest, longest = (max(1, round(length_ms / shape.tick_ms)) for length_ms in shape.outage_ms)
    return Outages(seed, shape_zones(shape), shape.buffered, shortest, longest)


def shape_zones(shape: FleetShape) -> int:
    """Dead zones: of so many devices each, the last one of what is left."""
    return -(-shape.devices // shape.zone_devices)


def _reversing(rng: np.random.Generator, shape: FleetShape) -> NDArray[np.bool_] | None:
    """Which devices send in reverse what they have stored; None where none does."""
    if not shape.newest_first or not shape.buffered:
        return None
    found: NDArray[np.bool_] = rng.random(shape.devices) < shape.newest_first
    return found


def _skews(rng: np.random.Generator, shape: FleetShape) -> Integers | None:
    """By how much each device's clock is ahead, milliseconds; None where all are right."""
    if not shape.skewed:
        return None
    wrong = rng.random(shape.devices) < shape.skewed
    by_ms = rng.integers(1, shape.clock_skew_ms_max, shape.devices, endpoint=True)
    ahead = rng.random(shape.devices) < 0.5
    return np.where(wrong, np.where(ahead, by_ms, -by_ms), 0)
