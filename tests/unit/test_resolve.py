import json
from collections.abc import Mapping
from typing import Any

import fastavro
import pytest

from streams.avro.resolve import Column, IncompatibleSchema, Plan, build_plan, without_logical_types

READER = {
    "type": "record",
    "name": "Thing",
    "namespace": "logistics",
    "fields": [
        {"name": "id", "type": "string", "aliases": ["old_id"]},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "speed", "type": ["null", "double"], "default": None},
        {"name": "unit", "type": "string", "default": "km"},
    ],
}


def writer(*fields: Any, name: str = "Thing") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "logistics", "fields": list(fields)}


ID = {"name": "id", "type": "string"}
TIME = {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}}


def plan(schema: dict[str, Any] | list[Any], reader: dict[str, Any] = READER) -> Plan:
    return build_plan(7, json.dumps(schema), json.dumps(reader))


def columns_of(made: Plan) -> Mapping[str, Column]:
    assert made.columns is not None
    return made.columns


def json_of(text: str | None) -> Any:
    assert text is not None
    return json.loads(text)


def is_columnar(schema: dict[str, Any]) -> bool:
    return plan(schema).framed_json is not None


def test_the_readers_own_schema_is_read_column_by_column() -> None:
    made = plan(READER)
    assert [columns_of(made)[name].position for name in ("id", "time", "speed", "unit")] == [0, 1, 2, 3]
    assert made.kinds == ("string", "long", "double?", "string")


def test_fields_are_matched_by_name_wherever_they_stand() -> None:
    made = plan(writer(TIME, ID))
    assert (columns_of(made)["id"].position, columns_of(made)["time"].position) == (1, 0)


def test_missing_fields_take_the_readers_default() -> None:
    made = plan(writer(ID, TIME))
    assert (columns_of(made)["speed"].position, columns_of(made)["speed"].default) == (None, None)
    assert (columns_of(made)["unit"].position, columns_of(made)["unit"].default) == (None, "km")


def test_a_field_is_found_by_the_readers_alias() -> None:
    assert columns_of(plan(writer({"name": "old_id", "type": "string"}, TIME)))["id"].position == 0


def test_the_name_itself_goes_before_the_alias() -> None:
    assert columns_of(plan(writer({"name": "old_id", "type": "string"}, ID, TIME)))["id"].position == 1


def test_a_missing_field_without_default_is_incompatible_and_named() -> None:
    with pytest.raises(IncompatibleSchema, match="schema 7 lacks field 'time', which has no default"):
        plan(writer(ID))


def test_an_enum_is_columnar_and_its_symbols_are_translated() -> None:
    read = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}
    written = {**read, "symbols": ["C", "X", "A"]}
    made = plan(writer({"name": "kind", "type": written}), writer({"name": "kind", "type": read}))
    assert made.kinds == ("enum3",)
    assert columns_of(made)["kind"].codes == (2, -1, 0)
    assert made.symbols == {"kind": ("A", "B", "C")}
    other = writer({"name": "kind", "type": {**read, "name": "F"}})
    assert plan(other, writer({"name": "kind", "type": read})).framed_json is None


def test_unknown_simple_fields_are_skipped_column_by_column() -> None:
    made = plan(writer({"name": "other", "type": ["null", "boolean"]}, ID, TIME))
    assert columns_of(made).keys() == {"id", "time", "speed", "unit"}
    assert made.kinds[0] == "boolean?"


PART = {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}, {"name": "b", "type": "bytes"}]}
OTHERS = (
    "bytes",
    ["null", "bytes"],
    ["null", "int", "string"],
    {"type": "array", "items": "long"},
    {"type": "map", "values": PART},
    {"type": "fixed", "name": "Twelve", "size": 12},
    ["null", PART],
)


@pytest.mark.parametrize("kind", OTHERS)
def test_unknown_fields_of_other_kinds_are_skipped_column_by_column(kind: Any) -> None:
    made = plan(writer({"name": "other", "type": kind}, ID, TIME))
    assert made.framed_json is not None
    assert columns_of(made)["id"].position == 1
    assert made.unexpected == ("other",)


def doubled(levels: int) -> dict[str, Any]:
    """A type whose references spelt out are 2 ** levels."""
    kind: dict[str, Any] = {"type": "record", "name": "L0", "fields": [{"name": "v", "type": "int"}]}
    for level in range(1, levels):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": f"L{level - 1}"}]
        kind = {"type": "record", "name": f"L{level}", "fields": fields}
    return kind


@pytest.mark.parametrize("kind", [{"type": "fixed", "name": "Three", "size": 3}, doubled(40)])
def test_what_has_no_column_with_the_same_bytes_is_skipped_record_by_record(kind: dict[str, Any]) -> None:
    assert not is_columnar(writer({"name": "other", "type": kind}, ID, TIME))


def test_unexpected_fields_are_named_by_their_path() -> None:
    part = {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]}
    more = {**part, "fields": [*part["fields"], {"name": "m", "type": "int"}]}
    read = writer(
        ID, {"name": "parts", "type": {"type": "array", "items": ["null", part]}}, {"name": "map", "type": "Part"}
    )
    written = writer(
        ID, {"name": "parts", "type": {"type": "array", "items": more}}, {"name": "map", "type": "Part"}, TIME
    )
    assert plan(written, read).unexpected == ("parts[].m", "map.m", "time")
    assert plan(read, read).unexpected == ()


def test_a_symbol_that_the_reader_has_not_becomes_its_default() -> None:
    read = {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "B"}
    written = {"type": "enum", "name": "E", "symbols": ["X", "A"]}
    made = plan(writer({"name": "kind", "type": written}), writer({"name": "kind", "type": read}))
    assert columns_of(made)["kind"].codes == (1, 0)


