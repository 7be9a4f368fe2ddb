"""The next step of the command that grows a flow: a function of what it finds, so that it may be killed anywhere."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from streams.growth.plan import Addition, GrowthPlan
from streams.growth.stages import Phase, Standing


@dataclass(frozen=True, slots=True)
class Write:
    """Write the growth's record with this phase."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class AddPartitions:
    """Give these topics their partitions, in this order."""

    additions: Sequence[Addition]


@dataclass(frozen=True, slots=True)
class Await:
    """Look again later: these partitions have not done it yet."""

    what: str
    """`ready`, `cut`, `adopted`, `cleared` or `settled`."""
    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is left to be done."""


Step = Write | AddPartitions | Await | Over


def next_step(
    plan: GrowthPlan, phase: Phase | None, standings: Mapping[int, Standing], settled: Collection[int]
) -> Step:
    """The next step of `plan`, which was made of the topics as they are now.

    `phase` is that of the growth's record (None: there is none), `standings` are of committed state by partition, and
    `settled` the parents that have said so.
    """
    if phase is None:
        return Write(Phase.PLANNED)
    if phase is Phase.PLANNED:
        epoch = plan.growth.epoch
        unready = [one for one in plan.growth.parents if _standing(standings, one).ready < epoch]
        return Await("ready", unready) if unready else Write(Phase.ANNOUNCED)
    if plan.before_begin:
        return AddPartitions(plan.before_begin)
    if phase is Phase.ANNOUNCED:
        return Write(Phase.BEGUN)
    return _once_begun(plan, standings, settled)


def _once_begun(plan: GrowthPlan, standings: Mapping[int, Standing], settled: Collection[int]) -> Step:
    growth = plan.growth
    uncut = [one for one in growth.parents if _standing(standings, one).epoch < growth.epoch]
    if uncut:
        return Await("cut", uncut)
    if plan.inputs:
        return AddPartitions(plan.inputs)
    young = [one for one in growth.children if _standing(standings, one).epoch < growth.epoch]
    if young:
        return Await("adopted", young)
    uncleared = [one for one in growth.children if _standing(standings, one).cleared < growth.epoch]
    if uncleared:
        return Await("cleared", uncleared)
    unsettled = [one for one in growth.parents if one not in settled]
    return Await("settled", unsettled) if unsettled else Over()


def may_be_abandoned(phase: Phase | None) -> bool:
    """Whether the growth may be given up: no parent has cut by it."""
    return phase in {Phase.PLANNED, Phase.ANNOUNCED}


def _standing(standings: Mapping[int, Standing], partition: int) -> Standing:
    return standings.get(partition, Standing(0))
