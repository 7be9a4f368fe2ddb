"""The gate against the real registry: the table of changes, all modes, and what the commands say when it goes wrong."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from streams.cli import main
from streams.kafka.schema_use import schema_use
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog, schemas_dir
from streams.schemas.client import Registry
from streams.schemas.gate.agreement import registry_state, with_registry
from streams.schemas.gate.check import check_subject
from streams.schemas.gate.findings import Direction, Rule
from streams.schemas.gate.modes import Mode
from streams.schemas.gate.verdict import Verdict
from streams.schemas.registration import Outcome, list_schemas, register_schemas
from tests.integration.kafka_helpers import admin_of, delete_subjects, delete_topics, recreate_topic, settings_of
from tests.schema_changes import BOTH, CHANGES, DEFAULTS, Change, field

pytestmark = pytest.mark.kafka

MODES = {Direction.BACKWARD: Mode.BACKWARD, Direction.FORWARD: Mode.FORWARD}


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def registry(stack: Stack) -> Registry:
    return Registry(settings_of(stack))


@pytest.fixture
def own_subjects(stack: Stack) -> Iterator[None]:
    """Subjects whose names begin with `tests.gate` are deleted at the end."""
    yield
    client = SchemaRegistryClient({"url": stack.registry_url})
    delete_subjects(client, {subject for subject in client.get_subjects() if subject.startswith("tests.gate")})


def write(root: Path, subject: str, *schemas: dict[str, Any]) -> Path:
    folder = root / subject
    folder.mkdir(parents=True, exist_ok=True)
    for number, schema in enumerate(schemas, 1):
        (folder / f"{number}.avsc").write_text(json.dumps(schema), encoding="utf-8")
    return root


@pytest.mark.usefixtures("own_subjects")
def test_the_registry_comes_to_the_verdict_of_the_table_about_every_change(registry: Registry) -> None:
    wrong = []
    for number, change in enumerate(CHANGES):
        for direction, mode in MODES.items():
            subject = f"tests.gate.{number}.{mode.lower()}-value"
            old, new = (json.dumps(schema) for schema in change.schemas)
            registry.set_compatibility(subject, mode)
            registry.register(subject, old)
            if (not registry.check(subject, new)) != (direction in change.readable):
                wrong.append((change.name, direction))
    assert wrong == []


@pytest.mark.usefixtures("own_subjects")
def test_the_gate_takes_no_default_that_the_registry_refuses_and_each_is_asked_only_what_it_can_judge(
    registry: Registry, tmp_path: Path
) -> None:
    wrong = []
    for number, default in enumerate(DEFAULTS):
        subject = f"tests.gate.default.{number}-value"
        old, new = default.schemas
        registry.register(subject, json.dumps(old))
        if default.registry == bool(registry.check(subject, json.dumps(new))):
            wrong.append(default.name)
        catalog, broken = Catalog.read(write(tmp_path / str(number), subject, old, new))
        if not broken:
            verdict = with_registry(catalog, registry, check_subject(catalog, subject, {}, ()))
            assert Rule.DISAGREEMENT not in {finding.rule for finding in verdict.findings}, default.name
    assert wrong == []


HISTORY = (
    Change("added", (), (field("long", default=0),), BOTH),
    Change("required", (field("long", default=0),), (field("long"), field("string", "y")), BOTH),
)
THREE = (HISTORY[0].schemas[0], HISTORY[0].schemas[1], HISTORY[1].schemas[1])


@pytest.mark.usefixtures("own_subjects")
@pytest.mark.parametrize("mode", list(Mode))
def test_gate_and_registry_agree_under_every_mode_about_a_history(
    mode: Mode, registry: Registry, tmp_path: Path
) -> None:
    """Version 3 reads version 2 but for a field without a default, and version 1 still less."""
    wider = {**THREE[1], "fields": [*THREE[1]["fields"], field(["null", "long"], "z", default=None)]}
    nothing = {**THREE[0], "fields": THREE[0]["fields"][:1]}
    for number, third in enumerate((THREE[2], wider, nothing)):
        subject = f"tests.gate.{mode.lower()}.{number}-value"
        root = write(tmp_path / str(number), subject, *THREE[:2])
        (root / "subjects.toml").write_text(f'["{subject}"]\ncompatibility = "{mode}"\n', encoding="utf-8")
        done = register_schemas(Catalog.load(root), registry)
        assert [one.outcome for one in done] == [Outcome.REGISTERED] * 2
        assert registry.compatibility(subject) == mode
        catalog = Catalog.load(write(root, subject, *THREE[:2], third))
        verdict = with_registry(catalog, registry, check_subject(catalog, subject, {}, ()))
        assert verdict.agreed == (3,)
        refused = bool(registry.check(subject, json.dumps(third)))
        assert refused == bool(verdict.findings)


@pytest.mark.usefixtures("own_subjects")
def test_what_only_the_registry_knows_counts_too(registry: Registry, tmp_path: Path) -> None:
    subject = "tests.gate.foreign.v1-value"
    root = write(tmp_path, subject, THREE[0])
    register_schemas(Catalog.load(root), registry)
    foreign = {**THREE[0], "fields": [*THREE[0]["fields"], field("string", "x", default="")]}
    schema_id = registry.register(subject, json.dumps(foreign))
    (listed,) = list_schemas(Catalog.load(root), registry)
    assert listed.drift == (f"the registry's version 2 (id {schema_id}) is in no file",)
    # The same name with another type: compatible with every file, but not with what somebody else has registered.
    catalog = Catalog.load(write(root, subject, THREE[0], {**THREE[0], "doc": "docs only"}, THREE[1]))
    verdict = with_registry(catalog, registry, check_subject(catalog, subject, {}, ()))
    assert {(f.version, f.rule) for f in verdict.findings} == {(2, Rule.EDITED), (3, Rule.TYPE_MISMATCH)}
    assert all(one.outcome is not Outcome.REGISTERED for one in register_schemas(catalog, registry))
    assert len(registry.versions(subject)) == 2


@pytest.mark.usefixtures("own_subjects")
def test_registering_is_idempotent_whatever_the_spacing_of_the_file(registry: Registry, tmp_path: Path) -> None:
    subject = "tests.gate.again.v1-value"
    root = write(tmp_path, subject, *THREE[:2])
    first = register_schemas(Catalog.load(root), registry)
    spaced = json.dumps(THREE[0], indent=4, sort_keys=True)
    (root / subject / "1.avsc").write_text(spaced, encoding="utf-8")
    again = register_schemas(Catalog.load(root), registry)
    assert [one.outcome for one in again] == [Outcome.UNCHANGED] * 2
    assert [one.schema_id for one in again] == [one.schema_id for one in first]
    assert registry_state(registry, subject).mode is Mode.BACKWARD_TRANSITIVE


# --- what others have registered --------------------------------------------------------------------------------------

COUNTRY = {"type": "enum", "name": "Country", "namespace": "logistics", "symbols": ["AT", "DE"]}


def refers(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "logistics", "fields": list(fields)}


@pytest.fixture
def put(stack: Stack) -> Callable[..., None]:
    """Registers what our own client never does: a schema with references, or of another kind."""
    client = SchemaRegistryClient({"url": stack.registry_url})

    def put(subject: str, text: str, *references: tuple[str, str], kind: str = "AVRO") -> None:
        named = [SchemaReference(name, to, 1) for name, to in references]
        client.register_schema(subject, Schema(text, kind, named))

    return put


@pytest.mark.usefixtures("own_subjects")
def test_a_version_with_a_diamond_of_references_is_judged_with_what_it_refers_to(
    registry: Registry, put: Callable[..., None], tmp_path: Path
) -> None:
    country, sim, yard = (f"tests.gate.{name}" for name in ("country", "sim", "yard"))
    put(country, json.dumps(COUNTRY))
    for subject, name in ((sim, "Sim"), (yard, "Yard")):
        schema = refers(name, field("logistics.Country", "country"))
        put(subject, json.dumps(schema), ("logistics.Country", country))
    subject = "tests.gate.diamond.v1-value"
    root = write(tmp_path, subject, THREE[0])
    register_schemas(Catalog.load(root), registry)
    parts = [field(["null", f"logistics.{name}"], name.lower(), default=None) for name in ("Sim", "Yard")]
    foreign = {**THREE[0], "fields": [*THREE[0]["fields"], *parts]}
    put(subject, json.dumps(foreign), ("logistics.Sim", sim), ("logistics.Yard", yard))

    def judged(*symbols: str) -> Verdict:
        full = {**COUNTRY, "symbols": list(symbols)}
        parts = [
            field(["null", refers("Sim", field(full, "country"))], "sim", default=None),
            field(["null", refers("Yard", field("logistics.Country", "country"))], "yard", default=None),
        ]
        new = {**THREE[0], "fields": [*THREE[0]["fields"], *parts]}
        catalog = Catalog.load(write(root, subject, THREE[0], new))
        return with_registry(catalog, registry, check_subject(catalog, subject, {}, ()))

    wider = judged("AT", "DE", "CZ")
    assert {Rule.EDITED} == {f.rule for f in wider.findings}  # the number 2 is taken; by what it says it would fit
    root = write(root, subject, THREE[0], {**THREE[0], "doc": "docs only"})
    third = {**THREE[0], "fields": [*THREE[0]["fields"], field(["null", "long"], "sim", default=None)]}
    catalog = Catalog.load(write(root, subject, THREE[0], {**THREE[0], "doc": "docs only"}, third))
    verdict = with_registry(catalog, registry, check_subject(catalog, subject, {}, ()))
    (broken,) = [f for f in verdict.findings if f.version == 3]
    assert (broken.field, broken.rule, broken.against) == ("sim", Rule.MISSING_BRANCH, (2,))
    assert broken.breaks == "the registry's version 2, in no file"


@pytest.mark.usefixtures("own_subjects")
@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("PROTOBUF", 'syntax = "proto3"; message Position { string id = 1; }', "Protobuf, not Avro"),
        ("JSON", '{"type": "object", "properties": {}}', "JSON Schema, not Avro"),
    ],
)
def test_a_subject_of_another_kind_is_named_as_such_by_every_command(
    kind: str, text: str, words: str, gate: Run, put: Callable[..., None]
) -> None:
    subject = "tests.gate.positions.v1-value"
    put(subject, text, kind=kind)
    for line in ("check", f"check --registry {subject}", "register", "register --dry-run", "list"):
        done = gate(*line.split())
        assert (done.returncode, words in done.stdout) == (100, True), (line, done)
    done = gate("diff", subject)
    assert (done.returncode, words in done.stdout) == (100, True), done


def produce(stack: Stack, topic: str, records: list[tuple[bytes, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for key, value in records:
        producer.produce(topic, key=key, value=value)
    assert producer.flush(30) == 0


# --- drafts -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_subjects")
def test_a_draft_that_was_registered_can_be_taken_back(
    gate: Run, schemas: Path, registry: Registry, stack: Stack
) -> None:
    subject, topic = "tests.gate.positions.v1-value", "stage-tests.gate.positions.v1"
    folder = schemas / subject
    assert gate("lock").returncode == 0
    draft = json.loads((folder / "2.avsc").read_text(encoding="utf-8"))
    draft["fields"].append({"name": "fuel_percent", "type": ["null", "double"], "default": None, "doc": "How full."})
    (folder / "3.avsc").write_text(json.dumps(draft), encoding="utf-8")
    assert gate("register").returncode == 0
    locked = gate("unregister", subject, "--version", "2")
    assert (locked.returncode, "is locked" in locked.stderr) == (1, True)

    tried = gate("unregister", subject, "--dry-run")
    assert (tried.returncode, "would be taken back" in tried.stdout) == (0, True), tried
    schema_id = registry.registered(subject)[-1].schema_id
    recreate_topic(stack, topic, 2)
    frame = b"\0" + schema_id.to_bytes(4, "big")
    produce(stack, topic, [(b"other", b"\0" + (schema_id + 1000).to_bytes(4, "big"))] * 3)
    done = json.loads(gate("unregister", subject, "--dry-run", "--format", "json").stdout)
    assert (done["version"], done["files"], done["topics"], done["records"], done["gaps"]) == (3, [3], [topic], 3, [])

    produce(stack, topic, [(b"key", frame + b"...")])
    for arguments in ((), ("--yes",)):
        used = gate("unregister", subject, *arguments)
        assert (used.returncode, f"records in {topic} (1) carry its id" in used.stderr) == (1, True), used
    assert registry.versions(subject) == [1, 2, 3]

    delete_topics(admin_of(stack), {topic})
    unsure = gate("unregister", subject, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (unsure.returncode, "--yes takes it back all the same" in unsure.stderr) == (1, True), unsure
    assert "version 3" in gate("unregister", subject).stdout
    assert registry.versions(subject) == [1, 2]
    again = gate("unregister", subject, "--version", "3")
    assert (again.returncode, "version 3 is not in the registry" in again.stderr) == (1, True)
    last = gate("unregister", subject)
    assert (last.returncode, "version 2 is locked" in last.stderr) == (1, True)
    # The next draft takes its place, in the file and in the registry.
    draft["fields"][-1]["doc"] = "How full the tank is."
    (folder / "3.avsc").write_text(json.dumps(draft), encoding="utf-8")
    assert gate("check", subject).returncode == 0
    assert gate("register", subject).returncode == 0
    assert gate("list").returncode == 0


def test_the_newest_records_are_looked_at_and_older_ones_are_said_to_be_there(stack: Stack) -> None:
    topic = "tests.gate.use.v1"
    recreate_topic(stack, topic, 1)
    frame = b"\0" + (77).to_bytes(4, "big")
    produce(stack, topic, [(b"old", frame), (b"a", b"\0\0"), (b"b", frame + b"."), (b"c", b"")])
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    producer.produce(topic, value=b"bare", headers=[("__value_schema_id", frame)])
    producer.produce(topic, value=b"bare", headers=[("__value_schema_id", b"\x01" + bytes(16))])
    assert producer.flush(30) == 0
    whole = schema_use(settings_of(stack), {topic: 1}, 77)
    assert (whole.records, whole.found) == (6, {topic: 3})
    assert whole.gaps == (f"records of {topic} name their schema by GUID",)
    newest = schema_use(settings_of(stack), {topic: 1}, 77, records_max=5)
    assert (newest.records, newest.found) == (5, {topic: 2})
    assert f"{topic} has about 1 older records" in newest.gaps
    assert schema_use(settings_of(stack), {topic: 1}, 78).found == {}
    delete_topics(admin_of(stack), {topic})


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """The committed schemas under a name of the test's own."""
    root = tmp_path / "schemas"
    shutil.copytree(schemas_dir() / "gps.positions.v1-value", root / "tests.gate.positions.v1-value")
    return root