@pytest.mark.parametrize("kind", ["int", "long", "float", "double", ["null", "float"], ["double", "null"]])
def test_numbers_are_promoted_column_by_column(kind: list[str] | str) -> None:
    assert is_columnar(writer(ID, TIME, {"name": "speed", "type": kind}))


def test_an_int_is_read_as_a_long_so_that_nothing_is_cut_off() -> None:
    made = plan(writer(ID, {"name": "time", "type": "int"}, {"name": "speed", "type": ["null", "int"]}))
    assert [field["type"] for field in json_of(made.bare_json)["fields"]] == ["string", "long", ["null", "long"]]


@pytest.mark.parametrize("kind", ["double", "float", "string", "boolean"])
def test_what_is_no_promotion_is_incompatible(kind: str) -> None:
    with pytest.raises(IncompatibleSchema, match=f"schema 7: field 'time' is {kind}, not long"):
        plan(writer(ID, {"name": "time", "type": kind}))


def test_a_nullable_writer_of_a_plain_reader_is_judged_record_by_record() -> None:
    assert not is_columnar(writer({"name": "id", "type": ["null", "string"]}, TIME))


def test_bytes_for_a_string_are_judged_record_by_record() -> None:
    assert not is_columnar(writer({"name": "id", "type": "bytes"}, TIME))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"string"', '{"type": "record"}', '{"type": "record", "name": "X", "fields": [{}]}', "null"]
)
def test_what_is_no_usable_record_schema_is_incompatible(text: str) -> None:
    with pytest.raises(IncompatibleSchema, match="schema 7"):
        build_plan(7, text, json.dumps(READER))


def test_a_record_of_another_name_is_incompatible_on_every_path() -> None:
    with pytest.raises(IncompatibleSchema, match="is of 'Other', not of 'Thing'"):
        plan(writer(ID, TIME, name="Other"))


def test_of_a_union_of_records_at_least_one_must_be_the_readers() -> None:
    other, mine = writer(ID, name="Other"), writer(ID, TIME)
    assert plan([other, mine]).others == {0: "Other"}
    assert plan([mine]).others == {}
    with pytest.raises(IncompatibleSchema, match="schema 7 is a union of Other, null; none of them is 'Thing'"):
        plan([other, "null"])
    with pytest.raises(IncompatibleSchema, match="lacks field 'time'"):
        plan([other, writer(ID)])


def test_a_branch_of_a_union_may_use_types_of_the_branches_before_it() -> None:
    unit = {"type": "enum", "name": "Unit", "symbols": ["KM"]}
    other = writer({"name": "unit", "type": unit}, name="Other")
    assert plan([other, writer(ID, TIME, {"name": "in", "type": "Unit"})]).unexpected == ("in",)


def test_the_namespace_does_not_matter_and_a_readers_alias_counts() -> None:
    assert plan({**writer(ID, TIME), "namespace": "elsewhere"}).columns is not None
    assert plan(writer(ID, TIME, name="Old"), {**READER, "aliases": ["Old"]}).columns is not None
    assert plan(writer(ID, TIME, name="logistics.Thing")).columns is not None


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
TREE = {"type": "record", "name": "Tree", "fields": [{"name": "of", "type": {"type": "array", "items": "x.Tree"}}]}
FOREST = {"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "map", "values": ["null", "A"]}}]}


@pytest.mark.parametrize("kind", [NODE, {**TREE, "namespace": "x"}, FOREST])
def test_a_type_that_contains_itself_is_refused_since_decoding_it_may_overflow_the_stack(kind: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleSchema, match="contains itself"):
        plan(writer({"name": "bomb", "type": kind}, ID, TIME))


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "fixed", "name": "F", "size": 0},
        {"type": "record", "name": "E", "fields": []},
        {"type": "record", "name": "E", "fields": [{"name": "n", "type": "null"}]},
    ],
)
def test_an_array_of_nothing_is_refused_since_its_count_alone_says_how_long_it_takes(
    items: dict[str, Any] | str,
) -> None:
    with pytest.raises(IncompatibleSchema, match="items that take no bytes"):
        plan(writer({"name": "bomb", "type": {"type": "array", "items": items}}, ID, TIME))


def test_a_type_used_twice_is_no_recursion() -> None:
    four = {"type": "fixed", "name": "Four", "size": 4}
    part = {"type": "record", "name": "Part", "fields": [{"name": "f", "type": "Four"}]}
    fields = [{"name": "a", "type": four}, {"name": "b", "type": {"type": "array", "items": "Four"}}]
    fields += [{"name": "c", "type": part}, {"name": "d", "type": ["null", "Part"]}, {"name": "e", "type": "Four"}]
    assert is_columnar(writer(*fields, ID, TIME))


def test_logical_types_and_docs_are_taken_off_everywhere() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    schema = writer({"name": "id", "type": {"type": "string", "avro.java.string": "String"}, "doc": "x"}, TIME)
    schema["fields"].append({"name": "price", "type": ["null", decimal]})
    schema["fields"].append({"name": "list", "type": {"type": "array", "items": TIME["type"]}})
    kinds = [field["type"] for field in without_logical_types(schema)["fields"]]
    assert kinds == ["string", "long", ["null", "bytes"], {"type": "array", "items": "long"}]


def test_the_frame_is_decoded_as_two_more_fields() -> None:
    made = plan(READER)
    names = [field["name"] for field in json_of(made.framed_json)["fields"]]
    assert names == ["__frame_magic", "__frame_schema_id", "id", "time", "speed", "unit"]
    fastavro.parse_schema(json_of(made.framed_json))
