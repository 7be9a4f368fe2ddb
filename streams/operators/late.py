"""Late events: those that arrived after a later event of their key was released, or beyond the dedup horizon."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from streams.batch.columns import Bools, Headers, Int64
from streams.operators.output import EventRecords

LATE: Final = "late"


@dataclass(frozen=True, slots=True)
class LateEvents(EventRecords):
    """Late events, with the reason and by how much each is late."""

    beyond_horizon: bool
    by_ms: Int64

    def take(self, rows: Bools) -> "LateEvents":
        """Return only the events at `rows`."""
        return replace(self, events=self.events.take(rows), by_ms=self.by_ms[rows])

    def headers(self, originals: Sequence[Headers | None] | None) -> Sequence[Headers | None]:
        """The event's own headers, then `late.reason` and `late.by_ms`."""
        reason = b"beyond_horizon" if self.beyond_horizon else b"late"
        return [
            [*(original or ()), ("late.reason", reason), ("late.by_ms", str(by_ms).encode())]
            for original, by_ms in zip(originals or [None] * len(self.events), self.by_ms.tolist(), strict=True)
        ]
