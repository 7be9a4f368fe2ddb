"""Watches lag for a while and judges it, for `streams lag`."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from streams.flow.discover import select_pipelines
from streams.kafka.offsets_process import RoundFailed
from streams.monitor.evaluator import LagEvaluator
from streams.monitor.group_lag import GroupLag
from streams.monitor.missing import MissingTopic, missing_topics
from streams.monitor.policies import GroupPolicies
from streams.monitor.report import group_row, instant, missing_row
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
    """Groups that were asked for; empty: all."""
    missing: tuple[MissingTopic, ...]
    """Missing topics of the flows that were asked for."""

    @property
    def unknown(self) -> list[str]:
        """Groups that were asked for and do not exist, or have committed nothing."""
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
        """The report as a JSON document; a group that does not exist is NOTFOUND."""
        rows = [group_row(group) for group in self.groups.values()]
        rows += [{"group": name, "status": Status.NOTFOUND.name, "partitions": []} for name in self.unknown]
        missing = [missing_row(one) for one in self.missing]
        return {"cluster": self.cluster, "time": instant(self.time_ms), "groups": rows, "missing_topics": missing}


class _Looker:
    """Watches the requested groups of all declared flows."""

    def __init__(self, settings: Settings, wanted: Sequence[str], *, window_s: float, interval_s: float) -> None:
        declared = select_pipelines(None, prefix=settings.streams_topic_prefix)
        self._wanted = tuple(wanted)
        self._flows = [one for one in declared if not wanted or one.group in wanted]
        policies = GroupPolicies.of(settings)
        self._evaluator = LagEvaluator(
            settings,
            window_s=window_s,
            interval_s=interval_s,
            policies=policies.everything() if wanted else policies,  # a group asked for by name is always watched
            flows=self._flows,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._evaluator.close()

    def look(self) -> LagReport:
        """Read a round of offsets and judge it."""
        found, groups = self._evaluator.look(self._wanted or None)
        missing = missing_topics(found.base.keys(), self._flows)
        return LagReport(found.cluster, found.time_ms, groups, self._wanted, missing)


def observed_lag(settings: Settings, wanted: Sequence[str], *, observe_s: float, interval_s: float) -> LagReport:
    """Look every `interval_s` until `observe_s` after the first look, then judge; `wanted` empty: all groups.

    Raises:
        RoundFailed: the broker does not answer.

    """
    window_s = max(observe_s, interval_s) + interval_s
    with _Looker(settings, wanted, window_s=window_s, interval_s=interval_s) as looker:
        ends_s = math.inf
        while True:
            at_s = time.monotonic()
            report = looker.look()
            ends_s = min(ends_s, time.monotonic() + observe_s)  # the first look takes longer, and shows nothing move
            if time.monotonic() >= ends_s:
                return report
            time.sleep(max(0.0, at_s + interval_s - time.monotonic()))


def watched_lag(settings: Settings, wanted: Sequence[str], *, interval_s: float) -> Generator[LagReport | RoundFailed]:
    """A report every `interval_s`, without end; a failed round is reported as its error, and tried again."""
    with _Looker(settings, wanted, window_s=WATCH_WINDOW_S, interval_s=interval_s) as looker:
        while True:
            at_s = time.monotonic()
            try:
                yield looker.look()
            except RoundFailed as error:
                yield error
            time.sleep(max(WATCH_PAUSE_S_MIN, at_s + interval_s - time.monotonic()))
