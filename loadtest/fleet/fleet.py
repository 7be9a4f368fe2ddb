"""Traffic of a fleet in log order, deterministic in its seed, with as many faults of each kind as asked for.

Every vehicle reports once per tick at a phase of its own. A record's timestamp is the moment of its arrival; time
starts where the caller says and never comes from the clock. The same shape and seed give the same bytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import PositionColumns, encode_positions, frame, uuid_texts
from loadtest.fleet.tracks import Tracks

BLOCK_RECORDS: Final = 60_000
UNKNOWN_SCHEMA_ID: Final = 2_000_000_000
LATE_BY_MS: Final = (4_000, 30_000)
"""How much later than lateness and a tick a late event arrives: its successors have left by then."""


class Kind(StrEnum):
    """What the generator meant a record to be; rejects carry the reason expected in the dead-letter header."""

    PLAIN = "plain"
    DISORDERED = "disordered"
    DUPLICATE = "duplicate"
    LATE = "late"
    NOT_FRAMED = "not_framed"
    UNKNOWN_SCHEMA = "unknown_schema"
    MALFORMED = "malformed"
    INCOMPATIBLE_SCHEMA = "incompatible_schema"
    INVALID = "invalid"
    KEY_MISMATCH = "key_mismatch"
    FUTURE_TIMESTAMP = "future_timestamp"
    TOO_LARGE = "too_large"


KINDS: Final = tuple(Kind)
CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
REJECTS: Final = KINDS[CODES[Kind.NOT_FRAMED] :]


@dataclass(frozen=True, slots=True)
class FleetShape:
    """What the traffic is like. Shares are of all records in the topic; what is left over is plain."""

    devices: int
    start_ms: int
    """Event time of the first tick, milliseconds since the epoch."""
    schema: str
    """Version 1 of the subject's schema as JSON text, and the id the registry gave it."""
    schema_id: int
    tick_ms: int = 1_000
    duplicate_immediate: float = 0.0
    duplicate_delayed: float = 0.0
    disordered: float = 0.0
    """Arrives behind newer events of its device, but within lateness."""
    late: float = 0.0
    rejects: Mapping[Kind, float] = field(default_factory=dict)
    lateness_ms: int = 5_000
    skew_ms_max: int = 60_000
    record_bytes_max: int = 1_048_576
    delay_ms_max: int = 150
    """Network delay of a record that nothing befalls: uniform from 0 to this, shorter than a tick."""
    duplicate_delay_ms_max: int = 60_000
    speed_unknown: float = 0.02
    """Share of positions without a speed."""
    incompatible_schema_id: int | None = None
    """Id of a registered schema that cannot be read as a position; needed for rejects of that kind."""
    device_prefix: str = "truck-"

    def __post_init__(self) -> None:
        if not 0 <= self.delay_ms_max < self.tick_ms:
            raise ValueError("delay_ms_max must be shorter than a tick, or plain records would overtake each other")
        if self.disordered and self.disorder_ms[0] >= self.disorder_ms[1]:
            raise ValueError("lateness_ms leaves no room for disorder: it must be well above a tick")
        if wrong := set(self.rejects) - set(REJECTS):
            raise ValueError(f"not reasons to reject: {sorted(wrong)}")
        if self.rejects.get(Kind.INCOMPATIBLE_SCHEMA) and self.incompatible_schema_id is None:
            raise ValueError("rejects of kind incompatible_schema need incompatible_schema_id")
        if self.unique_share - sum(self.rejects.values()) <= self.disordered + self.late:
            raise ValueError("the shares of faults add up to more than everything")

    @property
    def disorder_ms(self) -> tuple[int, int]:
        """Bounds of the delay of a disordered record: it is overtaken for certain, and never late."""
        return self.tick_ms + self.delay_ms_max + 1, self.lateness_ms * 9 // 10

    @property
    def unique_share(self) -> float:
        """Share of the records that are not copies of another one."""
        return 1.0 - self.duplicate_immediate - self.duplicate_delayed


