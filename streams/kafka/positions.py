"""Reads and writes the metadata of committed offsets; no other module knows the format.

    streams-cycle:42;author=streams-gps-4f1c;session=9a0b;epoch=2

The number of the commit cycle, then named fields in any order. Readers ignore the names that they do not know, so a
field may be added at any time: as an attribute of `sinks.base.Committed`, and by name in `_FIELDS`. Earlier versions
wrote the cycle alone; then every field is None. What is not in this format was committed by something else.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from streams.sinks.base import Committed

_CYCLE: Final = "streams-cycle:"
_TEXTS: Final = ("author", "session", "topic_id", "address", "code")
_NUMBERS: Final = ("epoch", "ready", "cleared", "settled")
_FIELDS: Final = (*_TEXTS, *_NUMBERS)
"""Attributes of `Committed` that are written if they are not None."""
_SAFE: Final = "/:+ "
"""Characters of a value that are written as they are, besides letters and digits; not the semicolon."""


def metadata_of(position: Committed) -> str:
    """Metadata to commit with `position`, which must have a cycle."""
    named = {name: str(value) for name in _FIELDS if (value := getattr(position, name)) is not None}
    return _pack(position.cycle, named)


def position_of(offset_next: int, metadata: str | None) -> Committed:
    """The position that was committed with this metadata."""
    cycle, fields = _unpack(metadata or "")
    found: dict[str, Any] = {name: fields.get(name) for name in _TEXTS}
    found |= {name: _number(fields.get(name)) for name in _NUMBERS}
    return Committed(offset_next, cycle, **found)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _pack(cycle: int | None, fields: Mapping[str, str]) -> str:
    return ";".join([f"{_CYCLE}{cycle}", *(f"{name}={quote(value, safe=_SAFE)}" for name, value in fields.items())])


def _unpack(metadata: str) -> tuple[int | None, dict[str, str]]:
    head, *rest = metadata.split(";")
    number = head.removeprefix(_CYCLE)
    if not head.startswith(_CYCLE) or not (number.isascii() and number.isdigit()):
        return None, {}
    pairs = [part.partition("=") for part in rest]
    return int(number), {name: unquote(value) for name, equals, value in pairs if equals}
