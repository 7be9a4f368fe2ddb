"""How many workers a group needs, from its true lag: what an autoscaler asks the monitor. Pure; time is an argument.

The number follows what arrives, what waits longer than the objective allows, and what one worker drains. The last is
learned while the group is behind, since a worker that keeps up drains only what arrives. Rules, in this order:

1. While members come and go, or offsets are not known, the number stays.
2. While little or nothing is drained although much waits, it stays: something that the workers depend on is slow, and
   more of them do not help.
3. More workers at once when they are needed; then none until the last ones have had time to start, and none at all
   for a while if the last ones brought no more throughput.
4. Fewer only when the most that was needed during the cool-down is less. Where it is not known what a worker drains,
   one at a time.
5. Never more than there are partitions: a partition is drained by one worker.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.settings import Settings

UTILISATION_MAX: Final = 0.9
"""Share of what the workers can drain at which more are asked for."""
UTILISATION: Final = 0.7
"""Share for which the number is chosen; between this and UTILISATION_MAX it stays as it is."""
SETTLE_S: Final = 90.0
"""After a change: until new workers have restored their state, and rates are those of the new number."""
IMPAIRED_SHARE: Final = 0.25
"""Workers that drain less than this share of what they are known to drain are held up by something else."""
GAIN_SHARE_MIN: Final = 0.25
"""More workers must bring at least this share of the throughput that they could, or no further ones are asked for."""
LEARN_SHARE: Final = 0.3
"""Weight of a new measurement of what a worker drains."""


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """What is to be reached."""

    lag_s_max: float = 30.0
    """The objective: no record waits for longer."""
    catch_up_s: float = 300.0
    """Within this time a lag above the objective is to be gone."""
    workers_min: int = 1
    workers_max: int = 0
    """0: as many as there are partitions."""
    cool_down_s: float = 600.0
    """Workers are taken away only when so long fewer were enough."""
    worker_rate: float = 0.0
    """Records a second that one worker is known to drain; 0: that is learned."""

    def __post_init__(self) -> None:
        if not (self.lag_s_max > 0 and self.catch_up_s > 0 and self.cool_down_s >= 0 and self.worker_rate >= 0):
            raise ValueError("lag_s_max and catch_up_s are above 0, cool_down_s and worker_rate not below")
        if self.workers_min < 1 or (self.workers_max and self.workers_max < self.workers_min):
            raise ValueError("workers_min is at least 1, workers_max not below it (0: the number of partitions)")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            lag_s_max=settings.streams_scale_lag_s_max,
            catch_up_s=settings.streams_scale_catch_up_s,
            workers_min=settings.streams_scale_workers_min,
            workers_max=settings.streams_scale_workers_max,
            cool_down_s=settings.streams_scale_cool_down_s,
            worker_rate=settings.streams_scale_worker_rate,
        )

    def bounds(self, partitions: int) -> tuple[int, int]:
        """Fewest and most workers of a group that reads so many partitions."""
        most = max(1, min(partitions, self.workers_max or partitions))
        return min(self.workers_min, most), most


@dataclass(frozen=True, slots=True)
class Load:
    """A group at one moment. `lag` (records) and `lag_s` (age of the oldest of them) are those of its partitions."""

    time_s: float
    lag: Int64
    lag_s: Float64
    arrive_rate: float
    """Records a second, of all partitions; NaN: not known yet."""
    drain_rate: float
    members: int | None
    """None: not known."""

    @property
    def partitions(self) -> int:
        """How many partitions the group reads."""
        return len(self.lag)

    @property
    def lag_s_most(self) -> float:
        """Age of the oldest record that waits."""
        return float(self.lag_s.max(initial=0.0))

    @property
    def is_measured(self) -> bool:
        """Whether rates are known."""
        return math.isfinite(self.arrive_rate) and math.isfinite(self.drain_rate)

    def excess(self, lag_s_max: float) -> Float64:
        """Records of each partition that came more than `lag_s_max` ago, if all came evenly since the oldest."""
        share = np.clip((self.lag_s - lag_s_max) / np.maximum(self.lag_s, 1e-9), 0.0, 1.0)
        return np.asarray(self.lag * share, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers, and why in words."""

    replicas: int
    reason: str
    worker_rate: float | None
    """Records a second that one worker is known to drain; None: not known yet."""


