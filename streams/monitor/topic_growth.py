"""How far flows are with growing in place, and how long nothing has changed. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streams.flow.declaration import Pipeline
from streams.grow.found import Found, GrowthStatus, status_of
from streams.growth.record import GrowthRecord
from streams.growth.stages import Phase
from streams.kafka.round import Round

STILL_S_MAX: Final = 60.0
"""Keys wait until all partitions have cut and adopted: a growth must not stand still in these steps."""
WAITING_S_MAX: Final = 300.0
"""In the other steps no keys wait."""
SETTLING_S_MAX: Final = 1_800.0
"""The last step takes the quiet time, ten minutes by default, and restarts with each record by the old number."""
CLEARING: Final = "cleared"
SETTLING: Final = "settled"


@dataclass(frozen=True, slots=True)
class GrowthView:
    """A growth that is not over."""

    status: GrowthStatus
    still_s: float
    """Time since it last changed, or since the monitor was started."""


def stands_still(view: GrowthView) -> bool:
    """Whether somebody should look: after a minute if keys wait for it, else later.

    As the alert `GrowthStandsStill` of `deploy/prometheus/rules` has it.
    """
    status = view.status
    if status.step == SETTLING:
        return view.still_s >= SETTLING_S_MAX
    holds_keys = status.record.phase is Phase.BEGUN and status.step != CLEARING
    return view.still_s >= (STILL_S_MAX if holds_keys else WAITING_S_MAX)


class GrowthTracker:
    """Tracks when each growth last changed."""

    def __init__(self, flows: Sequence[Pipeline]) -> None:
        self._flows = flows
        self._changed: dict[str, tuple[Hashable, float]] = {}
        """By flow, its state and since when, in monotonic seconds."""

    def look(self, found: Round, records: Mapping[str, Sequence[GrowthRecord]], now_s: float) -> tuple[GrowthView, ...]:
        """The growths that are under way. `records` of growth topics by topic; `now_s` is monotonic."""
        counts = dict(found.topics)
        views = []
        for flow in self._flows:
            told = records.get(flow.growth)
            standings = found.standings(flow.group, flow.source) if told else {}
            here = Found(flow, told or (), counts, standings, self._flows)
            status = status_of(here)
            if status is None or status.is_over or flow.group in found.failed:
                if flow.group not in found.failed:
                    self._changed.pop(flow.name, None)
                continue
            mark = _mark(here, status, found)
            if flow.name not in self._changed or self._changed[flow.name][0] != mark:
                self._changed[flow.name] = mark, now_s
            views.append(GrowthView(status, now_s - self._changed[flow.name][1]))
        return tuple(views)


def _mark(found: Found, status: GrowthStatus, now: Round) -> Hashable:
    """A value that differs as soon as a growth has made progress."""
    counts = tuple(topic.partitions for topic in found.topics)
    adopting = _cycles(found, now) if status.step == "adopted" else ()
    return status.record, counts, tuple(status.states), adopting


def _cycles(found: Found, now: Round) -> Hashable:
    """Commit cycles of the partitions that take state over: they commit it in pieces."""
    number = next((place for place, one in enumerate(now.groups) if one.name == found.flow.group), -1)
    first = now.base.get(found.flow.source, 0)
    last = first + found.counts.get(found.flow.source, 0)
    mine = (now.commit_group == number) & (now.commit_partition >= first) & (now.commit_partition < last)
    young = {first + partition for partition, one in found.standings.items() if one.epoch == 0}
    rows = zip(now.commit_partition[mine].tolist(), now.commit_cycle[mine].tolist(), strict=True)
    return tuple(sorted((partition, cycle) for partition, cycle in rows if partition in young))
