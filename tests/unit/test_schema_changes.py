"""The table of schema changes: the gate's verdict and fastavro's decoding, in both directions."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from streams.avro.resolve import IncompatibleSchema, build_plan, without_logical_types
from streams.avro.values import decode_one
from streams.schemas.catalog import Catalog
from streams.schemas.gate import compatibility
from streams.schemas.gate.check import check_subject
from streams.schemas.gate.findings import Direction, Finding, Rule
from streams.schemas.gate.modes import Mode
from tests.schema_changes import CHANGES, DEFAULTS, Change, Default

AVRO = {
    Rule.MISSING_DEFAULT,
    Rule.TYPE_MISMATCH,
    Rule.MISSING_BRANCH,
    Rule.MISSING_SYMBOLS,
    Rule.NAME_MISMATCH,
    Rule.SIZE_MISMATCH,
}


def each_change(check: Any) -> Any:
    return pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])(check)


def findings(root: Path, schemas: list[Any], mode: Mode) -> list[Finding]:
    """What the gate finds in versions of one subject."""
    folder = root / "events.v1-value"
    folder.mkdir(exist_ok=True)
    for number, schema in enumerate(schemas, 1):
        (folder / f"{number}.avsc").write_text(json.dumps(schema, indent=2), encoding="utf-8")
    return list(check_subject(Catalog.load(root), "events.v1-value", {}, (), mode=mode).findings)


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len({change.name for change in CHANGES}) == len(CHANGES) >= 40


@each_change
def test_the_gate_refuses_what_the_table_says_under_every_mode(change: Change, tmp_path: Path) -> None:
    for mode in Mode:
        found = [f for f in findings(tmp_path, list(change.schemas), mode) if f.rule in AVRO]
        assert {f.direction for f in found} == set(mode.directions) - change.readable, mode
        for finding in found:
            assert (finding.against, finding.version) == ((1,), 2)
            assert finding.message
            assert "version" in finding.breaks
            assert "streams schemas new-version" in finding.fix


@each_change
def test_what_the_gate_adds_to_avros_rules_is_in_the_table(change: Change, tmp_path: Path) -> None:
    found = findings(tmp_path, list(change.schemas), Mode.FULL)
    assert {f.rule.value for f in found if f.rule not in AVRO} == set(change.gate)


@each_change
@pytest.mark.parametrize("direction", list(Direction))
def test_fastavro_decodes_every_value_exactly_where_the_table_says_so(change: Change, direction: Direction) -> None:
    old, new = (without_logical_types(schema) for schema in change.schemas)
    writer, reader = (old, new) if direction is Direction.BACKWARD else (new, old)
    readable = all(can_decode(writer, reader, value) for value in samples(writer))
    assert readable == (direction in change.readable)


@each_change
def test_the_explanation_is_empty_exactly_where_the_library_accepts(change: Change) -> None:
    old, new = (compatibility.parsed(json.dumps(schema)) for schema in change.schemas)
    assert (not compatibility.misfits(new, old)) == compatibility.can_read(new, old)
    assert (not compatibility.misfits(old, new)) == compatibility.can_read(old, new)


@each_change
@pytest.mark.parametrize("direction", list(Direction))
def test_the_decoder_reads_what_the_gate_accepts_and_nothing_that_means_something_else(
    change: Change, direction: Direction
) -> None:
    old, new = change.schemas
    writer, reader = (old, new) if direction is Direction.BACKWARD else (new, old)
    plain = without_logical_types(writer)
    read = [plan_and_decode(writer, reader, encoded(plain, value)) for value in samples(plain)]
    if direction not in change.readable:
        assert not all(read)
    elif not change.gate:
        assert all(read)
    elif "meaning_changed" in change.gate:
        assert not any(read)


DEFAULT = pytest.mark.parametrize("default", DEFAULTS, ids=[default.name for default in DEFAULTS])


@DEFAULT
def test_a_default_that_is_no_value_of_its_type_is_refused_in_any_version(default: Default, tmp_path: Path) -> None:
    old, new = default.schemas
    for number, schemas in enumerate(([old, new], [new], [new, old])):
        (tmp_path / str(number)).mkdir()
        assert default.fits == (refusals(tmp_path / str(number), schemas) == set()), schemas


@DEFAULT
def test_the_decoder_takes_the_defaults_that_the_gate_accepts(default: Default) -> None:
    old, new = default.schemas
    if default.fits:
        assert plan_and_decode(old, new, encoded(old, {"id": "a"}))


def refusals(root: Path, schemas: list[Any]) -> set[str]:
    """Rules that the versions break, those of files that are no schema included."""
    folder = root / "events.v1-value"
    folder.mkdir()
    for number, schema in enumerate(schemas, 1):
        (folder / f"{number}.avsc").write_text(json.dumps(schema), encoding="utf-8")
    catalog, broken = Catalog.read(root)
    found = [f for subject in catalog.subjects() for f in check_subject(catalog, subject, {}, ()).findings]
    return {finding.rule.value for finding in [*broken, *found]}


def encoded(writer: Any, value: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    return stream.getvalue()


def plan_and_decode(writer: Any, reader: Any, body: bytes) -> bool:
    """Whether the decoder reads a value."""
    try:
        plan = build_plan(1, json.dumps(writer), json.dumps(reader))
    except IncompatibleSchema:
        return False
    return isinstance(decode_one(plan, body), dict)


def can_decode(writer: Any, reader: Any, value: Any) -> bool:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    stream.seek(0)
    try:
        fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    except (fastavro.read.SchemaResolutionError, EOFError):
        return False
    return True


def samples(schema: Any, depth: int = 3) -> list[Any]:
    """Values of a type, with every branch and symbol in one of them."""
    if isinstance(schema, list):
        return [value for branch in schema for value in samples(branch, depth)]
    if isinstance(schema, str):
        plain: dict[str, list[Any]] = {
            "null": [None], "boolean": [True], "int": [1], "long": [2**40], "float": [0.5], "double": [0.1],
            "string": ["é"], "bytes": [b"\x01"],
        }  # fmt: skip
        return plain.get(schema, [{"next": None}])
    match schema["type"]:
        case "record":
            columns = {field["name"]: samples(field["type"], depth - 1) for field in schema["fields"]}
            rows = max(map(len, columns.values()), default=1)
            return [{name: found[row % len(found)] for name, found in columns.items()} for row in range(rows)]
        case "array":
            return [[value] for value in samples(schema["items"], depth)]
        case "map":
            return [{"key": value} for value in samples(schema["values"], depth)]
        case "enum":
            return list(schema["symbols"])
        case "fixed":
            return [bytes(schema["size"])]
        case inner:
            return samples(inner, depth)
