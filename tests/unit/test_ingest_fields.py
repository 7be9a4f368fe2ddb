import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import UsageError
from streams.ingest.fields import Field, Kind, convert, fields_of
from streams.schemas.catalog import Catalog

NOON = 1_533_124_800_123
NOON_TEXT = "2018-08-01T12:00:00.123"


def values(column: Any, kind: Kind, **options: Any) -> tuple[list[Any], dict[int, str]]:
    converted, reasons = convert(column, Field("f", kind, **options))
    return converted.to_pylist(), reasons


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON], pa.timestamp("ms")),
        pa.array([NOON * 1000 + 999], pa.timestamp("us", "UTC")),
        pa.array([NOON * 1_000_000 + 1], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([NOON]),
        pa.array([str(NOON)]),
        [NOON],
        [str(NOON)],
        [float(NOON)],
        [NOON_TEXT],
        [NOON_TEXT + "Z"],
        ["2018-08-01 14:00:00.123999+02:00"],
        [datetime(2018, 8, 1, 12, 0, 0, 123_000)],  # noqa: DTZ001 - a time without a zone is the case
        [datetime(2018, 8, 1, 12, 0, 0, 123_000, tzinfo=UTC)],
    ],
)
def test_every_way_to_write_a_time_gives_the_same_milliseconds(column: Any) -> None:
    assert values(column, Kind.TIME) == ([NOON], {})


def test_a_date_is_its_midnight_and_a_time_before_1970_is_floored() -> None:
    assert values([date(1970, 1, 2)], Kind.TIME) == ([86_400_000], {})
    assert values(pa.array([-1], pa.timestamp("us")), Kind.TIME)[0] in ([-1], [0])
    assert values(["1969-12-31T23:59:59.9999"], Kind.TIME) == ([-1], {})


@pytest.mark.parametrize(
    ("kind", "good", "expected", "bad"),
    [
        (
            Kind.DOUBLE,
            ["1.5", 2, Decimal("2.5"), None, " 3 "],
            [1.5, 2.0, 2.5, None, 3.0],
            ["x", True, "1_0", [1], b"1"],
        ),
        (
            Kind.LONG,
            ["7", 8, 9.0, None, "-1"],
            [7, 8, 9, None, -1],
            ["1.5", 1.5, True, 2**63, "0x1F", float("nan"), {}],
        ),
        (Kind.INT, ["7", 8], [7, 8], [2**31, "x"]),
        (Kind.TEXT, ["a", 5, "", None], ["a", "5", "", None], [1.5, True, "\ud800", b"x", {"a": 1}]),
        (Kind.BOOLEAN, ["true", False, "0"], [True, False, False], ["yes", 2, 1.0]),
        (Kind.TIME, [NOON, "1970-01-01"], [NOON, 0], ["yesterday", "", float("inf"), "2018-13-01", True, 1.5, 0]),
    ],
)
def test_values_convert_one_by_one_and_each_bad_one_has_its_reason(
    kind: Kind, good: list[Any], expected: list[Any], bad: list[Any]
) -> None:
    converted, reasons = values([*good, *bad], kind)
    assert [*expected, *[None] * len(bad)] == converted
    assert list(range(len(good), len(good) + len(bad))) == list(reasons)
    assert all(reason.startswith("f is ") and ", " in reason for reason in reasons.values())


@pytest.mark.parametrize("number", ["0x1F", "1e3", "1.0", " 1", "", "9223372036854775808"])
def test_text_that_arrow_reads_as_a_number_and_python_does_not_is_judged_the_same_alone_and_in_company(
    number: str,
) -> None:
    alone, _ = values(pa.array([number]), Kind.LONG)
    company, _ = values([number, "x", 5], Kind.LONG)
    assert alone[0] == company[0]


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60), st.text(max_size=5), st.booleans())))
def test_a_column_converts_as_its_values_do_alone(column: list[Any]) -> None:
    for kind in (Kind.DOUBLE, Kind.LONG, Kind.TEXT, Kind.TIME, Kind.BOOLEAN):
        together, reasons = values(column, kind)
        for row, value in enumerate(column):
            alone, reason = values([value], kind)
            assert bool(reason) == (row in reasons), (kind, value)
            assert np.array_equal(np.array([alone[0]], dtype=object), np.array([together[row]], dtype=object)) or (
                alone[0] != alone[0] and together[row] != together[row]
            ), (kind, value)


def test_words_of_an_enum_are_checked_in_typed_and_untyped_columns() -> None:
    for column in (["A", "C", None], pa.array(["A", "C", None]), pa.array(["A", "C", None]).dictionary_encode()):
        converted, reasons = values(column, Kind.ENUM, symbols=("A", "B"))
        assert converted == ["A", None, None]
        assert reasons == {1: "f is 'C', expected one of A, B"}


def test_whole_columns_of_large_text_dictionaries_and_decimals_convert() -> None:
    assert values(pa.array(["a", None], pa.large_string()), Kind.TEXT) == (["a", None], {})
    assert values(pa.array(["a", "a"]).dictionary_encode(), Kind.TEXT) == (["a", "a"], {})
    assert values(pa.array([Decimal("1.50")]), Kind.DOUBLE) == ([1.5], {})
    assert values(pa.array([Decimal("48.1000000")]), Kind.DOUBLE) == ([48.1], {})
    fraction, reasons = values(pa.array([Decimal("1.50"), Decimal("2.00")]), Kind.LONG)
    assert (fraction, list(reasons)) == ([None, 2], [0])
    assert values(pa.array([Decimal("1533124800.123456")]), Kind.TIME) == ([NOON], {})
    assert values(pa.array([2**62 + 1]), Kind.DOUBLE) == ([float(2**62 + 1)], {})
    assert values(pa.nulls(2), Kind.LONG) == ([None, None], {})


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([NOON], pa.timestamp("ms"))])
def test_a_typed_column_that_can_never_become_the_field_is_wrong_usage(column: Any) -> None:
    with pytest.raises(UsageError, match=r"a column of type .* cannot become f \(double\)"):
        convert(column, Field("f", Kind.DOUBLE))


def test_fields_of_all_committed_schemas_are_understood() -> None:
    catalog = Catalog.load()
    for subject in catalog.subjects():
        parsed = catalog.latest(subject).parsed
        found = fields_of(parsed)
        assert [field["name"] for field in parsed["fields"]] == [field.name for field in found]
        assert [isinstance(field["type"], list) for field in parsed["fields"]] == [field.nullable for field in found]


def test_a_nested_field_cannot_be_filled_from_a_file() -> None:
    schema = json.loads('{"fields": [{"name": "a", "type": {"type": "array", "items": "long"}}]}')
    with pytest.raises(UsageError, match=r"field a: type .* cannot be filled"):
        fields_of(schema)
