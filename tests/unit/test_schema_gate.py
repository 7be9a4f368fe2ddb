import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logistics.flows
from streams.cli.findings import FindingsFormat, annotation, echo_findings, fail_on_findings
from streams.errors import FoundSomething, StreamsError, UsageError
from streams.flow import discover
from streams.flow.declaration import Pipeline
from streams.flow.discover import pipelines
from streams.schemas.catalog import Catalog, schemas_dir
from streams.schemas.client import RegisteredVersion, Registry
from streams.schemas.gate.agreement import with_registry
from streams.schemas.gate.changes import differences
from streams.schemas.gate.check import check_subject, not_locked
from streams.schemas.gate.findings import Finding, Rule, versions_in_words
from streams.schemas.gate.modes import Mode
from streams.schemas.located import line_of, located
from streams.schemas.lock import LOCK_FILE, digest, read_lock, removed_subjects, write_lock
from streams.schemas.scaffold import next_topic, plan_new_version, write_scaffold
from streams.settings import load_settings

SUBJECT = "things.v1-value"
NAME = {"name": "thing_id", "type": "string"}


def schema(*fields: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Thing", "namespace": "logistics", "fields": [NAME, *fields], **attributes}


def write(root: Path, *schemas: dict[str, Any], subject: str = SUBJECT) -> Catalog:
    folder = root / subject
    folder.mkdir(exist_ok=True)
    for number, each in enumerate(schemas, 1):
        (folder / f"{number}.avsc").write_text(json.dumps(each, indent=1), encoding="utf-8")
    return Catalog.load(root)


def found(catalog: Catalog, **options: Any) -> list[Finding]:
    return list(check_subject(catalog, SUBJECT, options.pop("lock", {}), (), **options).findings)


# --- findings in words ------------------------------------------------------------------------------------------------


def test_a_finding_says_what_and_where_and_who_breaks_and_what_to_do(tmp_path: Path) -> None:
    part = {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]}
    wider = {**part, "fields": [*part["fields"], {"name": "size_mm", "type": "int"}]}
    old, new = ({"name": "parts", "type": {"type": "array", "items": each}} for each in (part, wider))
    catalog = write(tmp_path, schema(old), schema(old, {"name": "x", "type": "long", "default": 0}), schema(new))
    (finding,) = found(catalog)
    assert (finding.subject, finding.version, finding.against, finding.direction) == (SUBJECT, 3, (1, 2), "backward")
    assert (finding.field, finding.rule) == ("parts[].size_mm", "reader_field_missing_default_value")
    assert finding.message == "added without a default (int)"
    assert finding.breaks == (
        "stored events of versions 1 and 2, and producers that still send it: version 3 cannot read them"
    )
    assert finding.fix.startswith("give size_mm a default; or make it a new version of the topic")
    assert (finding.file, catalog.latest(SUBJECT).text.splitlines()[finding.line].strip()) == (
        tmp_path / SUBJECT / "3.avsc",
        '"name": "size_mm",',
    )


def test_a_renamed_field_is_recognised(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema({"name": "speed", "type": "double"}), schema({"name": "pace", "type": "double"}))
    (finding,) = found(catalog)
    assert 'if it is \'speed\' under another name: "aliases": ["speed"]' in finding.fix


def test_only_the_versions_that_are_not_locked_and_the_newest_are_judged(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema(), schema({"name": "x", "type": "long"}), schema({"name": "x", "type": "long"}))
    assert [f.version for f in found(catalog, mode=Mode.BACKWARD)] == [2]
    lock = {(SUBJECT, version.version): digest(version.text) for version in catalog.versions(SUBJECT)}
    assert found(catalog, mode=Mode.BACKWARD, lock=lock) == []
    assert [f.version for f in found(catalog, lock=lock)] == [3]


def test_the_mode_is_the_one_of_the_subject(tmp_path: Path) -> None:
    write(tmp_path, schema({"name": "x", "type": "long"}), schema())
    assert found(Catalog.load(tmp_path)) == []
    (tmp_path / "subjects.toml").write_text(f'["{SUBJECT}"]\ncompatibility = "FULL"\n', encoding="utf-8")
    (finding,) = found(Catalog.load(tmp_path))
    assert finding.breaks == "consumers that read with version 1: they cannot read events of version 2"
    assert found(Catalog.load(tmp_path), mode=Mode.NONE) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ('["other-value"]\n', "there is no subject 'other-value'"),
        (f'["{SUBJECT}"]\nmode = "FULL"\n', "takes compatibility, lint_ignore and personal"),
        (f'["{SUBJECT}"]\ncompatibility = "SIDEWAYS"\n', "no mode 'SIDEWAYS'"),
        (f'["{SUBJECT}"]\nlint_ignore = ["nonsense:x"]\n', "lint_ignore is a list"),
        (f'["{SUBJECT}"]\nlint_ignore = "unit_suffix"\n', "lint_ignore is a list"),
        (f'["{SUBJECT}"]\npersonal = "latitude"\n', "personal is a list"),
        (f'["{SUBJECT}"]\npersonal = [1]\n', "personal is a list"),
    ],
)
def test_a_wrong_line_in_the_subjects_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, schema())
    (tmp_path / "subjects.toml").write_text(text, encoding="utf-8")
    with pytest.raises(StreamsError, match=message):
        Catalog.load(tmp_path)


