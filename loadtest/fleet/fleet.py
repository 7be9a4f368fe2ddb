"""Traffic of a fleet in log order, deterministic in its seed, with as many faults of each kind as asked for.

Every vehicle (or order) reports once per tick at a phase of its own, if it has anything to report: what that is, its
`Source` knows. A record's timestamp is the moment of its arrival; time
starts where the caller says and never comes from the clock. The same shape and seed give the same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtest.fleet.encode import encode, frame
from loadtest.fleet.positions import Positions
from loadtest.fleet.traffic import CODES, KINDS, Columns, FleetShape, Kind, Source, TrafficBatch

BLOCK_RECORDS: Final = 60_000
UNKNOWN_SCHEMA_ID: Final = 2_000_000_000
LATE_BY_MS: Final = (4_000, 30_000)
"""How much later than lateness and a tick a late event arrives: its successors have left by then."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Records on their way: parallel arrays, not yet in the order of arrival."""

    arrival_ms: NDArray[np.int64]
    keys: NDArray[np.object_]
    values: NDArray[np.object_]
    kinds: NDArray[np.int8]

    def take(self, index: NDArray[np.intp] | slice) -> "_Rows":
        return _Rows(self.arrival_ms[index], self.keys[index], self.values[index], self.kinds[index])

    @staticmethod
    def join(parts: list["_Rows"]) -> "_Rows":
        return _Rows(
            np.concatenate([part.arrival_ms for part in parts]),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.kinds for part in parts]),
        )

    def batch(self) -> TrafficBatch:
        return TrafficBatch(self.keys.tolist(), self.values.tolist(), self.arrival_ms.tolist(), self.kinds)


