"""Decisions on every group that the monitor watches, from its snapshots: what `/scale/{group}` says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.monitor.group_lag import GroupLag
from streams.monitor.reasons import Reason
from streams.monitor.report import instant, number
from streams.monitor.scale import Decision, Load, ScalePolicy, ScaleState, decide
from streams.monitor.snapshot import Snapshot
from streams.monitor.window import ABSENT

RATE_S: Final = 30.0
"""Rates are those of the last so many seconds: the verdict's are of its whole window, which is slow for a burst."""
_NOT_KNOWN: Final = float("nan")


def load_of(group: GroupLag) -> Load:
    """The group as the autoscaler sees it. Partitions of topics that it has left are none of its load."""
    window = group.window
    counted = group.verdicts.reason != Reason.LEFT_TOPIC
    arrive, drain = _rates(group, counted)
    return Load(
        time_s=group.time_ms / 1000.0,
        lag=group.lag[counted],
        lag_s=window.lag_s[counted],
        arrive_rate=arrive,
        drain_rate=drain,
        members=None if group.group.members is None else len(group.group.members),
    )


def _rates(group: GroupLag, counted: Any) -> tuple[float, float]:
    window = group.window
    times = window.time_ms
    if len(times) < 2:
        return _NOT_KNOWN, _NOT_KNOWN
    # The newest sample that is at least RATE_S old, or the oldest one.
    then = max(int(np.searchsorted(times, times[-1] - RATE_S * 1000.0, side="right")) - 1, 0)
    seconds = (int(times[-1]) - int(times[then])) / 1000.0
    known = counted & (window.offset[:, then] != ABSENT) & (window.offset[:, -1] != ABSENT)
    if seconds < RATE_S / 2 or not known.any():
        return _NOT_KNOWN, _NOT_KNOWN
    drained = int((window.offset[known, -1] - window.offset[known, then]).sum())
    grown = int((window.lag[known, -1] - window.lag[known, then]).sum())
    return max(0.0, (drained + grown) / seconds), max(0.0, drained / seconds)


@dataclass(frozen=True, slots=True)
class Told:
    """A decision with what it was made from."""

    load: Load
    decision: Decision


class ScaleBook:
    """`observe` each snapshot, in one thread; `row` may be asked from any."""

    def __init__(self, policy: ScalePolicy) -> None:
        self._policy = policy
        self._states: dict[str, ScaleState] = {}
        self._told: Mapping[str, Told] = {}

    def observe(self, snapshot: Snapshot) -> None:
        """Decide again for each group. A snapshot without a new round changes nothing: what is old is no reason."""
        if snapshot.failure is not None:
            return
        told: dict[str, Told] = {}
        for name, group in snapshot.groups.items():
            load = load_of(group)
            if not load.partitions:
                continue
            state = self._states.get(name)
            if state is None:
                if not load.members:
                    continue  # nobody knows how many there should be: an autoscaler keeps what it has
                state = ScaleState.first(load, self._policy)
            self._states[name], decision = decide(state, load, self._policy)
            told[name] = Told(load, decision)
        for name in self._states.keys() - told.keys():
            del self._states[name]
        self._told = told

    def row(self, group: str) -> dict[str, Any] | None:
        """What is told of a group: `replicas`, the reason, and the figures; None: nothing is known to go by."""
        told = self._told.get(group)
        if told is None:
            return None
        load, decision = told.load, told.decision
        low, high = self._policy.bounds(load.partitions)
        return {
            "group": group,
            "replicas": decision.replicas,
            "reason": decision.reason,
            "time": instant(round(load.time_s * 1000.0)),
            "members": load.members,
            "partitions": load.partitions,
            "replicas_min": low,
            "replicas_max": high,
            "lag": int(load.lag.sum()),
            "lag_seconds": number(load.lag_s_most),
            "lag_seconds_max": self._policy.lag_s_max,
            "arrive_rate": number(load.arrive_rate, 1),
            "drain_rate": number(load.drain_rate, 1),
            "worker_rate": None if decision.worker_rate is None else number(decision.worker_rate, 1),
        }
