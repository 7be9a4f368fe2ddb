"""Windows one event at a time, over the oracle's model of a partition: written for being read, not for speed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.oracle.events import Event, OrderEvent, Reject
from loadtest.oracle.folds import haversine_km
from loadtest.oracle.model import PartitionModel


@dataclass
class OpenWindow:
    start: int
    close_at: float
    revision: int
    events: int = 0
    distance_mm: int = 0
    speed_max_kmh: float | None = None

    def row(self, device: str, size_ms: int) -> dict[str, object]:
        return {
            "device_id": device,
            "window_start": self.start,
            "window_end": self.start + size_ms,
            "revision": self.revision,
            "events": self.events,
            "distance_km": self.distance_mm / 1e6,
            "speed_max_kmh": self.speed_max_kmh,
        }


class WindowModel:
    """Feed it what a `PartitionModel` is fed; `rows` are the rows of closed windows, in order for each device."""

    def __init__(self, model: PartitionModel, *, size_ms: int, grace_ms: int) -> None:
        self.model = model
        self.size_ms, self.grace_ms = size_ms, grace_ms
        self.rows: dict[str, list[dict[str, object]]] = {}
        self._open: dict[str, OpenWindow] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def feed(self, record: Event | OrderEvent | Reject) -> None:
        self._step(lambda: self.model.feed(record))

    def idle(self, watermark: float) -> None:
        """As the engine: time goes on from timer to timer, which is all that can be seen of it."""
        self._step(lambda: self.model.idle(watermark))

    def _step(self, act: Callable[[], object]) -> None:
        prior, known = self.model.watermark, len(self.model.clean)
        act()
        for event in self.model.clean[known:]:
            assert isinstance(event, Event)
            self._fold(event, prior)
        for device in [d for d, window in self._open.items() if window.close_at <= self.model.watermark]:
            self._close(device)

    def _fold(self, event: Event, prior: float) -> None:
        device, start = event.device_id, event.event_time_ms // self.size_ms * self.size_ms
        window = self._open.get(device)
        if window is not None and (window.start != start or prior >= window.close_at):
            self._close(device)
            window = None
        if window is None:
            newest, revision = self._newest.get(device, (-math.inf, 0))
            revision = revision + 1 if newest == start else 0
            window = OpenWindow(start, max(start + self.size_ms, prior) + self.grace_ms, revision)
            self._open[device] = window
            self._newest[device] = (start, revision)
        window.events += 1
        here = (event.latitude, event.longitude)
        if device in self._last:
            window.distance_mm += round(haversine_km(*self._last[device], *here) * 1e6)
        self._last[device] = here
        if event.speed_kmh is not None and event.speed_kmh >= 0:
            known = event.speed_kmh if window.speed_max_kmh is None else window.speed_max_kmh
            window.speed_max_kmh = max(known, event.speed_kmh)

    def _close(self, device: str) -> None:
        self.rows.setdefault(device, []).append(self._open.pop(device).row(device, self.size_ms))