class Fleet:
    """A fleet of `shape`, driven by `seed`; its events are positions unless another source is given."""

    def __init__(self, seed: int, shape: FleetShape, source: Callable[[int, FleetShape], Source] = Positions) -> None:
        self.seed = seed
        self.shape = shape
        self._source = source
        self._phase_ms = np.random.default_rng([seed, 0]).integers(0, shape.tick_ms, shape.devices)
        self._ticks = max(4, BLOCK_RECORDS // shape.devices)

    def batches(self, records: int) -> Iterator[TrafficBatch]:
        """The first `records` records of the log, in order, in batches of some ten thousand."""
        shape = self.shape
        source = self._source(self.seed, shape)
        under_way: list[_Rows] = []
        block = 0
        while records > 0:
            rows = _Rows.join([*under_way, self._block(block, source)])
            rows = rows.take(np.argsort(rows.arrival_ms, kind="stable"))
            block += 1
            ends_ms = shape.start_ms + block * self._ticks * shape.tick_ms
            arrived = int(np.searchsorted(rows.arrival_ms, ends_ms))
            under_way = [rows.take(slice(arrived, None))]
            emitted = rows.take(slice(0, min(arrived, records)))
            records -= len(emitted.values)
            yield emitted.batch()

    def _block(self, block: int, source: Source) -> _Rows:
        """Every record whose event belongs to the ticks of this block, copies included."""
        shape, ticks = self.shape, self._ticks
        rng = np.random.default_rng([self.seed, 2, block])
        tick_first = block * ticks
        to_follow = source.to_follow(tick_first, ticks)
        cells = np.flatnonzero(to_follow >= 0)
        kinds = self._draw_kinds(rng, to_follow).take(cells)
        ticks_ms = shape.start_ms + np.arange(tick_first, tick_first + ticks) * shape.tick_ms
        event_time = (ticks_ms[:, None] + self._phase_ms).ravel().take(cells)
        arrival = event_time + self._delays(rng, kinds)
        columns = source.columns(rng, tick_first, ticks, cells, event_time)
        self._spoil_columns(rng, kinds, columns, arrival)
        values = encode(columns.batch(), shape.schema, shape.schema_id)
        keys = columns.keys
        self._spoil_values(kinds, keys, values)
        originals = _Rows(arrival, keys, values, kinds)
        return _Rows.join([originals, *self._copies(rng, originals)])

    def _draw_kinds(self, rng: np.random.Generator, to_follow: NDArray[np.int8]) -> NDArray[np.int8]:
        """Kind of each cell of the grid, whether there is an event or not."""
        shape = self.shape
        draw = rng.random(to_follow.shape)
        kinds = np.zeros(draw.shape, dtype=np.int8)
        low = 0.0
        for kind, share in ((Kind.DISORDERED, shape.disordered), (Kind.LATE, shape.late), *shape.rejects.items()):
            high = low + share / shape.unique_share
            kinds[(draw >= low) & (draw < high)] = CODES[kind]
            low = high
        # A late event needs successors that leave in time: without two plain ones in this block it is plain itself.
        plain = kinds == CODES[Kind.PLAIN]
        followed = np.zeros_like(plain)
        followed[:-2] = plain[1:-1] & plain[2:] & (to_follow[:-2] >= 2)
        kinds[(kinds == CODES[Kind.LATE]) & ~followed] = CODES[Kind.PLAIN]
        return kinds

    def _delays(self, rng: np.random.Generator, kinds: NDArray[np.int8]) -> NDArray[np.int64]:
        shape = self.shape
        delay = rng.integers(0, shape.delay_ms_max, kinds.size, endpoint=True)
        disordered = kinds == CODES[Kind.DISORDERED]
        if disordered.any():
            delay[disordered] = rng.integers(*shape.disorder_ms, int(disordered.sum()))
        late = kinds == CODES[Kind.LATE]
        delay[late] = shape.lateness_ms + shape.tick_ms + rng.integers(*LATE_BY_MS, int(late.sum()))
        return delay

    def _spoil_columns(
        self,
        rng: np.random.Generator,
        kinds: NDArray[np.int8],
        columns: Columns,
        arrival: NDArray[np.int64],
    ) -> None:
        future = np.flatnonzero(kinds == CODES[Kind.FUTURE_TIMESTAMP])
        columns.event_time_ms[future] = (
            arrival[future] + self.shape.skew_ms_max + rng.integers(1, 3_600_000, future.size)
        )
        invalid = np.flatnonzero(kinds == CODES[Kind.INVALID])
        columns.latitude[invalid[0::4]] = 91.5
        columns.latitude[invalid[1::4]] = columns.no_number
        columns.longitude[invalid[2::4]] = -200.0
        columns.event_time_ms[invalid[3::4]] = -1

    def _spoil_values(self, kinds: NDArray[np.int8], keys: NDArray[np.object_], values: NDArray[np.object_]) -> None:
        shape = self.shape
        for row in np.flatnonzero(kinds >= CODES[Kind.NOT_FRAMED]):
            value = values[row]
            match KINDS[kinds[row]]:
                case Kind.NOT_FRAMED:
                    values[row] = b'{"device_id": "' + keys[row] + b'"}'
                case Kind.UNKNOWN_SCHEMA:
                    values[row] = frame(shape.unknown_schema_id) + value[5:]
                case Kind.MALFORMED:
                    values[row] = value[:25] if row % 2 else value + b"\0\1"
                case Kind.INCOMPATIBLE_SCHEMA:
                    values[row] = frame(shape.incompatible_schema_id or 0) + value[5:]
                case Kind.KEY_MISMATCH:
                    keys[row] = keys[row] + b"-other"
                case Kind.TOO_LARGE:
                    values[row] = value + bytes(shape.record_bytes_max + 1 - len(value))
                case _:
                    pass

    def _copies(self, rng: np.random.Generator, originals: _Rows) -> list[_Rows]:
        shape = self.shape
        valid = np.flatnonzero(originals.kinds < CODES[Kind.NOT_FRAMED])
        copied_of = shape.unique_share - sum(shape.rejects.values())
        copies = []
        for share, delay_ms in (
            (shape.duplicate_immediate, (1, 20)),
            (shape.duplicate_delayed, (1_000, shape.duplicate_delay_ms_max + 1)),
        ):
            rows = originals.take(valid[rng.random(valid.size) < share / copied_of])
            arrival = rows.arrival_ms + rng.integers(*delay_ms, rows.arrival_ms.size)
            kinds = np.full(rows.kinds.size, CODES[Kind.DUPLICATE], dtype=np.int8)
            copies.append(_Rows(arrival, rows.keys, rows.values, kinds))
        return copies
