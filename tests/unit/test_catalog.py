import json
from pathlib import Path

import pytest

from streams.errors import StreamsError, UsageError
from streams.flow.discover import pipelines
from streams.schemas.catalog import SCHEMAS_DIR_VARIABLE, Catalog

SCHEMA = json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]})

# (field, type) in order, as users and scripts rely on them; ? is null or the type.
FIELDS = {
    "gps.positions.v1-value": "event_id string, device_id string, sequence long, event_time time, latitude double, "
    "longitude double, speed_kmh ?double, heading_deg ?double, altitude_m ?double",
    "orders.events.v1-value": "event_id string, order_id string, sequence long, event_time time, kind OrderKind, "
    "vehicle_id ?string, depot_id ?string, destination_latitude ?double, destination_longitude ?double, "
    "promised_time ?time",
    "vehicles.state.v1-value": "device_id string, events long, first_event_time time, last_event_time time, "
    "last_sequence long, latitude double, longitude double, odometer_km double, speed_mean_kmh ?double, "
    "speed_max_kmh ?double, stopped_since ?time",
    "vehicles.minutes.v1-value": "device_id string, window_start time, window_end time, revision int, events long, "
    "distance_km double, speed_max_kmh ?double",
    "vehicles.trips.v1-value": "device_id string, trip_start time, trip_end time, revision int, events long, "
    "distance_km double, moving_ms long, stopped_ms long, speed_mean_kmh ?double, speed_max_kmh ?double",
    "orders.state.v1-value": "order_id string, status OrderKind, vehicle_id ?string, depot_id ?string, "
    "created_at ?time, assigned_at ?time, picked_up_at ?time, delivered_at ?time, cancelled_at ?time, "
    "promised_time ?time, events long, last_event_time time",
    "orders.bound.v1-value": "event_id string, bound_to string, sequence long, event_time time, order_id "
    "string, kind BoundKind, vehicle_id ?string, destination_latitude ?double, destination_longitude "
    "?double, promised_time ?time",
    "orders.dispatch.v1-value": "order_id string, status DispatchStatus, vehicle_id ?string, "
    "destination_latitude ?double, destination_longitude ?double, promised_time ?time, is_overdue "
    "boolean, last_event_time time",
    "orders.overdue.v1-value": "order_id string, reason OverdueReason, promised_time time, status "
    "OverdueStatus, vehicle_id ?string, delivered_time ?time, late_by_ms ?long",
    "orders.tracking.v1-value": "order_id string, vehicle_id ?string, status TrackingStatus, event_time time, "
    "position_time ?time, latitude ?double, longitude ?double, distance_km ?double, speed_kmh ?double, "
    "expected_arrival ?time, promised_time ?time, to_promise_min ?double, risk DeliveryRisk",
    "deliveries.verified.v1-value": "order_id string, vehicle_id ?string, delivered_time time, is_verified "
    "DeliveryVerdict, because VerdictCause, distance_m ?double, position_time ?time, position_age_ms "
    "?long",
    "vehicles.orders.v1-value": "vehicle_id string, open_orders long, position_time ?time, latitude ?double, "
    "longitude ?double, speed_kmh ?double",
}


def shown(kind: object) -> str:
    match kind:
        case str():
            return kind
        case ["null", other]:
            return f"?{shown(other)}"
        case {"logicalType": "timestamp-millis", "type": "long"}:
            return "time"
        case {"type": "enum", "name": name}:
            return str(name)
    raise AssertionError(kind)


def write(root: Path, subject: str, version: str, text: str = SCHEMA) -> None:
    (root / subject).mkdir(exist_ok=True)
    (root / subject / version).write_text(text, encoding="utf-8")


def test_committed_schemas_have_the_fields_that_others_rely_on() -> None:
    catalog = Catalog.load()
    assert sorted(FIELDS) == list(catalog.subjects())
    for subject, expected in FIELDS.items():
        fields = catalog.latest(subject).parsed["fields"]
        assert expected == ", ".join(f"{field['name']} {shown(field['type'])}" for field in fields)


def test_every_field_is_documented_and_every_optional_field_defaults_to_null() -> None:
    catalog = Catalog.load()
    for version in (version for subject in catalog.subjects() for version in catalog.versions(subject)):
        assert version.parsed["namespace"] == "logistics"
        for field in version.parsed["fields"]:
            assert field["doc"]
            optional = isinstance(field["type"], list)
            assert optional == ("default" in field)
            assert not optional or (field["type"][0] == "null" and field["default"] is None)


def test_every_subject_that_a_pipeline_declares_is_committed() -> None:
    declared = {topic.subject for pipeline in pipelines().values() for topic in pipeline.topics() if topic.subject}
    assert declared <= set(Catalog.load().subjects())


def test_the_second_version_of_positions_only_adds_an_optional_altitude() -> None:
    first, second = Catalog.load().versions("gps.positions.v1-value")
    assert (first.version, second.version) == (1, 2)
    assert first.parsed["fields"] == second.parsed["fields"][:-1]
    assert second.parsed["fields"][-1]["name"] == "altitude_m"


def test_the_folder_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a-value", "1.avsc")
    monkeypatch.setenv(SCHEMAS_DIR_VARIABLE, str(tmp_path))
    assert Catalog.load().subjects() == ("a-value",)
    assert Catalog.load().latest("a-value").text == SCHEMA


@pytest.mark.parametrize(
    ("version", "text", "message"),
    [
        ("2.avsc", SCHEMA, "1.avsc: missing"),
        ("v1.avsc", SCHEMA, "v1.avsc: a schema file is named"),
        ("01.avsc", SCHEMA, "01.avsc: a schema file is named"),
        ("1.json", SCHEMA, "1.json: a schema file is named"),
        ("1.avsc", "{", "1.avsc: not JSON"),
        ("1.avsc", '"string"', "1.avsc: the schema of a topic's values is an Avro record"),
        ("1.avsc", SCHEMA.replace("long", "lang"), "1.avsc: not a valid Avro schema: it does not define 'lang'"),
        ("1.avsc", "\ufeff" + SCHEMA, "1.avsc: begins with a byte order mark: save it as UTF-8 without one"),
        ("1.avsc", SCHEMA[:-1] + ', "aliases": "Old"}', '1.avsc: aliases is a list of names, not "Old"'),
        ("1.avsc", SCHEMA.replace('"fields"', '"felder"'), "1.avsc: the schema of a topic's values is"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, version: str, text: str, message: str) -> None:
    write(tmp_path, "a-value", version, text)
    with pytest.raises(StreamsError, match=message) as raised:
        Catalog.load(tmp_path)
    assert str(tmp_path.resolve()) in str(raised.value)


def test_a_missing_folder_or_subject_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        Catalog.load(tmp_path / "none")
    with pytest.raises(UsageError, match="has no folder"):
        Catalog.load(tmp_path)
    with pytest.raises(UsageError, match="no schema for subject 'b-value': there is"):
        Catalog.load().latest("b-value")
