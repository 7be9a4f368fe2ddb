"""Heads of HTTP requests for rows by key, taken apart without the framework. Pure.

Only what is beyond doubt is taken: a GET of a plain path, with headers that say nothing of a body or of the connection.
Everything else is the framework's to judge.
"""

import re
from dataclasses import dataclass
from typing import Final

TABLES: Final = b"/tables/"
_START: Final = b"GET " + TABLES
_END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 8_192
"""A longer head is the framework's."""
_LINE: Final = re.compile(rb"GET (/tables/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]+) HTTP/1\.1\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*))?")
_FOR_FRAMEWORK: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"te", b"x-forwarded-for", b"x-forwarded-proto"}
)
"""Headers of a body, of the connection, and of a proxy, by which the framework knows another client's address."""
_STAYS_OPEN: Final = b"keep-alive"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request: its target and its header lines."""

    target: bytes
    """Path, and query where there is one."""
    fields: bytes
    """All header lines as they were sent."""


def may_be_one(data: bytes) -> bool:
    """Whether what has come so far may be the beginning of a request for a row."""
    return data.startswith(_START) or _START.startswith(data)


def head_in(data: bytes, start: int = 0) -> tuple[Head, int] | None:
    """The head at `start` and where the next one begins; None: it is not complete, or not for this way."""
    end = data.find(_END, start, start + HEAD_BYTES_MAX)
    line = None if end < 0 else _LINE.match(data, start, end + 2)
    return None if line is None else (Head(line[1], data[line.end() : end]), end + len(_END))


def is_complete(data: bytes, start: int = 0) -> bool:
    """Whether a head ends in the data, or will be too long."""
    return data.find(_END, start) >= 0 or len(data) - start >= HEAD_BYTES_MAX


def headers_of(fields: bytes) -> list[tuple[bytes, bytes]] | None:
    """Headers, names in lower case, as ASGI has them; None: this is for the framework to judge."""
    found = []
    for line in fields.split(b"\r\n") if fields else ():
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name, value = field[1].lower(), (field[2] or b"").rstrip(b" \t")
        if name in _FOR_FRAMEWORK or (name == b"connection" and value.lower() != _STAYS_OPEN):
            return None
        found.append((name, value))
    return found
