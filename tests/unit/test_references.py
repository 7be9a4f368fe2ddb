"""Schema references written out."""

import json
from typing import Any

import fastavro
import pytest

from streams.schemas.references import inlined

COUNTRY = {"type": "enum", "name": "Country", "namespace": "logistics", "symbols": ["AT", "DE"]}
SIM = {"type": "record", "name": "logistics.Sim", "fields": [{"name": "home", "type": "Country"}]}
YARD = {
    "type": "record",
    "name": "Yard",
    "namespace": "yards",
    "fields": [{"name": "country", "type": "logistics.Country"}],
}


def written_out(schema: dict[str, Any] | list[str] | str, *referenced: Any) -> Any:
    return json.loads(inlined(json.dumps(schema), [json.dumps(each) for each in referenced]))


def record(*fields: Any, **more: str) -> dict[str, Any]:
    named = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(fields)]
    return {"type": "record", "name": "Thing", "namespace": "logistics", "fields": named, **more}


def names_of(schema: dict[str, Any]) -> set[str]:
    return set(fastavro.schema.parse_schema(schema)["__named_schemas"])


def test_a_schema_without_references_is_returned_as_it_is() -> None:
    text = '{"type" :   "string"}'
    assert text is inlined(text, [])


def test_a_diamond_of_references_defines_each_type_once() -> None:
    made = written_out(record("Sim", ["null", "yards.Yard"], {"type": "array", "items": "Country"}), SIM, YARD, COUNTRY)
    assert {"logistics.Thing", "logistics.Sim", "yards.Yard", "logistics.Country"} == names_of(made)
    home = made["fields"][0]["type"]["fields"][0]["type"]
    assert home["symbols"] == ["AT", "DE"]
    assert made["fields"][1]["type"][1]["fields"][0]["type"] == "logistics.Country"
    assert made["fields"][2]["type"]["items"] == "logistics.Country"


def test_the_order_of_references_does_not_matter() -> None:
    schema = record("Sim", "yards.Yard")
    assert written_out(schema, SIM, YARD, COUNTRY) == written_out(schema, COUNTRY, YARD, SIM)


def test_what_is_written_with_the_definitions_is_read_by_fastavro() -> None:
    made = fastavro.parse_schema(written_out(record("Country", "Sim"), SIM, COUNTRY))
    assert fastavro.validate({"f0": "DE", "f1": {"home": "AT"}}, made, raise_errors=False)
    assert not fastavro.validate({"f0": "DE", "f1": {"home": "FR"}}, made, raise_errors=False)


def test_a_schema_that_is_only_a_name_or_a_union_of_names_is_written_out() -> None:
    assert names_of(written_out("logistics.Sim", SIM, COUNTRY)) == {"logistics.Sim", "logistics.Country"}
    first, second = written_out(["yards.Yard", "logistics.Sim"], SIM, YARD, COUNTRY)
    assert (first["name"], second["name"]) == ("Yard", "Sim")
    assert second["fields"][0]["type"] == "logistics.Country"


def test_a_type_defined_within_a_referenced_one_is_available_too() -> None:
    outer = record({"type": "fixed", "name": "Key", "size": 4}, name="Outer")
    made = written_out(record("Key", "Outer"), outer)
    assert made["fields"][0]["type"]["size"] == 4
    assert made["fields"][1]["type"]["fields"][0]["type"] == "logistics.Key"


def test_a_type_without_a_namespace_stays_without_one() -> None:
    plain = {"type": "enum", "name": "Plain", "symbols": ["A"]}
    made = written_out(record("Plain"), plain)
    assert names_of(made) == {"logistics.Thing", "Plain"}


def test_a_type_that_refers_to_itself_ends() -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    assert written_out("Node", node)["fields"][0]["type"] == ["null", "Node"]


def test_a_name_that_nobody_defines_stays_and_attributes_are_kept() -> None:
    made = written_out(record("Missing", {"type": "long", "logicalType": "timestamp-millis"}, doc="x"), COUNTRY)
    kinds = [field["type"] for field in made["fields"]]
    assert (kinds, made["doc"]) == (["logistics.Missing", {"type": "long", "logicalType": "timestamp-millis"}], "x")


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        inlined("syntax = proto3", ["{}"])
