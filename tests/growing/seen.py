"""How much later than usual events are visible while a topic grows."""

import time
from typing import Final

import numpy as np

from loadtest.growth.visible import VisibleEvents

_MARGIN_MS: Final = 1_000


class SeenEvents(VisibleEvents):
    """`VisibleEvents`, asked for a pause."""

    def pause_s(self, growth_began_s: float) -> float:
        """The latest event since the growth began, less the median before it."""
        began_ms = growth_began_s * 1000
        _, before = self.latencies_ms(0, began_ms - _MARGIN_MS)
        _, since = self.latencies_ms(began_ms - _MARGIN_MS, time.time() * 1000)
        return float(since.max() - np.median(before)) / 1000
