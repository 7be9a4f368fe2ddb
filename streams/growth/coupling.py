"""How the task of a new partition reads its two inputs: its own log, and records that its parent forwards.

They are merged by the watermark at each record's place in its own log, so that operators see one log. A record that
must wait for the other input stays in Kafka. docs/adr/0070 shows what follows from the rules: the merged watermark is
never ahead of the one that a single log without the growth would have.
"""

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64

_NOTHING: Final = (np.empty(0, np.int64), np.empty(0, np.int64))
NO_REACH: Final = 0
"""A progress record that does not say that the parent stands at its end covers no record of the child's log."""


@dataclass(frozen=True, slots=True)
class OwnLog:
    """Records of the own log that were read and not yet processed, in their order."""

    offset: Int64
    time: Int64
    """What each says of time: min(event time, record timestamp) - out-of-orderness bound; `TIME_MIN`: nothing."""
    is_at_end: bool
    """Whether the log was seen at its true end, after these and after all that was read of the other input."""

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(frozen=True, slots=True)
class ForwardedLog:
    """Records of the forwarded topic that were read and not yet processed, in their order: stragglers and progress."""

    time: Int64
    """As in `OwnLog`; of a progress record, the watermark of the parent."""
    is_of_parent: Bools
    """Whether it is progress, or was read from the source in the parent's partition. Others come of a wrong
    partitioner, perhaps by way of the parent: they say nothing of the time of this partition."""
    reach: Int64
    """For a progress record of a parent at its end: the end of this partition's own log just before that."""
    idle: Bools
    """Which progress records say that the parent's log is idle."""
    is_progress: Bools
    settles: Bools
    """Which progress records end the coupling."""

    def __len__(self) -> int:
        return len(self.time)

    def first(self, count: int) -> "ForwardedLog":
        """Return the first `count` records."""
        return ForwardedLog(*(getattr(self, one.name)[:count] for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Merged:
    """Records of both inputs that are processed now, in this order."""

    is_forwarded: Bools
    index: Int64
    """Place of each record in its own input: the first records of each input, without a gap."""
    watermark: Int64
    """The merged watermark after each record."""
    after: "Coupling"

    def __len__(self) -> int:
        return len(self.index)

    @property
    def own(self) -> int:
        """How many of the own log are processed."""
        return len(self) - self.forwarded

    @property
    def forwarded(self) -> int:
        """How many of the forwarded topic are processed."""
        return int(np.count_nonzero(self.is_forwarded))


@dataclass(frozen=True, slots=True)
class Coupling:
    """How far a task has read its two inputs. Kept with its positions, in checkpoint and journal."""

    own: int
    """Watermark of the own log; at the beginning that of the parent's cut."""
    parent: int
    """Watermark of the parent, as far as the task has heard; at the beginning that of its cut."""
    reach: int = NO_REACH
    """Records of the own log before this offset need not wait for the parent: it stood at its end meanwhile."""
    is_idle: bool = False
    """Whether the newest progress record said that the parent's log is idle."""
    is_settled: bool = False
    """Whether the coupling has ended."""

    @staticmethod
    def at_cut(watermark: int) -> "Coupling":
        """At the beginning of a child whose parent has cut at this watermark."""
        return Coupling(watermark, watermark)

    @property
    def watermark(self) -> int:
        """Watermark of what has been processed of both inputs."""
        return max(self.own, self.parent)

    def merge(self, own: OwnLog, forwarded: ForwardedLog) -> Merged:
        """The records of both inputs that may be processed now, in order.

        Shapes: one value for each record in every column. However the inputs are cut into calls, a record comes before
        others of the same two that wait for it; which one of two is first may depend on the cut only where none waits.
        """
        if self.is_settled:
            return self._free(own, forwarded, Merged(np.empty(0, np.bool_), *_NOTHING, self))
        settles = np.flatnonzero(forwarded.settles)
        coupled = self._coupled(own, forwarded.first(settles[0] + 1) if len(settles) else forwarded)
        return coupled.after._free(own, forwarded, coupled) if coupled.after.is_settled else coupled  # noqa: SLF001

    def _coupled(self, own: OwnLog, forwarded: ForwardedLog) -> Merged:
        of_own = _running(own.time, self.own)
        of_parent = _running(np.where(forwarded.is_of_parent, forwarded.time, TIME_MIN), self.parent)
        taken = forwarded.first(_prefix((of_parent <= _last(of_own, self.own)) | np.bool_(own.is_at_end)))
        reach = max(self.reach, int(taken.reach.max(initial=NO_REACH)))
        own_goes = _prefix((of_own <= _last(of_parent, self.parent)) | (own.offset < reach))
        times = np.concatenate([of_parent[: len(taken)], of_own[:own_goes]])
        order = np.argsort(times, kind="stable")  # of equal ones the forwarded first
        is_forwarded = order < len(taken)
        said = np.flatnonzero(taken.is_progress)
        after = Coupling(
            own=_last(of_own[:own_goes], self.own),
            parent=_last(of_parent[: len(taken)], self.parent),
            reach=reach,
            is_idle=bool(taken.idle[said[-1]]) if len(said) else self.is_idle,
            is_settled=bool(taken.settles.any()),
        )
        index = np.where(is_forwarded, order, order - len(taken))
        return Merged(is_forwarded, index, np.maximum(times[order], self.watermark), after)

    def _free(self, own: OwnLog, forwarded: ForwardedLog, so_far: Merged) -> Merged:
        """The rest, once settled: first that of the own log, then that of the forwarded records, which move nothing."""
        rest_own, rest_forwarded = np.arange(so_far.own, len(own)), np.arange(so_far.forwarded, len(forwarded))
        course = _running(own.time[so_far.own :], self.watermark)
        end = _last(course, self.watermark)
        which = np.repeat([False, True], [len(rest_own), len(rest_forwarded)])
        return Merged(
            np.concatenate([so_far.is_forwarded, which]),
            np.concatenate([so_far.index, rest_own, rest_forwarded]),
            np.concatenate([so_far.watermark, course, np.full(len(rest_forwarded), end)]),
            replace(self, own=end),
        )

    def lets_idle_pass(self, own_next: int, *, forwarded_is_read: bool) -> bool:
        """Whether idle time may move the watermark of a task whose own log ends at `own_next`, and is idle.

        `forwarded_is_read`: nothing is left in the forwarded topic. The parent must be idle too.
        """
        return self.is_settled or (forwarded_is_read and self.is_idle and self.reach >= own_next)


def _running(time: Int64, start: int) -> Int64:
    return np.maximum(np.maximum.accumulate(time), start) if len(time) else time


def _last(course: Int64, start: int) -> int:
    return int(course[-1]) if len(course) else start


def _prefix(goes: Bools) -> int:
    """How many are true before the first that is not."""
    return len(goes) if goes.all() else int(np.argmin(goes))
