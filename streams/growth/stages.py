"""What a growth requires of the task of each partition, and what has to wait for what."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from streams.growth.layout import Growth, Layout


class Phase(StrEnum):
    """How far the command has brought a growth."""

    PLANNED = "planned"
    """Tasks say that they are ready: they name the partition of what they write by their own layout from then on."""
    ANNOUNCED = "announced"
    """All have said so: topics other than the source are given partitions."""
    BEGUN = "begun"
    """All parents were ready: they cut."""


class Duty(StrEnum):
    """What the task of a partition does about a growth."""

    NOTHING = "nothing"
    SAY_READY = "say_ready"
    """Commit that it is ready, with the next cycle."""
    CUT = "cut"
    """End the cycle, and commit one with the cut."""
    REFUSE = "refuse"
    """Consume nothing: somebody has added the partition to the source, and no growth is known that it belongs to."""
    AWAIT_CUT = "await_cut"
    """Consume nothing: the parent has not cut yet."""
    ADOPT = "adopt"
    """Take the state over from the parent, before anything is consumed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one partition stands, by its committed state."""

    epoch: int
    """Epoch of the layout that the partition's state is in; 0: it has no state, or has not adopted all of it."""
    ready: int = 0
    """Epoch of the growth that it has said to be ready for."""
    cleared: int = 0
    """For a child: epoch of the growth after which its keys have no rows in its parent's partitions any more."""
    settled: int = 0
    """For a parent: epoch of the growth whose children it has told that the coupling has ended."""


def duty_of(
    partition: int, standing: Standing, first: Layout, growth: Growth | None, phase: Phase | None, *, parent_epoch: int
) -> Duty:
    """What the task of `partition` does next; `parent_epoch` is of the committed state of its parent.

    `first` is the layout that the flow began with, in force as long as there is no `growth`; else that is the newest.

    A parent without any state has nothing to hand over and cuts all the same, at the beginning of its log: only its cut
    says from where on records are forwarded.
    """
    if partition >= (first if growth is None else growth.after).partitions:
        return Duty.REFUSE
    if growth is None or phase is None or standing.epoch >= growth.epoch:
        return Duty.NOTHING
    if partition in growth.children:
        return Duty.ADOPT if parent_epoch >= growth.epoch else Duty.AWAIT_CUT
    if phase is Phase.BEGUN:
        return Duty.CUT
    if standing.ready < growth.epoch:
        return Duty.SAY_READY
    return Duty.NOTHING


def have_adopted(parent: int, growth: Growth, standings: Mapping[int, Standing]) -> bool:
    """Whether all children of `parent` have state of their own: its journal before the cut is no longer needed."""
    return all(child in standings and standings[child].epoch >= growth.epoch for child in growth.children_of(parent))


def journal_needed_from(parent: int, cut_at: int, growth: Growth, standings: Mapping[int, Standing]) -> int | None:
    """Whether truncation of the journal of `parent` has to leave all that is there, for a child that has not adopted.

    Returns the offset before which nothing is needed for the growth, that of its cut; None: nothing may be cut off.
    """
    return cut_at if have_adopted(parent, growth, standings) else None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a parent tells its children with a cycle, about everything before it in its log."""

    watermark: int
    reach: Mapping[int, int]
    """End of each child's log, asked for before the parent was seen at its own end; empty: the parent was not there."""
    is_idle: bool = False
    is_settled: bool = False

    def of(self, child: int) -> int:
        """The offset before which the child need not wait for it."""
        return self.reach.get(child, 0)


def is_due(progress: Progress, last: Progress | None, *, told_ms: int, now_ms: int, interval_ms: int) -> bool:
    """Whether children have to be told: of a later time or an end of the coupling with each cycle, else now and then.

    Times are monotonic milliseconds; `told_ms` is when `last` was committed.
    """
    if last is None or (progress.watermark, progress.is_settled) != (last.watermark, last.is_settled):
        return True
    return progress != last and now_ms - told_ms >= interval_ms


def settles(*, quiet_since_ms: int, now_ms: int, quiet_ms: int, is_at_end: bool, adopted: bool) -> bool:
    """Whether a parent ends the coupling: its children have adopted, it stands at its end, no straggler came for long.

    A log that never ends has an end all the same: that of the moment when there had been no straggler for long enough.
    `is_at_end` says that everything before it is processed.

    `quiet_since_ms` is the monotonic time of the last straggler, of the restore, or when the last child was seen to
    have adopted (before that producers could not change), whichever is latest.
    """
    return adopted and is_at_end and now_ms - quiet_since_ms >= quiet_ms


def is_over(growth: Growth, standings: Mapping[int, Standing], settled: Collection[int]) -> bool:
    """Whether nothing is left to be done: all have state in its layout, children have cleared, parents have settled."""
    everyone = range(growth.after.partitions)
    return (
        set(growth.parents) <= set(settled)
        and all(partition in standings and standings[partition].epoch >= growth.epoch for partition in everyone)
        and all(standings[child].cleared >= growth.epoch for child in growth.children)
    )