@pytest.fixture
def gate(stack: Stack, schemas: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: a process of its own takes a second to start."""

    def gate(*arguments: str, **environment: str) -> Done:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in {**stack.environment(), "STREAMS_SCHEMAS_DIR": str(schemas), **environment}.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["streams", "schemas", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return gate


@pytest.mark.usefixtures("own_subjects")
def test_the_way_of_a_version_through_the_commands(gate: Run, schemas: Path) -> None:
    subject = "tests.gate.positions.v1-value"
    before = json.loads(gate("check", "--format", "json").stdout)
    assert (before["compatible"], before["registry"]["asked"]) == (True, True)
    assert gate("check", "--locked").returncode == 100
    assert gate("lock").returncode == 0
    registered = json.loads(gate("register", "--format", "json").stdout)
    assert [row["status"] for row in registered] == ["registered", "registered"]
    rows = json.loads(gate("list", "--format", "json").stdout)
    assert [(row["version"], row["id"], row["drift"]) for row in rows] == [
        (r["version"], r["id"], []) for r in registered
    ]
    first = schemas / subject / "1.avsc"
    first.write_text(first.read_text(encoding="utf-8").replace("Where a vehicle", "Where it"), encoding="utf-8")
    for arguments in (("check", "--offline"), ("check",), ("register",), ("register", "--dry-run"), ("list",)):
        done = gate(*arguments)
        assert (done.returncode, "edited after it was" in done.stdout) == (100, True), (arguments, done.stdout)
    done = gate("diff", subject)
    assert done.returncode == 100
    assert "doc Where a vehicle was, as its tracker says. -> Where it was" in done.stdout


def test_a_registry_that_was_not_asked_is_not_said_to_have_been(gate: Run, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    file = write(folder, "tests.gate.broken-value", {}) / "tests.gate.broken-value" / "1.avsc"
    file.write_text("{ not json", encoding="utf-8")

    done = gate("check", STREAMS_SCHEMAS_DIR=str(folder), SCHEMA_REGISTRY_URL="http://127.0.0.1:1/x")

    assert done.returncode == 100
    assert "not JSON" in done.stdout
    assert "http://127.0.0.1:1/x: not asked, no subject can be judged" in done.stdout


def test_what_goes_wrong_is_said_in_a_line(gate: Run) -> None:
    unknown = gate("check", "nobody.knows-value")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "no schema for subject 'nobody.knows-value'" in unknown.stderr
    down = {"SCHEMA_REGISTRY_URL": "http://user:secret@127.0.0.1:1/x"}
    assert gate("diff", "nobody.knows-value", **down).returncode == 2
    alone = gate("check", **down)
    assert alone.returncode == 0
    assert "http://127.0.0.1:1/x: not asked, it does not answer" in alone.stdout
    for arguments in (("check", "--registry"), ("register",), ("register", "--dry-run"), ("list",)):
        done = gate(*arguments, **down)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "no answer from the schema registry at http://127.0.0.1:1/x" in done.stderr
        assert "secret" not in done.stderr + done.stdout
