"""How many workers a group needs, from its true lag: what an autoscaler asks the monitor. Pure; time is an argument.

The number follows the arrival rate, the backlog older than the objective allows, and the rate that one worker drains.
That rate is learned from workers with a backlog, since one that keeps up drains only what arrives. Rules, in this
order:

1. While members come and go, or offsets are not known, the number stays.
2. While workers with a backlog drain little or nothing, it stays: something that they depend on is slow, and more
workers do not help. 3. More workers at once when they are needed; then none until the last ones have had time to start,
and none at all
   for a while if the last ones brought no more throughput.
4. Fewer only when the most that was needed during the cool-down is less. Where it is not known what a worker drains,
   one at a time.
5. Never more than there are partitions, and never more for one partition than its one worker: what a hot partition
   gets beyond that is in no need. A worker that is behind with several partitions, each of which it could drain alone,
   has too many: then so many workers that it has fewer.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from streams.batch.columns import Bools, Float64, Int64
from streams.settings import Settings

UTILISATION_MAX: Final = 0.9
"""More workers are asked for when arrivals use more than this share of what the workers can drain."""
UTILISATION: Final = 0.7
"""Share of capacity to plan for; between this and UTILISATION_MAX the number stays as it is."""
SETTLE_S: Final = 90.0
"""Time after a change until new workers have restored their state, and rates reflect the new number."""
IMPAIRED_SHARE: Final = 0.25
"""Workers that drain less than this share of their known rate are held up by something else."""
GAIN_SHARE_MIN: Final = 0.5
"""More workers must add at least this share of the possible throughput, or no further ones are asked for."""
RECOVERY_SHARE: Final = 0.2
"""Throughput that grows by this share without more workers: what they depend on has become faster."""
LEARN_SHARE: Final = 0.3
"""Weight of a new measurement of what a worker drains."""
FRUITLESS_COOL_DOWNS: Final = 6
"""After workers that added no throughput, none are added for so many cool-downs while the group has a backlog."""
NOBODY: Final = -1
"""In `Load.owner`: the partition has no owner, or an unknown one."""


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """Goals and bounds for a number of workers."""

    lag_s_max: float = 30.0
    """The objective: no record waits for longer."""
    catch_up_s: float = 300.0
    """A lag above the objective has to be gone within this time."""
    workers_min: int = 1
    workers_max: int = 0
    """0: as many as there are partitions."""
    cool_down_s: float = 600.0
    """Workers are removed only when fewer were enough for this long."""
    worker_rate: float = 0.0
    """Records a second that one worker drains, if known; 0: learned."""

    def __post_init__(self) -> None:
        if not (self.lag_s_max > 0 and self.catch_up_s > 0 and self.cool_down_s >= 0 and self.worker_rate >= 0):
            raise ValueError("lag_s_max and catch_up_s are above 0, cool_down_s and worker_rate not below")
        if self.workers_min < 1 or (self.workers_max and self.workers_max < self.workers_min):
            raise ValueError("workers_min is at least 1, workers_max not below it (0: the number of partitions)")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the settings."""
        return cls(
            lag_s_max=settings.streams_scale_lag_s_max,
            catch_up_s=settings.streams_scale_catch_up_s,
            workers_min=settings.streams_scale_workers_min,
            workers_max=settings.streams_scale_workers_max,
            cool_down_s=settings.streams_scale_cool_down_s,
            worker_rate=settings.streams_scale_worker_rate,
        )

    def bounds(self, partitions: int) -> tuple[int, int]:
        """Fewest and most workers for a group that reads so many partitions."""
        most = max(1, min(partitions, self.workers_max or partitions))
        return min(self.workers_min, most), most


