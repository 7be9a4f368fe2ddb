"""What befalls traffic, share by share: a mix as field engineers know it, and how it becomes a fleet's shape."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from loadtest.fleet.traffic import REJECTS, FleetShape, Kind, PathsOf

DUPLICATE_DELAY_MS_MAX: Final = 10_000
CLOCK_SKEW_MS_MAX: Final = 30_000
_REJECTS_SHARE: Final = 0.0001


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of all records, unless it says otherwise; the defaults are a realistic mix.

    A field named as a `Kind` of reject is the share of records with that fault.
    """

    duplicate_immediate: float = 0.02
    """Sent again within 20 ms, as a client does that saw no acknowledgement."""
    duplicate_delayed: float = 0.01
    """Share of records that are sent again some seconds later."""
    disordered: float = 0.05
    """Overtaken by newer events of the same device, but within lateness."""
    late: float = 0.004
    """Overtaken by newer events of the same device, and later than lateness allows."""
    buffered: float = 0.02
    """Stored by a device that was offline, and sent in one go, in order, when it is back."""
    zone_devices: int = 1
    """Not a share: devices that are offline at the same time, since they share their dead zones."""
    newest_first: float = 0.0
    """Share of the devices that send stored events in reverse order."""
    parked: float = 0.0
    """Share of the time in which a vehicle is parked and reports at every 30th tick only."""
    skewed: float = 0.01
    """Share of the devices whose clock is wrong."""
    clock_skew_ms_max: int = CLOCK_SKEW_MS_MAX
    """Not a share: how wrong such a clock is at most, in either direction."""
    zipf: float = 0.5
    """Not a share: the exponent of how unevenly vehicles report; 0: all alike."""
    version_2: float = 0.3
    """Written with version 2 of the schema."""
    speed_unknown: float = 0.02
    """Share of the positions without a speed."""
    not_framed: float = _REJECTS_SHARE
    unknown_schema: float = _REJECTS_SHARE
    malformed: float = _REJECTS_SHARE
    incompatible_schema: float = _REJECTS_SHARE
    invalid: float = _REJECTS_SHARE
    key_mismatch: float = _REJECTS_SHARE
    future_timestamp: float = _REJECTS_SHARE
    too_large: float = 0.000002
    """Share of records that are too large; by default each has a megabyte."""

    paths: PathsOf = PathsOf.SIMULATED
    """What vehicles move along."""

    @property
    def rejects(self) -> dict[Kind, float]:
        """Share of each reason that occurs at all."""
        return {kind: share for kind in REJECTS if (share := getattr(self, kind.value))}

    @property
    def unique_share(self) -> float:
        """Share of the records that are not copies of another one."""
        return 1.0 - self.duplicate_immediate - self.duplicate_delayed


REALISTIC: Final = Mix()
_NO_SHARES: Final[dict[str, Any]] = {
    each.name: 0.0 for each in fields(Mix) if each.name not in {"paths", "clock_skew_ms_max", "zone_devices"}
}
NOTHING: Final = Mix(**_NO_SHARES)
"""No faults: every record is sent once, valid and in order."""


def mix_of(pipeline: str, mix: Mix = REALISTIC) -> Mix:
    """The mix as far as it can befall a flow's events: no order moves or reports more often than others.

    Where a schema has one version only, nothing is written with another one.
    """
    if pipeline == "gps":
        return mix
    return replace(mix, zipf=0.0, version_2=0.0, speed_unknown=0.0, parked=0.0, paths=PathsOf.SIMULATED)


@dataclass(frozen=True, slots=True)
class Schemas:
    """What records are written with: schemas as JSON text, and the ids that the registry gave them."""

    text: str
    """Text of the schema's first version."""
    schema_id: int
    text_2: str | None = None
    """Version 2, where there is one."""
    schema_2_id: int | None = None
    foreign_id: int | None = None
    """Id of a schema that cannot be read as one of these events."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the flow that reads the traffic goes by; the traffic keeps clear of these bounds, or oversteps them."""

    lateness_ms: int = 5_000
    skew_ms_max: int = 60_000
    record_bytes_max: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Size:
    """How many devices report, how often, and since when."""

    devices: int
    start_ms: int
    tick_ms: int = 1_000
    delay_ms_max: int = 150
    device_prefix: str | None = None
    device_first: int = 0
    devices_all: int | None = None


def shape_of(mix: Mix, size: Size, schemas: Schemas, bounds: Bounds) -> FleetShape:
    """The shape of a fleet of that size that is befallen by that mix.

    Raises:
        ValueError: the shares add up to more than everything, or do not fit the bounds; the message says which.

    """
    return FleetShape(
        devices=size.devices,
        start_ms=size.start_ms,
        schema=schemas.text,
        schema_id=schemas.schema_id,
        tick_ms=size.tick_ms,
        duplicate_immediate=mix.duplicate_immediate,
        duplicate_delayed=mix.duplicate_delayed,
        disordered=mix.disordered,
        late=mix.late,
        buffered=mix.buffered,
        zone_devices=mix.zone_devices,
        newest_first=mix.newest_first,
        parked=mix.parked,
        skewed=mix.skewed,
        clock_skew_ms_max=min(mix.clock_skew_ms_max, bounds.skew_ms_max),
        zipf=mix.zipf,
        version_2=mix.version_2,
        schema_2=schemas.text_2,
        schema_2_id=schemas.schema_2_id,
        paths=mix.paths,
        rejects=mix.rejects,
        lateness_ms=bounds.lateness_ms,
        skew_ms_max=bounds.skew_ms_max,
        record_bytes_max=bounds.record_bytes_max,
        delay_ms_max=size.delay_ms_max,
        duplicate_delay_ms_max=DUPLICATE_DELAY_MS_MAX,
        speed_unknown=mix.speed_unknown,
        incompatible_schema_id=schemas.foreign_id,
        device_prefix=size.device_prefix,
        device_first=size.device_first,
        devices_all=size.devices_all,
    )
