"""A dead letter in detail for a person: the reason in words, the fields, and the bytes with the place of the failure.

Personal fields are masked unless they are to be revealed. If it is not known which bytes belong to them, all bytes in
question are masked; if neither stream nor schema is known, the whole value, its key and its headers are.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from streams.avro import framing
from streams.avro.framing import FRAME_BYTES, SCHEMA_ID_HEADER
from streams.avro.personal import personal_fields
from streams.batch.rejects import Reason
from streams.deadletters.letter.letter import Letter
from streams.deadletters.letter.walk import Failure, Leaf, Walk, walk
from streams.flow.declaration import Pipeline
from streams.masking import PERSONAL_MASK

HEX_BYTES_SHOWN_MAX: Final = 4_096
MASK: Final = PERSONAL_MASK
_ROW_BYTES: Final = 16
_HARMLESS_HEADERS: Final = frozenset({SCHEMA_ID_HEADER, "traceparent", "tracestate"})

IN_WORDS: Final = {
    Reason.DEVICE_QUARANTINED: "too many records of this key were rejected in a short time, so it was not looked at",
    Reason.TOO_LARGE: "the record is larger than the flow accepts",
    Reason.BAD_HEADER: "a header of it has a name that is not UTF-8, and could not be kept",
    Reason.NOT_FRAMED: "it carries no schema id, neither in front of the value nor in a header",
    Reason.UNKNOWN_SCHEMA: "the schema registry did not know its schema id",
    Reason.INCOMPATIBLE_SCHEMA: "data written with its schema cannot be read as an event of this stream",
    Reason.MALFORMED: "the bytes are not a value of the schema that they name",
    Reason.INVALID: "a field has a value that is not allowed",
    Reason.KEY_MISMATCH: "the record's key is not the event's key field: order and dedup would not hold",
    Reason.FUTURE_TIMESTAMP: "the event time lies too far ahead of the time at which the record was sent or read",
    Reason.REFUSED_BY_OUTPUT: "the event is valid, but an output topic refuses the record made from it",
}


def in_words(reason: str) -> str:
    """A reason as a sentence; reasons of other programs are quoted."""
    try:
        return IN_WORDS[Reason(reason)]
    except ValueError:
        return f"another program says: {reason}" if reason != "unknown" else "no reason is recorded"


@dataclass(frozen=True, slots=True)
class HexRow:
    """Up to 16 bytes of a value: offset, and of each byte its two digits and its character."""

    offset: int
    digits: tuple[str, ...]
    characters: str
    marked: tuple[bool, ...]
    """Which of the bytes are part of the failure."""


@dataclass(frozen=True, slots=True)
class View:
    """A letter in detail. Texts are not escaped for any output."""

    letter: Letter
    reason_in_words: str
    key: str
    headers: list[tuple[str, str]]
    """Headers of the record itself, without those of the envelope."""
    size_bytes: int
    hex_rows: list[HexRow]
    hex_omitted_bytes: int
    leaves: list[Leaf]
    failure: Failure | None
    """Positions are offsets in the whole value, including the frame."""
    is_masked: bool
    """Whether something is masked that `reveal` would show."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """What is known of a letter's schemas, as JSON text; None: not known."""

    writer: str | None
    reader: str | None
    personal: frozenset[str] = frozenset()
    """Fields with personal data, in addition to those that the schemas mark."""


def inspect(letter: Letter, schemas: Schemas, flow: Pipeline | None, *, reveal: bool) -> View:
    """Show a letter in detail."""
    value = letter.value or b""
    writer, reader = _parsed(schemas.writer), _parsed(schemas.reader)
    personal = personal_of(schemas)
    body_at = _body_at(letter)
    is_framed = body_at <= len(value) and (not body_at or value.startswith(b"\0"))
    walked = walk(writer, value, personal, body_at) if writer is not None and is_framed else None
    failure = _failure(letter, walked, flow, body_at)
    # Without a declared stream, or any schema, it is not known what is personal: everything is masked.
    is_unknown = flow is None or (writer is None and reader is None)
    masks = not reveal and (is_unknown or bool(personal))
    hidden = _hidden_bytes(value, None if is_unknown else walked, body_at) if masks else frozenset()
    masks_key = masks and (flow is None or flow.key_field in personal)
    own = [(name, _shown_header(name, text, masks=masks)) for name, text in letter.headers]
    leaves = walked.leaves if walked else []
    leaves = [_masked(leaf) if masks and (is_unknown or leaf.is_personal) else leaf for leaf in leaves]
    rows, omitted = _hex_rows(value, failure, hidden)
    return View(
        letter=letter,
        reason_in_words=in_words(letter.reason),
        key=MASK if masks_key else shown_bytes(letter.key),
        headers=own,
        size_bytes=len(value),
        hex_rows=rows,
        hex_omitted_bytes=omitted,
        leaves=leaves,
        failure=failure,
        is_masked=bool(hidden) or masks_key or any(text == MASK for _, text in own),
    )


