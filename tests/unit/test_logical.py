"""Whether writer and reader mean the same by a stored number: by logical type, scale, and Debezium's names."""

import json
from typing import Any

import fastavro
import pytest

from streams.avro.logical import difference, differences, unit
from streams.avro.resolve import IncompatibleSchema, build_plan, parsed_with_units


def logical(base: str, name: list[str] | str, **more: object) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


MILLIS, MICROS = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")
DATE, CENTS = logical("int", "date"), logical("bytes", "decimal", precision=9, scale=2)
MILLS = logical("bytes", "decimal", precision=9, scale=3)
UUID = logical("string", "uuid")


def record(*fields, name: str = "Thing", **more: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "logistics", "fields": list(fields), **more}


def field(kind, name: str = "when", **more: object) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def found(writer: dict[str, Any], reader: dict[str, Any]) -> list[tuple[str, str]]:
    parsed = parsed_with_units(json.dumps(writer)), parsed_with_units(json.dumps(reader))
    return [(each.path, each.words) for each in differences(*parsed)]


@pytest.mark.parametrize(
    ("writer", "reader", "words"),
    [
        (MICROS, MILLIS, "written as timestamp-micros, read as timestamp-millis"),
        (DATE, MILLIS, "written as date, read as timestamp-millis"),
        (logical("int", "time-millis"), MILLIS, "written as time-millis, read as timestamp-millis"),
        (logical("int", "time-millis"), logical("long", "time-micros"), "written as time-millis, read as time-micros"),
        (logical("long", "local-timestamp-millis"), MILLIS,
         "written as local-timestamp-millis, read as timestamp-millis"),
        (CENTS, MILLS, "written as decimal of scale 2, read as decimal of scale 3"),
        ("string", CENTS, "written as text, read as decimal of scale 2"),
        (UUID, CENTS, "written as uuid, read as decimal of scale 2"),
        (CENTS, "string", "written as decimal of scale 2, read as text"),
        ({"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}, MILLIS,
         "written as timestamp-micros, read as timestamp-millis"),
    ],
)  # fmt: skip
def test_types_of_different_units_differ_in_words_that_name_both(
    writer: dict[str, Any] | str, reader: dict[str, Any] | str, words: str
) -> None:
    assert words == difference(writer, reader)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (MILLIS, MILLIS), ("long", MILLIS), ("int", MILLIS), (MICROS, "long"), (MICROS, "double"), (DATE, "int"),
        (CENTS, logical("bytes", "decimal", precision=18, scale=2)), ("bytes", CENTS), (CENTS, "bytes"),
        ("string", UUID), (UUID, "string"), ({"type": "long", "connect.name": "io.debezium.time.Timestamp"}, MILLIS),
        (logical("string", "timestamp-micros"), "string"),
    ],
)  # fmt: skip
def test_what_claims_no_other_unit_does_not_differ(writer: dict[str, Any] | str, reader: dict[str, Any] | str) -> None:
    assert difference(writer, reader) is None


def test_a_logical_type_that_readers_ignore_is_no_unit() -> None:
    assert unit(logical("int", "timestamp-millis")) == ""
    assert unit(logical("bytes", "decimal", scale=2)) == ""
    assert unit(logical("long", "timestamp-years")) == ""


def test_differences_are_found_behind_unions_promotions_arrays_maps_records_aliases_and_references() -> None:
    part = record(field(MICROS, "at"), name="Part")
    part_read = record(field(MILLIS, "at"), name="Part")
    written = record(
        field(["null", MICROS], "nullable"), field(DATE, "promoted"), field({"type": "array", "items": MICROS}, "list"),
        field({"type": "map", "values": ["null", DATE]}, "map"), field(part, "part"), field(["null", "Part"], "again"),
        field(MICROS, "old"), field(MICROS, "unread"),
    )  # fmt: skip
    read = record(
        field([MILLIS, "null"], "nullable"), field(["null", MILLIS], "promoted"),
        field({"type": "array", "items": ["null", MILLIS]}, "list"),
        field({"type": "map", "values": ["null", MILLIS]}, "map"),
        field(part_read, "part"), field(["null", "Part"], "again"), field(MILLIS, "new", aliases=["old"]),
    )  # fmt: skip
    micros, date = "written as timestamp-micros, read as timestamp-millis", "written as date, read as timestamp-millis"
    assert found(written, read) == [
        ("nullable", micros), ("promoted", date), ("list[]", micros), ("map{}", date), ("part.at", micros),
        ("new", micros),
    ]  # fmt: skip
    assert found(written, written) == found(read, read) == []


def test_a_type_that_is_used_in_ever_more_places_is_looked_at_once() -> None:
    def doubled(leaf: dict[str, str]) -> dict[str, Any]:
        kind = record(field(leaf, "v"), name="L0")
        for level in range(1, 40):
            kind = record(field(kind, "a"), field(f"L{level - 1}", "b"), name=f"L{level}")
        return kind

    assert [path for path, _ in found(doubled(MICROS), doubled(MILLIS))] == [".".join(["a"] * 39 + ["v"])]


def test_types_that_no_value_passes_between_are_no_question_of_units() -> None:
    assert found(record(field(MICROS)), record(field(DATE))) == []


@pytest.mark.parametrize("wrap", [lambda kind: kind, lambda kind: ["null", kind]])
def test_no_plan_reads_a_time_in_another_unit(wrap) -> None:
    written = record(field("string", "id"), field(wrap(MICROS)))
    read = record(field("string", "id"), field(wrap(MILLIS)))
    words = "schema 7: field 'when' is written as timestamp-micros, read as timestamp-millis"
    with pytest.raises(IncompatibleSchema, match=words):
        build_plan(7, json.dumps(written), json.dumps(read))


@pytest.mark.parametrize(
    "ignored",
    [logical("bytes", "decimal", precision="x"), logical("int", ["date"]), logical("bytes", "decimal", scale=-1)],
)
def test_a_logical_type_that_is_none_is_ignored_as_readers_ignore_it(ignored: dict[str, Any]) -> None:
    written = record(field("string", "id"), field(ignored, "odd"))
    assert fastavro.parse_schema(build_plan(7, json.dumps(written), json.dumps(record(field("string", "id")))).writer)
