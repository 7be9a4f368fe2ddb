"""What a request asks for, and the templates that answer it. Everything that is put into HTML is escaped."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import jinja2

from streams.batch.rejects import Reason
from streams.deadletters.letter.audit import Outcome
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.inspect import MASK
from streams.deadletters.letter.pin import pin_of
from streams.deadletters.review.replay import explained
from streams.errors import UsageError

PAGE_LETTERS: Final = 50
GROUPS_SHOWN: Final = 20
GROUPINGS: Final = ("reason", "device", "schema-id", "source", "attempt")
_FIELDS: Final = ("id", "reason", "device", "schema_id", "since", "until")
_QUESTION: Final = frozenset({*_FIELDS, "status", "group_by", "page"})
VALUE_CHARACTERS_MAX: Final = 1_024
"""Bound on one part of a question: keys are not longer."""
_PAGE: Final = re.compile("[0-9]{1,6}")
_SCHEMA_ID: Final = re.compile("-?[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of a page, from the address or a form."""

    values: Mapping[str, str]
    filter: Filter
    group_by: str
    page: int

    def query(self, **changed: str | int) -> str:
        """The parameters, some of them changed, as a query string."""
        values = {**self.values, "group_by": self.group_by, "page": str(self.page)}
        values |= {name: str(value) for name, value in changed.items()}
        defaults = {"group_by": "reason", "page": "0", "status": "open"}
        kept = {name: value for name, value in values.items() if value and value != defaults.get(name)}
        return f"?{urlencode(kept)}" if kept else ""


def question_of(pairs: Sequence[tuple[str, str]]) -> Asked:
    """Read the parameters in an address.

    Raises:
        UsageError: a part of it makes no sense, is unknown, or is there twice.

    """
    unknown = next((name for name, _ in pairs if name not in _QUESTION), None)
    if unknown is not None:
        raise UsageError(f"{unknown[:100]!r} is nothing to ask this page: it knows {', '.join(sorted(_QUESTION))}")
    values = dict(pairs)
    if len(values) < len(pairs):
        raise UsageError("a part of the question is in the address twice")
    return asked_of(values)


def pinned_of(form: Mapping[str, str]) -> Filter:
    """The letters that a form has asked about: those that existed then and are still open.

    Raises:
        UsageError: a part of it makes no sense, or it does not say when it has asked.

    """
    try:
        pin = pin_of(form["pin"])
    except (KeyError, ValueError):
        raise UsageError(
            "this form does not say about which letters it has asked: go back, reload and try again"
        ) from None
    return asked_of(form).filter.opened().pinned(pin)


def asked_of(values: Mapping[str, str]) -> Asked:
    """Read the parameters; other `values` are ignored.

    Raises:
        UsageError: a part of it makes no sense.

    """
    found = {name: values.get(name, "").strip() for name in _FIELDS}
    too_long = next((name for name, value in found.items() if len(value) > VALUE_CHARACTERS_MAX), None)
    if too_long is not None:
        raise UsageError(f"{too_long} is too long: at most {VALUE_CHARACTERS_MAX} characters")
    status = values.get("status", "open")
    group_by = values.get("group_by", "reason")
    page = values.get("page", "0")
    for name, value, is_known in (
        ("status", status, status in {"open", "resolved", "all"}),
        ("group_by", group_by, group_by in GROUPINGS),
        ("page", page, _PAGE.fullmatch(page)),
    ):
        if not is_known:
            raise UsageError(f"this page does not know {name}={value[:100]!r}")
    schema_id = found["schema_id"]
    if schema_id and not _SCHEMA_ID.fullmatch(schema_id):
        raise UsageError(f"{schema_id!r} is no schema id: it is a number")
    letter_id = found["id"]
    if letter_id and (set(letter_id) - set("0123456789abcdef") or len(letter_id) > 24):
        raise UsageError(f"{letter_id!r} is no id: ids are 24 hexadecimal digits")
    wanted = Filter(
        ids=frozenset({letter_id} if letter_id else ()),
        reasons=frozenset({found["reason"]} if found["reason"] else ()),
        keys=frozenset({found["device"].encode()} if found["device"] else ()),
        schema_ids=frozenset({int(schema_id)} if schema_id else ()),
        since_ms=_time_ms(found["since"]),
        until_ms=_time_ms(found["until"]),
        is_open={"open": True, "resolved": False, "all": None}[status],
    )
    return Asked({**found, "status": status}, wanted, group_by, int(page))


def _time_ms(text: str) -> int | None:
    """A time from a browser's date field, in UTC."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        return int(moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time: 2026-05-01T08:00, in UTC") from None


def rendered(template: str, **values: Any) -> str:
    """Render a page as HTML."""
    return _ENVIRONMENT.get_template(template).render(**values)


def _moment(time_ms: Any) -> str:
    try:
        return dt.datetime.fromtimestamp(int(time_ms) / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError, TypeError):
        return str(time_ms)


def _visible(text: Any) -> str:
    """Escape what is not printable, such as marks that reverse the text's direction, so that nothing can hide."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(text))


_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("streams.deadletters.web"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    moment=_moment, visible=_visible, count=lambda number: f"{number:,}", outcome=lambda name: explained(Outcome(name))
)
_ENVIRONMENT.globals.update(
    reasons=[reason.value for reason in Reason], groupings=GROUPINGS, groups_shown=GROUPS_SHOWN, mask=MASK
)
