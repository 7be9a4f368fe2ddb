"""A group of workers under traffic, with an autoscaler that asks `streams.monitor.scale`: its rules over hours.

Partitions have backlogs, workers drain the partitions that they own at a rate of their own, new ones take time to
start, and each change of the members stops all of them for a moment.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.monitor.scale import NOBODY, Decision, Load, ScalePolicy, ScaleState, decide

TICK_S = 5.0
POLL_S = 30.0
"""As KEDA asks by default."""
START_S = 40.0
"""From a pod's creation until it drains: start and restore."""
PAUSE_S = 5.0
"""Of a rebalance."""
RATE_S = 30.0

OfTime = Callable[[float], float]


def always(_: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Scenario:
    """Traffic and troubles, by seconds since the begin."""

    name: str
    lasts_s: float
    arrive: OfTime
    """Records a second, of all partitions."""
    downstream: OfTime = always
    """Share of their pace at which workers drain."""
    ceiling: OfTime = lambda _: np.inf
    """Records a second that all workers together can drain, however many there are."""
    storm: Callable[[float], bool] = lambda _: False
    """Members come and go all the time."""
    weights: Sequence[float] = ()
    """Of partitions; none: all alike."""
    partitions: int = 12
    owners_known: bool = True
    """Whether the monitor knows which member has a partition."""
    worker_rate: float = 1_000.0
    replicas: int = 2
    policy: ScalePolicy = field(default_factory=ScalePolicy)


@dataclass
class Course:
    """What happened, tick by tick."""

    time_s: list[float] = field(default_factory=list)
    arrive: list[float] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def changes(self) -> list[tuple[float, int]]:
        """When the number changed, and by how much."""
        pairs = zip(self.time_s[1:], self.replicas[1:], self.replicas, strict=False)
        return [(time_s, after - before) for time_s, after, before in pairs if after != before]

    def between(self, values: Sequence[float], from_s: float, to_s: float) -> list[float]:
        return [value for time_s, value in zip(self.time_s, values, strict=True) if from_s <= time_s < to_s]


def fair_shares(waiting: Float64, room: float) -> Float64:
    """What a worker drains of each of its partitions: as much of each in turn, while there is room."""
    shares = np.zeros(len(waiting))
    open_ = np.argsort(waiting)
    for place, partition in enumerate(open_):
        shares[partition] = min(float(waiting[partition]), room / (len(open_) - place))
        room -= shares[partition]
    return shares


class World:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        n = scenario.partitions
        weights = np.array(scenario.weights or [1.0] * n)
        self._weights = weights / weights.sum()
        self._came, self._done = [np.zeros(n)], [np.zeros(n)]
        self._times = [0.0]
        self._pods = [-START_S] * scenario.replicas
        """When each was created."""
        self._members = 0
        self._paused_until_s = 0.0

    def run(self) -> Course:
        """Until the scenario's end."""
        scenario, course = self._scenario, Course()
        state: ScaleState | None = None
        asked_s = 0.0
        while self._times[-1] < scenario.lasts_s:
            drained = self._tick()
            now_s = self._times[-1]
            load = self._load(now_s)
            state = state or ScaleState.first(load, scenario.policy)
            state, decision = decide(state, load, scenario.policy)
            if now_s - asked_s >= POLL_S:
                asked_s = now_s
                self._scale(decision.replicas, now_s)
            course.time_s.append(now_s)
            course.arrive.append(scenario.arrive(now_s))
            course.drained.append(drained)
            course.lag_s.append(load.lag_s_most)
            course.members.append(self._members)
            course.replicas.append(decision.replicas)
            course.decisions.append(decision)
        return course

    def _tick(self) -> float:
        scenario, now_s = self._scenario, self._times[-1] + TICK_S
        came = self._came[-1] + self._weights * scenario.arrive(now_s) * TICK_S
        members = max(1, sum(now_s - created >= START_S for created in self._pods))
        if scenario.storm(now_s) and int(now_s / 20.0) % 2:
            members = max(1, members - 1)
        if members != self._members:
            self._members, self._paused_until_s = members, now_s + PAUSE_S
        waiting = came - self._done[-1]
        drained = np.zeros(len(waiting))
        if now_s >= self._paused_until_s:
            room = np.full(members, scenario.worker_rate * scenario.downstream(now_s) * TICK_S)
            room *= min(1.0, scenario.ceiling(now_s) * TICK_S / max(float(room.sum()), 1e-9))
            owner = self._owner(members)
            for worker in range(members):
                owned = np.flatnonzero(owner == worker)
                drained[owned] = fair_shares(waiting[owned], float(room[worker]))
        self._times.append(now_s)
        self._came.append(came)
        self._done.append(self._done[-1] + drained)
        return float(drained.sum()) / TICK_S

    def _load(self, now_s: float) -> Load:
        scenario = self._scenario
        came, done = self._came[-1], self._done[-1]
        back = max(0, len(self._times) - 1 - round(RATE_S / TICK_S))
        seconds = now_s - self._times[back]
        return Load(
            time_s=now_s,
            lag=np.rint(came - done).astype(np.int64),
            lag_s=self._ages(now_s),
            arrive=(came - self._came[back]) / seconds,
            drain=(done - self._done[back]) / seconds,
            owner=self._owner(self._members)
            if scenario.owners_known
            else np.full(scenario.partitions, NOBODY, dtype=np.int64),
            members=self._members,
        )

    def _owner(self, members: int) -> Int64:
        """Who has each partition."""
        return np.arange(self._scenario.partitions, dtype=np.int64) % members

    def _ages(self, now_s: float) -> Float64:
        """Age of the oldest record of each partition that waits: when its number came."""
        done, came = self._done[-1], self._came[-1]
        ages = np.zeros(len(done))
        for partition in np.flatnonzero(came - done >= 1.0):
            place = bisect_right(self._came, done[partition], key=itemgetter(partition))
            ages[partition] = now_s - self._times[min(place, len(self._times) - 1)]
        return ages

    def _scale(self, replicas: int, now_s: float) -> None:
        self._pods = self._pods[:replicas] + [now_s] * (replicas - len(self._pods))
