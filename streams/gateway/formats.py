"""Formats of devices: a TOML file says where in a request the fields of an event are. No code for a new one.

    title = "..."
    body = "json"                      # or "query": the parameters of the address, and of a form
    records = "/locations"             # JSON pointer to an object or a list of them; absent: the body itself
    only = { "/_type" = "location" }   # others say nothing about a position: they are answered, and no event

    [answer]                           # where the device wants something else than ours
    status = 200
    body = "[]"
    rejected_status = 200              # a device that would send the same for ever: what is rejected is a dead letter

    [fields]
    device_id = { at = ["/topic", "header:x-limit-d"] }
    event_time = { at = "/tst" }
    speed_kmh = { at = "/vel", factor = 3.6 }
    event_id = { text = "traccar-{/position/id}" }

`at` names one place or several, of which the first that has a value counts: a JSON pointer into the record, one into
the whole body after `body:`, a header after `header:`, a parameter of the address after `query:`; of an MQTT message
`topic:` is its topic, `topic:1` the first level of that. `factor` multiplies a number;
`text` puts places into a text, and is no value when one of them has none; `value` is always the same.
Beside each file `NAME.toml` an example says what a device sends and what becomes of it: `NAME.example.json`.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from streams.errors import UsageError
from streams.gateway import json_records
from streams.gateway.records import Rejection, Row, Rows, TooManyRecords, malformed, too_large
from streams.limits import GATEWAY_REQUEST_RECORDS_MAX

FOLDER: Final = "device_formats"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_PLACE_IN_TEXT: Final = re.compile(r"\{([^{}]+)\}")
_PARAMETERS_MAX: Final = 200
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Request:
    """What a mapping may look at beside the record."""

    body: Any
    headers: Mapping[bytes, bytes]
    parameters: Mapping[str, str]
    topic: str = ""
    """Topic of an MQTT message."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is: `kind` is `record`, `body`, `header`, `query` or `topic`."""

    kind: str
    path: tuple[str, ...]
    text: str
    """Text of the place, as the format's file has it."""

    def value(self, record: Any, request: Request) -> Any:
        """The value there; None: there is none."""
        match self.kind:
            case "header":
                found = request.headers.get(self.path[0].encode())
                return None if found is None else found.decode("latin-1")
            case "query":
                return request.parameters.get(self.path[0])
            case "body":
                return value_at(request.body, self.path)
            case "topic":
                return _of_topic(request.topic, self.path[0])
            case _:
                return value_at(record, self.path)


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How a field gets its value."""

    places: tuple[Place, ...] = ()
    factor: float | None = None
    text: str | None = None
    value: Any = None

    def of(self, record: Any, request: Request) -> Any:
        """Return the field's value in a record; None: there is none."""
        if self.text is not None:
            return self._put_together(record, request)
        for place in self.places:
            found = place.value(record, request)
            if found is not None and found != "":
                return found if self.factor is None else _scaled(found, self.factor)
        return self.value

    def _put_together(self, record: Any, request: Request) -> str | None:
        found = [place.value(record, request) for place in self.places]
        if any(value is None or isinstance(value, dict | list) for value in found):
            return None
        values = iter(found)
        return _PLACE_IN_TEXT.sub(lambda _: str(next(values)), self.text or "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device wants to be answered; None: as others are."""

    status: int | None = None
    body: str | None = None
    rejected_status: int | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A format of devices, as its file declares it."""

    name: str
    title: str
    is_query: bool
    records: tuple[str, ...]
    only: Mapping[Place, Any]
    fields: Mapping[str, FieldRule]
    answer: Answer

    def read(
        self, body: bytes, headers: Mapping[bytes, bytes], query: bytes, record_bytes_max: int, *, topic: str = ""
    ) -> Rows:
        """The records of a request as rows of the fields' names; those that are no position are left out.

        Of an MQTT message there are no headers and no query, but a `topic`.

        Raises:
            TooManyRecords: there are more than a request may have.

        """
        parameters = _parameters(query)
        document: Any = parameters
        if self.is_query:
            parameters |= _parameters(body) if b"=" in body[:_PARAMETERS_MAX] else {}
        else:
            document = json_records.document(body)
            if isinstance(document, Rejection):
                return Rows([document], lambda _: body)
        return self.rows(Request(document, headers, parameters, topic), body or query, record_bytes_max)

    def records_in(self, document: Any) -> list[Any] | None:
        """The records of a document; None: it has none where they should be."""
        found = value_at(document, self.records)
        return found if isinstance(found, list) else None if found is None else [found]

    def rows(self, request: Request, sent: bytes, record_bytes_max: int) -> Rows:
        """The records of a document as rows; `sent`: the bytes that it came as.

        Raises:
            TooManyRecords: there are more than a request may have.

        """
        records = self.records_in(request.body)
        if records is None:
            where = "/" + "/".join(self.records)
            return Rows([malformed(f"there are no records at {where}, where {self.title} has them")], lambda _: sent)
        if len(records) > GATEWAY_REQUEST_RECORDS_MAX:
            raise TooManyRecords
        kept = [record for record in records if self._is_meant(record, request)]
        # A record of its own is what was sent; one of several is written anew, as only the whole body was sent.
        raw = (lambda _: sent) if len(records) == 1 else lambda index: _written(kept[index])
        return Rows([self._row(record, request, record_bytes_max) for record in kept], raw)

    def pointer(self, pointer: str) -> str:
        """Where in the record the value of a field is; `pointer` names the field."""
        rule = self.fields.get(pointer.removeprefix("/"))
        if rule is None or not rule.places:
            return ""
        place = rule.places[0]
        return place.text if place.kind == "record" else ""

    def _is_meant(self, record: Any, request: Request) -> bool:
        # What is no object is meant: it is rejected, and does not disappear.
        return not isinstance(record, dict) or all(
            place.value(record, request) == value for place, value in self.only.items()
        )

    def _row(self, record: Any, request: Request, record_bytes_max: int) -> Row | Rejection:
        if not isinstance(record, dict):
            return malformed("not a JSON object: one for each event is expected")
        row = {}
        for name, rule in self.fields.items():
            value = rule.of(record, request)
            if isinstance(value, str) and len(value) > record_bytes_max:
                return too_large(len(value), record_bytes_max)
            if value is not None:
                row[name] = value
        return row


def load_formats(directory: Path | None = None) -> dict[str, Format]:
    """The formats that are shipped, and those of a directory, which win; by name.

    Raises:
        UsageError: a file is no declaration of a format; the message names it and what is wrong.

    """
    folders: list[Traversable] = [files(__package__) / FOLDER]
    if directory is not None and directory.is_dir():
        folders.append(directory)
    found: dict[str, Format] = {}
    for folder in folders:
        for file in sorted(folder.iterdir(), key=lambda one: one.name):
            if file.name.endswith(".toml"):
                name = file.name.removesuffix(".toml")
                found[name] = parse_format(name, file.read_text(encoding="utf-8"), str(file))
    return found


def parse_format(name: str, text: str, shown: str) -> Format:
    """A format by the text of its file; `shown` is what messages call it.

    Raises:
        UsageError: it is no declaration of a format.

    """
    try:
        return format_of(name, tomllib.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{shown} declares no format: {words}") from None


def format_of(name: str, declared: Mapping[str, Any]) -> Format:
    """A format by what its file declares.

    Raises:
        ValueError: it is no declaration (or another error of a value that is not what it should be).

    """
    if not _NAME.fullmatch(name):
        raise ValueError("its name has other characters than a-z, 0-9, - and _")
    _refuse_others(declared, {"title", "body", "records", "only", "answer", "fields"}, "the file")
    kind = declared.get("body", "json")
    if kind not in {"json", "query"}:
        raise ValueError("body is json or query")
    answer = declared.get("answer", {})
    _refuse_others(answer, {"status", "body", "rejected_status"}, "[answer]")
    fields = {field: _rule(field, rule) for field, rule in declared["fields"].items()}
    return Format(
        name,
        str(declared.get("title", name)),
        kind == "query",
        pointer_of(declared.get("records", "")),
        {_place(place): value for place, value in declared.get("only", {}).items()},
        fields,
        Answer(**answer),
    )


def _rule(field: str, declared: Any) -> FieldRule:
    _refuse_others(declared, {"at", "factor", "text", "value"}, field)
    if "text" in declared:
        text = str(declared["text"])
        return FieldRule(tuple(map(_place, _PLACE_IN_TEXT.findall(text))), text=text)
    at = declared.get("at", [])
    places = tuple(map(_place, [at] if isinstance(at, str) else at))
    if not places and "value" not in declared:
        raise ValueError(f"{field} has neither at, nor text, nor value")
    factor = declared.get("factor")
    return FieldRule(places, None if factor is None else float(factor), value=declared.get("value"))


def _place(text: str) -> Place:
    kind, colon, rest = text.partition(":")
    if colon and kind in {"header", "query"}:
        return Place(kind, (rest.lower() if kind == "header" else rest,), text)
    if colon and kind == "body":
        return Place(kind, pointer_of(rest), text)
    if colon and kind == "topic":
        if rest and not (rest.isascii() and rest.isdigit() and int(rest) > 0):
            raise ValueError(f"{text!r}: topic: is the whole topic, topic:1 its first level")
        return Place(kind, (rest,), text)
    return Place("record", pointer_of(text), text)


def pointer_of(pointer: str) -> tuple[str, ...]:
    """The steps of a JSON pointer.

    Raises:
        ValueError: it is none.

    """
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON pointer: it begins with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _refuse_others(declared: Mapping[str, Any], known: set[str], where: str) -> None:
    others = sorted(declared.keys() - known)
    if others:
        raise ValueError(f"{where} has {others[0]!r}, which is none of {', '.join(sorted(known))}")


def value_at(value: Any, path: Sequence[str]) -> Any:
    """The value at the end of a pointer; None: there is none."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and part.isdigit() and len(part) < 7 and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
        if value is _ABSENT:
            return None
    return value


def _of_topic(topic: str, level: str) -> str | None:
    """The whole topic of a message, or one of its levels; None: there is none."""
    if not level:
        return topic or None
    levels = topic.split("/")
    number = int(level)
    return levels[number - 1] if topic and number <= len(levels) else None


def _scaled(value: Any, factor: float) -> Any:
    """A number times the factor; what is no number stays as it is, to be refused by its field."""
    if isinstance(value, bool):
        return value
    try:
        return float(value) * factor
    except (TypeError, ValueError, OverflowError):
        return value


def _parameters(text: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX))
    except ValueError:
        return {}


def _written(record: Any) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()
