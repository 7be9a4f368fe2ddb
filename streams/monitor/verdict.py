"""Lag verdict: a window of samples per partition in; status, reason and the time to catch up out. Pure, columnar.

Burrow's rules are the starting point (its wiki, "Consumer Lag Evaluation Rules"; `tests/burrow_rules.py`). This is
where ours are meant to differ (docs/lag-verdicts.md shows each with a history):

- A window consists of samples that the monitor took at its own pace, not of commits: who commits nothing is judged too.
- Lag is counted to the last stable offset, and positions are moved over transaction markers before they come here.
- Lag is judged in seconds. What is behind by less than `tiny_s` is on time, however many records that are.
- Growth is judged by medians over thirds of the window: neither one dip nor one commit that reached the end hides it.
- Whoever has stopped is known by time and by the members of the group, not by the number of commits in the window.
- A position that went back and has been regained is no rewind.
- Records that were deleted unread, and positions behind the end of the log, are errors. Burrow sees no lag in them.
- Records that nobody can read, since a transaction is open before them, are no lag, and no "all is read" either. Only
  a transaction that outlives the timeout that producers have by default is a trouble.
- A topic that a living group has left for others is no outage, whatever becomes of the records behind its old offsets.
- Nothing committed is no fault where there is nothing to read.
- A partition that was added to the source of a flow, and that its workers refuse, is never read: no time has to pass.
- Nor is one whose offset was set by something else, and is not that of the flow's state; there need not be any lag.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.monitor.flow_states import AS_COMMITTED
from streams.monitor.status import Status

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]

ABSENT: Final = -1
"""Offset of a partition that the group has not committed (yet)."""
NEVER: Final = np.inf
"""Seconds to catch up of who does not."""


class Owned(IntEnum):
    """Whether a member of the group has the partition."""

    UNKNOWN = -1
    NOBODY = 0
    SOMEBODY = 1


class Reason(IntEnum):
    """Why a status was given. `streams.monitor.words` turns it into a sentence."""

    DRAINED = 0
    ON_TIME = 1
    CATCHING_UP = 2
    GROWING = 3
    NOT_FALLING = 4
    TOO_SOON = 5
    NOBODY_READS = 6
    COMMITS_CEASED = 7
    NO_PROGRESS = 8
    SAME_COMMITS = 9
    WENT_BACK = 10
    DELETED_UNREAD = 11
    BEHIND_END = 12
    NOTHING_COMMITTED = 13
    OPEN_TRANSACTION = 14
    LEFT_TOPIC = 15
    NOT_IN_LAYOUT = 16
    OFFSET_NOT_OF_STATE = 17


STATUS_OF: Final[dict[Reason, Status]] = {
    Reason.DRAINED: Status.OK,
    Reason.ON_TIME: Status.OK,
    Reason.CATCHING_UP: Status.OK,
    Reason.GROWING: Status.WARN,
    Reason.NOT_FALLING: Status.WARN,
    Reason.TOO_SOON: Status.WARN,
    Reason.NOBODY_READS: Status.STOP,
    Reason.COMMITS_CEASED: Status.STOP,
    Reason.NO_PROGRESS: Status.STALL,
    Reason.SAME_COMMITS: Status.STALL,
    Reason.WENT_BACK: Status.REWIND,
    Reason.DELETED_UNREAD: Status.ERR,
    Reason.BEHIND_END: Status.ERR,
    Reason.NOTHING_COMMITTED: Status.OK,
    Reason.OPEN_TRANSACTION: Status.WARN,
    Reason.LEFT_TOPIC: Status.OK,
    Reason.NOT_IN_LAYOUT: Status.STALL,
    Reason.OFFSET_NOT_OF_STATE: Status.STALL,
}
_STATUS_CODES: Final = np.array([STATUS_OF[reason] for reason in Reason], dtype=np.int8)


@dataclass(frozen=True, slots=True)
class Policy:
    """Where the verdict draws its lines, in seconds."""

    tiny_s: float = 10.0
    """Lag below this is on time."""
    nobody_s: float = 15.0
    """Lag above this in a partition that nobody owns: STOP. A worker that is restarted is back before."""
    still_s: float = 45.0
    """A position that has not moved for so long, with lag, has stopped; longer for who commits more seldom."""
    rhythm_factor: float = 3.0
    """Whoever commits every n seconds has stopped after this many n."""
    growth_s: float = 20.0
    """Growth is not judged from a shorter window."""
    open_s: float = 60.0
    """A transaction that is open for less than this is no trouble: `transaction.timeout.ms` of a client that sets none.
    The alert OpenTransaction begins here, too."""
    falling_share: float = 0.05
    """Lag that fell by less than this share from the first third of the window to the last has not fallen."""

    def __post_init__(self) -> None:
        if not 0 < self.tiny_s <= self.nobody_s <= self.still_s:
            raise ValueError("tiny_s, nobody_s and still_s are above 0, each no shorter than the one before")


@dataclass(frozen=True, slots=True)
class Window:
    """Samples of n partitions at s times, oldest first. A partition unknown at a time has ABSENT there, and lag 0.

    `offset` is what the group had committed, `lag` the records from there to the last stable offset. `active` says that
    there were commits since the sample before, also such as did not move. `lag_s`: age of the oldest record not
    committed (0: there is none). `deleted` and `beyond`: records deleted before they were read; records by which the
    position is past the end of the log. `unreadable`: records after an open transaction, which nobody can read yet;
    `open_s`: how long that transaction has been seen to be open. `left`: members of the group have partitions of other
    topics, and none has had one of this topic for longer than the window. `unplaced`: the group is that of a flow, and
    the flow's state has no place for this partition of its source: its workers refuse it. `state_at`: they refuse it,
    since the flow's state stands at this offset and not at the committed one, or at none; AS_COMMITTED: they do not.
    """

    time_ms: Int64
    offset: Int64
    lag: Int64
    active: Bool
    lag_s: Float64
    owned: Int8
    deleted: Int64
    beyond: Int64
    unreadable: Int64
    open_s: Float64
    left: Bool
    unplaced: Bool
    state_at: Int64

    def __post_init__(self) -> None:
        columns = (
            self.lag_s, self.owned, self.deleted, self.beyond, self.unreadable, self.open_s, self.left, self.unplaced,
            self.state_at,
        )  # fmt: skip
        rows = {len(column) for column in columns}
        tables = {self.offset.shape, self.lag.shape, self.active.shape}
        if len(rows) > 1 or tables != {(len(self.lag_s), len(self.time_ms))}:
            raise ValueError("the columns of a window differ in length")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts on n partitions. Rates are records a second over the window; NaN: it was too short to tell."""

    status: Int8
    reason: Int8
    unmoved_s: Float64
    """How long the position has not moved, as far as the window reaches."""
    back_by: Int64
    """REWIND: records that it is short of where it was."""
    consume_rate: Float64
    arrive_rate: Float64
    catch_up_s: Float64
    """Seconds until the lag is gone at the pace of the window; NEVER if it is not falling, 0 for what is on time."""


