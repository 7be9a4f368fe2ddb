from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import UsageError
from streams.ingest.fields import Field, Kind, convert
from streams.ingest.reading import Reading, TimeUnit

MOMENT = datetime(2024, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
MS = 1_706_702_400_123
S = MS // 1000
DAY = 1_706_659_200_000
FIELD = Field("t", Kind.TIME)


def times(column: Any, **reading: Any) -> tuple[list[Any], dict[int, str]]:
    converted, reasons = convert(column, FIELD, Reading(**reading))
    return converted.to_pylist(), reasons


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (S, S * 1000),
        (MS, MS),
        (MS * 1000 + 456, MS),
        (MS * 1_000_000 + 456_789, MS),
        (S + 0.5, S * 1000 + 500),
        (Decimal(f"{S}.1239"), S * 1000 + 123),
        (20240131, DAY),
        (20240131120000, S * 1000),
        (10**9, 10**12),
        (10**10 - 1, (10**10 - 1) * 1000),
    ],
)
def test_auto_tells_units_and_compact_dates_by_size_in_every_type_of_column(value: Any, expected: int) -> None:
    assert times([value]) == ([expected], {})
    assert times([str(value)]) == ([expected], {})
    assert times([str(value), None, "2024-01-31"]) == ([expected, None, DAY], {})
    if isinstance(value, int):
        assert times(pa.array([value, None])) == ([expected, None], {})
        assert times(pa.array([str(value)])) == ([expected], {})
        assert times([float(value)])[0] == [pytest.approx(expected, abs=1)]


@pytest.mark.parametrize(
    "value", [0, 1, -1, 20241331, 19691231, 2**31 // 2 - 10**9, 10**10, 10**11, 10**13, 10**14, 10**17]
)
def test_auto_refuses_what_is_no_plausible_time(value: int) -> None:
    for column in ([value], [str(value)], [float(value)], pa.array([value])):
        converted, reasons = times(column)
        assert converted == [None]
        assert "no date and no time after 2001-09-09 in s, ms, us or ns since 1970: say --time-unit" in reasons[0]


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_declared_unit_is_taken_at_its_word(unit: str, scale: int) -> None:
    for column in (
        [5 * scale],
        [str(5 * scale)],
        pa.array([5 * scale]),
        [float(5 * scale)],
        pa.array([float(5 * scale)]),
    ):
        assert times(column, time_unit=TimeUnit(unit)) == ([5000], {})
    assert times([20240131], time_unit=TimeUnit.S) == ([20_240_131_000], {})


def test_a_number_that_overflows_its_unit_is_refused() -> None:
    converted, reasons = times([2**62, 1], time_unit=TimeUnit.S)
    assert converted == [None, 1000]
    assert list(reasons) == [0]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(10**9, 10**10)), min_size=1))
def test_a_column_of_numbers_converts_as_each_does_alone(column: list[int | None]) -> None:
    for unit in TimeUnit:
        together, reasons = times(pa.array(column, pa.int64()), time_unit=unit)
        for row, value in enumerate(column):
            alone, reason = times([value], time_unit=unit)
            assert (alone[0], bool(reason)) == (together[row], row in reasons)


def test_times_without_a_zone_are_of_the_declared_one_and_others_keep_theirs() -> None:
    summer, winter = datetime(2024, 7, 1, 12), datetime(2024, 1, 1, 12)  # noqa: DTZ001 - that is the case
    expected = [1_719_828_000_000, 1_704_106_800_000]
    for column in (
        [summer, winter],
        [summer.isoformat(), winter.isoformat()],
        pa.array([summer, winter], pa.timestamp("us")),
        pa.array([summer, winter], pa.timestamp("ns")),
        [20240701120000, 20240101120000],
    ):
        assert times(column, timezone="Europe/Berlin") == (expected, {})
    aware = pa.array([summer, winter], pa.timestamp("us", "UTC"))
    assert times(aware, timezone="Europe/Berlin") == times(aware)
    assert times([MS, "2024-01-31T12:00:00.123Z"], timezone="Asia/Tokyo") == ([MS, MS], {})
    for column in ([date(2024, 1, 31)], pa.array([date(2024, 1, 31)]), [20240131], ["20240131"], ["2024-01-31"]):
        assert times(column, timezone="Europe/Berlin") == ([DAY - 3_600_000], {})


