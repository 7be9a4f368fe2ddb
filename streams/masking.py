"""Secrets in texts that are shown: user and password in a URL, values of its query, `password=...` in a text."""

import re
from typing import Final

MASK: Final = "**********"
PERSONAL_MASK: Final = "•••"
"""In the place of a value that is personal data."""
_NEXT_URL: Final = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")
_PAIR: Final = re.compile(r"[&;#]")
_USER: Final = re.compile(r"^[^/\s@:]+:\S*@")
"""At the beginning of an address without a scheme."""
_ASSIGNED: Final = re.compile(
    r"""(?ix) ( \b[\w.-]* (?:password|passwd|secret|token|api[_-]?key) [\w.-]* \s*[=:]\s* )
        ( "[^"]*" | '[^']*' | [^\s;,&]+ )"""
)


def masked(text: str) -> str:
    """The text with its secrets masked: of one URL, several with commas between them, or anything else.

    A password may hold any character, `@`, `/` and `?` among them, so that where it ends is not always known: all up to
    the last `@` is taken for it. Values of a query and of a fragment are masked, whatever their names.
    """
    return ",".join(map(_masked_part, separate(text)))


def without_credentials(url: str) -> str:
    """The URL (or several with commas between them) without user, password, query and fragment: fit for logs."""
    return ",".join(map(_address, separate(url)))


def separate(urls: str) -> list[str]:
    """The URLs of a list with commas between them; a comma in a password separates nothing."""
    return _NEXT_URL.split(urls)


def _masked_part(part: str) -> str:
    scheme, colon, rest = part.partition("://")
    if not colon:
        return _ASSIGNED.sub(rf"\1{MASK}", _USER.sub(f"{MASK}@", part))
    _, at, place = rest.rpartition("@")
    user = MASK + at if at else ""
    address, mark, query = _cut(place)
    return f"{scheme}://{user}{address}{mark}{_masked_query(query)}"


def _cut(place: str) -> tuple[str, str, str]:
    """What is before the query or fragment, the mark that begins it, and it."""
    at = min((at for at in map(place.find, "?#") if at >= 0), default=len(place))
    return place[:at], place[at : at + 1], place[at + 1 :]


def _masked_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in _PAIR.split(query))
    return "&".join(f"{name}={MASK}" if equals else MASK if name else "" for name, equals, _ in pairs)


def _address(url: str) -> str:
    scheme, colon, rest = url.strip().partition("://")
    return f"{scheme}://{_cut(rest.rpartition('@')[2])[0]}" if colon else "(not a URL)"