def test_a_pipeline_is_a_consumer_too(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema(), subject="things.v1-value")
    pipeline = Pipeline(name="things", source="things.v1", key_field="thing_id", payload_fields=("weight_kg",))
    verdict = check_subject(catalog, SUBJECT, {}, [pipeline])
    assert {(f.field, f.rule) for f in verdict.findings} == {
        (name, Rule.PIPELINE_FIELD) for name in ("event_id", "event_time", "sequence", "weight_kg")
    }


def test_an_alias_that_is_another_fields_name_is_ambiguous(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema({"name": "b", "type": "long", "default": 0, "aliases": ["thing_id"]}))
    assert [f.rule for f in found(catalog)] == [Rule.AMBIGUOUS_ALIAS]


def test_versions_are_listed_as_one_says_them() -> None:
    said = [versions_in_words(versions) for versions in ([3], [2, 1], [1, 2, 3, 4], [1, 2, 5])]
    assert said == ["version 3", "versions 1 and 2", "versions 1 to 4", "versions 1, 2 and 5"]


# --- append-only ------------------------------------------------------------------------------------------------------


def test_a_locked_version_may_be_spaced_anew_but_not_changed(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema(), schema({"name": "x", "type": "long", "default": 0}))
    assert [each.version for each in write_lock(catalog, read_lock(tmp_path))] == [1, 2]
    assert write_lock(catalog, read_lock(tmp_path)) == []
    first = tmp_path / SUBJECT / "1.avsc"
    first.write_text(json.dumps(schema(), sort_keys=True), encoding="utf-8")
    assert found(Catalog.load(tmp_path), lock=read_lock(tmp_path)) == []
    first.write_text(json.dumps(schema(doc="now with a doc")), encoding="utf-8")
    (finding,) = found(Catalog.load(tmp_path), lock=read_lock(tmp_path))
    assert (finding.rule, finding.version, finding.file) == (Rule.EDITED, 1, first)
    write_lock(Catalog.load(tmp_path), read_lock(tmp_path))
    assert read_lock(tmp_path)[SUBJECT, 1] == digest(json.dumps(schema()))


def test_a_locked_version_or_subject_that_is_gone_is_found(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema(), schema(doc="two"))
    write_lock(catalog, {})
    (tmp_path / SUBJECT / "2.avsc").unlink()
    (finding,) = found(Catalog.load(tmp_path), lock=read_lock(tmp_path))
    assert (finding.rule, finding.version) == (Rule.REMOVED, 2)
    assert [f.version for f in removed_subjects(catalog, read_lock(tmp_path), [])] == [1, 2]


def test_what_is_not_locked_is_a_finding_for_those_who_ask(tmp_path: Path) -> None:
    catalog = write(tmp_path, schema())
    verdict = check_subject(catalog, SUBJECT, {}, ())
    assert (verdict.findings, [f.rule for f in not_locked(catalog, verdict)]) == ((), [Rule.UNLOCKED])


@pytest.mark.parametrize("line", ["nonsense", f"{SUBJECT} 0 sha256:{'0' * 64}", f"{SUBJECT} 1 sha256:00"])
def test_a_damaged_lock_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / LOCK_FILE).write_text(f"# fine\n{line}\n", encoding="utf-8")
    with pytest.raises(StreamsError, match=r"versions.lock:2: not a line of this file"):
        read_lock(tmp_path)


def test_every_committed_version_is_locked_and_clean() -> None:
    catalog, lock = Catalog.load(), read_lock(schemas_dir())
    for subject in catalog.subjects():
        verdict = check_subject(catalog, subject, lock, list(pipelines().values()))
        assert (verdict.findings, verdict.unlocked) == ((), ())


# --- the registry ----------------------------------------------------------------------------------------------------


class RegistryTwin(Registry):
    """A registry in memory that has one version of everything and one opinion about everything."""

    def __init__(self, text: str, reasons: list[str]) -> None:
        super().__init__(load_settings())
        self._text, self._reasons = text, reasons

    def registered(self, subject: str) -> list[RegisteredVersion]:
        return [RegisteredVersion(1, 7, self._text)]

    def compatibility(self, subject: str) -> str | None:
        return "BACKWARD_TRANSITIVE"

    def check(self, subject: str, schema: str) -> list[str]:
        return self._reasons


