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
- Records that were deleted unread, and positions past the end of the log, are errors. Burrow sees no lag in them.
- Records that nobody can read, since a transaction is open before them, are no lag, and no "all is read" either. Only
  a transaction that outlives the timeout that producers have by default is a trouble.
- A topic that a living group has left for others is no outage, whatever becomes of the records after its old offsets.
- Nor is a version of a flow that is kept for going back, and that nobody is to run.
- Nothing committed is no fault where there is nothing to read.
- A partition that was added to the source of a flow, and that its workers refuse, is never read: no time has to pass.
- Nor is one whose offset was set by something else, and is not that of the flow's state; there need not be any lag.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import Bools, Float64, Int8, Int64
from streams.monitor.flow_states import AS_COMMITTED
from streams.monitor.growth import growth_of
from streams.monitor.pace import deserted_rows, motion_of, pace_of
from streams.monitor.policy import Policy
from streams.monitor.reasons import NOT_COUNTED, STATUS_OF, Reason
from streams.monitor.window import ABSENT, Owned, Window

NEVER: Final = np.inf
"""Seconds to catch up for a group that is not catching up."""
_STATUS_CODES: Final = np.array([STATUS_OF[reason] for reason in Reason], dtype=np.int8)
_NOTHING_TO_CATCH_UP: Final = (Reason.ON_TIME, Reason.BETWEEN_COMMITS, Reason.BETWEEN_RUNS, *NOT_COUNTED)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts on n partitions. Rates are records a second over the window; NaN: it was too short to tell."""

    status: Int8
    reason: Int8
    unmoved_s: Float64
    """How long the position has not moved, as far as it was watched."""
    rhythm_s: Float64
    """How often it moves while there is something to read, as learned or declared; NaN: not known yet."""
    back_by: Int64
    """REWIND: how many records it is short of its earlier position."""
    consume_rate: Float64
    arrive_rate: Float64
    catch_up_s: Float64
    """Seconds until the lag is gone at the pace of the window; NEVER if it is not falling, 0 for what is on time."""


def evaluate(window: Window, policy: Policy) -> Verdicts:
    """Verdict on each row of `window`; rows do not influence one another."""
    n = len(window.lag_s)
    motion = motion_of(window)
    pace = pace_of(window, policy)
    growth = growth_of(window, policy, pace)
    lag = window.lag[:, -1] if window.lag.shape[1] else np.zeros(n, dtype=np.int64)
    last = window.offset[:, -1] if window.offset.shape[1] else np.full(n, ABSENT, dtype=np.int64)
    # A consumer that assigns partitions by hand is no member; as long as its position moves it has not left.
    left = window.left & (last != ABSENT) & ~motion.moved
    is_kept = window.kept & (window.owned != Owned.SOMEBODY)  # whoever runs it all the same is judged
    trouble = (lag > 0) | (window.beyond > 0) | (window.deleted > 0) | (window.unreadable > 0)
    back_by = np.where(motion.went_back & (lag > 0), motion.offset_max - last, 0)
    deserted = deserted_rows(window, policy, pace)
    is_batch = np.full(n, policy.batch_s is not None)
    expected_s = policy.batch_s or 0.0
    stopped = deserted | pace.still
    verdict_of: tuple[tuple[Bools, Reason], ...] = (
        (left & trouble, Reason.LEFT_TOPIC),
        (is_kept & (trouble | (window.state_at != AS_COMMITTED)), Reason.KEPT_VERSION),
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
