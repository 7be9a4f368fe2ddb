"""Lag verdict: a window of samples per partition in; status, reason and the time to catch up out. Pure, columnar.

Burrow's rules are the starting point (its wiki, "Consumer Lag Evaluation Rules"; `tests/burrow_rules.py`). This is
where ours are meant to differ (docs/lag-verdicts.md shows each with a history):

- A window consists of samples that the monitor took at its own pace, not of commits: who commits nothing is judged too.
- Lag is counted to the last stable offset, and positions are moved over transaction markers before they come here.
- Lag is judged in seconds. What is behind by less than `tiny_s` is on time, however many records that are.
- Growth is judged by medians over thirds of the window: neither one dip nor one commit that reached the end hides it.
- Whoever has stopped is known by time and by the members of the group, not by the number of commits in the window.
- A consumer that commits seldom is judged by its moves before the window too: by the lag that each has left.
- A group that keeps losing its members is not catching up between two losses.
- Of a group that is declared to run in batches, lag is expected for as long as is declared.
- A position that went back and has been regained is no rewind.
- Records that were deleted unread, and positions behind the end of the log, are errors. Burrow sees no lag in them.
- Records that nobody can read, since a transaction is open before them, are no lag, and no "all is read" either. Only
  a transaction that outlives the timeout that producers have by default is a trouble.
- A topic that a living group has left for others is no outage, whatever becomes of the records behind its old offsets.
- Nothing committed is no fault where there is nothing to read.
- A partition that was added to the source of a flow, and that its workers refuse, is never read: no time has to pass.
- Nor is one whose offset was set by something else, and is not that of the flow's state; there need not be any lag.
"""

from dataclasses import dataclass, replace
from enum import IntEnum, unique
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.monitor.flow_states import AS_COMMITTED
from streams.monitor.moves import HAND_MOVES, MOVES_KEPT, Moves
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


