"""Properties that no history may break."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.monitor.flow_states import AS_COMMITTED, NOWHERE
from streams.monitor.moves import MOVES_KEPT, Moves
from streams.monitor.policy import Policy
from streams.monitor.reasons import Reason
from streams.monitor.status import Status
from streams.monitor.verdict import Verdicts, evaluate
from streams.monitor.window import ABSENT, Owned, Window
from tests.examples import examples

POLICY = Policy()
QUICK = settings(deadline=None, max_examples=examples(60))


def moves_of(seed: int, n: int, now_ms: int) -> Moves:
    """Moves that n positions may have made before `now_ms`: drawn as one number, since they are many."""
    chance = np.random.default_rng(seed)
    table = (n, MOVES_KEPT)
    times = np.sort(now_ms - chance.integers(0, 10 ** chance.integers(3, 7, n)[:, None], table), axis=1)
    count = chance.integers(0, 12, n)
    return Moves(
        time_ms=times, offset=np.sort(chance.integers(0, 40, table), axis=1), lag=chance.integers(0, 2_000, table),
        wait_s=10.0 ** chance.uniform(0, 3.3, table), count=count, by_hand=chance.integers(0, 4, n),
        since_ms=np.where(count > 0, times[:, -1], now_ms - chance.integers(0, 5_000_000, n)),
    )  # fmt: skip


def unmoved(n: int) -> Moves:
    """Positions that have moved a moment ago, for the first time."""
    table = (n, MOVES_KEPT)
    zeros = np.zeros(table, dtype=np.int64)
    none = np.zeros(n, dtype=np.int64)
    return Moves(zeros, zeros, zeros, np.zeros(table), none, np.full(n, 1 << 40, dtype=np.int64), none)


@st.composite
def windows(draw: Any, rows_max: int = 5) -> Window:
    n, s = draw(st.integers(1, rows_max)), draw(st.integers(1, 12))
    steps = draw(st.lists(st.integers(200, 30_000), min_size=s, max_size=s))
    offsets = st.one_of(st.just(ABSENT), st.integers(0, 40))

    def table(of: st.SearchStrategy[int]) -> NDArray[Any]:
        return np.array(draw(st.lists(st.lists(of, min_size=s, max_size=s), min_size=n, max_size=n)), dtype=np.int64)

    def column(of: st.SearchStrategy[Any]) -> NDArray[Any]:
        return np.array(draw(st.lists(of, min_size=n, max_size=n)))

    lag = table(st.integers(0, 2_000))
    time_ms = np.cumsum(steps).astype(np.int64)
    owned = column(st.sampled_from([int(one) for one in Owned])).astype(np.int8)
    return Window(
        time_ms=time_ms,
        moves=moves_of(draw(st.integers(0, 10_000)), n, int(time_ms[-1])),
        unowned_s=np.where(owned == Owned.NOBODY, column(st.sampled_from([np.nan, 1.0, 20.0, 5_000.0])), np.nan),
        peers_s=column(st.sampled_from([np.nan, 5.0, 300.0])),
        flaps=column(st.sampled_from([0, 0, POLICY.flaps_max])).astype(np.int64),
        offset=table(offsets),
        lag=lag,
        active=table(st.integers(0, 1)).astype(np.bool_),
        lag_s=np.where(lag[:, -1] > 0, column(st.floats(0, 5_000)), 0.0),
        owned=owned,
        deleted=column(st.sampled_from([0, 0, 0, 5])).astype(np.int64),
        beyond=column(st.sampled_from([0, 0, 0, 5])).astype(np.int64),
        unreadable=column(st.sampled_from([0, 0, 0, 5])).astype(np.int64),
        open_s=column(st.sampled_from([0.0, POLICY.open_s - 0.001, POLICY.open_s, 5_000.0])),
        left=column(st.sampled_from([False, False, False, True])).astype(np.bool_),
        unplaced=column(st.sampled_from([False, False, False, True])).astype(np.bool_),
        kept=column(st.sampled_from([False, False, False, True])).astype(np.bool_),
        state_at=column(st.sampled_from([AS_COMMITTED] * 6 + [NOWHERE, 5])).astype(np.int64),
    )


def rows_of(window: Window, rows: list[int]) -> Window:
    names = (
        "offset", "lag", "active", "lag_s", "owned", "deleted", "beyond", "unreadable", "open_s", "left", "unplaced",
        "kept", "state_at",
        "unowned_s", "flaps", "peers_s",
    )  # fmt: skip
    changed = {name: getattr(window, name)[rows] for name in names}
    return replace(window, **changed, moves=window.moves.rows(rows))


def same(one: Verdicts, other: Verdicts) -> bool:
    names = ("status", "reason", "unmoved_s", "rhythm_s", "back_by", "consume_rate", "arrive_rate", "catch_up_s")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in names)


@QUICK
@given(windows())
def test_partitions_do_not_influence_one_another(window: Window) -> None:
    together = evaluate(window, POLICY)

    for row in range(len(window.lag_s)):
        alone = evaluate(rows_of(window, [row]), POLICY)
        assert together.status[row] == alone.status[0]
        assert together.reason[row] == alone.reason[0]


@QUICK
@given(windows(), st.integers(0, 10**12), st.integers(0, 10**12))
def test_neither_the_time_of_day_nor_the_length_of_the_log_matters(window: Window, later: int, further: int) -> None:
    moved = replace(
        window,
        time_ms=window.time_ms + later,
        moves=replace(
            window.moves,
            time_ms=window.moves.time_ms + later,
            since_ms=window.moves.since_ms + later,
            offset=window.moves.offset + further,
        ),
        offset=np.where(window.offset == ABSENT, ABSENT, window.offset + further),
    )

    assert np.array_equal(evaluate(window, POLICY).reason, evaluate(moved, POLICY).reason)


@QUICK
@given(windows())
def test_without_lag_nothing_is_wrong_unless_records_are_lost_or_cannot_be_read(window: Window) -> None:
    found = evaluate(window, POLICY)

    held_up = (window.unreadable > 0) & (window.open_s >= POLICY.open_s)
    accepted = window.state_at == AS_COMMITTED
    fine = (window.lag[:, -1] == 0) & (window.deleted == 0) & (window.beyond == 0) & ~held_up & accepted
    assert set(found.status[fine].tolist()) <= {Status.OK}
    assert not found.catch_up_s[window.lag[:, -1] == 0].any()


@QUICK
@given(windows())
def test_what_is_on_time_neither_warns_nor_stops(window: Window) -> None:
    quick = np.minimum(window.open_s, POLICY.open_s - 0.001)
    soon = np.minimum(window.lag_s, POLICY.tiny_s - 0.001)
    accepted = np.full_like(window.state_at, AS_COMMITTED)
    placed = np.zeros_like(window.unplaced)
    found = evaluate(replace(window, lag_s=soon, open_s=quick, unplaced=placed, state_at=accepted), POLICY)

    assert not set(found.status.tolist()) & {Status.WARN, Status.STOP, Status.STALL}


@QUICK
@given(windows())
def test_every_verdict_has_a_reason_that_fits_it(window: Window) -> None:
    found = evaluate(window, POLICY)

    for row, reason in enumerate(found.reason.tolist()):
        assert (reason == Reason.DELETED_UNREAD) <= bool(window.deleted[row])
        assert (reason == Reason.OPEN_TRANSACTION) <= bool(window.unreadable[row] and not window.lag[row, -1])
        assert (reason == Reason.WENT_BACK) == (found.status[row] == Status.REWIND)
        assert (reason == Reason.WENT_BACK) <= (found.back_by[row] > 0)
        assert (reason == Reason.LEFT_TOPIC) <= bool(window.left[row])
        assert (reason == Reason.KEPT_VERSION) <= bool(window.kept[row] and window.owned[row] != Owned.SOMEBODY)
        assert (reason == Reason.NOT_IN_LAYOUT) <= bool(window.unplaced[row] and window.lag[row, -1])
        assert (reason == Reason.OFFSET_NOT_OF_STATE) <= (window.state_at[row] != AS_COMMITTED)
        assert (reason == Reason.NOBODY_READS) <= (window.owned[row] == Owned.NOBODY)
        assert (reason == Reason.NO_PROGRESS) <= (window.owned[row] == Owned.SOMEBODY)
        assert (reason == Reason.CATCHING_UP) <= bool(np.isfinite(found.catch_up_s[row]))
        assert (reason == Reason.FLAPPING) <= bool(window.flaps[row] >= POLICY.flaps_max)
        is_known = window.moves.count[row] >= 2 or np.isfinite(window.peers_s[row])
        assert (reason == Reason.BETWEEN_COMMITS) <= bool(is_known)


@QUICK
@given(windows())
def test_a_group_without_members_never_catches_up(window: Window) -> None:
    nobody = np.full(len(window.lag_s), Owned.NOBODY, dtype=np.int8)
    by_nobody = replace(window.moves, by_hand=np.zeros(len(window.lag_s), dtype=np.int64))
    found = evaluate(replace(window, owned=nobody, moves=by_nobody), POLICY)

    assert Reason.CATCHING_UP not in found.reason.tolist()
    assert not np.isfinite(found.catch_up_s[(found.status > Status.OK) & (window.lag[:, -1] > 0)]).any()


@QUICK
@given(windows())
def test_whoever_catches_up_reads_more_than_arrives(window: Window) -> None:
    found = evaluate(window, POLICY)

    for row in np.flatnonzero(found.reason == Reason.CATCHING_UP).tolist():
        rates = found.consume_rate[row], found.arrive_rate[row]
        assert np.isnan(rates).all() or rates[1] < rates[0]


@QUICK
@given(windows(), st.floats(60.0, 86_400.0))
def test_no_lag_of_a_group_that_runs_in_batches_stops_or_stalls_it(window: Window, batch_s: float) -> None:
    accepted = np.full_like(window.state_at, AS_COMMITTED)
    placed = replace(window, unplaced=np.zeros_like(window.unplaced), state_at=accepted)
    found = evaluate(placed, replace(POLICY, batch_s=batch_s))

    assert not set(found.status.tolist()) & {Status.STOP, Status.STALL}
    assert found.status[found.reason == Reason.OVERDUE].tolist() == [Status.WARN] * int(
        (found.reason == Reason.OVERDUE).sum()
    )
    assert (window.lag_s[found.reason == Reason.OVERDUE] >= batch_s).all()


@QUICK
@given(st.integers(9, 30), st.integers(20, 500), st.data())
def test_one_dip_does_not_hide_a_growing_lag(samples: int, per_sample: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, samples - 2))
    lag = 5_000 + per_sample * np.arange(samples)
    dipped = lag.copy()
    dipped[place] = data.draw(st.integers(1, int(lag[place])))

    for history in (lag, dipped):
        window = Window(
            time_ms=np.arange(samples, dtype=np.int64) * 5_000,
            offset=np.arange(samples, dtype=np.int64)[None, :],
            lag=history[None, :].astype(np.int64),
            active=np.zeros((1, samples), dtype=np.bool_),
            lag_s=np.array([60.0]),
            owned=np.array([Owned.SOMEBODY], dtype=np.int8),
            deleted=np.zeros(1, dtype=np.int64),
            beyond=np.zeros(1, dtype=np.int64),
            unreadable=np.zeros(1, dtype=np.int64),
            open_s=np.zeros(1),
            left=np.zeros(1, dtype=np.bool_),
            unplaced=np.zeros(1, dtype=np.bool_),
            kept=np.zeros(1, dtype=np.bool_),
            state_at=np.full(1, AS_COMMITTED, dtype=np.int64),
            moves=unmoved(1),
            unowned_s=np.full(1, np.nan),
            peers_s=np.full(1, np.nan),
            flaps=np.zeros(1, dtype=np.int64),
        )
        # A growth of less than 5% over the window counts as none, which is a warning as well.
        assert Status.WARN == evaluate(window, POLICY).status[0]


@QUICK
@given(windows(rows_max=1))
def test_lag_in_seconds_makes_it_worse_and_never_better(window: Window) -> None:
    old = evaluate(window, POLICY)
    older = evaluate(replace(window, lag_s=window.lag_s * 10), POLICY)

    assert not (old.status[0] in {Status.STOP, Status.STALL} and older.status[0] == Status.OK)
    assert same(old, evaluate(window, POLICY))