@dataclass(frozen=True, slots=True)
class _Increase:
    """Workers that were asked for, and what the group drained before they came."""

    at_s: float
    members: int
    drain_rate: float


@dataclass(frozen=True, slots=True)
class ScaleState:
    """What is remembered of a group between two decisions."""

    replicas: int
    since_s: float
    """When `replicas` was last changed."""
    members: int
    members_since_s: float
    peaks: tuple[tuple[float, int], ...] = ()
    """Times and needs within the cool-down, each need above those after it: the first is the highest."""
    worker_rate: float | None = None
    increase: _Increase | None = None
    """The last one, until its effect is known."""
    fruitless_until_s: float = -math.inf
    """The last increase brought nothing: no further one before this time."""

    @classmethod
    def first(cls, load: Load, policy: ScalePolicy) -> Self:
        """As the group is found, with its members: nothing is taken away before a cool-down has passed.

        Raises:
            ValueError: the group has no member, or they are not known.

        """
        if not load.members:
            raise ValueError("a group without members says nothing of how many there should be")
        low, high = policy.bounds(load.partitions)
        members = load.members
        replicas = min(max(members, low), high)
        return cls(
            replicas,
            load.time_s,
            members,
            load.time_s,
            peaks=((load.time_s, replicas),),
            worker_rate=policy.worker_rate or None,
        )


def decide(state: ScaleState, load: Load, policy: ScalePolicy) -> tuple[ScaleState, Decision]:
    """The next state, and the decision. `load.time_s` does not go back from call to call."""
    state = _observed(state, load)
    held = _hold(state, load, policy)
    if held is not None:
        # What is held is needed: afterwards it is not taken away at once.
        return _at(_with_need(state, load, policy, state.replicas), load, policy, state.replicas, held)
    state = _judged_increase(_learned(state, load, policy), load, policy)
    need, why = _need(state, load, policy)
    state = _with_need(state, load, policy, need)
    if need > state.replicas:
        but = _why_no_more(state, load)
        return _at(
            state, load, policy, need if but is None else state.replicas, why if but is None else f"{why}, {but}"
        )
    peak = state.peaks[0][1]
    if peak < state.replicas:
        why = f"{peak} have been enough for {policy.cool_down_s:.0f} s"
    elif need < state.replicas:
        why = f"{need} would do now, and {peak} were needed within {policy.cool_down_s:.0f} s"
    return _at(state, load, policy, min(peak, state.replicas), why)


def _why_no_more(state: ScaleState, load: Load) -> str | None:
    """Why no workers are added although they are needed; None: they are."""
    if load.time_s < state.fruitless_until_s:
        return "but the last workers brought no more throughput: what is slow is not the workers"
    if state.increase is not None and load.time_s - state.since_s < SETTLE_S:
        return "but the last ones are still starting"
    return None


def _observed(state: ScaleState, load: Load) -> ScaleState:
    if load.members is None or load.members == state.members:
        return state
    return replace(state, members=load.members, members_since_s=load.time_s)


def _is_settled(state: ScaleState, load: Load) -> bool:
    return state.members > 0 and load.time_s - state.members_since_s >= SETTLE_S


def _is_behind(load: Load, policy: ScalePolicy) -> bool:
    """So much waits that every worker is at work all the time."""
    return load.lag_s_most > policy.lag_s_max / 2


def _hold(state: ScaleState, load: Load, policy: ScalePolicy) -> str | None:
    """Why nothing can be concluded now; None: something can."""
    why = None
    if load.members is None:
        why = "the members of the group are not known: kept as it is"
    elif load.members == 0:
        why = "the group has no members: kept as it is"
    elif not _is_settled(state, load):
        why = "members have come or gone a short while ago: kept as it is until rates are known again"
    elif not load.is_measured:
        why = "rates are not known yet: kept as it is"
    elif _is_behind(load, policy):
        why = _impairment(state, load)
    return why


