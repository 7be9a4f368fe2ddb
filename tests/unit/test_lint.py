import json
from pathlib import Path
from typing import Any

import pytest

from streams.flow.declaration import Pipeline, Table
from streams.flow.discover import pipelines
from streams.schemas.catalog import Catalog, SubjectSettings
from streams.schemas.gate.findings import Rule
from streams.schemas.gate.lint import lint
from streams.schemas.gate.logical import misuse

SUBJECT = "things.v1-value"
TIME = {"type": "long", "logicalType": "timestamp-millis"}
GOOD = [
    {"name": "event_id", "type": "string", "doc": "Unique id."},
    {"name": "event_time", "type": TIME, "doc": "When."},
    {"name": "thing_id", "type": "string", "doc": "The key."},
]


def found(
    root: Path, *fields: Any, subject: str = SUBJECT, pipelines: Any = (), ignore: Any = (), **attributes: Any
) -> Any:
    """(field, rule) of everything that lint has against a schema, fields added to good ones."""
    base = {"type": "record", "name": "Thing", "namespace": "logistics", "doc": "A thing.", "fields": [*GOOD, *fields]}
    (root / subject).mkdir(exist_ok=True)
    (root / subject / "1.avsc").write_text(json.dumps({**base, **attributes}), encoding="utf-8")
    version = Catalog.load(root).latest(subject)
    return [(f.field, f.rule.value) for f in lint(version, pipelines, SubjectSettings(lint_ignore=frozenset(ignore)))]


def field(name: str, kind: Any, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "doc": "What it is.", **attributes}


def test_a_good_schema_has_nothing_against_it(tmp_path: Path) -> None:
    enum = {"type": "enum", "name": "Kind", "doc": "Kinds.", "symbols": ["ON", "SWITCHED_OFF"]}
    good = [
        field("weight_kg", ["null", "double"], default=None),
        field("kind", enum),
        field("retries", "int", doc="A count."),
        field("is_open", "boolean"),
        field("temperature_max_c", "float"),
        field("promised_time", ["null", TIME], default=None),
    ]
    assert found(tmp_path, *good) == []


def test_the_committed_schemas_have_nothing_against_them() -> None:
    catalog = Catalog.load()
    for version in (version for subject in catalog.subjects() for version in catalog.versions(subject)):
        assert lint(version, list(pipelines().values()), catalog.settings(version.subject)) == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (field("ownName", "string"), Rule.NAME_STYLE),
        (field("Weight_kg", "double"), Rule.NAME_STYLE),
        (field("weight_kg", "double", doc=" "), Rule.DOC),
        (field("weight", "double"), Rule.UNIT_SUFFIX),
        (field("weight", ["null", "int"], default=None), Rule.UNIT_SUFFIX),
        (field("closing_time", "long"), Rule.LOGICAL_TYPE),
        (field("weight_kg", ["null", "double"]), Rule.OPTIONAL_DEFAULT),
        (field("weight_kg", ["double", "null"], default=1.0), Rule.OPTIONAL_DEFAULT),
        (field("label", ["string", "boolean"], default=False), Rule.DEFAULT_TYPE),
        (field("at_ms", "long", logicalType="timestamp-millis"), Rule.LOGICAL_TYPE),
        (field("at", {"type": "string", "logicalType": "timestamp-millis"}), Rule.LOGICAL_TYPE),
        (field("day", {"type": "int", "logicalType": "data"}), Rule.LOGICAL_TYPE),
        (field("price_eur", {"type": "bytes", "logicalType": "decimal"}), Rule.LOGICAL_TYPE),
        (field("kind", {"type": "enum", "name": "Kind", "symbols": ["ON"]}), Rule.DOC),
        (field("kind", {"type": "enum", "name": "Kind", "doc": "Kinds.", "symbols": ["on"]}), Rule.NAME_STYLE),
        (field("kind", {"type": "enum", "name": "kind", "doc": "Kinds.", "symbols": ["ON"]}), Rule.NAME_STYLE),
    ],
)
def test_a_wrong_field_is_named_with_the_rule(tmp_path: Path, wrong: Any, rule: Rule) -> None:
    assert found(tmp_path, wrong) == [(wrong["name"], rule.value)]
    assert found(tmp_path, wrong, ignore=[f"{rule}:{wrong['name']}"]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        field("weight_kg", "double", default="heavy"),
        field("label", "bytes", default=7),
        field("label", "text"),
        field("kind", {"type": "enum", "name": "Kind", "doc": "Kinds.", "symbols": ["ON"], "default": "OFF"}),
    ],
)
def test_what_is_no_schema_is_said_of_the_field_that_makes_it_none(tmp_path: Path, wrong: Any) -> None:
    fields = [*GOOD, wrong, field("behind", "string")]
    (tmp_path / SUBJECT).mkdir()
    text = json.dumps({"type": "record", "name": "Thing", "fields": fields}).replace('{"name"', '\n{"name"')
    (tmp_path / SUBJECT / "1.avsc").write_text(text, encoding="utf-8")
    catalog, (finding,) = Catalog.read(tmp_path)
    assert catalog.subjects() == ()
    assert text.splitlines()[finding.line - 1].startswith(json.dumps({"name": finding.field})[:-1])
    assert (finding.field, finding.rule) == (wrong["name"], Rule.PARSE)


