"""How a reason speaks of the value that does not convert: quoted, or by what it is without saying it. Pure."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from streams.text import counted

_CHARACTERS_MAX: Final = 60


def quoted(value: Any) -> str:
    """The value itself, or its beginning."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{text[:_CHARACTERS_MAX]!r}{'...' if len(text) > _CHARACTERS_MAX else ''}"


def outlined(value: Any) -> str:
    """Kind and length of the value, for a record with personal data: `a text of 13 characters`.

    Where columns are shifted, the value of any field may be that of a personal one.
    """
    for kinds, words in _OUTLINES:
        if isinstance(value, kinds):
            return words(value)
    return f"a value of the type {type(value).__name__}"


_OUTLINES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...]] = (
    (str, lambda text: f"a text of {counted(len(text), 'character')}" if text else "an empty text"),
    (bool, lambda _: "true or false"),
    (int, lambda number: f"a whole number of {counted(len(str(abs(number))), 'digit')}"),
    ((float, Decimal), lambda _: "a decimal number"),
    (bytes, lambda data: counted(len(data), "byte")),
    (dict, lambda _: "an object"),
    ((list, tuple), lambda _: "a list"),
    (date, lambda _: "a date or a time"),
    (UUID, lambda _: "a UUID"),
)
"""The first kind that a value is of counts: a truth value is a whole number too."""