@pytest.mark.parametrize(("field_default", "reasons"), [({"default": 0}, ["no"]), ({}, [])])
def test_a_registry_of_another_opinion_is_an_error(tmp_path: Path, field_default: Any, reasons: list[str]) -> None:
    catalog = write(tmp_path, schema(), schema({"name": "x", "type": "long", **field_default}))
    twin = RegistryTwin(json.dumps(schema()), reasons)
    verdict = with_registry(catalog, twin, check_subject(catalog, SUBJECT, {}, ()))
    assert [f.version for f in verdict.findings if f.rule is Rule.DISAGREEMENT] == [2]
    assert verdict.agreed == ()
    with pytest.raises(StreamsError, match=r"disagree about things\.v1-value version 2") as raised:
        fail_on_findings(verdict.findings, "check")
    assert raised.value.exit_status == 1


def test_what_only_the_registry_has_is_judged_by_its_meaning_too(tmp_path: Path) -> None:
    def at(unit: str) -> dict[str, Any]:
        return schema({"name": "at", "type": ["null", {"type": "long", "logicalType": unit}], "default": None})

    catalog = write(tmp_path, schema(), at("timestamp-millis"))
    twin = RegistryTwin(json.dumps(at("timestamp-micros")), [])
    verdict = with_registry(catalog, twin, check_subject(catalog, SUBJECT, {}, ()))
    (finding,) = [f for f in verdict.findings if f.version == 2]
    assert (finding.field, finding.rule) == ("at", Rule.MEANING_CHANGED)
    assert finding.message.startswith("timestamp-micros became timestamp-millis")
    assert finding.breaks == "the registry's version 1, in no file"


# --- how it is printed ------------------------------------------------------------------------------------------------


def test_an_annotation_is_one_escaped_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finding = Finding(
        SUBJECT, 2, Rule.DOC, "100%\nof it", fix="a, b: c", field="x", file=tmp_path / "a,b" / "2.avsc", line=4
    )
    assert annotation(finding) == (
        "::error file=a%2Cb/2.avsc,line=4,title=things.v1-value version 2%3A doc::x: 100%25%0Aof it%0AInstead: a, b: c"
    )


def test_text_has_annotations_only_in_a_github_action(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(SUBJECT, 2, Rule.DOC, "no doc")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    echo_findings([finding], FindingsFormat.TEXT)
    assert "::error" not in capsys.readouterr().out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    echo_findings([finding], FindingsFormat.TEXT)
    assert "::error line=1,title=" in capsys.readouterr().out
    with pytest.raises(FoundSomething, match=r"lint: 1 finding in things.v1-value version 2"):
        fail_on_findings([finding], "lint")


# --- lines and differences --------------------------------------------------------------------------------------------


def test_lines_are_found_through_every_kind_of_type() -> None:
    text = """{"type": "record", "name": "R", "fields": [
      {"name": "a", "type": ["null", {"type": "record", "name": "P", "fields": [
        {"name": "b", "type": {"type": "map", "values": {"type": "array", "items": {"type": "record", "name": "Q",
          "fields": [{"name": "c",
                      "type": "int"}]}}}}]}]},
      {"name": "again", "type": "P"}
    ]}"""
    schema = located(text)
    lines = [line_of(schema, path) for path in ((), ("a",), ("a", "b"), ("a", "b", "{}", "[]", "c"), ("again", "b"))]
    assert lines == [1, 2, 3, 4, 3]
    assert line_of(schema, ("a", "gone")) == 2
    assert schema == json.loads(text)


def test_a_repeated_attribute_is_known() -> None:
    assert located('{"a": 1, "b": 2, "a": 3}').repeated == ("a",)
    with pytest.raises(json.JSONDecodeError) as raised:
        located('{"a": 1,\n "b" 2}')
    assert raised.value.lineno == 2


def test_differences_are_said_field_by_field() -> None:
    kind = {"type": "enum", "name": "K", "symbols": ["A"]}
    before = schema(
        {"name": "a", "type": "int", "doc": "old"},
        {"name": "b", "type": kind},
        {"name": "c", "type": {"type": "array", "items": "long"}},
        {"name": "gone", "type": "string"},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    )
    after = schema(
        {"name": "c", "type": {"type": "array", "items": "double"}},
        {"name": "b", "type": {**kind, "symbols": ["A", "B"]}},
        {"name": "a2", "type": "int", "doc": "new", "aliases": ["a"]},
        {"name": "fresh", "type": ["null", "long"], "default": None},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    )
    assert [change.in_words() for change in differences(before, after)] == [
        "c[]: type long -> double",
        "b: symbols A -> A, B",
        "a2: renamed a -> a2",
        'a2: aliases (none) -> ["a"]',
        "a2: doc old -> new",
        "fresh: added ([null, long], default null)",
        "t: logicalType timestamp-millis -> timestamp-micros",
        "gone: removed (string, no default)",
        "reordered",
    ]
    assert differences(before, before) == []


# --- a new version of a topic ----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's project whose app `yard` declares what the shipped one does."""
    shutil.copytree(Path(logistics.flows.__path__[0]), tmp_path / "yard" / "flows")
    (tmp_path / "yard" / "__init__.py").write_text("", encoding="utf-8")
    shutil.copytree(schemas_dir(), tmp_path / "schemas")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("STREAMS_APP", "yard")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "yard"]:
        del sys.modules[name]
    discover._declared.cache_clear()


