"""Reads the headers of messages; use only this: a name that is not UTF-8 ends the process otherwise.

A header's name is bytes for the broker and text for the client. When a name is not UTF-8, `Message.headers()` raises,
and what it returns when it is called again holds a pair without a name: reading that name ends the process. So call
`headers_of` or `read_headers` instead. They leave such headers out, and make the message safe for the next caller.
"""

import gc
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Message

from streams.batch.columns import Headers

_NOT_TEXT: Final = (SystemError, UnicodeDecodeError)
"""The client's error for a name that is not UTF-8: usually the first one, caused by the second."""
_PAIR: Final = 2


def read_headers(messages: Sequence[Message]) -> tuple[list[Headers | None], Mapping[int, int] | None]:
    """Headers of each message, None where there are none; and by row the number of headers that could not be read.

    The second result is usually None: every header of every message was read.
    """
    try:
        # `map` over an unbound method: a third less than a comprehension, and this runs for every record.
        found: list[Any] = list(map(Message.headers, messages))
    except _NOT_TEXT:
        return _read_one_by_one(messages)
    return found, None


def headers_of(message: Message) -> Headers:
    """The readable headers of one message; empty when there are none."""
    return _readable(message)[0] or []


def _read_one_by_one(messages: Sequence[Message]) -> tuple[list[Headers | None], dict[int, int]]:
    found: list[Headers | None] = []
    lost: dict[int, int] = {}
    for row, message in enumerate(messages):
        headers, missing = _readable(message)
        found.append(headers)
        if missing:
            lost[row] = missing
    return found, lost


def _readable(message: Message) -> tuple[Headers | None, int]:
    """The headers of a message whose names are text, and the number of the others."""
    pairs = _pairs(message)
    if not pairs:
        return None, 0
    # Check the references to a pair's parts, not the pair: a missing part must not be touched.
    readable: list[Any] = [pair for pair in pairs if len(gc.get_referents(pair)) == _PAIR]
    if len(readable) < len(pairs):
        message.set_headers(readable)
    return readable, len(pairs) - len(readable)


def _pairs(message: Message) -> list[Any] | None:
    """The headers of a message as the client returns them: after an error all of them, some without a name."""
    each: Any = type(message).headers
    try:
        # By `map`, which looks for an error after each call: the interpreter's own call may not, and then raises later.
        found: list[Any] | None = next(map(each, (message,)))
    except _NOT_TEXT:
        found = next(map(each, (message,)))
    return found
