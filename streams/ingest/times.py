"""Times of files to milliseconds since 1970-01-01 UTC: timestamps, dates, ISO 8601 text and numbers.

Whole columns are converted by Arrow and numpy where every value is alike; other columns value by value, with the same
result. What is finer than a millisecond is cut off (towards the past).

Numbers count in a declared unit, or (`auto`) in the one unit in which they are a time from 2001-09-09 to 2286-11-20:
the ranges of seconds, milliseconds, microseconds and nanoseconds do not meet. Numbers of 8 and 14 digits that are a
calendar date (20240131, 20240131120000) lie between those ranges and are dates. Everything else is refused.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streams.ingest.reading import Reading, TimeUnit

UNITS_PER_SECOND: Final[Mapping[TimeUnit, int]] = {
    TimeUnit.S: 1,
    TimeUnit.MS: 1_000,
    TimeUnit.US: 1_000_000,
    TimeUnit.NS: 1_000_000_000,
}
PLAUSIBLE_S_MIN: Final = 1_000_000_000
"""2001-09-09, in seconds: below, a number of seconds could be a small number of milliseconds."""
PLAUSIBLE_S_END: Final = 10_000_000_000
"""2286-11-20, in seconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock's
_MILLISECOND: Final = timedelta(milliseconds=1)
_INT64_MAX: Final = 2**63 - 1
_COMPACT_FORMATS: Final = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
_COMPACT_END: Final = 10**14
_COMPACT_YEARS: Final = range(1970, 2100)
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_NUMBER_COMMA: Final = re.compile(r"[+-]?[0-9]+(?:,[0-9]+)?")
_WHOLE: Final = r"^[+-]?[0-9]+$"


class NotATime(ValueError):
    """A value that looks like a time and is none; the message says why, as the end of a sentence about the value."""


def is_temporal(kind: pa.DataType) -> bool:
    """Whether a column of this type holds times or dates."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def column_ms(array: pa.Array, reading: Reading) -> pa.Array | None:
    """A column as int64 milliseconds; None where it must be converted value by value (`values_of`, `value_ms`).

    Raises:
        pa.ArrowException: as None.

    """
    kind = array.type
    if is_temporal(kind):
        return _temporal_ms(array, reading.zone)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        if pc.all(pc.match_substring_regex(array, _WHOLE)).as_py() is False:
            return None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return _numbers_ms(array.cast(pa.int64()), reading.time_unit)


def values_of(array: pa.Array) -> list[Any]:
    """The values of a column of times as Python's; those beyond Python's calendar as text, which is no time."""
    if not pa.types.is_timestamp(array.type):
        return list(array.to_pylist())
    tz = array.type.tz
    return [None if value is None else _moment(value, tz) for value in _floored_ms(array).to_pylist()]


def value_ms(value: Any, reading: Reading) -> int:
    """Milliseconds of one value.

    Raises:
        ValueError: it is no time (NotATime: the message says why).
        TypeError: it is of a type that is no time.

    """
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        value = _parsed(value.strip(), reading)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - localized below
    if isinstance(value, datetime):
        return (_localized(value, reading.zone) - _EPOCH) // _MILLISECOND
    if isinstance(value, float):
        value = Decimal(repr(value))
    if not isinstance(value, (int, Decimal)):
        raise TypeError
    return _number_ms(Decimal(value), reading)


def _parsed(text: str, reading: Reading) -> datetime | Decimal:
    number = _NUMBER_COMMA if reading.decimal_comma else _NUMBER
    if number.fullmatch(text):
        return Decimal(text.replace(",", "."))
    if "\0" in text:
        raise ValueError  # Python reads what is before it
    return datetime.fromisoformat(text)


def _number_ms(number: Decimal, reading: Reading) -> int:
    if not number.is_finite():
        raise ValueError
    unit = reading.time_unit
    if unit is TimeUnit.AUTO:
        compact = _compact(number)
        if compact is not None:
            return (_localized(compact, reading.zone) - _EPOCH) // _MILLISECOND
        unit = _plausible_unit(number)
    found = int((number * 1000 / UNITS_PER_SECOND[unit]).to_integral_value(ROUND_FLOOR))
    if not -_INT64_MAX <= found <= _INT64_MAX:
        raise ValueError
    return found


def _compact(number: Decimal) -> datetime | None:
    text = str(int(number)) if 0 < number < _COMPACT_END and number == int(number) else ""
    pattern = _COMPACT_FORMATS.get(len(text))
    if pattern is None:
        return None
    try:
        found = datetime.strptime(text, pattern)  # noqa: DTZ007 - localized by the caller
    except ValueError:
        return None
    return found if found.year in _COMPACT_YEARS else None


def _plausible_unit(number: Decimal) -> TimeUnit:
    for unit, scale in UNITS_PER_SECOND.items():
        if PLAUSIBLE_S_MIN * scale <= number < PLAUSIBLE_S_END * scale:
            return unit
    raise NotATime("no date and no time after 2001-09-09 in s, ms, us or ns since 1970: say --time-unit if it is one")


def _localized(value: datetime, zone: tzinfo) -> datetime:
    """The moment of a wall clock's time; a time that names its offset is one already."""
    if value.tzinfo is not None:
        return value
    first, second = value.replace(tzinfo=zone, fold=0), value.replace(tzinfo=zone, fold=1)
    if first.utcoffset() != second.utcoffset():
        back = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        what = "comes twice" if back == value else "does not exist"
        raise NotATime(f"which {what} in {zone}, since the clocks change: the offset must be in the file")
    return first