def test_the_scaffold_of_a_new_topic_version_declares_a_flow_like_the_old_one(project: Path) -> None:
    catalog, declared = Catalog.load(), discover.declared_flows()
    assert catalog.root == project / "schemas"
    made = plan_new_version(catalog, "gps.positions.v1", declared)
    said = (
        "repeat in subjects.toml for the new subjects what it says of gps.positions.v1-value, vehicles.state.v1-value"
    )
    assert any(step.startswith(said) and "unmasked" in step for step in made.next_steps)
    write_scaffold(made)
    assert (made.topic, made.pipeline) == ("gps.positions.v2", "gps_v2")
    assert (project / "yard" / "flows" / "gps_v2.py").is_file()
    discover._declared.cache_clear()
    importlib.invalidate_caches()
    old, new = pipelines()["gps"], pipelines()["gps_v2"]
    assert (new.name, new.source, new.group) == ("gps_v2", "gps.positions.v2", "streams.gps_v2")
    assert (new.fields_read, new.field_ranges, new.bounds) == (old.fields_read, old.field_ranges, old.bounds)
    assert new.clean == "gps.positions.v2.clean"
    assert not {topic.name for topic in new.topics()} & {topic.name for topic in old.topics()}
    again = Catalog.load()
    assert {topic.subject for topic in new.topics() if topic.subject} <= set(again.subjects())
    assert again.latest("gps.positions.v2-value").text == catalog.latest("gps.positions.v1-value").text
    with pytest.raises(UsageError, match="is there already: nothing was written"):
        plan_new_version(again, "gps.positions.v1", discover.declared_flows())
    third = plan_new_version(again, "gps.positions.v2", discover.declared_flows())
    assert (third.topic, third.pipeline) == ("gps.positions.v3", "gps_v3")


def test_an_output_with_a_subject_of_its_own_keeps_it_in_the_next_version(project: Path) -> None:
    declaration = project / "yard" / "flows" / "gps.py"
    text = declaration.read_text(encoding="utf-8")
    named = text.replace('to="vehicles.state.v1"', 'to="vehicles.state.v1", subject="vehicle-states"')
    assert named != text
    declaration.write_text(named, encoding="utf-8")
    (project / "schemas" / "vehicles.state.v1-value").rename(project / "schemas" / "vehicle-states")
    settings = project / "schemas" / "subjects.toml"
    settings.write_text(settings.read_text().replace("vehicles.state.v1-value", "vehicle-states"), encoding="utf-8")
    catalog, declared = Catalog.load(), discover.declared_flows()

    with pytest.raises(UsageError, match=r"vehicles\.state\.v1 is written by flow gps"):
        plan_new_version(catalog, "vehicles.state.v1", declared)
    made = plan_new_version(catalog, "gps.positions.v1", declared)
    write_scaffold(made)

    folders = [path.parent.name for path, _ in made.files if path.suffix == ".avsc"]
    assert folders == ["gps.positions.v2-value", "vehicles.minutes.v2-value", "vehicles.trips.v2-value"]
    said = "rows of vehicles.state.v2 keep the subject vehicle-states, as those of vehicles.state.v1"
    assert any(step.startswith(said) for step in made.next_steps)
    discover._declared.cache_clear()
    importlib.invalidate_caches()
    new = pipelines()["gps_v2"]
    assert [(table.topic, table.subject) for table in new.tables] == [("vehicles.state.v2", "vehicle-states")]
    assert {topic.subject for topic in new.topics() if topic.subject} <= set(Catalog.load().subjects())


def test_what_cannot_get_a_new_version_is_refused_with_the_way_to_it() -> None:
    def plan(topic: str) -> None:
        plan_new_version(Catalog.load(), topic, discover.declared_flows())

    with pytest.raises(UsageError, match=r"no schema for topic 'nobody.v1'"):
        plan("nobody.v1")
    with pytest.raises(UsageError, match=r"written by flow gps.*new-version gps.positions.v1"):
        plan("vehicles.state.v1")
    with pytest.raises(UsageError, match="has no version in its name"):
        next_topic("gps.positions")
