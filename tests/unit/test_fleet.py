import dataclasses
import io
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest

from loadtest.fleet import SOURCES, Fleet, FleetShape, Kind
from loadtest.fleet.orders import LETTERS, LIVES, STEPS
from loadtest.fleet.traffic import REJECTS
from loadtest.oracle.decode import Decoder, Record, newest_schema
from loadtest.oracle.events import Event, OrderEvent, Reject
from loadtest.oracle.folds import DOMAINS
from loadtest.oracle.model import PartitionModel

SCHEMAS = Path(__file__).parents[2] / "schemas"
SCHEMA = (SCHEMAS / "gps.positions.v1-value" / "1.avsc").read_text()
ORDERS_SCHEMA = (SCHEMAS / "orders.events.v1-value" / "1.avsc").read_text()
STATE_SCHEMA = (SCHEMAS / "vehicles.state.v1-value" / "1.avsc").read_text()
START_MS = 1_750_000_000_000
SHAPE = FleetShape(
    devices=200,
    start_ms=START_MS,
    schema=SCHEMA,
    schema_id=7,
    duplicate_immediate=0.02,
    duplicate_delayed=0.03,
    disordered=0.05,
    late=0.02,
    rejects=dict.fromkeys(REJECTS, 0.003),
    incompatible_schema_id=9,
    record_bytes_max=2_000,
)

pytestmark = pytest.mark.thorough
DECODER = Decoder({7: SCHEMA, 9: STATE_SCHEMA}.get, newest_schema("gps.positions.v1-value"), Event)


Row = tuple[Any, bytes, int, int]
"""Key, value, timestamp in milliseconds, code of the kind."""


class World:
    """A pipeline's fleet, and how its records are read."""

    def __init__(self, pipeline: str, schema: str, decoder: Decoder) -> None:
        self.pipeline = pipeline
        self.shape = dataclasses.replace(SHAPE, schema=schema)
        self.decoder = decoder

    def fleet(self, seed: int, shape: FleetShape | None = None) -> Fleet:
        return Fleet(seed, shape or self.shape, SOURCES[self.pipeline])

    def judged(self, rows: list[Row], shape: FleetShape | None = None) -> PartitionModel:
        shape = shape or self.shape
        limits = shape.lateness_ms, 86_400_000, shape.skew_ms_max, shape.record_bytes_max
        model = PartitionModel(*limits, DOMAINS[self.pipeline].fold)
        for result in self.events(rows):
            model.feed(result)
        model.idle(math.inf)
        return model

    def events(self, rows: list[Row]) -> list[Any]:
        records = [Record(offset, timestamp, key, value) for offset, (key, value, timestamp, _) in enumerate(rows)]
        return self.decoder.decode(records)


GPS = World("gps", SCHEMA, DECODER)
ORDERS = World(
    "orders",
    ORDERS_SCHEMA,
    Decoder({7: ORDERS_SCHEMA, 9: STATE_SCHEMA}.get, newest_schema("orders.events.v1-value"), OrderEvent),
)


@pytest.fixture(params=[GPS, ORDERS], ids=["gps", "orders"])
def world(request: pytest.FixtureRequest) -> Any:
    return request.param


def flat(fleet: Fleet, records: int) -> list[Row]:
    rows: list[Row] = []
    for batch in fleet.batches(records):
        rows.extend(zip(batch.keys, batch.values, batch.timestamps_ms, batch.kinds.tolist(), strict=True))
    return rows


def counted(fleet: Fleet, records: int) -> Counter[Kind]:
    total: Counter[Kind] = Counter()
    for batch in fleet.batches(records):
        total += batch.counts()
    return total


def test_the_same_seed_gives_the_same_bytes(world: World) -> None:
    assert flat(world.fleet(1), 150_000) == flat(world.fleet(1), 150_000)


def test_another_seed_gives_other_bytes(world: World) -> None:
    assert flat(world.fleet(1), 1_000) != flat(world.fleet(2), 1_000)


def test_a_shorter_run_is_the_beginning_of_a_longer_one(world: World) -> None:
    longer = flat(world.fleet(3), 100_000)
    assert flat(world.fleet(3), 70_001) == longer[:70_001]


def test_exactly_as_many_records_as_asked_for(world: World) -> None:
    assert len(flat(world.fleet(1), 61_234)) == 61_234


def test_record_timestamps_never_go_back(world: World) -> None:
    timestamps = [timestamp for _, _, timestamp, _ in flat(world.fleet(4), 130_000)]
    assert timestamps == sorted(timestamps)
    assert timestamps[0] >= START_MS


def test_shares_of_faults_are_met(world: World) -> None:
    counts = counted(world.fleet(5), 200_000)
    assert counts[Kind.DISORDERED] == pytest.approx(10_000, rel=0.1)
    assert counts[Kind.DUPLICATE] == pytest.approx(10_000, rel=0.1)
    assert counts[Kind.NOT_FRAMED] == pytest.approx(600, rel=0.25)
    assert counts[Kind.LATE] > 500


