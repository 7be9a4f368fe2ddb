"""Decides for every group that the monitor watches, from its snapshots: the answers of `/scale/{group}`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.monitor.group_lag import GroupLag
from streams.monitor.report import instant, number
from streams.monitor.scale import NOBODY, Decision, Load, ScalePolicy, ScaleState, decide
from streams.monitor.snapshot import Snapshot
from streams.monitor.window import ABSENT

RATE_S: Final = 30.0
"""Rates are averages over this time: the verdict uses its whole window, which reacts slowly to a burst."""


def load_of(group: GroupLag) -> Load:
    """The group as the autoscaler sees it: only partitions that count."""
    window = group.window
    counted = group.counted
    arrive, drain = _rates(group)
    return Load(
        time_s=group.time_ms / 1000.0,
        lag=group.lag[counted],
        lag_s=window.lag_s[counted],
        arrive=arrive[counted],
        drain=drain[counted],
        owner=_owners(group)[counted],
        members=None if group.group.members is None else len(group.group.members),
    )


def _owners(group: GroupLag) -> Int64:
    """Numbers of the members that have the partitions; NOBODY where several members share one name."""
    numbers = {name: number for number, name in enumerate(sorted(set(group.owners.values())))}
    found = np.full(len(group.lag), NOBODY, dtype=np.int64)
    if len(numbers) < min(len(group.group.members or ()), len(group.owners)):
        return found
    for row, name in group.owners.items():
        found[row] = numbers[name]
    return found


def _rates(group: GroupLag) -> tuple[Float64, Float64]:
    """By partition, records a second that arrive and that are committed."""
    window = group.window
    times = window.time_ms
    unknown = np.full(len(group.lag), np.nan)
    if len(times) < 2:
        return unknown, unknown
    # The newest sample that is at least RATE_S old, or the oldest one.
    then = max(int(np.searchsorted(times, times[-1] - RATE_S * 1000.0, side="right")) - 1, 0)
    seconds = (int(times[-1]) - int(times[then])) / 1000.0
    if seconds < RATE_S / 2:
        return unknown, unknown
    known = (window.offset[:, then] != ABSENT) & (window.offset[:, -1] != ABSENT)
    drained = window.offset[:, -1] - window.offset[:, then]
    grown = window.lag[:, -1] - window.lag[:, then]
    return (
        np.where(known, np.maximum(drained + grown, 0) / seconds, np.nan),
        np.where(known, np.maximum(drained, 0) / seconds, np.nan),
    )


@dataclass(frozen=True, slots=True)
class Told:
    """A decision with its inputs."""

    load: Load
    decision: Decision


class ScaleBook:
    """Call `observe` with each snapshot, in one thread; any thread may call `row`."""

    def __init__(self, policy: ScalePolicy) -> None:
        self._policy = policy
        self._states: dict[str, ScaleState] = {}
        self._told: Mapping[str, Told] = {}

    def observe(self, snapshot: Snapshot) -> None:
        """Decide again for each group. A snapshot without a new round changes nothing: its offsets are old."""
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
                    continue  # the number is not known: an autoscaler keeps what it has
                state = ScaleState.first(load, self._policy)
            self._states[name], decision = decide(state, load, self._policy)
            told[name] = Told(load, decision)
        for name in self._states.keys() - told.keys():
            del self._states[name]
        self._told = told

    def row(self, group: str) -> dict[str, Any] | None:
        """Answer for a group: `replicas`, the reason, and the figures; None: too little is known."""
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
