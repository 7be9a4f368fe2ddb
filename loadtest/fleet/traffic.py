"""Vocabulary of seeded traffic: what a record is meant to be, what the traffic is like, and a stretch of the log."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.layout import Layout


class Kind(StrEnum):
    """What the generator meant a record to be; rejects carry the reason expected in the dead-letter header."""

    PLAIN = "plain"
    DISORDERED = "disordered"
    DUPLICATE = "duplicate"
    LATE = "late"
    BUFFERED = "buffered"
    SKEWED = "skewed"
    NEWEST_FIRST = "newest_first"
    """Stored, as buffered ones, and sent in reverse: clean or late, depending on where the watermark is."""
    NOT_FRAMED = "not_framed"
    UNKNOWN_SCHEMA = "unknown_schema"
    MALFORMED = "malformed"
    INCOMPATIBLE_SCHEMA = "incompatible_schema"
    INVALID = "invalid"
    KEY_MISMATCH = "key_mismatch"
    FUTURE_TIMESTAMP = "future_timestamp"
    TOO_LARGE = "too_large"


class PathsOf(StrEnum):
    """What vehicles move along."""

    SIMULATED = "simulated"
    REAL = "real"


KINDS: Final = tuple(Kind)
CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
REJECTS: Final = KINDS[CODES[Kind.NOT_FRAMED] :]

PARKED_TICKS: Final = 30
"""From one report of a parked vehicle to the next: five minutes, where one on the move reports every ten seconds."""
UNKNOWN_SCHEMA_ID: Final = 2_000_000_000
"""An id that no registry gets to within anyone's lifetime."""


@dataclass(frozen=True, slots=True)
class FleetShape:
    """What the traffic is like. Shares are of all records in the topic; what is left over is plain."""

    devices: int
    """Vehicles, or orders under way at a time; none of them sends more than one event a tick."""
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
    buffered: float = 0.0
    """Share of the time in which a device is offline; what it stored meanwhile arrives in one go, in its order."""
    outage_ms: tuple[int, int] = (5_000, 120_000)
    """The shortest and the longest time that a device is offline."""
    zone_devices: int = 1
    """So many devices, side by side in their numbers, are offline at the same time: they share their dead zones."""
    newest_first: float = 0.0
    """Share of the devices that send what they have stored in reverse."""
    parked: float = 0.0
    """Share of the time in which a vehicle is parked, and reports at every `PARKED_TICKS`-th tick only."""
    skewed: float = 0.0
    """Share of the devices whose clock is wrong, by a constant."""
    clock_skew_ms_max: int = 30_000
    """How wrong a clock is at most, in either direction; within `skew_ms_max`, so that nothing is rejected for it."""
    zipf: float = 0.0
    """Exponent of Zipf's law of how often vehicles report, on average about once a tick; 0: all equally often."""
    version_2: float = 0.0
    """Share of the records written with version 2 of the schema."""
    schema_2: str | None = None
    """Version 2 as JSON text, and its id; needed where records are written with it."""
    schema_2_id: int | None = None
    paths: PathsOf = PathsOf.SIMULATED
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
    """Id of a registered schema that cannot be read as one of these events; needed for rejects of that kind."""
    unknown_schema_id: int = UNKNOWN_SCHEMA_ID
    """Id of no schema, for rejects of that kind."""
    device_prefix: str | None = None
    """Ids of the vehicles or orders begin so; None: as their kind does, `truck-` or `order-`."""
    device_first: int = 0
    """Number of the first vehicle (or place of orders), where several fleets share the ids of one prefix."""
    devices_all: int | None = None
    """Vehicles (or places) of all fleets of that prefix together; None: this one is alone."""

    def __post_init__(self) -> None:
        if not self.device_first + self.devices <= (self.devices_all or self.device_first + self.devices):
            raise ValueError("devices_all must count the devices of every fleet")
        if self.zone_devices < 1:
            raise ValueError("zone_devices must be at least 1: a device by itself")
        if not 0 <= self.delay_ms_max < self.tick_ms:
            raise ValueError("delay_ms_max must be shorter than a tick, or plain records would overtake each other")
        if self.skewed and not 0 < self.clock_skew_ms_max <= self.skew_ms_max:
            raise ValueError("clock_skew_ms_max must be within skew_ms_max, or events would be rejected for it")
        if self.version_2 and (self.schema_2 is None or self.schema_2_id is None):
            raise ValueError("version_2 needs schema_2 and its id: this schema may have one version only")
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
    """Kind of each record, as an index into `KINDS`."""

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


class Columns(Protocol):
    """Valid events, row by row, about to be written; the arrays may be changed in place until then."""

    @property
    def no_number(self) -> float:
        """A value of a double that is neither a number nor written as null."""

    @property
    def keys(self) -> NDArray[np.object_]:
        """Key of each record, as `bytes`."""

    @property
    def event_time_ms(self) -> NDArray[np.int64]:
        """Event times, milliseconds since the epoch."""

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Latitudes in degrees."""

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Longitudes in degrees."""

    def batch(self, version: int) -> pa.RecordBatch:
        """The columns as the fields of that version of the schema."""


class Source(Protocol):
    """What the events of a fleet are about, drawn from the fleet's seed; ticks are asked for in order."""

    @property
    def layout(self) -> Layout:
        """Return which device each column of the grid belongs to."""

    def to_follow(self, tick_first: int, ticks: int) -> NDArray[np.int8]:
        """Shape (ticks, columns): how many events of the same key follow, one a tick; -1 where there is no event."""

    def columns(
        self, rng: np.random.Generator, tick_first: int, ticks: int, cells: NDArray[np.intp], time_ms: NDArray[np.int64]
    ) -> Columns:
        """Events of some cells of the grid of ticks and columns; `time_ms` are those of the grid, one for each cell."""
