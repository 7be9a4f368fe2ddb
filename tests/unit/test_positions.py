"""Metadata of committed offsets: who wrote them, read back by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.positions import metadata_of, position_of
from streams.sinks.base import Committed

NAMES = st.none() | st.text()


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60), NAMES, NAMES)
def test_a_position_is_read_as_it_was_written(offset: int, cycle: int, author: str | None, session: str | None) -> None:
    position = Committed(offset, cycle, author, session)
    assert position == position_of(offset, metadata_of(position))


def test_the_format_is_readable() -> None:
    assert "streams-cycle:42;author=streams-gps-4f1c;session=9a0b" == metadata_of(
        Committed(7, 42, "streams-gps-4f1c", "9a0b")
    )


def test_a_position_of_an_earlier_version_has_a_cycle_and_no_author() -> None:
    assert Committed(7, 42, None, None) == position_of(7, "streams-cycle:42")


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert Committed(7, 42, "a", "s") == position_of(7, "streams-cycle:42;topic=x%3By;author=a;flag;session=s")


@pytest.mark.parametrize("metadata", [None, "", "by hand", "streams-cycle:", "streams-cycle:-1;author=a", "cycle:4"])
def test_what_something_else_has_committed_has_no_cycle(metadata: str | None) -> None:
    assert Committed(7, None, None, None) == position_of(7, metadata)