def test_a_wrong_field_is_found_at_any_depth(tmp_path: Path) -> None:
    part = {"type": "record", "name": "Part", "doc": "A part.", "fields": [field("weight", "double")]}
    kinds = {"": part, "[]": {"type": "array", "items": part}, "{}": {"type": "map", "values": ["null", part]}}
    for step, kind in kinds.items():
        assert found(tmp_path, field("parts", kind)) == [(f"parts{step}.weight", "unit_suffix")]


def test_the_schema_itself_has_a_namespace_a_doc_and_a_subject_with_a_version(tmp_path: Path) -> None:
    assert found(tmp_path, namespace="") == [("", "namespace")]
    assert found(tmp_path, namespace="Logistics") == [("", "namespace")]
    assert found(tmp_path, namespace="", name="logistics.Thing") == []
    assert found(tmp_path, doc="") == [("", "doc")]
    assert found(tmp_path, name="thing") == [("", "name_style")]
    for subject in ("things-value", "things.v0-value", "Things.v1-value", "things.v1"):
        assert ("", "subject_name") in found(tmp_path, subject=subject)


def test_an_attribute_that_is_said_twice_is_found(tmp_path: Path) -> None:
    text = json.dumps({"type": "record", "name": "Thing", "namespace": "logistics", "doc": "A thing.", "fields": GOOD})
    (tmp_path / SUBJECT).mkdir()
    (tmp_path / SUBJECT / "1.avsc").write_text(text.replace('"doc": "When."', '"doc": "If.", "doc": "When."'))
    (finding,) = lint(Catalog.load(tmp_path).latest(SUBJECT), (), SubjectSettings())
    assert (finding.field, finding.rule) == ("event_time", Rule.REPEATED_ATTRIBUTE)


def test_an_event_has_an_id_a_time_and_a_key(tmp_path: Path) -> None:
    assert found(tmp_path, fields=GOOD[:2]) == [("", "event_field")]
    assert found(tmp_path, fields=GOOD[1:]) == [("event_id", "event_field")]
    no_millis = {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "When."}
    assert found(tmp_path, fields=[GOOD[0], no_millis, GOOD[2]]) == [("event_time", "event_field")]
    nullable = {"name": "event_id", "type": ["null", "string"], "default": None, "doc": "Unique id."}
    assert found(tmp_path, fields=[nullable, *GOOD[1:]]) == [("event_id", "event_field")]


def test_the_names_are_those_of_the_pipeline_and_rows_are_no_events(tmp_path: Path) -> None:
    reads = Pipeline(name="things", source="things.v1", id_field="thing_id", key_field="event_id")
    assert found(tmp_path, pipelines=[reads]) == []
    other_key = Pipeline(name="things", source="things.v1", key_field="owner_id")
    assert found(tmp_path, pipelines=[other_key]) == [("owner_id", "event_field")]
    table = pipelines()["gps"].tables[0].aggregate
    writes = Pipeline(name="x", source="x.v1", tables=(Table("things.v1", table),))
    assert found(tmp_path, fields=GOOD[2:], pipelines=[writes]) == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"type": "long"}, None),
        ({"type": "fixed", "size": 12, "logicalType": "duration"}, None),
        ({"type": "fixed", "size": 16, "logicalType": "uuid"}, None),
        ({"type": "fixed", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2}, None),
        ({"type": "fixed", "size": 4, "logicalType": "decimal", "precision": 10}, "4 bytes hold 9 digits, not 10"),
        ({"type": "fixed", "size": 8, "logicalType": "uuid"}, "uuid takes 16 bytes, not 8"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3},
            "decimal with scale 3 and precision 2",
        ),
        ({"type": "bytes", "logicalType": "decimal", "precision": True}, "decimal without a precision"),
        ({"type": "int", "logicalType": "time-micros"}, "time-micros annotates long, not int"),
        ({"type": ["null", "long"], "logicalType": "timestamp-millis"}, "annotates long, not this type"),
    ],
)
def test_logical_types_and_what_they_annotate(kind: Any, message: str | None) -> None:
    wrong = misuse(kind)
    assert (wrong is None) == (message is None)
    assert wrong is None or message is None or message in wrong[0]
