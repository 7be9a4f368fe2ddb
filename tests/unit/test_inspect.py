import io
import json
from functools import partial
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.avro.personal import personal_fields
from streams.batch.rejects import Reason
from streams.deadletters.letter.inspect import IN_WORDS, MASK, Schemas, View, inspect, masks_keys, schema_id_of
from streams.deadletters.letter.letter import Letter, NotARepair, Repair, repaired
from streams.deadletters.letter.walk import walk
from streams.schemas.catalog import Catalog

TEXT = Catalog.load().versions(GPS.subject)[0].text
SCHEMA = json.loads(TEXT)
RICH = {
    "type": "record", "name": "Rich", "namespace": "n",
    "fields": [
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "again", "type": ["null", "n.Kind"]},
        {"name": "raw", "type": {"type": "fixed", "name": "Two", "size": 2}},
        {"name": "inner", "type": {"type": "record", "name": "Inner", "fields": [
            {"name": "yes", "type": "boolean"}, {"name": "blob", "type": "bytes"}, {"name": "f", "type": "float"}]}},
    ],
}  # fmt: skip


def encoded(schema: dict[str, Any], value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def position(**changed: object) -> dict[str, Any]:
    return {
        "event_id": "e-1", "device_id": "car", "sequence": 1, "event_time": 1_700_000_000_000, "latitude": 1.5,
        "longitude": 2.5, "speed_kmh": None, "heading_deg": 3.0, **changed,
    }  # fmt: skip


RICH_VALUES = st.fixed_dictionaries(
    {
        "tags": st.lists(st.text(max_size=5), max_size=3),
        "counts": st.dictionaries(st.text(max_size=3), st.integers(-5, 5), max_size=3),
        "kind": st.sampled_from("AB"),
        "again": st.none() | st.sampled_from("AB"),
        "raw": st.binary(min_size=2, max_size=2),
        "inner": st.fixed_dictionaries({"yes": st.booleans(), "blob": st.binary(max_size=4), "f": st.just(0.5)}),
    }
)


@given(RICH_VALUES)
def test_a_whole_value_is_walked_to_its_last_byte(value: dict[str, Any]) -> None:
    data = encoded(RICH, value)
    found = walk(RICH, data)
    assert (None, len(data)) == (found.failure, found.end)
    assert len(value["tags"]) + len(value["counts"]) + 6 == len(found.leaves)
    assert all(one.end <= other.start for one, other in zip(found.leaves, found.leaves[1:], strict=False))


@given(RICH_VALUES, st.data())
def test_a_value_cut_anywhere_fails_where_it_ends_and_says_what_came_before(
    value: dict[str, Any], data: st.DataObject
) -> None:
    whole = encoded(RICH, value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    found = walk(RICH, whole[:cut])
    assert found.failure is not None
    assert 0 <= found.failure.start <= cut
    before = walk(RICH, whole).leaves
    assert found.leaves == before[: len(found.leaves)]


@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_walked_without_an_error(data: bytes) -> None:
    for schema in (RICH, SCHEMA):
        found = walk(schema, data)
        assert found.failure is not None or found.end == len(data)


def test_a_count_bomb_and_a_schema_that_contains_itself_are_stopped() -> None:
    bomb = {"type": "array", "items": "null"}
    assert walk(bomb, b"\xfe\xff\xff\xff\x0f").failure is not None
    itself = {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}
    failure = walk(itself, b"").failure
    assert failure is not None
    assert "not shown" in failure.message


def letter(
    value: bytes,
    reason: str = "invalid",
    message: str = "",
    headers: list[tuple[str, bytes]] | tuple[()] = (),
    key: bytes = b"car",
) -> Letter:
    return Letter("0" * 24, "t.dlq", 0, 0, 0, GPS.source, key, value, list(headers), reason, message, 1, 7, 0)


def view(
    value: bytes,
    reason: str = "invalid",
    message: str = "",
    *,
    text: str | None = TEXT,
    reader: str | None = None,
    reveal: bool = False,
    **more: Any,
) -> View:
    return inspect(letter(value, reason, message, **more), Schemas(text, reader), GPS, reveal=reveal)


FRAME = b"\0\0\0\0\x07"


@pytest.mark.parametrize(
    ("reason", "message", "value", "place"),
    [
        ("invalid", "latitude is outside [-90, 90]", FRAME + encoded(SCHEMA, position(latitude=91.0)), (20, 28)),
        ("invalid", "the event id is empty", FRAME + encoded(SCHEMA, position(event_id="")), (5, 6)),
        ("key_mismatch", "m", FRAME + encoded(SCHEMA, position()), (9, 13)),
        ("future_timestamp", "m", FRAME + encoded(SCHEMA, position()), (14, 20)),
        ("malformed", "m", FRAME + encoded(SCHEMA, position())[:20], (20, 25)),
        ("malformed", "m", FRAME + encoded(SCHEMA, position()) + b"xy", (46, 48)),
        ("not_framed", "m", b"{}", (0, 1)),
        ("unknown_schema", "m", FRAME + b"abc", (1, 5)),
    ],
)
def test_the_place_of_the_failure_is_marked(reason: str, message: str, value: bytes, place: tuple[int, int]) -> None:
    text = None if reason == "unknown_schema" else TEXT
    found = view(value, reason, message, text=text)
    assert found.failure is not None
    assert place == (found.failure.start, found.failure.end)
    marked = [row.offset + at for row in found.hex_rows for at, is_marked in enumerate(row.marked) if is_marked]
    assert list(range(*place)) == marked


def test_of_a_long_value_the_part_with_the_failure_is_shown() -> None:
    found = view(FRAME + encoded(SCHEMA, position(event_id="x" * 9_000, latitude=91.0)), message="latitude is outside")
    assert any(any(row.marked) for row in found.hex_rows)
    assert found.size_bytes == found.hex_omitted_bytes + sum(len(row.digits) for row in found.hex_rows)
    assert found.hex_omitted_bytes > 4_000


def personal(*names: str) -> str:
    return json.dumps({**SCHEMA, "fields": [{**f, "pii": True} if f["name"] in names else f for f in SCHEMA["fields"]]})


def shown_text(found: View) -> str:
    rows = ["".join(row.digits) + row.characters for row in found.hex_rows]
    return "\n".join([found.key, *rows, *(leaf.shown for leaf in found.leaves), *(value for _, value in found.headers)])


def test_personal_fields_are_masked_by_either_schema_and_shown_when_revealed() -> None:
    value = FRAME + encoded(SCHEMA, position(event_id="secret-id", latitude=91.0))
    marked: tuple[dict[str, Any], ...] = (
        {"text": personal("event_id")},
        {"text": TEXT, "reader": personal("event_id")},
    )
    for options in marked:
        shown = partial(view, value, message="latitude is outside", headers=[("driver", b"secret")], **options)
        found = shown()
        assert found.is_masked
        assert "secret" not in shown_text(found)
        assert b"secret-id".hex() not in shown_text(found)
        assert "car" in shown_text(found), "what is not personal is shown"
        revealed = shown(reveal=True)
        assert not revealed.is_masked
        assert "secret-id" in shown_text(revealed)


def test_bytes_of_which_nobody_knows_what_they_are_are_masked_if_the_stream_has_personal_fields() -> None:
    cases: list[tuple[bytes, str, str | None]] = [
        (FRAME + b"secret", "unknown_schema", None),
        (b'{"n": "secret"}', "not_framed", None),
        (FRAME + encoded(SCHEMA, position())[:8] + b"\x40secret", "malformed", personal("longitude")),
    ]
    for value, reason, text in cases:
        found = view(value, reason, text=text, reader=personal("longitude"))
        assert "secret" not in shown_text(found)
        assert b"secret".hex() not in shown_text(found)
    assert "secret" in shown_text(view(b"secret", "not_framed", text=None, reader=TEXT)), "no personal field, no mask"


def test_where_no_schema_is_known_all_of_the_value_its_key_and_its_headers_are_masked() -> None:
    for flow in (None, GPS):
        unknown = letter(b"secret", "unknown", headers=[("driver", b"secret")], key=b"secret")
        found = inspect(unknown, Schemas(None, None), flow, reveal=False)
        assert found.is_masked
        assert b"secret".hex() not in shown_text(found)
        assert (flow is None) == ("secret" not in shown_text(found))
        assert "secret" in shown_text(inspect(unknown, Schemas(None, None), flow, reveal=True))
    assert masks_keys(Schemas(None, None), None)


def test_the_shipped_schemas_mark_where_vehicles_were_and_where_orders_go() -> None:
    catalog = Catalog.load()
    for flow, names in ((GPS, {"latitude", "longitude"}), (ORDERS, {"destination_latitude", "destination_longitude"})):
        settings = catalog.settings(flow.subject)
        assert names == settings.personal
        fields = {field["name"] for version in catalog.versions(flow.subject) for field in version.parsed["fields"]}
        assert names <= fields
        assert not masks_keys(Schemas(None, None, settings.personal), flow)
    value = FRAME + encoded(SCHEMA, position(latitude=91.25))
    marked = Schemas(TEXT, TEXT, catalog.settings(GPS.subject).personal)
    found = inspect(letter(value, message="latitude is outside"), marked, GPS, reveal=False)
    assert "91.25" not in shown_text(found)
    assert "e-1" in shown_text(found)


def test_a_personal_key_field_masks_the_key() -> None:
    value = FRAME + encoded(SCHEMA, position(latitude=91.0))
    found = view(value, reader=personal("device_id"))
    assert MASK == found.key
    assert "car" not in shown_text(found)
    assert frozenset({"device_id"}) == personal_fields(json.loads(personal("device_id")))


def test_a_schema_id_in_a_header_counts() -> None:
    header = [("__value_schema_id", b"\0\0\0\0\x09")]
    assert 9 == schema_id_of(letter(b"abc", headers=header))
    assert 7 == schema_id_of(letter(FRAME))
    found = view(encoded(SCHEMA, position()), headers=header)
    assert (8, None) == (len(found.leaves), found.failure)


def test_a_value_without_a_frame_is_not_read_by_a_schema_id_of_its_envelope() -> None:
    """Its first bytes are no frame: they would be shown unmasked."""
    schema = {**SCHEMA, "fields": [{**SCHEMA["fields"][0], "pii": True}, *SCHEMA["fields"][1:]]}
    found = view(b'{"driver": "a name"}', "not_framed", text=json.dumps(schema))
    assert [] == found.leaves
    assert {"··"} == {digits for row in found.hex_rows for digits in row.digits}


def test_a_repair_is_bytes_or_a_repair_and_nothing_else() -> None:
    one = letter(b"v")
    assert Repair(b"w", b"car") == repaired(one, lambda _: b"w")
    assert Repair(b"w", b"k") == repaired(one, lambda _: Repair(b"w", b"k"))
    assert repaired(one, lambda _: None) is None
    anything: Any = Repair
    bads: tuple[Any, ...] = (
        lambda _: "text", lambda _: 1 / 0, lambda _: anything("text"), lambda _: anything(b"", 3), lambda: b"",
    )  # fmt: skip
    for bad in bads:
        with pytest.raises(NotARepair):
            repaired(one, bad)


def test_every_reason_has_words() -> None:
    assert set(Reason) == IN_WORDS.keys()
