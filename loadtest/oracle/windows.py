"""Tumbling windows of vehicles: what the rows of each must add up to, and what they do add up to.

A window may have several rows, and which events went into which row is the engine's own affair; their sum is not.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from loadtest.oracle.folds import whole_mm

KM_BETWEEN_LIBRARIES: Final = 1e-10
"""Two maths libraries differ by less in a leg ..."""
_ANTIPODE_KM: Final = 18_700.0
_KM_NEAR_ANTIPODE: Final = 1e-4
"""... but for legs beyond `_ANTIPODE_KM`, where the haversine is ill-conditioned."""


class Window(Protocol):
    """What a flow declares of a window."""

    @property
    def topic(self) -> str:
        """Topic that the rows of the windows are written to."""

    @property
    def size_ms(self) -> int:
        """Its length in event time, milliseconds."""

    @property
    def grace_ms(self) -> int:
        """How far beyond its end the watermark is when it closes, milliseconds."""


def windows_of(pipeline: object) -> tuple[Window, ...]:
    """Windows of a fixed length that a pipeline declares, of this version or an earlier one; not its sessions."""
    return tuple(one for one in getattr(pipeline, "windows", ()) if one.size_ms)


class WindowKey(NamedTuple):
    """A window of one vehicle; its start is in milliseconds since the epoch."""

    topic: str
    entity: str
    start_ms: int


@dataclass(slots=True)
class WindowSum:
    """All rows of a window together."""

    events: int = 0
    distance_mm: int = 0
    speed_max_kmh: float | None = None
    slack_mm: int = 0
    """Legs so close to half a millimetre that another maths library may round them the other way."""
    rows: int = 0
    watermark_before: float = -math.inf
    """The highest watermark just before one of its events became due."""
    is_over: bool = False
    """The watermark has closed it: all of its rows are there."""

    def is_closed_by(self, watermark: float, *, end_ms: int, grace_ms: int) -> bool:
        """Whether the watermark has closed it for certain. A window of the past has its grace from its events on."""
        return max(end_ms, self.watermark_before) + grace_ms <= watermark

    def add_event(self, speed_kmh: float | None, leg_km: float) -> None:
        """Add a clean event and the way to it from the event before. A negative speed is an unknown one."""
        error_km = KM_BETWEEN_LIBRARIES if leg_km < _ANTIPODE_KM else _KM_NEAR_ANTIPODE
        self.slack_mm += whole_mm(leg_km + error_km) - whole_mm(max(0.0, leg_km - error_km))
        self._add(1, whole_mm(leg_km), None if speed_kmh is not None and speed_kmh < 0 else speed_kmh)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add an emitted row."""
        self.rows += 1
        self._add(row["events"], whole_mm(row["distance_km"]), row["speed_max_kmh"])

    def _add(self, events: int, distance_mm: int, speed_kmh: float | None) -> None:
        self.events += events
        self.distance_mm += distance_mm
        if speed_kmh is not None:
            self.speed_max_kmh = speed_kmh if self.speed_max_kmh is None else max(speed_kmh, self.speed_max_kmh)

    def differing(self, observed: "WindowSum") -> list[str]:
        """What the observed rows add up to otherwise than they must."""
        off_mm = abs(observed.distance_mm - self.distance_mm)
        found = {
            "events": observed.events != self.events,
            "distance_km": off_mm > self.slack_mm,
            "speed_max_kmh": observed.speed_max_kmh != self.speed_max_kmh,
        }
        return [name for name, differs in found.items() if differs]


class Part(NamedTuple):
    """What some rows of a window add up to: its events up to one of them."""

    distance_mm: int
    slack_mm: int
    speed_max_kmh: float | None


@dataclass(slots=True)
class NewestWindow:
    """The newest window of a vehicle, event by event: rows of it may be still to come, but none may be wrong."""

    start_ms: int
    parts: list[Part] = field(default_factory=list)

    def add(self, so_far: WindowSum) -> None:
        """Note what its events so far add up to."""
        self.parts.append(Part(so_far.distance_mm, so_far.slack_mm, so_far.speed_max_kmh))

    def has(self, observed: WindowSum) -> bool:
        """Whether rows add up to the first events of it: to as many as they say, and fewer than there are."""
        if not 0 < observed.events < len(self.parts):
            return False
        part = self.parts[observed.events - 1]
        return (
            abs(observed.distance_mm - part.distance_mm) <= part.slack_mm
            and observed.speed_max_kmh == part.speed_max_kmh
        )


@dataclass(slots=True)
class WindowLog:
    """The rows of all windows, as they were read."""

    rows: int = 0
    duplicates: int = 0
    """Rows whose revision was there already; they are not added."""
    sums: dict[WindowKey, WindowSum] = field(default_factory=dict)
    newest: dict[tuple[str, str], NewestWindow] = field(default_factory=dict)
    """The model's newest window of each topic and vehicle."""
    wrong: dict[WindowKey, str] = field(default_factory=dict)
    """Windows with a row that cannot be right by itself, and why."""

    def add(self, window: Window, key: bytes, row: Mapping[str, Any], *, partition: int, partition_due: int) -> None:
        """Take the next row of a window's topic; those of one vehicle come in the order in which they were written."""
        self.rows += 1
        name = WindowKey(window.topic, row["device_id"], row["window_start"])
        seen = self.sums.setdefault(name, WindowSum())
        if row["revision"] < seen.rows:
            self.duplicates += 1
            return
        complaint = _complaint(window, key, row, seen.rows)
        if complaint is None and partition != partition_due:
            complaint = f"in partition {partition} instead of {partition_due}"
        if complaint is not None:
            self.wrong.setdefault(name, complaint)
        seen.add_row(row)

    def distances_mm(self, topic: str) -> dict[str, int]:
        """Distance of all rows of a topic together, by vehicle."""
        sums: dict[str, int] = defaultdict(int)
        for key, seen in self.sums.items():
            if key.topic == topic:
                sums[key.entity] += seen.distance_mm
        return sums


def _complaint(window: Window, key: bytes, row: Mapping[str, Any], revision_due: int) -> str | None:
    """What is wrong with a row by itself."""
    start_ms = row["window_start"]
    if row["device_id"].encode() != key:
        return f"the row is of {row['device_id']!r}, its key is {key!r}"
    if start_ms % window.size_ms or row["window_end"] != start_ms + window.size_ms:
        return f"from {start_ms} to {row['window_end']} is no window of {window.size_ms} ms"
    if row["revision"] != revision_due:
        return f"revision {row['revision']} instead of {revision_due}"
    if row["events"] < 1:
        return f"a row of {row['events']} events"
    return None