@pytest.mark.parametrize("kind", [list, lambda values: pa.array(values, pa.timestamp("us"))])
def test_times_that_a_zone_has_twice_or_never_are_refused_and_others_of_the_column_are_not(kind: Any) -> None:
    never, twice, fine = (datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30), datetime(2024, 10, 27, 4))  # noqa: DTZ001
    converted, reasons = times(kind([never, twice, fine]), timezone="Europe/Berlin")
    assert converted == [None, None, 1_729_998_000_000]
    assert "does not exist in Europe/Berlin" in reasons[0]
    assert "comes twice in Europe/Berlin" in reasons[1]
    assert times([twice.isoformat() + "+02:00"], timezone="Europe/Berlin") == ([1_729_989_000_000], {})


def test_times_beyond_pythons_calendar_do_not_take_their_column_with_them() -> None:
    far = pa.array([253_402_300_800_000_000, MS * 1000], pa.timestamp("us"))
    assert times(far) == ([253_402_300_800_000, MS], {})
    converted, reasons = times(far, timezone="Europe/Berlin")
    assert converted[1] == MS - 3_600_000
    assert set(reasons) <= {0}


def test_a_decimal_comma_is_read_where_it_is_declared_and_only_there() -> None:
    number = Field("n", Kind.DOUBLE)
    comma = Reading(decimal_comma=True)
    assert convert(["48,1", "-7", None], number, comma)[0].to_pylist() == [48.1, -7.0, None]
    converted, reasons = convert(["48,1", "1.234", "1.234,5", "x"], number, comma)
    assert converted.to_pylist() == [48.1, None, None, None]
    assert list(reasons) == [1, 2, 3]
    _, reasons = convert(["48,1"], number)
    assert reasons == {0: "n is '48,1', expected a number; --decimal-comma reads 48,1"}
    assert times([f"{S},5"], decimal_comma=True) == ([S * 1000 + 500], {})


def test_a_time_with_a_zero_byte_is_none() -> None:
    converted, reasons = times(["2024-01-31T12:00:00Z\0", "2024-01-31\0"])
    assert converted == [None, None]
    assert list(reasons) == [0, 1]


def test_bytes_of_another_encoding_are_named_as_such() -> None:
    _, reasons = convert(["Ger\udce4t"], Field("id", Kind.TEXT))
    assert "its bytes are no UTF-8: --encoding says what they are" in reasons[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timezone": "Mars/Olympus"}, "--timezone 'Mars/Olympus': no such time zone"),
        ({"timezone": "../../etc/passwd"}, "--timezone .*: no such time zone"),
        ({"encoding": "utf-9"}, "--encoding 'utf-9': no such text encoding"),
        ({"encoding": "zlib"}, "--encoding 'zlib': no such text encoding"),
        ({"encoding": "\udcff"}, "--encoding .*: no such text encoding"),
        ({"delimiter": "ab"}, "--delimiter 'ab': must be one character"),
        ({"delimiter": '"'}, "--delimiter .*: must be one character"),
        ({"delimiter": ""}, "--delimiter '': must be one character"),
    ],
)
def test_options_that_are_none_are_wrong_usage(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Reading(**options)


def test_what_differs_from_the_defaults_is_what_makes_other_work() -> None:
    assert Reading().choices() == {}
    assert Reading(delimiter="tab", time_unit=TimeUnit.S).choices() == {"delimiter": "\t", "time_unit": "s"}
