"""Batches built ahead of their use."""

import itertools
import threading

import pytest

from streams.resilience.prefetch import built_ahead


def test_items_built_ahead_come_in_order_and_an_error_comes_in_its_place() -> None:
    def items():
        yield from range(10)
        raise ValueError("eleven")

    ahead = built_ahead(items())
    assert [next(ahead) for _ in range(10)] == list(range(10))
    with pytest.raises(ValueError, match="eleven"):
        next(ahead)


def test_closing_what_is_built_ahead_ends_its_thread() -> None:
    before = threading.active_count()
    ahead = built_ahead(itertools.count())
    assert next(ahead) == 0
    ahead.close()
    assert threading.active_count() == before


def test_a_generator_is_closed_in_the_thread_that_ran_it() -> None:
    threads = []

    def items():
        try:
            yield from itertools.count()
        finally:
            threads.append(threading.current_thread().name)

    ahead = built_ahead(items())
    assert next(ahead) == 0
    ahead.close()
    assert threads == ["builder"]