def evaluate(window: Window, policy: Policy) -> Verdicts:
    """Verdict on each row of `window`; rows do not influence one another."""
    n = len(window.lag_s)
    motion = _motion(window)
    growth = _growth(window, policy)
    lag = window.lag[:, -1] if window.lag.shape[1] else np.zeros(n, dtype=np.int64)
    last = window.offset[:, -1] if window.offset.shape[1] else np.full(n, ABSENT, dtype=np.int64)
    # Who assigns partitions by hand is no member, and has not left as long as its position moves.
    left = window.left & (last != ABSENT) & ~motion.moved
    trouble = (lag > 0) | (window.beyond > 0) | (window.deleted > 0) | (window.unreadable > 0)
    back_by = np.where(motion.went_back & (lag > 0), motion.offset_max - last, 0)
    still = motion.unmoved_s >= np.maximum(policy.still_s, policy.rhythm_factor * motion.rhythm_s)
    deserted = (
        (window.owned == Owned.NOBODY)
        & (window.lag_s >= policy.nobody_s)
        & (motion.unmoved_s > 0)
        # Who assigns partitions by hand is no member, and shows by its commits that it lives.
        & (motion.unmoved_s >= policy.rhythm_factor * motion.rhythm_s)
    )
    reason = np.select(
        [
            left & trouble,
            window.unplaced & (lag > 0),
            window.beyond > 0,
            window.state_at != AS_COMMITTED,
            window.deleted > 0,
            (lag == 0) & (window.unreadable > 0) & (window.open_s >= policy.open_s),
            (last == ABSENT) & (lag == 0),
            lag == 0,
            back_by > 0,
            window.lag_s < policy.tiny_s,
            deserted,
            still & motion.idle_commits,
            still & (window.owned == Owned.SOMEBODY),
            still,
            growth.falling,
            ~growth.judged,
            growth.growing,
        ],
        [
            Reason.LEFT_TOPIC,
            Reason.NOT_IN_LAYOUT,
            Reason.BEHIND_END,
            Reason.OFFSET_NOT_OF_STATE,
            Reason.DELETED_UNREAD,
            Reason.OPEN_TRANSACTION,
            Reason.NOTHING_COMMITTED,
            Reason.DRAINED,
            Reason.WENT_BACK,
            Reason.ON_TIME,
            Reason.NOBODY_READS,
            Reason.SAME_COMMITS,
            Reason.NO_PROGRESS,
            Reason.COMMITS_CEASED,
            Reason.CATCHING_UP,
            Reason.TOO_SOON,
            Reason.GROWING,
        ],
        Reason.NOT_FALLING,
    ).astype(np.int8)
    on_time = (lag == 0) | (reason == Reason.ON_TIME) | (reason == Reason.LEFT_TOPIC)
    catch_up = np.where(on_time, 0.0, np.where(growth.falling, lag / np.maximum(growth.fall_rate, 1e-9), NEVER))
    return Verdicts(
        status=_STATUS_CODES[reason],
        reason=reason,
        unmoved_s=motion.unmoved_s,
        back_by=back_by,
        consume_rate=growth.consume_rate,
        arrive_rate=growth.arrive_rate,
        catch_up_s=catch_up,
    )


