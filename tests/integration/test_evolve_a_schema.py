"""`docs/evolve-a-schema.md`, followed: every field that it shows is written, every command that it names is run."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient

from streams.local.stack import Stack
from tests.integration.guides import ROOT, copied, decoded, environment_of, run, working
from tests.integration.kafka_helpers import committed_records, delete_topics, fresh_topics
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

GUIDE = (ROOT / "docs" / "evolve-a-schema.md").read_text(encoding="utf-8")
SUBJECT = "gps.positions.v1-value"
V2_TOPICS = ("gps.positions.v2", "vehicles.state.v2", "vehicles.minutes.v2", "vehicles.trips.v2")


def shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def commands() -> list[str]:
    return [line.removeprefix("$ ") for block in shown("console") for line in block.splitlines()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copied(tmp_path)


@pytest.fixture
def environment(copy: Path, stack: Stack) -> Iterator[Mapping[str, str]]:
    fresh_topics(stack)
    yield environment_of(copy, stack)
    client = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    delete_topics(client, {name for name in client.list_topics(timeout=10).topics if ".v2" in name})
    registry = SchemaRegistryClient({"url": stack.registry_url})
    for version in registry.get_versions(SUBJECT)[2:]:
        registry.delete_version(SUBJECT, version)  # what is registered by the guide is no version of the project's
    for subject in {f"{topic}-value" for topic in V2_TOPICS} & set(registry.get_subjects()):
        registry.delete_subject(subject)


def write_version(copy: Path, subject: str, base: int, version: int, field: dict[str, Any]) -> None:
    """A version with a field added or replaced, a field a line as in the committed files."""
    lines = (copy / "schemas" / subject / f"{base}.avsc").read_text(encoding="utf-8").splitlines()
    fields = [index for index, line in enumerate(lines) if line.startswith('    {"name"')]
    same = [index for index in fields if json.loads(lines[index].strip().rstrip(","))["name"] == field["name"]]
    if same:
        lines[same[0]] = f"    {json.dumps(field)}{',' if lines[same[0]].endswith(',') else ''}"
    else:
        lines[fields[-1]] += ","
        lines.insert(fields[-1] + 1, f"    {json.dumps(field)}")
    (copy / "schemas" / subject / f"{version}.avsc").write_text("\n".join(lines), encoding="utf-8")


def test_the_guide_works_as_it_stands(copy: Path, environment: Mapping[str, str], stack: Stack) -> None:
    offline, lint, check, diff, lock, register, new_version, check_2, lock_2, apply, worker, *ingest = commands()
    product = environment
    environment = {**product, "PYTHONPATH": str(ROOT), "STREAMS_SCHEMAS_DIR": str(copy / "schemas")}
    without_default, with_default, plain_speed = (json.loads(text) for text in shown("json"))
    refused, changed, written = (text.splitlines() for text in shown("text"))
    write_version(copy, SUBJECT, 2, 3, without_default)
    assert_shown(refused, run(copy, environment, offline, status=100))
    assert_shown(refused, run(copy, environment, register, status=100))
    write_version(copy, SUBJECT, 2, 3, with_default)
    printed = "".join(run(copy, environment, line) for line in (lint, check, diff, lock))
    assert_shown(changed, printed)
    assert "registered" in run(copy, environment, register)
    assert "the registry says the same of version 3" in run(copy, environment, check)
    write_version(copy, SUBJECT, 3, 3, {**with_default, "doc": "Edited."})
    assert "edited after it was registered" in run(copy, environment, register, status=100)
    write_version(copy, SUBJECT, 3, 3, with_default)

    environment = product  # the new version is a module of it
    assert_shown(written, run(copy, environment, new_version))
    run(copy, environment, new_version, status=2)
    write_version(copy, "gps.positions.v2-value", 1, 1, plain_speed)
    for line in (check_2, lock_2, apply, f"{check_2} --locked"):
        run(copy, environment, line)
    for name, text in zip(("old.csv", "new.csv"), shown("csv"), strict=True):
        (copy / name).write_text(text, encoding="utf-8")
    with working(copy, environment, worker.removesuffix(" &")):
        for line in ingest:
            run(copy, environment, line)
        for version, vehicle in (("v1", b"truck-1"), ("v2", b"truck-2")):
            rows = wait_until(partial(of_two_events, copy, stack, version), f"the row of {vehicle!r}", timeout_s=90)
            assert [key for key, _ in rows] == [vehicle]
            assert len(committed_records(stack, f"gps.positions.{version}.clean")) == 2


def of_two_events(copy: Path, stack: Stack, version: str) -> list[tuple[bytes, dict[str, Any]]]:
    topic = f"vehicles.state.{version}"
    newest = {record.key: decoded(copy, topic, record) for record in committed_records(stack, topic)}
    return [(key, row) for key, row in newest.items() if row["events"] == 2]


def assert_shown(lines: list[str], printed: str) -> None:
    for line in lines:
        assert line in printed, printed