@unique
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
    BETWEEN_COMMITS = 18
    BETWEEN_RUNS = 19
    OVERDUE = 20
    FLAPPING = 21


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
    Reason.BETWEEN_COMMITS: Status.OK,
    Reason.BETWEEN_RUNS: Status.OK,
    Reason.OVERDUE: Status.WARN,
    Reason.FLAPPING: Status.WARN,
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
    """A consumer that commits every n seconds has stopped after this many n, or after n and `seldom_s` if less."""
    seldom_s: float = 1_000.0
    """A member that has not been seen to move often enough for its rhythm to be known is given so long: one that
    commits every 15 minutes is healthy."""
    late_factor: float = 1.5
    """A consumer that commits every n seconds is late after this many n."""
    commits_s: float | None = None
    """How often the group commits, where it is declared; None: that is learned."""
    batch_s: float | None = None
    """The group runs now and then, and so much lag is expected of it; None: it runs always."""
    flaps_max: int = 3
    """A partition that has lost its member so often within `flaps_s` is that of a group that cannot stay up."""
    flaps_s: float = 900.0
    growth_s: float = 20.0
    """Growth is not judged from a shorter window."""
    open_s: float = 60.0
    """A transaction that is open for less than this is no trouble: `transaction.timeout.ms` of a client that sets none.
    The alert OpenTransaction begins here, too."""
    falling_share: float = 0.05
    """Lag that fell by less than this share from the first third of the window to the last has not fallen."""

    def __post_init__(self) -> None:
        if not 0 < self.tiny_s <= self.nobody_s <= self.still_s <= self.seldom_s:
            raise ValueError("tiny_s, nobody_s, still_s and seldom_s are above 0, each no shorter than the one before")


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
    `moves`: those of the position, also from before the window. `unowned_s`: how long no member has had the partition;
    NaN: one has it, or none was ever seen to. `flaps`: how often the partition has lost its member lately
    (`Policy.flaps_s`). `peers_s`: the slowest rhythm that is known of any position of the group; NaN: none is.
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
    moves: Moves
    unowned_s: Float64
    flaps: Int64
    peers_s: Float64

    def __post_init__(self) -> None:
        columns = (
            self.lag_s, self.owned, self.deleted, self.beyond, self.unreadable, self.open_s, self.left, self.unplaced,
            self.state_at, self.moves.count, self.unowned_s, self.flaps, self.peers_s,
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
    """How long the position has not moved, as far as it has been watched."""
    rhythm_s: Float64
    """How often it moves while there is something to read, as learned or declared; NaN: not known yet."""
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
    pace = _pace(window, policy)
    growth = _growth(window, policy, pace)
    lag = window.lag[:, -1] if window.lag.shape[1] else np.zeros(n, dtype=np.int64)
    last = window.offset[:, -1] if window.offset.shape[1] else np.full(n, ABSENT, dtype=np.int64)
    # Who assigns partitions by hand is no member, and has not left as long as its position moves.
    left = window.left & (last != ABSENT) & ~motion.moved
    trouble = (lag > 0) | (window.beyond > 0) | (window.deleted > 0) | (window.unreadable > 0)
    back_by = np.where(motion.went_back & (lag > 0), motion.offset_max - last, 0)
    deserted = _deserted(window, policy, pace)
    is_batch = np.full(n, policy.batch_s is not None)
    expected_s = policy.batch_s or 0.0
    stopped = deserted | pace.still
    verdict_of: tuple[tuple[Bool, Reason], ...] = (
        (left & trouble, Reason.LEFT_TOPIC),
        (window.unplaced & (lag > 0), Reason.NOT_IN_LAYOUT),
        (window.beyond > 0, Reason.BEHIND_END),
        (window.state_at != AS_COMMITTED, Reason.OFFSET_NOT_OF_STATE),
        (window.deleted > 0, Reason.DELETED_UNREAD),
        ((lag == 0) & (window.unreadable > 0) & (window.open_s >= policy.open_s), Reason.OPEN_TRANSACTION),
        ((last == ABSENT) & (lag == 0), Reason.NOTHING_COMMITTED),
        (lag == 0, Reason.DRAINED),
        (back_by > 0, Reason.WENT_BACK),
        (window.lag_s < policy.tiny_s, Reason.ON_TIME),
        (is_batch & (window.lag_s < expected_s), Reason.BETWEEN_RUNS),
        (is_batch & stopped, Reason.OVERDUE),
        (deserted, Reason.NOBODY_READS),
        (pace.still_committing & motion.idle_commits, Reason.SAME_COMMITS),
        (pace.still & (window.owned == Owned.SOMEBODY), Reason.NO_PROGRESS),
        (pace.still, Reason.COMMITS_CEASED),
        (window.flaps >= policy.flaps_max, Reason.FLAPPING),
        (pace.between_commits, Reason.BETWEEN_COMMITS),
        (growth.falling, Reason.CATCHING_UP),
        (~growth.judged, Reason.TOO_SOON),
        (growth.growing, Reason.GROWING),
    )
    reason = np.select(
        [condition for condition, _ in verdict_of], [reason for _, reason in verdict_of], Reason.NOT_FALLING
    ).astype(np.int8)
    on_time = (lag == 0) | np.isin(reason, _NOTHING_TO_CATCH_UP)
    falling = growth.falling & ~stopped
    catch_up = np.where(on_time, 0.0, np.where(falling, lag / np.maximum(growth.fall_rate, 1e-9), NEVER))
    return Verdicts(
        status=_STATUS_CODES[reason],
        reason=reason,
        unmoved_s=pace.unmoved_s,
        rhythm_s=np.where(pace.is_known, pace.rhythm_s, np.nan),
        back_by=back_by,
        consume_rate=growth.consume_rate,
        arrive_rate=growth.arrive_rate,
        catch_up_s=catch_up,
    )


_NOTHING_TO_CATCH_UP: Final = (Reason.ON_TIME, Reason.LEFT_TOPIC, Reason.BETWEEN_COMMITS, Reason.BETWEEN_RUNS)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How a position moves, compared with how it uses to."""

    unmoved_s: Float64
    rhythm_s: Float64
    is_known: Bool
    """Whether the rhythm is known. If not, it is that of the few moves that were seen, or 0."""
    seldom: Bool
    """It moves so seldom that moves are the samples to judge it by, not looks of the monitor."""
    by_hand: Bool
    """It is moved by a consumer that is no member of the group."""
    still: Bool
    """Records have waited for a move for longer than the rhythm explains."""
    still_committing: Bool
    """The same, of somebody whose commits are seen: it needs no more time for the first of them."""
    between_commits: Bool
    """It commits seldom, had read nearly everything at its last commit, and the next one is not due yet."""


def _pace(window: Window, policy: Policy) -> _Pace:
    moves = window.moves
    now_ms = window.time_ms[-1] if len(window.time_ms) else 0
    unmoved_s = np.maximum(now_ms - moves.since_ms, 0) / 1000.0
    # Positions of one group are committed alike: what is not known of one is that of the slowest other.
    is_known = moves.is_known | np.isfinite(window.peers_s)
    rhythm_s = np.where(moves.is_known, moves.rhythm_s, np.fmax(moves.rhythm_s, window.peers_s))
    if policy.commits_s is not None:
        # What is declared is the least that is allowed: a slower rhythm may be learned all the same.
        rhythm_s = np.maximum(np.where(is_known, rhythm_s, 0.0), policy.commits_s)
        is_known = np.ones(len(rhythm_s), dtype=np.bool_)
    # What came after the last move has waited since it came; all else since the last move.
    waiting_s = np.minimum(unmoved_s, window.lag_s)
    usual_s = np.minimum(policy.rhythm_factor * rhythm_s, rhythm_s + policy.seldom_s)
    known_s = np.maximum(policy.still_s, usual_s)
    by_hand = moves.by_hand >= HAND_MOVES
    seldom = rhythm_s > policy.tiny_s
    due_s = policy.late_factor * rhythm_s + policy.tiny_s
    # A consumer that works off batches commits the end that it saw at its begin: then it is behind by one interval.
    after_commit_s = window.lag_s - unmoved_s
    # A lag older than anybody's rhythm needs no rhythm to be judged by.
    unknown_s = np.where(window.lag_s >= policy.seldom_s, policy.still_s, policy.seldom_s)
    return _Pace(
        unmoved_s=unmoved_s,
        rhythm_s=rhythm_s,
        is_known=is_known,
        seldom=seldom & is_known,
        by_hand=by_hand,
        still=waiting_s >= np.where(is_known, known_s, unknown_s),
        still_committing=waiting_s >= np.where(is_known, known_s, policy.still_s),
        between_commits=(
            seldom
            & (is_known | (moves.count >= 2))  # the wait before the first move began before watching did
            & (unmoved_s < due_s)
            & (after_commit_s < due_s)
        ),
    )


def _deserted(window: Window, policy: Policy, pace: _Pace) -> Bool:
    """Partitions with lag that no member has and nobody else reads."""
    usual_s = np.where(pace.is_known, policy.rhythm_factor * pace.rhythm_s, 0.0)
    had_member = np.isfinite(window.unowned_s)
    # Members have left: their rhythm explains nothing any more, only a hand-over to another member does.
    missed = (pace.unmoved_s >= policy.nobody_s) & ((pace.unmoved_s >= usual_s) | (window.unowned_s >= policy.nobody_s))
    # Nobody was ever seen to have it. Who assigns partitions by hand shows by its commits that it lives.
    never = (pace.unmoved_s > 0) & (pace.unmoved_s >= usual_s)
    silent = np.where(pace.by_hand, pace.still, np.where(had_member, missed, never))
    return np.asarray((window.owned == Owned.NOBODY) & (window.lag_s >= policy.nobody_s) & silent, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Motion:
    """What the samples of the window say of the position."""

    idle_commits: Bool
    """There were commits since it last moved."""
    went_back: Bool
    offset_max: Int64
    moved: Bool
    """At any time within the window."""


def _motion(window: Window) -> _Motion:
    offset = window.offset
    n, s = offset.shape
    if s == 0:
        nothing = np.zeros(n, dtype=np.bool_)
        return _Motion(nothing, nothing, np.full(n, ABSENT, dtype=np.int64), nothing)
    known = offset != ABSENT
    changed = np.zeros((n, s), dtype=np.bool_)
    changed[:, 1:] = (offset[:, 1:] != offset[:, :-1]) & (known[:, :-1] | known[:, 1:])
    place = np.where(changed, np.arange(s), 0).max(axis=1)
    since = np.arange(s) > place[:, None]
    offset_max = offset.max(axis=1)
    return _Motion(
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


def _growth(window: Window, policy: Policy, pace: _Pace) -> _Growth:
    """By the samples of the window; of who commits seldom, by the lag that its moves have left."""
    sampled = _sampled_growth(window, policy)
    moves = window.moves
    # A sawtooth is no growth: it takes four commits to see two of them lower than two before.
    by_moves = pace.seldom & (moves.count >= MOVES_KEPT // 2)
    # Nobody who is gone catches up, whatever became of the lag before.
    alive = (window.owned != Owned.NOBODY) | pace.by_hand
    if not by_moves.any():
        return replace(sampled, falling=sampled.falling & alive)
    moved = _moved_growth(window, policy)
    return _Growth(
        judged=sampled.judged | by_moves,
        growing=np.where(by_moves, moved.growing, sampled.growing),
        falling=np.where(by_moves, moved.falling, sampled.falling) & alive,
        fall_rate=np.where(by_moves, moved.fall_rate, sampled.fall_rate),
        consume_rate=np.where(by_moves, moved.consume_rate, sampled.consume_rate),
        arrive_rate=np.where(by_moves, moved.arrive_rate, sampled.arrive_rate),
    )


def _moved_growth(window: Window, policy: Policy) -> _Growth:
    """Lag after the older moves against that after the newer ones, by medians; rates from move to move."""
    moves = window.moves
    n, k = moves.lag.shape
    count = np.clip(moves.count, 1, k)
    column, half = np.arange(k), np.maximum(1, count // 2)
    first = k - count
    early = (column >= first[:, None]) & (column < (first + half)[:, None])
    late = np.broadcast_to(column, (n, k)) >= (k - half)[:, None]
    lag_early, lag_late = _median(moves.lag, early), _median(moves.lag, late)
    rows = np.arange(n)
    span_s = np.maximum(moves.time_ms[:, -1] - moves.time_ms[rows, first], 1) / 1000.0
    consumed = (moves.offset[:, -1] - moves.offset[rows, first]) / span_s
    arrived = consumed + (moves.lag[:, -1] - moves.lag[rows, first]) / span_s
    falling = (lag_late <= lag_early * (1.0 - policy.falling_share)) & (arrived < consumed)
    return _Growth(
        judged=np.ones(n, dtype=np.bool_),
        growing=lag_late > lag_early * (1.0 + policy.falling_share),
        falling=falling,
        fall_rate=np.where(falling, consumed - arrived, 0.0),
        consume_rate=consumed,
        arrive_rate=arrived,
    )


def _sampled_growth(window: Window, policy: Policy) -> _Growth:
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
    rows = np.arange(n)
    lag_first, lag_last = window.lag[rows, first], window.lag[:, -1]
    # A lag that fell at first and has risen since is not falling, nor one of which less is read than arrives.
    falling = (
        (count >= 2)
        & (lag_late <= lag_early * (1.0 - policy.falling_share))
        & (lag_last <= lag_early * (1.0 - policy.falling_share))
        & (lag_last < np.minimum(lag_first, lag_early))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        began, ended = window.offset[rows, first], window.offset[:, -1]
        consumed = np.where((began == ABSENT) | (count < 2), np.nan, (ended - began) / span_s)
        arrived = consumed + (lag_last - lag_first) / span_s
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
