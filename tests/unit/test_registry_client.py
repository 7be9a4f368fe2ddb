"""The registry client against answers in the form of Confluent's registry, where the local one has none of them."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from streams.avro.resolve import Plan
from streams.batch.rejects import Reason, Reject
from streams.limits import SCHEMA_REFERENCES_MAX
from streams.schemas.client import Registry, RegistryUnavailable, UnknownSchema, UnusableSchema
from streams.schemas.plans import plan_or_reject
from streams.settings import load_settings

GUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
READER = json.dumps({"type": "record", "name": "Thing", "fields": [{"name": "id", "type": "string"}]})
MISSING = (404, {"error_code": 40402, "message": "no such version"})


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, Any]]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, body = self.answers.get(self.path, (404, {"error_code": 404, "message": "HTTP 404 Not Found"}))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def answers() -> dict[str, tuple[int, Any]]:
    _Handler.answers, _Handler.asked = {}, []
    return _Handler.answers


@pytest.fixture
def registry(answers: object) -> Iterator[Registry]:
    del answers
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Registry(load_settings(schema_registry_url=f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()
    server.server_close()
    thread.join()


def version(subject: str, schema: Any, *references: tuple[str, str], kind: str | None = None) -> tuple[int, Any]:
    said = {
        "subject": subject,
        "version": 1,
        "id": 1,
        "schema": schema if isinstance(schema, str) else json.dumps(schema),
    }
    return 200, said | schema_of(references, kind)


def schema_of(references: Any, kind: str | None) -> dict[str, Any]:
    listed = [{"name": name, "subject": subject, "version": 1} for name, subject in references]
    return ({"references": listed} if listed else {}) | ({"schemaType": kind} if kind else {})


def by_id(schema: Any, *references: tuple[str, str], kind: str | None = None) -> tuple[int, Any]:
    return 200, {"schema": schema if isinstance(schema, str) else json.dumps(schema)} | schema_of(references, kind)


def test_a_guid_is_looked_up_to_the_id_of_its_schema(registry: Registry, answers: dict[str, Any]) -> None:
    answers[f"/schemas/guids/{GUID}/ids"] = (200, [{"context": ".other", "id": 7}, {"context": ".", "id": 9}])
    answers["/schemas/ids/9"] = by_id(READER)
    assert registry.id_of_guid(GUID) == 9
    plan = plan_or_reject(registry, GUID, READER)
    assert isinstance(plan, Plan)
    assert plan.schema_id == 9


def test_a_guid_that_the_registry_does_not_have_is_unknown(registry: Registry, answers: dict[str, Any]) -> None:
    answers[f"/schemas/guids/{GUID}/ids"] = (404, {"error_code": 40403, "message": "Schema not found"})
    with pytest.raises(UnknownSchema, match=f"no schema with GUID {GUID}"):
        registry.id_of_guid(GUID)
    answers[f"/schemas/guids/{GUID}/ids"] = (200, [])
    with pytest.raises(UnknownSchema, match=f"no schema with GUID {GUID}"):
        registry.id_of_guid(GUID)
    reject = plan_or_reject(registry, GUID, READER)
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.schema_id) == (Reason.UNKNOWN_SCHEMA, None)


def test_a_registry_that_does_not_look_up_guids_is_told_from_one_that_is_away(
    registry: Registry, answers: dict[str, Any]
) -> None:
    with pytest.raises(RegistryUnavailable):  # nothing there answers like a registry
        registry.id_of_guid(GUID)
    answers[_Handler.asked[-1]] = (200, [])  # what it asked to see whether a registry is there
    with pytest.raises(UnknownSchema, match="does not look schemas up by GUID"):
        registry.id_of_guid(GUID)
    answers[f"/schemas/guids/{GUID}/ids"] = (500, {"error_code": 50001, "message": "store"})
    with pytest.raises(RegistryUnavailable, match="HTTP 500: store"):
        registry.id_of_guid(GUID)


LEAF = {"type": "enum", "name": "x.Leaf", "symbols": ["A"]}
LEFT = {"type": "record", "name": "x.Left", "fields": [{"name": "leaf", "type": "x.Leaf"}]}
RIGHT = {"type": "record", "name": "x.Right", "fields": [{"name": "leaf", "type": "x.Leaf"}]}
TOP = {
    "type": "record",
    "name": "Thing",
    "fields": [{"name": "id", "type": "string"}, {"name": "l", "type": "x.Left"}, {"name": "r", "type": "x.Right"}],
}


def diamond() -> dict[str, Any]:
    return {
        "/schemas/ids/5": by_id(TOP, ("x.Left", "left"), ("x.Right", "right")),
        "/subjects/left/versions/1": version("left", LEFT, ("x.Leaf", "leaf")),
        "/subjects/right/versions/1": version("right", RIGHT, ("x.Leaf", "leaf")),
        "/subjects/leaf/versions/1": version("leaf", LEAF),
    }


def test_each_version_that_is_referred_to_is_asked_for_once(registry: Registry, answers: dict[str, Any]) -> None:
    answers |= diamond()
    plan = plan_or_reject(registry, 5, READER)
    assert isinstance(plan, Plan)
    assert plan.unexpected == ("l", "r")
    assert len(_Handler.asked) == len(set(_Handler.asked)) == 4


def test_a_referenced_version_that_was_deleted_is_read_all_the_same(
    registry: Registry, answers: dict[str, Any]
) -> None:
    answers |= diamond()
    answers["/subjects/leaf/versions/1?deleted=true"] = answers["/subjects/leaf/versions/1"]
    answers["/subjects/leaf/versions/1"] = MISSING
    assert isinstance(plan_or_reject(registry, 5, READER), Plan)


def test_a_reference_that_the_registry_does_not_have_is_unknown_and_asked_for_again(
    registry: Registry, answers: dict[str, Any]
) -> None:
    answers |= diamond()
    answers["/subjects/leaf/versions/1"] = answers["/subjects/leaf/versions/1?deleted=true"] = MISSING
    reject = plan_or_reject(registry, 5, READER)
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.schema_id) == (Reason.UNKNOWN_SCHEMA, 5)
    assert "schema 5 refers to leaf version 1, which the registry at" in reject.message
    answers["/subjects/leaf/versions/1"] = (503, {"error_code": 503, "message": "busy"})
    with pytest.raises(RegistryUnavailable):
        registry.schema_by_id(5)


def test_schemas_of_another_kind_are_named_as_such(registry: Registry, answers: dict[str, Any]) -> None:
    answers["/schemas/ids/5"] = by_id('syntax = "proto3";', kind="PROTOBUF")
    answers["/schemas/ids/6"] = by_id("{}", kind="JSON")
    answers["/schemas/ids/7"] = by_id(TOP, ("x.Left", "left"))
    answers["/subjects/left/versions/1"] = version("left", "{}", kind="JSON")
    answers["/schemas/ids/8"] = by_id("no json", ("x.Left", "leaf"))
    answers["/subjects/leaf/versions/1"] = version("leaf", LEAF)
    for schema_id, words in {
        5: "schema 5 is Protobuf, not Avro",
        6: "schema 6 is JSON Schema, not Avro",
        7: "schema 7 refers to left version 1, which is JSON Schema, not Avro",
        8: "schema 8 cannot be put together with its references",
    }.items():
        with pytest.raises(UnusableSchema, match=words):
            registry.schema_by_id(schema_id)
        reject = plan_or_reject(registry, schema_id, READER)
        assert isinstance(reject, Reject)
        assert (reject.reason, reject.schema_id) == (Reason.INCOMPATIBLE_SCHEMA, schema_id)


@pytest.mark.thorough
def test_a_chain_of_references_without_an_end_is_refused(registry: Registry, answers: dict[str, Any]) -> None:
    answers["/schemas/ids/5"] = by_id(TOP, ("x.Left", "s0"))
    for number in range(SCHEMA_REFERENCES_MAX + 2):
        answers[f"/subjects/s{number}/versions/1"] = version(f"s{number}", LEAF, ("x.Leaf", f"s{number + 1}"))
    with pytest.raises(UnusableSchema, match=f"schema 5 refers to more than {SCHEMA_REFERENCES_MAX} schemas"):
        registry.schema_by_id(5)
    answers["/subjects/s1/versions/1"] = version("s1", LEFT, ("x.Leaf", "s0"))  # a circle ends
    assert json.loads(registry.schema_by_id(5))["fields"][1]["type"]["name"] == "Left"