@dataclass(frozen=True, slots=True)
class TrafficBatch:
    """Consecutive records of the log: row i of each list is one record."""

    keys: list[bytes | None]
    values: list[bytes]
    timestamps_ms: list[int]
    kinds: NDArray[np.int8]
    """Codes: index into `KINDS`."""

    def __len__(self) -> int:
        return len(self.values)

    def slice(self, first: int, end: int) -> "TrafficBatch":
        """Records `first` to `end`, the latter excluded."""
        return TrafficBatch(
            self.keys[first:end], self.values[first:end], self.timestamps_ms[first:end], self.kinds[first:end]
        )

    def counts(self) -> Counter[Kind]:
        """How many records of each kind; late ones are exact unless the fleet has only a few vehicles."""
        codes, numbers = np.unique(self.kinds, return_counts=True)
        return Counter({KINDS[code]: int(number) for code, number in zip(codes, numbers, strict=True)})


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
    """A fleet of `shape`, driven by `seed`."""

    def __init__(self, seed: int, shape: FleetShape) -> None:
        self.seed = seed
        self.shape = shape
        names = [f"{shape.device_prefix}{number:06d}" for number in range(shape.devices)]
        self._names = pa.array(names)
        self._keys = np.array([name.encode() for name in names], dtype=object)
        self._phase_ms = np.random.default_rng([seed, 0]).integers(0, shape.tick_ms, shape.devices)
        self._ticks = max(4, BLOCK_RECORDS // shape.devices)

    def batches(self, records: int) -> Iterator[TrafficBatch]:
        """The first `records` records of the log, in order, in batches of some ten thousand."""
        shape = self.shape
        tracks = Tracks(np.random.default_rng([self.seed, 1]), shape.devices, shape.tick_ms)
        under_way: list[_Rows] = []
        block = 0
        while records > 0:
            rows = _Rows.join([*under_way, self._block(block, tracks)])
            rows = rows.take(np.argsort(rows.arrival_ms, kind="stable"))
            block += 1
            ends_ms = shape.start_ms + block * self._ticks * shape.tick_ms
            arrived = int(np.searchsorted(rows.arrival_ms, ends_ms))
            under_way = [rows.take(slice(arrived, None))]
            emitted = rows.take(slice(0, min(arrived, records)))
            records -= len(emitted.values)
            yield emitted.batch()

    def _block(self, block: int, tracks: Tracks) -> _Rows:
        """Every record whose event belongs to the ticks of this block, copies included."""
        shape, ticks = self.shape, self._ticks
        rng = np.random.default_rng([self.seed, 2, block])
        count = ticks * shape.devices
        kinds = self._draw_kinds(rng)
        tick_first = block * ticks
        ticks_ms = shape.start_ms + np.arange(tick_first, tick_first + ticks) * shape.tick_ms
        event_time = (ticks_ms[:, None] + self._phase_ms).ravel()
        arrival = event_time + self._delays(rng, kinds)
        device = np.tile(np.arange(shape.devices), ticks)
        track = tracks.block(tick_first, ticks)
        speed = track.speed_kmh.ravel()
        speed[rng.random(count) < shape.speed_unknown] = np.nan
        columns = PositionColumns(
            event_id=uuid_texts(rng, count),
            device_id=self._names.take(pa.array(device)),
            sequence=np.repeat(np.arange(tick_first + 1, tick_first + ticks + 1), shape.devices),
            event_time_ms=event_time.copy(),
            latitude=track.latitude.ravel(),
            longitude=track.longitude.ravel(),
            speed_kmh=speed,
            heading_deg=track.heading_deg.ravel(),
        )
        self._spoil_columns(rng, kinds, columns, arrival)
        values = encode_positions(columns, shape.schema, shape.schema_id)
        keys = self._keys[device]
        self._spoil_values(kinds, keys, values)
        originals = _Rows(arrival, keys, values, kinds)
        return _Rows.join([originals, *self._copies(rng, originals)])

    def _draw_kinds(self, rng: np.random.Generator) -> NDArray[np.int8]:
        shape = self.shape
        draw = rng.random((self._ticks, shape.devices))
        kinds = np.zeros(draw.shape, dtype=np.int8)
        low = 0.0
        for kind, share in ((Kind.DISORDERED, shape.disordered), (Kind.LATE, shape.late), *shape.rejects.items()):
            high = low + share / shape.unique_share
            kinds[(draw >= low) & (draw < high)] = CODES[kind]
            low = high
        # A late event needs successors that leave in time: without two plain ones in this block it is plain itself.
        plain = kinds == CODES[Kind.PLAIN]
        followed = np.zeros_like(plain)
        followed[:-2] = plain[1:-1] & plain[2:]
        kinds[(kinds == CODES[Kind.LATE]) & ~followed] = CODES[Kind.PLAIN]
        return kinds.ravel()

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
        columns: PositionColumns,
        arrival: NDArray[np.int64],
    ) -> None:
        future = np.flatnonzero(kinds == CODES[Kind.FUTURE_TIMESTAMP])
        columns.event_time_ms[future] = (
            arrival[future] + self.shape.skew_ms_max + rng.integers(1, 3_600_000, future.size)
        )
        invalid = np.flatnonzero(kinds == CODES[Kind.INVALID])
        columns.latitude[invalid[0::4]] = 91.5
        columns.latitude[invalid[1::4]] = np.nan
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
                    values[row] = frame(UNKNOWN_SCHEMA_ID) + value[5:]
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
