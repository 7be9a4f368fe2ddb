"""Decodes Avro field by field up to the place where the bytes are invalid, to show a bad value to a person.

Slow and exact, after the Avro 1.12 specification, "Binary Encoding": every leaf with the bytes that it takes. Made for
one value at a time; the number of leaves, the depth and the length of what is shown are bounded.
"""

import datetime as dt
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.text import counted

LEAVES_MAX: Final = 500
DEPTH_MAX: Final = 32
TEXT_CHARACTERS_MAX: Final = 200
_VARINT_BYTES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Leaf:
    """A decoded value: its path, its bytes, and itself in words."""

    path: str
    start: int
    end: int
    """After its last byte; of a nullable value the branch number is included."""
    shown: str
    is_personal: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Where reading stopped, and why. `end` is after the last byte concerned."""

    start: int
    end: int
    path: str
    message: str


@dataclass(slots=True)
class Walk:
    """The leaves that could be read, and where reading failed; no failure when the bytes are exactly one value."""

    leaves: list[Leaf] = field(default_factory=list)
    failure: Failure | None = None
    end: int = 0
    """After the last byte that was read."""


class _Stop(Exception):
    def __init__(self, start: int, end: int, path: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(start, end, path, message)


def walk(schema: Any, data: bytes, personal: frozenset[str] = frozenset(), start: int = 0) -> Walk:
    """Read one value of `schema` (as JSON) from `data` on from `start`.

    `personal`: names of fields with personal data; a field's property `"pii": true` says the same.
    """
    walker = _Walker(data, personal)
    walker.at = start
    try:
        walker.value(schema, "", start, depth=0, is_personal=False)
    except _Stop as stop:
        return Walk(walker.leaves, stop.failure, walker.at)
    if walker.at < len(data):
        rest = f"{counted(len(data) - walker.at, 'byte')} after the end of the value"
        return Walk(walker.leaves, Failure(walker.at, len(data), "", rest), walker.at)
    return Walk(walker.leaves, None, walker.at)


class _Walker:
    def __init__(self, data: bytes, personal: frozenset[str]) -> None:
        self.data = data
        self.at = 0
        self.leaves: list[Leaf] = []
        self._personal = personal
        self._named: dict[str, Any] = {}

    def value(self, schema: Any, path: str, start: int, *, depth: int, is_personal: bool) -> None:
        """Read a value; `start` is where its leaf begins, before the branch number of a union."""
        if depth > DEPTH_MAX or len(self.leaves) >= LEAVES_MAX:
            raise _Stop(self.at, self.at, path, "further fields are not shown")
        if isinstance(schema, list):
            branch = self._number(path)
            if not 0 <= branch < len(schema):
                raise _Stop(start, self.at, path, f"branch {branch} of a union of {len(schema)}")
            self.value(schema[branch], path, start, depth=depth + 1, is_personal=is_personal)
            return
        if isinstance(schema, str):  # a name; its namespace may be that of what encloses it, so the last part decides
            schema = self._named.get(schema.rpartition(".")[2], schema)
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if isinstance(kind, (dict, list)):
            self.value(kind, path, start, depth=depth + 1, is_personal=is_personal)
            return
        if isinstance(schema, dict) and isinstance(schema.get("name"), str) and kind in {"record", "enum", "fixed"}:
            self._named[schema["name"].rpartition(".")[2]] = schema
        match kind:
            case "record":
                self._record(schema, path, depth, is_personal=is_personal)
            case "array" | "map":
                self._blocks(schema, str(kind), path, depth, is_personal=is_personal)
            case _:
                shown = self._leaf(schema, str(kind), path)
                self.leaves.append(Leaf(path, start, self.at, shown, is_personal))

    def _record(self, schema: Mapping[str, Any], path: str, depth: int, *, is_personal: bool) -> None:
        for each in schema.get("fields", ()):
            name = str(each.get("name"))
            below = f"{path}.{name}" if path else name
            marked = is_personal or each.get("pii") is True or name in self._personal
            self.value(each.get("type"), below, self.at, depth=depth + 1, is_personal=marked)

    def _blocks(self, schema: Mapping[str, Any], kind: str, path: str, depth: int, *, is_personal: bool) -> None:
        index = 0
        while True:
            begin = self.at
            count = self._number(path)
            if count < 0:
                self._number(path)  # the size of the block in bytes
                count = -count
            if count == 0:
                return
            if count > len(self.data) - self.at:
                raise _Stop(
                    begin,
                    self.at,
                    path,
                    f"{counted(count, 'item')}, and {counted(len(self.data) - self.at, 'byte')} left",
                )
            for _ in range(count):
                item = f"{path}[{index}]"
                if kind == "map":
                    item = f"{path}[{self._text(path)!r}]"
                self.value(schema["items" if kind == "array" else "values"], item, self.at, depth=depth + 1,
                           is_personal=is_personal)  # fmt: skip
                index += 1

    def _leaf(self, schema: Any, kind: str, path: str) -> str:
        logical = schema.get("logicalType") if isinstance(schema, dict) else None
        readers: Mapping[str, Callable[[], str]] = {
            "null": lambda: "null",
            "boolean": lambda: self._boolean(path),
            "int": lambda: _shown_number(self._number(path), logical),
            "long": lambda: _shown_number(self._number(path), logical),
            "float": lambda: repr(struct.unpack("<f", self._take(4, path))[0]),
            "double": lambda: repr(struct.unpack("<d", self._take(8, path))[0]),
            "string": lambda: json.dumps(_shortened(self._text(path)), ensure_ascii=False),
            "bytes": lambda: _hex(self._take(self._length(path), path)),
            "fixed": lambda: _hex(self._take(int(schema.get("size", 0)), path)),
            "enum": lambda: self._symbol(schema, path),
        }
        if kind not in readers:
            raise _Stop(self.at, self.at, path, f"the schema's type {kind!r} is not known")
        return readers[kind]()

    def _boolean(self, path: str) -> str:
        byte = self._take(1, path)[0]
        if byte > 1:
            raise _Stop(self.at - 1, self.at, path, f"byte {byte:#04x} is no boolean")
        return "true" if byte else "false"

    def _symbol(self, schema: Mapping[str, Any], path: str) -> str:
        begin, symbols = self.at, schema.get("symbols", ())
        number = self._number(path)
        if not 0 <= number < len(symbols):
            raise _Stop(begin, self.at, path, f"symbol {number} of an enum of {len(symbols)}")
        return str(symbols[number])

    def _text(self, path: str) -> str:
        begin = self.at
        raw = self._take(self._length(path), path)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            place = self.at - len(raw) + error.start
            raise _Stop(place, max(place + 1, begin), path, "the text is not UTF-8") from None

    def _length(self, path: str) -> int:
        begin = self.at
        length = self._number(path)
        if length < 0:
            raise _Stop(begin, self.at, path, f"a length of {length}")
        return length

    def _number(self, path: str) -> int:
        begin, shift, value = self.at, 0, 0
        while True:
            if self.at >= len(self.data):
                raise _Stop(begin, len(self.data), path, "the value ends within a number")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if self.at - begin >= _VARINT_BYTES_MAX:
                raise _Stop(begin, self.at, path, "a number of more than ten bytes")

    def _take(self, count: int, path: str) -> bytes:
        left = len(self.data) - self.at
        if count > left:
            raise _Stop(self.at, len(self.data), path, f"{counted(count, 'byte')} wanted, {left:,} left")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken


def _shown_number(number: int, logical: Any) -> str:
    units: Mapping[str, Callable[[int], float]] = {
        "timestamp-millis": lambda value: value / 1e3,
        "timestamp-micros": lambda value: value / 1e6,
    }
    if logical not in units:
        return str(number)
    try:
        moment = dt.datetime.fromtimestamp(units[logical](number), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return str(number)
    return f"{number} ({moment.isoformat(timespec='milliseconds').replace('+00:00', 'Z')})"


def _hex(raw: bytes) -> str:
    return raw[:TEXT_CHARACTERS_MAX].hex() + ("…" if len(raw) > TEXT_CHARACTERS_MAX else "")


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}… ({len(text)} characters)"
