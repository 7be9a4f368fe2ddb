"""How the text, numbers and times of a file are to be understood."""

from dataclasses import dataclass, fields
from datetime import UTC, tzinfo
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from streams.errors import UsageError

_DELIMITER_NAMES: Final = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_NO_DELIMITERS: Final = frozenset("\"'\r\n\0.-+:")


class TimeUnit(StrEnum):
    """What a number in a time column counts since 1970-01-01 UTC."""

    AUTO = "auto"
    """By its size; a number that is no plausible time in any unit is refused."""
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read. Encoding, delimiter and decimal comma concern text formats (CSV; encoding also NDJSON).

    Raises UsageError where a value is none of its kind.
    """

    encoding: str | None = None
    """None: by the byte order mark, else UTF-8."""
    delimiter: str | None = None
    """One character, or `tab`. None: whichever of comma, semicolon, tab and `|` gives the header most columns."""
    decimal_comma: bool = False
    """Text numbers are written 48,1; a dot in one is refused."""
    timezone: str = "UTC"
    """IANA zone of times that name none."""
    time_unit: TimeUnit = TimeUnit.AUTO

    def __post_init__(self) -> None:
        _checked_encoding(self.encoding)
        if self.delimiter is not None:
            found = _DELIMITER_NAMES.get(self.delimiter, self.delimiter)
            if len(found) != 1 or found in _NO_DELIMITERS or found.isalnum():
                raise UsageError(f"--delimiter {self.delimiter!r}: must be one character such as ; or |, or `tab`")
            object.__setattr__(self, "delimiter", found)
        _zone(self.timezone)

    @property
    def zone(self) -> tzinfo:
        """Zone of times that name none."""
        return _zone(self.timezone)

    def choices(self) -> dict[str, Any]:
        """What differs from the defaults, by name: part of what makes two runs the same work."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


def _checked_encoding(name: str | None) -> None:
    try:
        if name is not None:
            "a".encode(name)
    except (LookupError, ValueError):
        raise UsageError(f"--encoding {name!r}: no such text encoding; for example utf-8, cp1252, utf-16") from None


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise UsageError(f"--timezone {name!r}: no such time zone; for example Europe/Berlin") from None


DEFAULT_READING: Final = Reading()
