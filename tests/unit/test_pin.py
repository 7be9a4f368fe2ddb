from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.deadletters.letter.pin import TEXT_CHARACTERS_MAX, Pin, pin_of

TOPICS = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
ENDS = st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=5).map(tuple)


@given(st.dictionaries(TOPICS, ENDS, max_size=4))
def test_a_pin_survives_as_text_that_no_shell_and_no_form_changes(ends: dict[str, Any]) -> None:
    text = str(Pin(ends))
    assert Pin(ends) == pin_of(text)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@,/")


@pytest.mark.parametrize("text", ["x", "t@", "t@1,", "t@-1", "t@1/t@2", "t@1 ", "/", "t@1/", "ü@1", f"t@{'9' * 30}"])
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no pin"):
        pin_of(text)


def test_a_pin_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        pin_of("t@1/" * TEXT_CHARACTERS_MAX)