@dataclass(frozen=True, slots=True)
class _Motion:
    unmoved_s: Float64
    rhythm_s: Float64
    """The longest time before a move in the window; 0 without any."""
    idle_commits: Bool
    """There were commits since it last moved."""
    went_back: Bool
    offset_max: Int64
    moved: Bool
    """At any time within the window."""


def _motion(window: Window) -> _Motion:
    offset, time_ms = window.offset, window.time_ms
    n, s = offset.shape
    if s == 0:
        zeros = np.zeros(n)
        nothing = np.zeros(n, dtype=np.bool_)
        return _Motion(zeros, zeros, nothing, nothing, np.full(n, ABSENT, dtype=np.int64), nothing)
    known = offset != ABSENT
    moved = np.zeros((n, s), dtype=np.bool_)
    moved[:, 1:] = (offset[:, 1:] != offset[:, :-1]) & known[:, :-1]
    appeared = np.zeros((n, s), dtype=np.bool_)
    appeared[:, 1:] = known[:, 1:] & ~known[:, :-1]
    # A group that has committed nothing is as old as the window; one that began within it, as its first commit.
    changed = moved | appeared
    place = np.where(changed, np.arange(s), 0).max(axis=1)
    unmoved_s = (time_ms[-1] - time_ms[place]) / 1000.0
    at = np.where(changed, time_ms, -1)
    before = np.maximum.accumulate(at, axis=1)
    # The first move tells that before it there was none since the window began: the rhythm is at least so slow.
    began = np.where(before[:, :-1] >= 0, before[:, :-1], time_ms[0])
    gaps = np.where(moved[:, 1:], at[:, 1:] - began, 0)
    rhythm_s = gaps.max(axis=1, initial=0) / 1000.0
    since = np.arange(s) > place[:, None]
    peak = np.maximum.accumulate(offset, axis=1)
    offset_max = peak[:, -1]
    return _Motion(
        unmoved_s=unmoved_s,
        rhythm_s=rhythm_s,
        idle_commits=(window.active & since).any(axis=1),
        went_back=(offset[:, -1] < offset_max) & known[:, -1],
        offset_max=offset_max,
        moved=np.asarray(changed.any(axis=1), dtype=np.bool_),
    )


@dataclass(frozen=True, slots=True)
class _Growth:
    judged: Bool
    growing: Bool
    falling: Bool
    fall_rate: Float64
    consume_rate: Float64
    arrive_rate: Float64


def _growth(window: Window, policy: Policy) -> _Growth:
    """Lag of the first third of the samples against the last third, by medians; rates from end to end."""
    n, s = window.lag.shape
    if s < 2:
        nothing, unknown = np.zeros(n, dtype=np.bool_), np.full(n, np.nan)
        return _Growth(nothing, nothing, nothing, np.zeros(n), unknown, unknown)
    known = window.offset != ABSENT
    # Samples from before the first commit do not count. Without any commit all do: the lag is that of the whole log.
    known |= ~known.any(axis=1, keepdims=True)
    # Nor what was before the lag was last gone: a burst is judged by what has become of it since it came.
    gone = known & (window.lag == 0)
    gone[:, -1] = False
    after_gone = np.where(gone, np.arange(s) + 1, 0).max(axis=1)
    first = np.maximum(known.argmax(axis=1), after_gone)
    count = s - first
    third = np.maximum(1, count // 3)
    column = np.arange(s)
    early = (column >= first[:, None]) & (column < (first + third)[:, None])
    late = np.broadcast_to(column, (n, s)) >= (s - third)[:, None]
    lag_early, lag_late = _median(window.lag, early), _median(window.lag, late)
    time_s = window.time_ms / 1000.0
    between_s = np.maximum(_median(np.broadcast_to(time_s, (n, s)), late)
                           - _median(np.broadcast_to(time_s, (n, s)), early), 1e-3)  # fmt: skip
    span_s = time_s[-1] - time_s[first]
    falling = (count >= 2) & (lag_late <= lag_early * (1.0 - policy.falling_share)) & (lag_late < lag_early)
    rows = np.arange(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        began, ended = window.offset[rows, first], window.offset[:, -1]
        consumed = np.where((began == ABSENT) | (count < 2), np.nan, (ended - began) / span_s)
        arrived = consumed + (window.lag[:, -1] - window.lag[rows, first]) / span_s
    return _Growth(
        judged=span_s >= policy.growth_s,
        growing=lag_late > lag_early * (1.0 + policy.falling_share),
        falling=falling,
        fall_rate=np.where(falling, (lag_early - lag_late) / between_s, 0.0),
        consume_rate=consumed,
        arrive_rate=arrived,
    )


def _median(values: npt.NDArray[Any], chosen: Bool) -> Float64:
    """Median of the chosen values of each row, at least one."""
    ordered = np.sort(np.where(chosen, values.astype(np.float64), np.inf), axis=1)
    count = chosen.sum(axis=1)
    rows = np.arange(len(ordered))
    middle: Float64 = (ordered[rows, (count - 1) // 2] + ordered[rows, count // 2]) / 2.0
    return middle
