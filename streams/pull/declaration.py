"""What is declared of a REST source: `NAME.toml` in STREAMS_PULL_DIR.

source = "gps.positions.v1"
url = "https://api.example.com/v1/positions"
records = "/items"                     # as in a format of the gateway, and so are only and [fields]
every = "30s"                          # between two rounds, when there is nothing more

[parameters]                           # of every request
limit = "500"

[cursor.time]                          # the newest value of a field is where the next round begins
parameter = "since"
field = "/updated_at"
start = "2026-01-01T00:00:00Z"
overlap = "10s"                        # so much is asked for again: what came late there
unit = "iso"                           # or s, ms: how the parameter is written

[cursor.page]                          # a page names the next one
parameter = "page"
next = "/next_page"

[auth]                                 # secrets are in files
kind = "oauth2"                        # or bearer (token_file), basic (user, password_file)
token_url = "https://api.example.com/oauth/token"
client_id = "logistics"
client_secret_file = "/run/secrets/api"
scope = "positions:read"

[fields]
device_id = { at = "/vehicle" }
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from streams.errors import UsageError
from streams.gateway.formats import Format, format_of, pointer_of
from streams.ingest.reading import DEFAULT_READING
from streams.ingest.times import value_ms

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_DURATION: Final = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_KNOWN: Final = frozenset(
    {"source", "url", "title", "records", "only", "fields", "every", "parameters", "headers", "cursor", "auth"}
)
_AUTH: Final[Mapping[str, frozenset[str]]] = {
    "bearer": frozenset({"token_file"}),
    "basic": frozenset({"user", "password_file"}),
    "oauth2": frozenset({"token_url", "client_id", "client_secret_file"}),
}
_AUTH_OPTIONAL: Final = frozenset({"kind", "scope"})

Unit = Literal["iso", "s", "ms"]


@dataclass(frozen=True, slots=True)
class TimeCursor:
    """A round begins with what is newer than the newest value of a field so far."""

    parameter: str
    field: tuple[str, ...]
    """JSON pointer into a record."""
    start_ms: int
    overlap_ms: int
    unit: Unit


@dataclass(frozen=True, slots=True)
class PageCursor:
    """A page names the next one."""

    parameter: str
    next: tuple[str, ...]
    """JSON pointer into the answer."""


@dataclass(frozen=True, slots=True)
class Auth:
    """How requests are authorized; secrets are in files, read again for each token."""

    kind: Literal["bearer", "basic", "oauth2"]
    secret_file: Path
    user: str = ""
    """User of `basic`; client id of `oauth2`."""
    token_url: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class PullSource:
    """A REST source, as its file declares it."""

    name: str
    source: str
    url: str
    every_s: float
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    time: TimeCursor | None
    page: PageCursor | None
    auth: Auth | None
    format: Format


def load_source(directory: Path, name: str) -> PullSource:
    """The source of this name.

    Raises:
        UsageError: there is no such file, or it declares no source; the message says what is wrong.

    """
    path = directory / f"{name}.toml"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a name has 1 to 40 of a-z, 0-9, - and _")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(one.stem for one in directory.glob("*.toml"))) or "none yet"
        raise UsageError(f"{path}: cannot be read ({error}); in {directory} there is: {known}") from None
    return parse_source(name, text, str(path))


def parse_source(name: str, text: str, shown: str) -> PullSource:
    """A source by the text of its file; `shown` is what messages call it.

    Raises:
        UsageError: it declares no source.

    """
    try:
        return _declared(name, tomllib.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{shown} declares no source: {words}") from None


def _declared(name: str, declared: Mapping[str, Any]) -> PullSource:
    others = sorted(declared.keys() - _KNOWN)
    if others:
        raise ValueError(f"{others[0]!r} is none of {', '.join(sorted(_KNOWN))}")
    cursor = declared["cursor"]
    if not isinstance(cursor, dict) or not cursor or cursor.keys() - {"time", "page"}:
        raise ValueError("[cursor.time], [cursor.page] or both say how it goes on")
    shape = {key: declared[key] for key in ("title", "records", "only", "fields") if key in declared}
    return PullSource(
        name=name,
        source=str(declared["source"]),
        url=_address(declared["url"]),
        every_s=_duration_ms(declared.get("every", "60s")) / 1_000,
        parameters={str(key): str(value) for key, value in declared.get("parameters", {}).items()},
        headers={str(key): str(value) for key, value in declared.get("headers", {}).items()},
        time=_time_cursor(cursor["time"]) if "time" in cursor else None,
        page=_page_cursor(cursor["page"]) if "page" in cursor else None,
        auth=_auth(declared["auth"]) if "auth" in declared else None,
        format=format_of(name, shape),
    )


def _time_cursor(declared: Mapping[str, Any]) -> TimeCursor:
    unit = declared.get("unit", "iso")
    if unit not in {"iso", "s", "ms"}:
        raise ValueError("unit of [cursor.time] is iso, s or ms")
    return TimeCursor(
        str(declared["parameter"]),
        pointer_of(declared["field"]),
        value_ms(declared["start"], DEFAULT_READING),
        _duration_ms(declared.get("overlap", "0s")),
        unit,
    )


def _page_cursor(declared: Mapping[str, Any]) -> PageCursor:
    return PageCursor(str(declared["parameter"]), pointer_of(declared["next"]))


def _auth(declared: Mapping[str, Any]) -> Auth:
    kind = declared["kind"]
    needed = _AUTH.get(kind)
    if needed is None:
        raise ValueError(f"kind of [auth] is {', '.join(_AUTH)}")
    others = sorted(declared.keys() - needed - _AUTH_OPTIONAL)
    if others:
        raise ValueError(f"[auth] of kind {kind} has {others[0]!r}; secrets are given as files")
    (secret,) = (name for name in needed if name.endswith("_file"))
    return Auth(
        kind,
        Path(declared[secret]),
        user=str(declared["user"] if kind == "basic" else declared.get("client_id", "")),
        token_url=_address(declared["token_url"]) if kind == "oauth2" else "",
        scope=str(declared.get("scope", "")),
    )


def _address(text: Any) -> str:
    parts = urlsplit(str(text))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{text!r} is no http(s) address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address has no user and password: [auth] is for that")
    return str(text)


def _duration_ms(text: Any) -> int:
    found = _DURATION.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no time such as 500ms, 30s, 5m, 1h")
    return int(found[1]) * _UNITS_MS[found[2]]
