"""Whether a group's positions move, and how often compared with their usual rhythm. Pure, columnar."""

from dataclasses import dataclass

import numpy as np

from streams.batch.columns import Bools, Float64, Int64
from streams.monitor.moves import HAND_MOVES
from streams.monitor.policy import Policy
from streams.monitor.window import ABSENT, Owned, Window


@dataclass(frozen=True, slots=True)
class Pace:
    """How a position moves, compared with its usual rhythm."""

    unmoved_s: Float64
    rhythm_s: Float64
    is_known: Bools
    """Whether the rhythm is known. If not, `rhythm` is that of the few moves seen, or 0."""
    seldom: Bools
    """It moves so rarely that its moves, not the monitor's looks, are the samples to judge it by."""
    by_hand: Bools
    """It is moved by a consumer that is no member of the group."""
    still: Bools
    """Records have waited for a move for longer than the rhythm explains."""
    still_committing: Bools
    """The same, for a consumer whose commits are seen: it needs no extra time for its first one."""
    between_commits: Bools
    """It commits rarely, had read nearly everything at its last commit, and the next one is not due yet."""


def pace_of(window: Window, policy: Policy) -> Pace:
    """Pace of each position of `window`."""
    moves = window.moves
    now_ms = window.time_ms[-1] if len(window.time_ms) else 0
    unmoved_s = np.maximum(now_ms - moves.since_ms, 0) / 1000.0
    # Positions of one group are committed alike: an unknown rhythm is taken from the slowest other position.
    is_known = moves.is_known | np.isfinite(window.peers_s)
    rhythm_s = np.where(moves.is_known, moves.rhythm_s, np.fmax(moves.rhythm_s, window.peers_s))
    if policy.commits_s is not None:
        # A declared rhythm is a minimum: a slower one may still be learned.
        rhythm_s = np.maximum(np.where(is_known, rhythm_s, 0.0), policy.commits_s)
        is_known = np.ones(len(rhythm_s), dtype=np.bool_)
    # Records that arrived after the last move have waited since then; all others since the last move.
    waiting_s = np.minimum(unmoved_s, window.lag_s)
    usual_s = np.minimum(policy.rhythm_factor * rhythm_s, rhythm_s + policy.seldom_s)
    known_s = np.maximum(policy.still_s, usual_s)
    by_hand = moves.by_hand >= HAND_MOVES
    seldom = rhythm_s > policy.tiny_s
    due_s = policy.late_factor * rhythm_s + policy.tiny_s
    # A consumer that works in batches commits the end that it saw at its start: it lags by one interval then.
    after_commit_s = window.lag_s - unmoved_s
    # A lag older than anybody's rhythm needs no rhythm to be judged by.
    unknown_s = np.where(window.lag_s >= policy.seldom_s, policy.still_s, policy.seldom_s)
    return Pace(
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


def deserted_rows(window: Window, policy: Policy, pace: Pace) -> Bools:
    """Partitions with lag that no member has and nobody else consumes."""
    usual_s = np.where(pace.is_known, policy.rhythm_factor * pace.rhythm_s, 0.0)
    had_member = np.isfinite(window.unowned_s)
    # Members have left: only a hand-over to another member, not their rhythm, would explain the silence.
    missed = (pace.unmoved_s >= policy.nobody_s) & ((pace.unmoved_s >= usual_s) | (window.unowned_s >= policy.nobody_s))
    # No member was ever seen to have it. A consumer that assigns partitions by hand is known by its commits.
    never = (pace.unmoved_s > 0) & (pace.unmoved_s >= usual_s)
    silent = np.where(pace.by_hand, pace.still, np.where(had_member, missed, never))
    return np.asarray((window.owned == Owned.NOBODY) & (window.lag_s >= policy.nobody_s) & silent, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Motion:
    """What the samples of the window say about the position's moves."""

    idle_commits: Bools
    """There were commits since it last moved."""
    went_back: Bools
    offset_max: Int64
    moved: Bools
    """Whether the position moved at any time within the window."""


def motion_of(window: Window) -> Motion:
    """Motion of each position of `window`."""
    offset = window.offset
    n, s = offset.shape
    if s == 0:
        nothing = np.zeros(n, dtype=np.bool_)
        return Motion(nothing, nothing, np.full(n, ABSENT, dtype=np.int64), nothing)
    known = offset != ABSENT
    changed = np.zeros((n, s), dtype=np.bool_)
    changed[:, 1:] = (offset[:, 1:] != offset[:, :-1]) & (known[:, :-1] | known[:, 1:])
    place = np.where(changed, np.arange(s), 0).max(axis=1)
    since = np.arange(s) > place[:, None]
    offset_max = offset.max(axis=1)
    return Motion(
        idle_commits=(window.active & since).any(axis=1),
        went_back=(offset[:, -1] < offset_max) & known[:, -1],
        offset_max=offset_max,
        moved=np.asarray(changed.any(axis=1), dtype=np.bool_),
    )
