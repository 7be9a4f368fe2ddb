"""How many examples a property is tried with: `make test-long` tries all, `make test` half of them, `make test-fast` a
tenth (`--hypothesis-profile`). They are others in each run."""

from typing import Final

from hypothesis import settings

DEFAULT: Final = 100
"""Examples of a property that names no number, by the profile that runs where none is asked for."""
HALF: Final = 50
FAST: Final = 10


def examples(number: int) -> int:
    """The number, as far as the profile goes."""
    assert settings.default is not None, "a profile is loaded by `conftest.py`"
    return max(1, number * settings.default.max_examples // DEFAULT)
