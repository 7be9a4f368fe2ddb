"""Whether lag grows or falls, and how fast: by medians over the window, or over moves where they are rare. Pure."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.batch.columns import Bools, Float64
from streams.monitor.moves import MOVES_KEPT
from streams.monitor.pace import Pace
from streams.monitor.policy import Policy
from streams.monitor.window import ABSENT, Owned, Window


@dataclass(frozen=True, slots=True)
class Growth:
    """How the lag of n partitions changes; rates are records a second, NaN where the window is too short to tell."""

    judged: Bools
    growing: Bools
    falling: Bools
    fall_rate: Float64
    consume_rate: Float64
    arrive_rate: Float64


def growth_of(window: Window, policy: Policy, pace: Pace) -> Growth:
    """Growth by the samples of the window; of a consumer that commits seldom, by the lag after each move."""
    sampled = _sampled_growth(window, policy)
    moves = window.moves
    # A sawtooth is no growth: it takes four commits to see two of them lower than two before.
    by_moves = pace.seldom & (moves.count >= MOVES_KEPT // 2)
    # A consumer that is gone does not catch up, whatever its lag did before.
    alive = (window.owned != Owned.NOBODY) | pace.by_hand
    if not by_moves.any():
        return replace(sampled, falling=sampled.falling & alive)
    moved = _moved_growth(window, policy)
    return Growth(
        judged=sampled.judged | by_moves,
        growing=np.where(by_moves, moved.growing, sampled.growing),
        falling=np.where(by_moves, moved.falling, sampled.falling) & alive,
        fall_rate=np.where(by_moves, moved.fall_rate, sampled.fall_rate),
        consume_rate=np.where(by_moves, moved.consume_rate, sampled.consume_rate),
        arrive_rate=np.where(by_moves, moved.arrive_rate, sampled.arrive_rate),
    )


def _moved_growth(window: Window, policy: Policy) -> Growth:
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
    return Growth(
        judged=np.ones(n, dtype=np.bool_),
        growing=lag_late > lag_early * (1.0 + policy.falling_share),
        falling=falling,
        fall_rate=np.where(falling, consumed - arrived, 0.0),
        consume_rate=consumed,
        arrive_rate=arrived,
    )


def _sampled_growth(window: Window, policy: Policy) -> Growth:
    """Lag of the first third of the samples against the last third, by medians; rates from end to end."""
    n, s = window.lag.shape
    if s < 2:
        nothing, unknown = np.zeros(n, dtype=np.bool_), np.full(n, np.nan)
        return Growth(nothing, nothing, nothing, np.zeros(n), unknown, unknown)
    known = window.offset != ABSENT
    # Samples from before the first commit do not count. Without any commit all do: the lag is that of the whole log.
    known |= ~known.any(axis=1, keepdims=True)
    # Nor do samples from before the lag was last 0: a burst is judged by what happened since it arrived.
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
    # A lag that fell at first and has risen since is not falling, nor is one with less read than arrives.
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
    return Growth(
        judged=span_s >= policy.growth_s,
        growing=lag_late > lag_early * (1.0 + policy.falling_share),
        falling=falling,
        fall_rate=np.where(falling, (lag_early - lag_late) / between_s, 0.0),
        consume_rate=consumed,
        arrive_rate=arrived,
    )


def _median(values: npt.NDArray[Any], chosen: Bools) -> Float64:
    """Median of the chosen values of each row, at least one."""
    ordered = np.sort(np.where(chosen, values.astype(np.float64), np.inf), axis=1)
    count = chosen.sum(axis=1)
    rows = np.arange(len(ordered))
    middle: Float64 = (ordered[rows, (count - 1) // 2] + ordered[rows, count // 2]) / 2.0
    return middle
