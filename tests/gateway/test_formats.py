"""Formats of devices: each example in the folder of formats is what a device sends, and what becomes of it."""

import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastavro
import pytest

from streams.avro.resolve import without_logical_types
from streams.errors import UsageError
from streams.gateway.formats import load_formats, parse_format
from streams.schemas.catalog import Catalog
from tests.gateway.running import Gateway, position, running

FOLDER = files("streams.gateway") / "device_formats"
NAMES = sorted(file.name.removesuffix(".toml") for file in FOLDER.iterdir() if file.name.endswith(".toml"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("formats")) as found:
        yield found


def example(name: str) -> dict[str, Any]:
    found = json.loads((FOLDER / f"{name}.example.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def sent(gateway: Gateway, shown: dict[str, Any], body: Any, name: str) -> int:
    """Status of a request with a body of the format."""
    query = f"?format={name}" + (f"&{shown['query']}" if "query" in shown else "")
    content = b"" if body is None else json.dumps(body).encode()
    return gateway.send(content, source=shown["source"], query=query, kind=None).status


@pytest.mark.parametrize("name", NAMES)
def test_what_a_device_sends_becomes_the_events_of_the_example(gateway: Gateway, name: str) -> None:
    gateway.delivery.sent.clear()
    shown = example(name)
    assert sent(gateway, shown, shown.get("body"), name) in {200, 202}
    schema: Any = fastavro.parse_schema(without_logical_types(Catalog.load().latest(f"{shown['source']}-value").parsed))
    found: list[Any] = [
        fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        for value in gateway.delivery.values(shown["source"])
    ]
    assert len(found) == len(shown["events"])
    for event, expected in zip(found, shown["events"], strict=True):
        assert event["event_id"]
        for field, value in expected.items():
            assert event[field] == pytest.approx(value), field
        others = event.keys() - expected.keys() - {"event_id", "sequence"}
        assert {field: event[field] for field in others} == dict.fromkeys(others)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_position_is_answered_and_no_event(gateway: Gateway, name: str) -> None:
    gateway.delivery.sent.clear()
    shown = example(name)
    for body in shown.get("ignored", []):
        assert sent(gateway, shown, body, name) in {200, 202}
    assert gateway.delivery.sent == []


def test_devices_get_the_answer_that_they_want(gateway: Gateway) -> None:
    found = gateway.send(example("owntracks")["body"], query="?format=owntracks")
    assert (found.status, found.body) == (200, b"[]")
    found = gateway.send(example("overland")["body"], query="?format=overland")
    assert (found.status, found.json) == (200, {"result": "ok"})


def test_a_device_that_would_repeat_itself_is_answered_although_its_record_is_a_dead_letter(gateway: Gateway) -> None:
    gateway.delivery.sent.clear()
    body = {**example("owntracks")["body"], "lat": 1234}
    assert gateway.send(body, query="?format=owntracks").status == 200
    (letter,) = gateway.delivery.values("gps.positions.v1.dlq")
    (headers,) = gateway.delivery.headers("gps.positions.v1.dlq")
    assert letter[0] == 0
    assert headers["gateway.pointer"] == b"/lat", "the place in what the device has sent"
    body = {**example("owntracks")["body"], "tst": "yesterday"}
    assert gateway.send(body, query="?format=owntracks").status == 200
    assert json.loads(gateway.delivery.values("gps.positions.v1.dlq")[-1]) == body
    assert gateway.send(b"{", query="?format=owntracks").status == 200
    assert gateway.delivery.values("gps.positions.v1.dlq")[-1] == b"{"


@pytest.mark.parametrize("body", [[1, 2], {"locations": 7}, {"other": 1}, {"locations": [7]}, {"locations": None}, 7])
def test_another_document_than_the_format_has_is_a_dead_letter(gateway: Gateway, body: Any) -> None:
    gateway.delivery.sent.clear()
    gateway.send(body, query="?format=overland")
    assert len(gateway.delivery.values("gps.positions.v1.dlq")) == 1


def test_a_format_of_ones_own_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats" / "acme.toml").write_text(
        'title = "Acme"\nrecords = "/points"\n[fields]\ndevice_id = { at = "body:/unit" }\nevent_time = { at = "/t" }\n'
        'latitude = { at = "/p/0" }\nlongitude = { at = "/p/1" }\nspeed_kmh = { at = "header:x-speed" }\n',
        encoding="utf-8",
    )
    with running(tmp_path) as gateway:
        body = {"unit": "u-1", "points": [{"t": 1767225600, "p": [1, 2]}, {"t": 1767225601, "p": [1, 3]}]}
        answer = gateway.send(body, query="?format=acme", X_Speed="9.5")
        assert (answer.status, answer.json["accepted"]) == (202, 2)
        assert gateway.delivery.keys("gps.positions.v1") == [b"u-1", b"u-1"]
        assert gateway.send(position(0)).status == 202


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[fields", "Expected"),
        ("title = 1", "'fields' is missing"),
        ("[fields]\na = {}", "a has neither at, nor text, nor value"),
        ('[fields]\na = { at = "x" }', "'x' is no JSON pointer"),
        ('[fields]\na = { at = "/x", unit = "s" }', "a has 'unit'"),
        ('body = "xml"\n[fields]', "body is json or query"),
        ("[answer]\nstats = 2\n[fields]", "[answer] has 'stats'"),
    ],
)
def test_a_file_that_declares_no_format_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_format("acme", text, "acme.toml")
    assert words in str(raised.value)
    assert str(raised.value).startswith("acme.toml declares no format")


def test_every_format_has_an_example() -> None:
    assert NAMES == sorted(load_formats())
    for name in NAMES:
        assert example(name)["events"]