def test_the_model_finds_what_the_fleet_meant(world: World) -> None:
    rows = flat(world.fleet(6), 60_000)
    counts = counted(world.fleet(6), 60_000)
    model = world.judged(rows)
    assert len(model.duplicates) == counts[Kind.DUPLICATE]
    assert Counter(each.reason for each in model.rejected) == {kind.value: counts[kind] for kind in REJECTS}
    assert Counter(each.reason for each in model.late) == {"late": counts[Kind.LATE]}
    assert len(model.clean) == counts[Kind.PLAIN] + counts[Kind.DISORDERED]


def test_without_faults_everything_is_clean_and_in_order_already(world: World) -> None:
    shape = FleetShape(devices=50, start_ms=START_MS, schema=world.shape.schema, schema_id=7)
    rows = flat(world.fleet(1, shape), 5_000)
    model = world.judged(rows, shape)
    assert (len(model.clean), model.late, model.duplicates, model.rejected) == (5_000, [], [], [])
    last: dict[str, Any] = {}
    for event in world.events(rows):
        assert event.order_key > last.get(event.entity, (0, 0, ""))
        last[event.entity] = event.order_key


def test_a_fleet_sends_about_as_many_events_a_tick_as_it_says(world: World) -> None:
    shape = FleetShape(devices=500, start_ms=START_MS, schema=world.shape.schema, schema_id=7)
    rows = flat(world.fleet(1, shape), 50_000)
    ticks = (rows[-1][2] - START_MS) / shape.tick_ms
    assert len(rows) / ticks / shape.devices == pytest.approx(SOURCES[world.pipeline].events_per_tick, rel=0.02)


def lives(records: int, **shape: Any) -> dict[str, list[Any]]:
    """Steps of each order that began after the first tick and has ended, as events in order."""
    rows = flat(ORDERS.fleet(2, FleetShape(300, START_MS, ORDERS_SCHEMA, 7, **shape)), records)
    steps: dict[str, list[Any]] = {}
    for event in ORDERS.judged(rows).clean:
        steps.setdefault(event.entity, []).append(event)
    first, last = 300, max(int(order_id[-10:]) for order_id in steps) - 600
    return {order_id: found for order_id, found in steps.items() if first <= int(order_id[-10:]) < last}


def test_orders_live_through_their_steps_and_some_repeat_or_contradict_themselves() -> None:
    found = Counter("".join(LETTERS[STEPS.index(event.kind)] for event in steps) for steps in lives(40_000).values())
    shares = {life.upper(): 0.0 for life in LIVES}
    for life, share in LIVES.items():
        shares[life.upper()] += share
    assert found.keys() == shares.keys()
    for life, share in shares.items():
        assert found[life] / found.total() == pytest.approx(share, rel=0.3)


def test_steps_of_an_order_count_from_one_and_some_happen_in_the_same_millisecond() -> None:
    ties = 0
    for steps in lives(20_000).values():
        assert [event.sequence for event in steps] == list(range(1, len(steps) + 1))
        ties += sum(a.event_time_ms == b.event_time_ms for a, b in itertools.pairwise(steps))
    assert ties > 100


@pytest.mark.parametrize(
    "name", ["vehicle_id", "depot_id", "destination_latitude", "destination_longitude", "promised_time"]
)
def test_every_optional_field_of_an_order_is_null_now_and_then(name: str) -> None:
    said = Counter(getattr(event, name) is not None for steps in lives(10_000).values() for event in steps)
    assert min(said[True], said[False]) > 500


def test_an_order_that_is_assigned_again_goes_to_another_vehicle() -> None:
    pairs = [
        (a.vehicle_id, b.vehicle_id)
        for steps in lives(20_000).values()
        for a, b in itertools.pairwise(steps)
        if a.kind == b.kind == "ASSIGNED"
    ]
    assert len(pairs) > 50
    assert all(a != b for a, b in pairs)


def test_vehicles_move_as_fast_as_they_say_and_stop_now_and_then() -> None:
    shape = FleetShape(devices=20, start_ms=START_MS, schema=SCHEMA, schema_id=7, speed_unknown=0.0)
    rows = GPS.judged(flat(Fleet(8, shape), 60_000), shape).table.values()
    assert max(row["speed_max_kmh"] for row in rows) <= 130.0
    for row in rows:
        hours = (row["last_event_time"] - row["first_event_time"]) / 3_600_000
        assert row["odometer_km"] / hours == pytest.approx(row["speed_mean_kmh"], rel=0.05)
    assert any(row["stopped_since"] for row in rows)


def test_disorder_that_lateness_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="lateness_ms"):
        dataclasses.replace(SHAPE, lateness_ms=1_000)


def one(value: bytes, schema_id: int = 7) -> Any:
    return DECODER.decode([Record(0, 1, b"d", b"\0" + schema_id.to_bytes(4, "big") + value)])[0]


