"""Lag watched for a while and judged, for `streams lag`."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streams.kafka.offsets_process import RoundFailed
from streams.monitor.book import GroupLag
from streams.monitor.lookout import Lookout
from streams.monitor.report import group_row, instant
from streams.monitor.status import Status
from streams.settings import Settings

WATCH_WINDOW_S: Final = 120.0
WATCH_PAUSE_S_MIN: Final = 0.2


@dataclass(frozen=True, slots=True)
class LagReport:
    """Verdicts on consumer groups at one time."""

    cluster: str
    time_ms: int
    groups: Mapping[str, GroupLag]
    wanted: tuple[str, ...]
    """Groups that were asked for; none: all."""

    @property
    def missing(self) -> list[str]:
        """Groups that were asked for and are not there, or have committed nothing."""
        return [name for name in self.wanted if name not in self.groups]

    @property
    def not_ok(self) -> list[str]:
        """Groups whose verdict is worse than OK."""
        return [group.name for group in self.groups.values() if group.status is not Status.OK]

    @property
    def worst_first(self) -> list[GroupLag]:
        """The groups, the worst verdict first, then by name."""
        return sorted(self.groups.values(), key=lambda group: (-group.status, group.name))

    def as_dict(self) -> dict[str, Any]:
        """The report as one JSON document; a group that is missing is NOTFOUND."""
        rows = [group_row(group) for group in self.groups.values()]
        rows += [{"group": name, "status": Status.NOTFOUND.name, "partitions": []} for name in self.missing]
        return {"cluster": self.cluster, "time": instant(self.time_ms), "groups": rows}


def observed_lag(settings: Settings, wanted: Sequence[str], *, observe_s: float, interval_s: float) -> LagReport:
    """Look every `interval_s` until `observe_s` after the first look, then judge; `wanted` empty: all groups.

    Raises:
        RoundFailed: the broker does not answer.

    """
    window_s = max(observe_s, interval_s) + interval_s
    with Lookout(settings, window_s=window_s, interval_s=interval_s) as lookout:
        ends_s = math.inf
        while True:
            at_s = time.monotonic()
            report = _look(lookout, wanted)
            ends_s = min(ends_s, time.monotonic() + observe_s)  # the first look takes longer, and shows nothing move
            if time.monotonic() >= ends_s:
                return report
            time.sleep(max(0.0, at_s + interval_s - time.monotonic()))


def watched_lag(settings: Settings, wanted: Sequence[str], *, interval_s: float) -> Generator[LagReport | RoundFailed]:
    """A report every `interval_s`, without end; a round that failed, and is tried again, is its error."""
    with Lookout(settings, window_s=WATCH_WINDOW_S, interval_s=interval_s) as lookout:
        while True:
            at_s = time.monotonic()
            try:
                yield _look(lookout, wanted)
            except RoundFailed as error:
                yield error
            time.sleep(max(WATCH_PAUSE_S_MIN, at_s + interval_s - time.monotonic()))


def _look(lookout: Lookout, wanted: Sequence[str]) -> LagReport:
    found, groups = lookout.look(wanted or None)
    return LagReport(found.cluster, found.time_ms, groups, tuple(wanted))
