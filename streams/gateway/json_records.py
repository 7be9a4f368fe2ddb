"""JSON and NDJSON bodies as rows, each with the bytes that it was. Pure.

A row is an object, or the words that say why there is none. One that cannot be read costs itself, not the others; a
JSON body that is not JSON as a whole is one row.
"""

import json
import re
from typing import Any, Final

from streams.gateway.records import Rejection, Row, Rows, TooManyRecords, malformed, too_large
from streams.limits import GATEWAY_REQUEST_RECORDS_MAX

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_MARK: Final = b"\xef\xbb\xbf"
"""A byte order mark before UTF-8, which some senders write; it says nothing."""
_TOO_DEEP: Final = malformed("not JSON that is read here: its values are nested too deep")
_NO_OBJECT: Final = malformed("not a JSON object: one for each event is expected")


def _unambiguous(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unambiguous, parse_constant=_no_number)


def one_or_many(body: bytes, record_bytes_max: int) -> Rows:
    """A JSON object, or an array of objects.

    Raises:
        TooManyRecords: the array has more.

    """
    try:
        text = _text(body)
        begin = _skip(text, 0)
        is_array = text.startswith("[", begin)
        if not is_array and len(body) > record_bytes_max:
            return Rows([too_large(len(body), record_bytes_max)], lambda _: body)
        spans: list[tuple[int, int]] = []
        values = _elements(text, begin, spans) if is_array else [_whole(text, begin)]
    except RecursionError:
        return Rows([_TOO_DEEP], lambda _: body)
    except ValueError as error:
        return Rows([_malformed(error)], lambda _: body)
    if not is_array:
        return Rows(list(map(_row, values)), lambda _: body)
    rows = [
        too_large(end - start, record_bytes_max) if end - start > record_bytes_max else _row(value)
        for value, (start, end) in zip(values, spans, strict=True)
    ]
    return Rows(rows, lambda index: text[slice(*spans[index])].encode())


def document(body: bytes) -> Any:
    """A JSON document of any kind; a Rejection when the body is none."""
    try:
        text = _text(body)
        return _whole(text, _skip(text, 0))
    except RecursionError:
        return _TOO_DEEP
    except ValueError as error:
        return _malformed(error)


def lines(body: bytes, record_bytes_max: int) -> Rows:
    """One JSON object a line; blank lines are no records.

    Raises:
        TooManyRecords: there are more lines.

    """
    if body.count(b"\n") > 2 * GATEWAY_REQUEST_RECORDS_MAX:
        raise TooManyRecords
    found = [line for line in body.removeprefix(_MARK).split(b"\n") if line and not line.isspace()]
    if len(found) > GATEWAY_REQUEST_RECORDS_MAX:
        raise TooManyRecords
    rows = [_line(line) if len(line) <= record_bytes_max else too_large(len(line), record_bytes_max) for line in found]
    return Rows(rows, lambda index: found[index].strip())


def _line(line: bytes) -> Row | Rejection:
    try:
        text = line.decode()
        value = _whole(text, 0 if text[0] == "{" else _skip(text, 0))
    except RecursionError:
        return _TOO_DEEP
    except ValueError as error:
        return _malformed(error)
    return _row(value)


def _row(value: Any) -> Row | Rejection:
    return value if isinstance(value, dict) else _NO_OBJECT


def _whole(text: str, begin: int) -> Any:
    """Parse a text that is one JSON value and nothing else."""
    value, end = _DECODER.raw_decode(text, begin)
    if end != len(text):
        _expect_end(text, end)
    return value


def _elements(text: str, begin: int, spans: list[tuple[int, int]]) -> list[Any]:
    """The elements of an array; appends where each begins and ends to `spans`."""
    values: list[Any] = []
    at = _skip(text, begin + 1)
    if text.startswith("]", at):
        _expect_end(text, at + 1)
        return values
    while True:
        if len(values) == GATEWAY_REQUEST_RECORDS_MAX:
            raise TooManyRecords
        value, end = _DECODER.raw_decode(text, at)
        values.append(value)
        spans.append((at, end))
        at = _skip(text, end)
        if text.startswith("]", at):
            _expect_end(text, at + 1)
            return values
        if not text.startswith(",", at):
            raise json.JSONDecodeError("expected , or ]", text, at)
        at = _skip(text, at + 1)


def _expect_end(text: str, at: int) -> None:
    end = _skip(text, at)
    if end != len(text):
        raise json.JSONDecodeError("there is more after the end", text, end)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _text(body: bytes) -> str:
    return body.removeprefix(_MARK).decode()


def _malformed(error: ValueError) -> Rejection:
    if isinstance(error, UnicodeDecodeError):
        return malformed(f"not JSON: its bytes are no UTF-8 at byte {error.start}")
    return malformed(f"not JSON: {str(error)[:300]}")
