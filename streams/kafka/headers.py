"""Reads the headers of messages. Nothing else may: a name that is not UTF-8 ends the process otherwise.

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
"""What the client raises for a name that is not UTF-8: as a rule the first one, caused by the second."""
_PAIR: Final = 2


def read_headers(messages: Sequence[Message]) -> tuple[list[Headers | None], Mapping[int, int] | None]:
    """Headers of each message, None where there are none; and of the rows that lack some of theirs, how many.

    The second result is None as a rule: then every header of every message has been read.
    """
    try:
        # `map` over an unbound method: a third less than a comprehension, and this runs for every record.
        found: list[Any] = list(map(Message.headers, messages))
    except _NOT_TEXT:
        return _read_one_by_one(messages)
    return found, None


def headers_of(message: Message) -> Headers:
    """Headers of one message that can be read; none when there are none."""
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
    # What refers to a pair's parts is asked, not the pair: a part that is missing must not be touched.
    readable: list[Any] = [pair for pair in pairs if len(gc.get_referents(pair)) == _PAIR]
    if len(readable) < len(pairs):
        message.set_headers(readable)
    return readable, len(pairs) - len(readable)


def _pairs(message: Message) -> list[Any] | None:
    """What the client makes of a message's headers: after an error it has them all, some of them without a name."""
    each: Any = type(message).headers
    try:
        # By `map`, which looks for an error after each call: the interpreter's own call may not, and then raises later.
        found: list[Any] | None = next(map(each, (message,)))
    except _NOT_TEXT:
        found = next(map(each, (message,)))
    return found
