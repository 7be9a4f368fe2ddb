"""Durations as text: `"5s"`, `"24h"`, `"250ms"`."""

import re
from datetime import timedelta
from typing import Final

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
DURATION_MS_MAX: Final = 366 * 86_400_000
"""Longest duration of a declaration: a year."""

Duration = str | timedelta
"""A whole number and its unit (`ms`, `s`, `m`, `h`, `d`), or a `timedelta`."""


def milliseconds(duration: Duration, *, what: str, least_ms: int = 0) -> int:
    """Whole milliseconds of a duration; `what` names it in a message.

    Raises:
        ValueError: it is no duration, not a whole number of milliseconds, below `least_ms`, or above a year.
        TypeError: it is neither text nor a timedelta: a bare number has no unit.

    """
    if isinstance(duration, timedelta):
        found, rest = divmod(duration, timedelta(milliseconds=1))
        if rest:
            raise ValueError(f"{what} is {duration!r}: whole milliseconds are needed")
    elif isinstance(duration, str):
        match = _WRITTEN.fullmatch(duration)
        if match is None:
            raise ValueError(f'{what} is {duration!r}: write a whole number and a unit, such as "250ms", "5s" or "24h"')
        found = int(match[1]) * _UNITS_MS[match[2]]
    else:
        raise TypeError(f'{what} is {duration!r}, which has no unit: write "5s", "24h" or a timedelta')
    if not least_ms <= found <= DURATION_MS_MAX:
        raise ValueError(f"{what} is {duration!r}: it must be from {written(least_ms)} to {written(DURATION_MS_MAX)}")
    return found


def written(time_ms: int) -> str:
    """A duration in its largest whole unit: `5s` for 5,000."""
    for unit, unit_ms in sorted(_UNITS_MS.items(), key=lambda pair: -pair[1]):
        if time_ms and time_ms % unit_ms == 0:
            return f"{time_ms // unit_ms}{unit}"
    return "0s"
