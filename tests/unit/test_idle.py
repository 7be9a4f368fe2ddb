"""Idle time of partitions, by what the broker answers."""

import pytest

from streams.limits import IDLE_GAP_MS_MAX
from streams.sources.base import Idle, Unreadable
from streams.sources.idle import IdleClock

T = 1_000_000


@pytest.fixture
def clock() -> IdleClock:
    one = IdleClock(10_000)
    one.reached(0, 100, T)
    return one


def idle(clock: IdleClock) -> dict[int, Idle]:
    return clock.idle({0, 1})


def test_the_clients_end_alone_is_not_idle_time(clock: IdleClock) -> None:
    assert {} == idle(clock)


def test_a_high_watermark_at_the_clients_end_confirms_the_time_since_then(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    assert {0: Idle(T, T + 1_000)} == idle(clock)
    clock.told({0: 100}, T + 2_000)
    assert {0: Idle(T, T + 2_000)} == idle(clock)


def test_without_further_answers_idle_time_does_not_grow(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    clock.told({}, T + 2_000)
    assert {0: Idle(T, T + 1_000)} == idle(clock)


def test_an_open_transaction_is_not_idle_time_and_idle_time_begins_when_it_is_over(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    clock.told({0: 105}, T + 2_000)
    assert {} == idle(clock)
    clock.reached(0, 106, T + 60_000)
    clock.told({0: 106}, T + 61_000)
    assert {0: Idle(T + 60_000, T + 61_000)} == idle(clock)


def test_after_answers_have_been_missing_for_long_idle_time_starts_over(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    late = T + 1_000 + IDLE_GAP_MS_MAX + 1
    clock.told({0: 100}, late)
    assert {0: Idle(late, late)} == idle(clock)


def test_a_first_answer_that_comes_late_confirms_nothing_before_it(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 60_000)
    assert {0: Idle(T + 60_000, T + 60_000)} == idle(clock)


def test_an_answer_to_a_question_of_before_the_end_was_reached_does_not_count(clock: IdleClock) -> None:
    clock.told({0: 100}, T - 1)
    assert {} == idle(clock)


def test_records_end_idle_time(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    clock.moved(0)
    assert {} == idle(clock)


def test_the_same_end_told_again_does_not_start_idle_time_over(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    clock.reached(0, 100, T + 1_500)
    assert {0: Idle(T, T + 1_000)} == idle(clock)


def test_a_paused_partition_is_not_idle_and_begins_again_when_it_is_resumed(clock: IdleClock) -> None:
    clock.told({0: 100}, T + 1_000)
    clock.pause(frozenset({0}), T + 1_100)
    assert [] == clock.due(T + 5_000)
    clock.told({0: 100}, T + 2_000)
    assert {} == idle(clock)
    clock.pause(frozenset(), T + 30_000)
    assert {} == idle(clock)
    clock.told({0: 100}, T + 31_000)
    assert {0: Idle(T + 30_000, T + 31_000)} == idle(clock)


def test_a_log_that_is_shorter_than_what_was_read_is_not_idle(clock: IdleClock) -> None:
    clock.told({0: 90}, T + 1_000)
    assert {} == idle(clock)
    assert {} == clock.unreadable({0}, T + 60_000, after_ms=0)


def test_questions_are_asked_at_intervals_and_only_for_partitions_that_stand_at_their_end(clock: IdleClock) -> None:
    assert [] == clock.due(T + 10)
    assert [0] == clock.due(T + 1_000)
    clock.reached(1, 5, T + 1_000)
    assert [] == clock.due(T + 1_500)
    assert [0, 1] == clock.due(T + 2_000)
    clock.moved(0)
    assert [1] == clock.due(T + 3_000)


def test_records_after_an_open_transaction_are_told_once_it_has_lasted(clock: IdleClock) -> None:
    clock.told({0: 103}, T + 1_000)
    clock.told({0: 105}, T + 5_000)
    assert {} == clock.unreadable({0, 1}, T + 5_000, after_ms=10_000)
    assert {0: Unreadable(5, 100, T + 1_000)} == clock.unreadable({0, 1}, T + 11_000, after_ms=10_000)


def test_records_on_their_way_to_the_client_are_no_open_transaction(clock: IdleClock) -> None:
    clock.told({0: 103}, T + 1_000)
    clock.moved(0)
    clock.reached(0, 103, T + 1_100)
    clock.told({0: 103}, T + 20_000)
    assert {} == clock.unreadable({0}, T + 20_000, after_ms=10_000)