def personal_of(schemas: Schemas) -> frozenset[str]:
    """Fields with personal data, by either schema or by declaration."""
    return schemas.personal | personal_fields(_parsed(schemas.reader)) | personal_fields(_parsed(schemas.writer))


def masks_keys(schemas: Schemas, flow: Pipeline | None) -> bool:
    """Whether keys of a stream must not be listed: they are personal, or the stream is not known."""
    return flow is None or flow.key_field in personal_of(schemas)


def shown_bytes(data: bytes | None) -> str:
    """Bytes as text, with non-text bytes escaped; `-` for none."""
    return "-" if data is None else data.decode(errors="backslashreplace")


def schema_id_of(letter: Letter) -> int | None:
    """The schema id that the record carries, in a header or in front of its value; else the envelope's."""
    carried = framing.schema_id_of(letter.value, letter.headers)
    return letter.schema_id if carried is None else carried


def _body_at(letter: Letter) -> int:
    """Offset of the value after the frame, if there is one."""
    return FRAME_BYTES if framing.key_in_headers(letter.headers) is None else 0


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def _failure(letter: Letter, walked: Walk | None, flow: Pipeline | None, body_at: int) -> Failure | None:
    """Where the value is wrong: where reading stops, or the field named in the message."""
    size = len(letter.value or b"")
    if letter.reason == Reason.NOT_FRAMED:
        return Failure(0, min(1, size), "", "no magic byte 0 here")
    if letter.reason in {Reason.UNKNOWN_SCHEMA, Reason.INCOMPATIBLE_SCHEMA} and body_at:
        return Failure(1, min(FRAME_BYTES, size), "", letter.message or "this schema id")
    if walked is not None and walked.failure is not None:
        return walked.failure
    names = {Reason.KEY_MISMATCH: "key_field", Reason.FUTURE_TIMESTAMP: "time_field"}
    wanted = ""
    if flow is not None and letter.reason in set(names):
        wanted = str(getattr(flow, names[Reason(letter.reason)]))
    elif letter.reason == Reason.INVALID:
        first = letter.message.partition(" ")[0]
        says_id = flow is not None and letter.message.startswith("the event id")
        wanted = flow.id_field if says_id and flow is not None else first
    leaf = next((each for each in walked.leaves if each.path == wanted), None) if walked and wanted else None
    return None if leaf is None else Failure(leaf.start, leaf.end, leaf.path, letter.message)


def _hidden_bytes(value: bytes, walked: Walk | None, body_at: int) -> frozenset[int]:
    """Bytes of personal fields, and bytes that could not be assigned to a field."""
    if walked is None:
        return frozenset(range(len(value)))
    hidden = {byte for leaf in walked.leaves if leaf.is_personal for byte in range(leaf.start, leaf.end)}
    read_to = max((leaf.end for leaf in walked.leaves), default=body_at)
    if walked.failure is not None:
        hidden |= set(range(read_to, len(value)))
    return frozenset(hidden)


def _masked(leaf: Leaf) -> Leaf:
    return Leaf(leaf.path, leaf.start, leaf.end, MASK, is_personal=True)


def _shown_header(name: str, value: bytes | None, *, masks: bool) -> str:
    if value is None:
        return "-"
    if masks and name not in _HARMLESS_HEADERS:
        return MASK
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    return text if text.isprintable() else f"0x{value.hex()}"


def _hex_rows(value: bytes, failure: Failure | None, hidden: frozenset[int]) -> tuple[list[HexRow], int]:
    """Rows of 16 bytes, and the number of bytes left out: of a long value, the part with the failure is shown."""
    begin = 0
    if failure is not None and failure.start > HEX_BYTES_SHOWN_MAX // 2:
        begin = (failure.start - HEX_BYTES_SHOWN_MAX // 2) // _ROW_BYTES * _ROW_BYTES
    begin = max(0, min(begin, len(value) - HEX_BYTES_SHOWN_MAX)) // _ROW_BYTES * _ROW_BYTES
    end = min(len(value), begin + HEX_BYTES_SHOWN_MAX)
    marked = frozenset() if failure is None else frozenset(range(failure.start, max(failure.end, failure.start + 1)))
    rows: list[HexRow] = []
    for offset in range(begin, end, _ROW_BYTES):
        places = range(offset, min(offset + _ROW_BYTES, end))
        rows.append(
            HexRow(
                offset,
                tuple("··" if at in hidden else f"{value[at]:02x}" for at in places),
                "".join("·" if at in hidden or not 32 <= value[at] < 127 else chr(value[at]) for at in places),
                tuple(at in marked for at in places),
            )
        )
    return rows, len(value) - (end - begin)
