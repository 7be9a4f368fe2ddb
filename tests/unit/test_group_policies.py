"""Which groups are watched, what is declared of them, and how often their positions move."""

import numpy as np
import pytest

from streams.errors import UsageError
from streams.monitor.moves import HAND_MOVES, MOVES_KNOWN, MoveTracker
from streams.monitor.policies import BATCH_S, GroupPolicies
from streams.settings import load_settings


def policies(monkeypatch: pytest.MonkeyPatch, **given: str) -> GroupPolicies:
    for name, value in given.items():
        monkeypatch.setenv(f"STREAMS_MONITOR_{name.upper()}", value)
    return GroupPolicies.of(load_settings())


def test_groups_of_the_console_consumer_are_not_watched_unless_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not policies(monkeypatch).watches("console-consumer-71")
    assert policies(monkeypatch).watches("streams.gps")
    assert policies(monkeypatch).everything().watches("console-consumer-71")
    assert policies(monkeypatch, groups_deny="-").watches("console-consumer-71")


def test_deny_wins_over_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    found = policies(monkeypatch, groups_allow="team-*, streams.gps", groups_deny="*-test")

    assert [True, True, False, False] == [
        found.watches(name) for name in ("team-a", "streams.gps", "team-test", "other")
    ]


def test_the_first_policy_that_matches_is_that_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    found = policies(
        monkeypatch, group_policies="nightly-*=batch, hourly-*=batch:90m, a=b=commits:15m, *-flink=commits:10m"
    )

    assert (BATCH_S, 5_400.0, None) == tuple(
        found.policy(name).batch_s for name in ("nightly-x-flink", "hourly-y", "streams.gps")
    )
    assert (900.0, 600.0, None) == tuple(found.policy(name).commits_s for name in ("a=b", "c-flink", "c-FLINK"))


@pytest.mark.parametrize(
    "text", ["nightly", "nightly=", "=batch", "nightly=weekly", "x=commits", "x=commits:15", "x=batch:0s", "x=batch:1y"]
)
def test_a_policy_that_cannot_be_understood_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(UsageError, match="STREAMS_MONITOR_GROUP_POLICIES"):
        policies(monkeypatch, group_policies=text)


# --- moves ------------------------------------------------------------------------------------------------------------


def column(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def flag(value: bool) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([value])


def book_of(offsets: list[int], lags: list[int], *, unowned: bool = False, step_s: int = 10) -> MoveTracker:
    """A position, looked at every `step_s`."""
    book, before = MoveTracker(), None
    book.move_to(column(-1), 0)
    for place, (offset, lag) in enumerate(zip(offsets, lags, strict=True)):
        moved = before is not None and offset != before
        book.add(1_000 * step_s * place, flag(moved), column(offset), column(lag), flag(unowned))
        before = offset
    return book


def test_a_rhythm_is_known_after_three_moves_and_one_outage_is_none() -> None:
    offsets = [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 5]
    found = book_of(offsets, [1] * len(offsets)).moves

    assert [5] == found.count.tolist()
    assert [20.0] == found.rhythm_s.tolist(), "not the 70 s of the outage"
    assert not book_of(offsets[:6], [1] * 6).moves.is_known[0]
    assert MOVES_KNOWN == book_of(offsets[:7], [1] * 7).moves.count[0]


def test_time_without_anything_to_read_is_no_wait() -> None:
    offsets = [0] * 50 + [1] * 50 + [2] * 50 + [3]
    lags = [*[0] * 49, 1] * 3 + [0]

    assert [10.0] == book_of(offsets, lags).moves.rhythm_s.tolist()


def test_a_position_that_moves_while_nobody_has_it_is_moved_by_hand_until_a_member_has_it() -> None:
    book = book_of([0, 1, 2, 3], [1] * 4, unowned=True)

    assert book.moves.by_hand[0] >= HAND_MOVES
    book.owned(flag(value=True))
    assert [0] == book.moves.by_hand.tolist()
    assert [0] == book_of([0, 1, 2, 3], [1] * 4).moves.by_hand.tolist()


def test_rows_that_stay_keep_their_moves_when_others_come_and_go() -> None:
    book = book_of([0, 1, 2, 3], [1] * 4)
    book.move_to(column(-1, 0), 99_000)

    assert ([0, 3], [99_000, 30_000]) == (book.moves.count.tolist(), book.moves.since_ms.tolist())
    assert np.array_equal(np.array([book.moves.rhythm_s[1]] * 2), book.peers_s)