@dataclass(frozen=True, slots=True)
class Load:
    """A group at one moment, by partition. `lag`: records; `lag_s`: age of the oldest of them."""

    time_s: float
    lag: Int64
    lag_s: Float64
    arrive: Float64
    """Records a second that arrive in each partition; NaN: not known yet."""
    drain: Float64
    """Records a second committed of each partition; NaN: not known yet."""
    owner: Int64
    """Number of the member that has each partition, from 0; NOBODY: not known."""
    members: int | None
    """Number of members of the group; None: not known."""

    @property
    def partitions(self) -> int:
        """How many partitions the group reads."""
        return len(self.lag)

    @property
    def lag_s_most(self) -> float:
        """Age of the oldest record that waits, over all partitions."""
        return float(self.lag_s.max(initial=0.0))

    @property
    def arrive_rate(self) -> float:
        """Records a second, of all partitions; NaN: not known yet."""
        return _sum(self.arrive)

    @property
    def drain_rate(self) -> float:
        """Records a second, of all partitions; NaN: not known yet."""
        return _sum(self.drain)

    @property
    def is_measured(self) -> bool:
        """Whether rates are known."""
        return math.isfinite(self.arrive_rate) and math.isfinite(self.drain_rate)

    def excess(self, lag_s_max: float) -> Float64:
        """By partition, records that arrived more than `lag_s_max` ago, if they arrived evenly."""
        share = np.clip((self.lag_s - lag_s_max) / np.maximum(self.lag_s, 1e-9), 0.0, 1.0)
        return np.asarray(self.lag * share, dtype=np.float64)

    def demand(self, policy: "ScalePolicy") -> Float64:
        """By partition, records a second to drain: the arrivals, and the backlog within its time."""
        return np.nan_to_num(self.arrive) + self.excess(policy.lag_s_max) / policy.catch_up_s

    def is_behind(self, policy: "ScalePolicy") -> Bools:
        """Partitions with such a backlog that their workers are busy all the time."""
        return np.asarray(self.lag_s > policy.lag_s_max / 2, dtype=np.bool_)

    def busy_rate(self, members: int, policy: "ScalePolicy") -> float:
        """Mean rate that the workers with a backlog drain; NaN: none has one."""
        behind = self.is_behind(policy)
        if not behind.any():
            return math.nan
        drain = np.nan_to_num(self.drain)
        busy = np.unique(self.owner[behind])
        if NOBODY not in busy:
            return float(drain[np.isin(self.owner, busy)].sum()) / len(busy)
        if behind.all():
            return float(drain.sum()) / min(members, self.partitions)
        # Their owner is not known: it has a backlog of these at least.
        return float(drain[behind].sum()) / min(members, int(behind.sum()))


def _sum(rates: Float64) -> float:
    known = rates[np.isfinite(rates)]
    return float(known.sum()) if len(known) else math.nan


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of workers, and why in words."""

    replicas: int
    reason: str
    worker_rate: float | None
    """Records a second that one worker drains; None: not known yet."""


@dataclass(frozen=True, slots=True)
class _Increase:
    """An increase that was asked for, and what the group drained before it."""

    at_s: float
    members: int
    drain_rate: float
    worker_rate: float | None
    """The known rate of one worker at that time."""


@dataclass(frozen=True, slots=True)
class ScaleState:
    """What is remembered of a group between two decisions."""

    replicas: int
    since_s: float
    """When `replicas` last changed."""
    members: int
    members_since_s: float
    peaks: tuple[tuple[float, int], ...] = ()
    """Times and needs within the cool-down, each need larger than those after it: the first is the highest."""
    worker_rate: float | None = None
    increase: _Increase | None = None
    """The last increase, until its effect is known."""
    fruitless_until_s: float = -math.inf
    """The last increase added no throughput: no further one before this time, while the group has a backlog."""
    fruitless_rate: float = math.inf
    """What the group drained then; further workers are asked for again when it drains clearly more."""

    @classmethod
    def first(cls, load: Load, policy: ScalePolicy) -> Self:
        """The first state, with the group's members: no worker is removed before a cool-down has passed.

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
        # A number that was held counts as needed: workers are not removed immediately afterwards.
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
    """Why no workers are added although they are needed; None: they are added."""
    if _is_fruitless(state, load):
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
    """Whether the backlog keeps some worker busy all the time."""
    return bool(load.is_behind(policy).any())


def _hold(state: ScaleState, load: Load, policy: ScalePolicy) -> str | None:
    """Why nothing can be decided now; None: something can."""
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
        why = _impairment(state, load, policy)
    return why


def _impairment(state: ScaleState, load: Load, policy: ScalePolicy) -> str | None:
    """What shows that the workers of a group with a backlog are held up by something else; None: nothing does."""
    if load.drain_rate <= 0:
        return f"records wait {load.lag_s_most:.0f} s and nothing is drained: more workers do not help, see the verdict"
    busy = load.busy_rate(state.members, policy)
    if state.worker_rate is None or busy >= IMPAIRED_SHARE * state.worker_rate:
        return None
    return (
        f"a worker that is behind drains {busy:,.0f} records/s and could {state.worker_rate:,.0f}: what workers depend "
        "on is slow, and more of them do not help"
    )


def _learned(state: ScaleState, load: Load, policy: ScalePolicy) -> ScaleState:
    """What a worker drains, measured at workers with a backlog; a higher rate than the known one counts at any time."""
    known = state.worker_rate
    if not _is_behind(load, policy):
        rate = load.drain_rate / state.members
        return replace(state, worker_rate=rate) if known is not None and rate > known else state
    if policy.worker_rate or _is_fruitless(state, load):
        return state
    rate = load.busy_rate(state.members, policy)
    return replace(state, worker_rate=rate if known is None else known + LEARN_SHARE * (rate - known))