def encoded(**fields: object) -> bytes:
    values = {"event_id": "x", "device_id": "d", "sequence": 1, "event_time": 5, "latitude": 1.0, "longitude": 2.0}
    buffer = io.BytesIO()
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    fastavro.schemaless_writer(buffer, schema, {**values, "speed_kmh": None, "heading_deg": None, **fields})
    return buffer.getvalue()


def test_the_block_path_keeps_null_and_nan_apart() -> None:
    decoded: list[Any] = DECODER.decode(
        [Record(0, 1, b"d", b"\0\0\0\0\7" + encoded(speed_kmh=speed)) for speed in (None, math.nan, 3.5)]
    )
    assert decoded[0].speed_kmh is None
    assert math.isnan(decoded[1].speed_kmh)
    assert decoded[2].speed_kmh == 3.5


def test_junk_behind_a_record_is_malformed_and_its_neighbours_are_not() -> None:
    good = b"\0\0\0\0\7" + encoded()
    decoded: list[Any] = DECODER.decode(
        [Record(row, 1, b"d", value) for row, value in enumerate((good, good + b"\0", good))]
    )
    assert [type(each) for each in decoded] == [Event, Reject, Event]
    assert decoded[1].reason == "malformed"


def test_a_varint_that_is_longer_than_needed_is_decoded_all_the_same() -> None:
    value = encoded()
    assert value[0] == 2  # the length of "x": one byte, zigzag
    stretched = one(b"\x82\x00" + value[1:])
    assert (stretched.event_id, stretched.raw[5:]) == ("x", b"\x82\x00" + value[1:])


@pytest.mark.parametrize(
    ("value", "schema_id", "reason"),
    [(b"", 7, "malformed"), (b"\x01", 7, "malformed"), (b"", 8, "unknown_schema"), (b"", 9, "incompatible_schema")],
)
def test_reasons_not_to_decode(value: bytes, schema_id: int, reason: str) -> None:
    assert one(value, schema_id).reason == reason


def order_bytes(schema: dict[str, Any] | None = None, **fields: object) -> bytes:
    values = {"event_id": "x", "order_id": "d", "sequence": 1, "event_time": 5, "kind": "CREATED", "depot_id": None}
    rest = dict.fromkeys(("vehicle_id", "destination_latitude", "destination_longitude", "promised_time"))
    buffer = io.BytesIO()
    parsed = fastavro.parse_schema(json.loads(ORDERS_SCHEMA) if schema is None else schema)
    fastavro.schemaless_writer(buffer, parsed, {**values, **rest, **fields})
    return b"\0\0\0\0\7" + buffer.getvalue()


def decoded_orders(*values: bytes, schema: dict[str, Any] | None = None) -> tuple[list[Any], list[Any]]:
    text = ORDERS_SCHEMA if schema is None else json.dumps(schema)
    decoder = Decoder({7: text}.get, newest_schema("orders.events.v1-value"), OrderEvent)
    records = [Record(row, 1, b"d", value) for row, value in enumerate(values)]
    return decoder.decode(records), [decoder.decode_one(record) for record in records]


def test_orders_are_decoded_the_same_by_block_and_one_by_one() -> None:
    values = [
        order_bytes(),
        order_bytes(kind="CANCELLED", vehicle_id="v", depot_id="", promised_time=-1, destination_latitude=91.0),
        order_bytes(kind="PICKED_UP", destination_longitude=math.inf, promised_time=1 << 60),
    ]
    block, singly = decoded_orders(*values)
    assert block == singly
    assert [event.kind for event in block] == ["CREATED", "CANCELLED", "PICKED_UP"]
    assert block[0][8:13] == (None,) * 5
    assert block[1][8:13] == ("v", "", 91.0, None, -1)
    assert (block[2].destination_longitude, block[2].promised_time) == (math.inf, 1 << 60)


def test_a_step_that_is_not_in_the_enum_is_malformed_and_its_neighbours_are_not() -> None:
    good = order_bytes()
    at = good.index(b"\x02d") + 4  # behind order_id, sequence and event_time
    assert good[at] == 0
    block, singly = decoded_orders(good, good[:at] + b"\x0a" + good[at + 1 :], good)
    assert block == singly
    assert [getattr(each, "reason", None) for each in block] == [None, "malformed", None]


def test_text_that_is_not_utf_8_is_malformed() -> None:
    block, singly = decoded_orders(order_bytes(), order_bytes(vehicle_id="abc").replace(b"abc", b"a\xffc"))
    assert block == singly
    assert [getattr(each, "reason", None) for each in block] == [None, "malformed"]


def test_a_step_that_only_the_writer_knows_is_incompatible() -> None:
    schema = json.loads(ORDERS_SCHEMA)
    schema["fields"][4]["type"]["symbols"].append("RETURNED")
    block, singly = decoded_orders(order_bytes(schema), order_bytes(schema, kind="RETURNED"), schema=schema)
    assert block == singly
    assert [getattr(each, "reason", None) for each in block] == [None, "incompatible_schema"]
