"""A tunnel: a tenth of the vehicles has no connection for a while, then sends what it has stored."""

from typing import Final

from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.troubles.base import Audited, verdict
from streams.text import counted

ENDINGS: Final = ("7",)
NEWEST_FIRST: Final = ("07", "27", "47")
"""Endings of numbers: a tenth of the vehicles, and three in ten of those."""
UPLOADED_S: Final = 3.0
"""After its end, for what was stored to be sent."""


class Tunnel:
    """The vehicles whose number ends in 7 are silent for some seconds."""

    def __init__(self, demo: Demo, seconds: float) -> None:
        """It begins at once.

        Raises:
            StreamsError: the topics cannot be read.

        """
        self._demo, self._seconds = demo, seconds
        prefix, endings = demo.feeder.device_prefix.encode(), tuple(map(str.encode, ENDINGS))
        self._audited = Audited(demo, lambda key: key.startswith(prefix) and key.endswith(endings))
        self._began_s: float | None = None
        demo.feeder.hold(ENDINGS, NEWEST_FIRST, seconds)

    def explain(self) -> str:
        """What was done, and where to see the effect."""
        return (
            f"Tunnel: the vehicles whose number ends in 7 have no connection for {self._seconds:.0f} s. On the map "
            f"({self._demo.links.fleet}) they stand "
            "still. Then they send what they have stored: 7 of 10 in order, which stays in order; 3 of 10 the "
            "newest position first, so that the older ones are late."
        )

    def look(self, shot: Snapshot) -> str | None:
        """The counts, once they are known."""
        self._began_s = shot.elapsed_s if self._began_s is None else self._began_s
        found = self._audited.look(shot.elapsed_s, is_over=shot.elapsed_s - self._began_s > self._seconds + UPLOADED_S)
        if found is None:
            return None
        stored, topics = found.stored, self._demo.flow
        return (
            f"Tunnel: {counted(sum(stored.values()), 'stored position')} came up to "
            f"{found.stored_ms_max / 1000:.0f} s after their time. {stored['clean']:,} are in "
            f"{topics.clean}, in the order of their vehicle; {stored['late']:,} were late by up to "
            f"{found.late_ms_max / 1000:.0f} s: they are in {topics.late}. {verdict(found)}"
        )

    def close(self) -> None:
        """Release resources."""
        self._audited.close()