def _impairment(state: ScaleState, load: Load) -> str | None:
    """What shows that the workers of a group that is behind are held up by something else; None: nothing does."""
    if load.drain_rate <= 0:
        return f"records wait {load.lag_s_most:.0f} s and nothing is drained: more workers do not help, see the verdict"
    per_worker = load.drain_rate / state.members
    if state.worker_rate is None or per_worker >= IMPAIRED_SHARE * state.worker_rate:
        return None
    return (
        f"a worker drains {per_worker:,.0f} records/s and could {state.worker_rate:,.0f}: what workers depend on is "
        "slow, and more of them do not help"
    )


def _learned(state: ScaleState, load: Load, policy: ScalePolicy) -> ScaleState:
    """What a worker drains, measured while the group is behind; more than is known, at any time."""
    rate = load.drain_rate / state.members
    known = state.worker_rate
    if not _is_behind(load, policy):
        return replace(state, worker_rate=rate) if known is not None and rate > known else state
    if policy.worker_rate or load.time_s < state.fruitless_until_s:
        return state
    return replace(state, worker_rate=rate if known is None else known + LEARN_SHARE * (rate - known))


def _judged_increase(state: ScaleState, load: Load, policy: ScalePolicy) -> ScaleState:
    """Whether the last increase has brought throughput, once its workers are at work."""
    increase = state.increase
    if increase is None or load.time_s - state.since_s < SETTLE_S or state.members <= increase.members:
        return state
    if not _is_behind(load, policy):
        return replace(state, increase=None)
    could = increase.drain_rate * (state.members / increase.members - 1)
    if load.drain_rate - increase.drain_rate >= GAIN_SHARE_MIN * could:
        return replace(state, increase=None)
    return replace(state, increase=None, fruitless_until_s=load.time_s + max(policy.cool_down_s, SETTLE_S))


def _need(state: ScaleState, load: Load, policy: ScalePolicy) -> tuple[int, str]:
    low, high = policy.bounds(load.partitions)
    rate = state.worker_rate
    if rate is None or rate <= 0:
        if state.members > state.replicas:
            return state.replicas, "the group still has more members than were asked for"
        fewer = max(low, min(state.replicas, high) - 1)
        return (
            fewer,
            "records are drained as they come, and it is not known what a worker could drain: one fewer is tried",
        )
    # A partition's backlog is drained by one worker, however many there are.
    backlog = float(np.minimum(load.excess(policy.lag_s_max) / policy.catch_up_s, rate).sum())
    demand = (load.arrive_rate + backlog) / rate
    least, ample = (math.ceil(demand / share - 1e-9) for share in (UTILISATION_MAX, UTILISATION))
    wanted = ample if least > state.replicas or ample < state.replicas else state.replicas
    need = min(max(low, wanted), high)
    waits = f", {backlog:,.0f} of backlog" if backlog >= 1 else ""
    limit = f"; {high} is the most" if ample > high else ""
    return need, f"{load.arrive_rate:,.0f} records/s arrive{waits}, a worker drains {rate:,.0f}{limit}"


def _with_need(state: ScaleState, load: Load, policy: ScalePolicy, need: int) -> ScaleState:
    """`need` among those of the cool-down; each is kept that is above all later ones."""
    recent = _within(state.peaks, load.time_s - policy.cool_down_s)
    return replace(state, peaks=(*(one for one in recent if one[1] > need), (load.time_s, need)))


def _within(peaks: Iterable[tuple[float, int]], from_s: float) -> tuple[tuple[float, int], ...]:
    return tuple(one for one in peaks if one[0] > from_s)


def _at(state: ScaleState, load: Load, policy: ScalePolicy, replicas: int, reason: str) -> tuple[ScaleState, Decision]:
    low, high = policy.bounds(load.partitions)
    bounded = min(max(replicas, low), high)
    if bounded != state.replicas:
        increase = state.increase
        if bounded > state.replicas and state.members and math.isfinite(load.drain_rate):
            increase = _Increase(load.time_s, state.members, load.drain_rate)
        state = replace(state, replicas=bounded, since_s=load.time_s, increase=increase)
    return state, Decision(bounded, reason, state.worker_rate)