def _judged_increase(state: ScaleState, load: Load, policy: ScalePolicy) -> ScaleState:
    """Judge whether the last increase added throughput, once its workers are running."""
    if not _is_behind(load, policy):
        state = replace(state, fruitless_until_s=-math.inf)
    increase = state.increase
    if increase is None or load.time_s - state.since_s < SETTLE_S or state.members <= increase.members:
        return state
    if not _is_behind(load, policy):
        return replace(state, increase=None)
    wanted = float(load.demand(policy).sum()) - increase.drain_rate
    could = min(increase.drain_rate * (state.members / increase.members - 1), wanted)
    if load.drain_rate - increase.drain_rate >= GAIN_SHARE_MIN * could:
        return replace(state, increase=None)
    # The rate is limited by something else now: it says nothing about workers.
    return replace(
        state, increase=None, fruitless_rate=load.drain_rate, worker_rate=increase.worker_rate,
        fruitless_until_s=load.time_s + max(policy.cool_down_s, SETTLE_S) * FRUITLESS_COOL_DOWNS,
    )  # fmt: skip


def _is_fruitless(state: ScaleState, load: Load) -> bool:
    """Whether more workers would add nothing, as the last ones did."""
    return load.time_s < state.fruitless_until_s and load.drain_rate < (1 + RECOVERY_SHARE) * state.fruitless_rate


def _need(state: ScaleState, load: Load, policy: ScalePolicy) -> tuple[int, str]:
    low, high = policy.bounds(load.partitions)
    rate = state.worker_rate
    if rate is None or rate <= 0:
        if state.members > state.replicas:
            return state.replicas, "the group still has more members than were asked for"
        fewer = max(low, min(state.replicas, high) - 1)
        return (
            fewer,
            "records are drained as they arrive, and what a worker could drain is not known: one fewer is tried",
        )
    # A partition is one worker's work at most, however much comes to it.
    wanted_rates = load.demand(policy)
    backlog = float(np.minimum(load.excess(policy.lag_s_max) / policy.catch_up_s, rate).sum())
    demand = float(np.minimum(wanted_rates, rate).sum()) / rate
    crowded = _crowded(load, policy, rate)
    least, ample = (max(crowded, math.ceil(demand / share - 1e-9)) for share in (UTILISATION_MAX, UTILISATION))
    wanted = ample if least > state.replicas or ample < state.replicas else state.replicas
    fitting = _fitting(_drainable(np.nan_to_num(load.arrive), rate), rate, load.partitions)
    # A number below which the load would not fit is kept; it is no reason for more workers while there is no backlog.
    need = min(max(low, wanted, min(fitting, state.replicas)), high)
    waits = f", {backlog:,.0f} of backlog" if backlog >= 1 else ""
    limit = f"; {high} is the most" if ample > high else ""
    hot = int((wanted_rates[load.is_behind(policy)] > rate).sum())
    alone = (
        f"; {hot} of {load.partitions} partitions get more than one worker drains" if 0 < hot < load.partitions else ""
    )
    return need, f"{load.arrive_rate:,.0f} records/s arrive{waits}, a worker drains {rate:,.0f}{limit}{alone}"


def _crowded(load: Load, policy: ScalePolicy, rate: float) -> int:
    """Workers needed so that each drains its arrivals, if one lags that could drain each of its partitions alone.

    0: there is none. Counted is what comes, not the backlog, which is the smaller the longer it is worked at.
    """
    need, arrive = 0, np.nan_to_num(load.arrive)
    for worker in np.unique(load.owner[load.is_behind(policy)]):
        if worker != NOBODY:
            has = _drainable(arrive[load.owner == worker], rate)
            need = max(need, _fitting(has, rate, load.partitions) if has.sum() > UTILISATION_MAX * rate else 0)
    return need


def _drainable(arrive: Float64, rate: float) -> Float64:
    """Partitions that do not nearly fill a worker: for the others no number of workers is enough."""
    return np.asarray(arrive[arrive < UTILISATION_MAX * rate], dtype=np.float64)


def _fitting(arrive: Float64, rate: float, partitions: int) -> int:
    """Workers needed so that each can drain any one of some partitions plus average ones; 0: one is enough."""
    if len(arrive) < 2:
        return 0
    others = np.maximum((arrive.sum() - arrive) / (len(arrive) - 1), 1e-9)
    together = 1 + np.floor((UTILISATION_MAX * rate - arrive) / others)
    return math.ceil(partitions / min(float(together.min()), partitions))


def _with_need(state: ScaleState, load: Load, policy: ScalePolicy, need: int) -> ScaleState:
    """Add `need` to those of the cool-down; only needs above all later ones are kept."""
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
            # They can drain this much, although traffic that has just begun to grow may not have shown it yet.
            before = max(load.drain_rate, state.members * (state.worker_rate or 0.0))
            increase = _Increase(load.time_s, state.members, before, state.worker_rate)
        state = replace(state, replicas=bounded, since_s=load.time_s, increase=increase)
    return state, Decision(bounded, reason, state.worker_rate)
