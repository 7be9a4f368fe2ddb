"""A worker that is killed, and started again by the demo as a supervisor would."""

from collections.abc import Callable
from typing import Final

from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.troubles.base import Audited, verdict
from streams.demo.worker_probe import READY

LAG_SHARE: Final = 1.5
LAG_MORE: Final = 500
"""It has caught up when the lag is no more than this share of what it was, and so many records."""
PATIENCE_S: Final = 120.0
"""After this time it is counted, whatever the lag is: the machine may be too slow for the traffic."""


class KilledWorker:
    """The worker gets SIGKILL in the middle of its work."""

    def __init__(self, demo: Demo, lag: int | None, restart: Callable[[], None]) -> None:
        """`restart` kills it and starts it again, at once. `lag`: records, before.

        Raises:
            StreamsError: it had ended by itself, or the topics cannot be read.

        """
        self._demo = demo
        self._lag_before = lag or 0
        self._lag_max = 0
        self._audited = Audited(demo, lambda _: False)
        restart()
        self._began_s: float | None = None
        self._ready_s: float | None = None
        self._caught_up_s: float | None = None

    def explain(self) -> str:
        """What was done, and where to see the effect."""
        return (
            "The worker was killed (SIGKILL) and is started again: it aborts the transaction that was open, reads "
            "its place from Kafka and its state from its disk and the "
            f"journal. Meanwhile the vehicles on the map ({self._demo.links.fleet}) stand still, and the lag grows "
            f"({self._demo.links.monitor}#{self._demo.flow.group})."
        )

    def look(self, shot: Snapshot) -> str | None:
        """The counts, once they are known."""
        now_s = shot.elapsed_s
        began_s = self._began_s = now_s if self._began_s is None else self._began_s
        lag = shot.lag_sum
        self._lag_max = max(self._lag_max, lag or 0)
        if self._ready_s is None and shot.worker.state == READY:
            self._ready_s = now_s - began_s
        has_caught_up = lag is not None and lag <= self._lag_before * LAG_SHARE + LAG_MORE
        if self._caught_up_s is None and self._ready_s is not None and has_caught_up:
            self._caught_up_s = now_s - began_s
        waited_s = now_s - began_s
        found = self._audited.look(now_s, is_over=self._caught_up_s is not None or waited_s > PATIENCE_S)
        if found is None:
            return None
        ready = "was not ready again" if self._ready_s is None else f"was ready again after {self._ready_s:.0f} s"
        caught_up = "not caught up" if self._caught_up_s is None else f"caught up after {self._caught_up_s:.0f} s"
        return (
            f"The worker {ready}; it had {caught_up}; the lag was {self._lag_max:,} records at most. {verdict(found)}"
        )

    def close(self) -> None:
        """Release resources."""
        self._audited.close()