def _temporal_ms(array: pa.Array, zone: tzinfo) -> pa.Array:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if array.type.tz is None and zone is not UTC:
        array = pc.assume_timezone(_cast_exactly(array), str(zone), ambiguous="raise", nonexistent="raise")
    return _floored_ms(array)


def _cast_exactly(array: pa.Array) -> pa.Array:
    return _floored_ms(array).cast(pa.timestamp("ms"))


def _floored_ms(array: pa.Array) -> pa.Array:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    return _scaled(array.cast(pa.int64()), TimeUnit(array.type.unit))


def _scaled(whole: pa.Array, unit: TimeUnit) -> pa.Array:
    """Numbers of a unit as milliseconds, rounded down.

    Raises:
        pa.ArrowException: they do not fit into 64 bits.

    """
    if unit is TimeUnit.MS:
        return whole
    if unit is TimeUnit.S:
        return pc.multiply_checked(whole, 1000)
    numbers = whole.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(numbers // (UNITS_PER_SECOND[unit] // 1000), mask=_null_mask(whole))


def _numbers_ms(whole: pa.Array, unit: TimeUnit) -> pa.Array | None:
    if unit is not TimeUnit.AUTO:
        return _scaled(whole, unit)
    nulls = _null_mask(whole)
    numbers = whole.fill_null(PLAUSIBLE_S_MIN).to_numpy(zero_copy_only=False)
    found = np.zeros(len(numbers), dtype=np.int64)
    known = np.zeros(len(numbers), dtype=np.bool_)
    for one, scale in UNITS_PER_SECOND.items():
        mask = (numbers >= PLAUSIBLE_S_MIN * scale) & (numbers <= min(PLAUSIBLE_S_END * scale - 1, _INT64_MAX))
        if mask.any():
            part = numbers[mask]
            found[mask] = part * 1000 if one is TimeUnit.S else part // (scale // 1000)
            known |= mask
    return pa.array(found, mask=nulls) if known.all() else None


def _null_mask(array: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return mask


def _moment(ms: int, tz: str | None) -> datetime | str:
    try:
        found = _NAIVE_EPOCH + ms * _MILLISECOND
    except OverflowError:
        return f"{ms} ms after 1970"
    return found if tz is None else found.replace(tzinfo=UTC)
