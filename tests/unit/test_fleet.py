import dataclasses
import io
import json
import math
from collections import Counter
from pathlib import Path

import fastavro
import pytest

from loadtest.fleet import Fleet, FleetShape, Kind
from loadtest.fleet.traffic import REJECTS
from loadtest.oracle.decode import Decoder, Record, newest_schema
from loadtest.oracle.model import Event, PartitionModel, Reject

SCHEMAS = Path(__file__).parents[2] / "schemas"
SCHEMA = (SCHEMAS / "gps.positions.v1-value" / "1.avsc").read_text()
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
DECODER = Decoder({7: SCHEMA, 9: STATE_SCHEMA}.get, newest_schema("gps.positions.v1-value"), Event)


def flat(fleet, records):
    rows = []
    for batch in fleet.batches(records):
        rows.extend(zip(batch.keys, batch.values, batch.timestamps_ms, batch.kinds.tolist(), strict=True))
    return rows


def counted(fleet, records):
    total = Counter()
    for batch in fleet.batches(records):
        total += batch.counts()
    return total


def judged(rows, shape=SHAPE):
    model = PartitionModel(shape.lateness_ms, 86_400_000, shape.skew_ms_max, shape.record_bytes_max)
    records = [Record(offset, timestamp, key, value) for offset, (key, value, timestamp, _) in enumerate(rows)]
    for result in DECODER.decode(records):
        model.feed(result)
    model.idle(math.inf)
    return model


def test_the_same_seed_gives_the_same_bytes():
    assert flat(Fleet(1, SHAPE), 150_000) == flat(Fleet(1, SHAPE), 150_000)


def test_another_seed_gives_other_bytes():
    assert flat(Fleet(1, SHAPE), 1_000) != flat(Fleet(2, SHAPE), 1_000)


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    longer = flat(Fleet(3, SHAPE), 100_000)
    assert flat(Fleet(3, SHAPE), 70_001) == longer[:70_001]


def test_exactly_as_many_records_as_asked_for():
    assert len(flat(Fleet(1, SHAPE), 61_234)) == 61_234


def test_record_timestamps_never_go_back():
    timestamps = [timestamp for _, _, timestamp, _ in flat(Fleet(4, SHAPE), 130_000)]
    assert timestamps == sorted(timestamps)
    assert timestamps[0] >= START_MS


def test_shares_of_faults_are_met():
    counts = counted(Fleet(5, SHAPE), 200_000)
    assert counts[Kind.DISORDERED] == pytest.approx(10_000, rel=0.1)
    assert counts[Kind.DUPLICATE] == pytest.approx(10_000, rel=0.1)
    assert counts[Kind.NOT_FRAMED] == pytest.approx(600, rel=0.25)


def test_the_model_finds_what_the_fleet_meant():
    rows = flat(Fleet(6, SHAPE), 60_000)
    counts = counted(Fleet(6, SHAPE), 60_000)
    model = judged(rows)
    assert len(model.duplicates) == counts[Kind.DUPLICATE]
    assert Counter(each.reason for each in model.rejected) == {kind.value: counts[kind] for kind in REJECTS}
    assert Counter(each.reason for each in model.late) == {"late": counts[Kind.LATE]}
    assert len(model.clean) == counts[Kind.PLAIN] + counts[Kind.DISORDERED]


def test_without_faults_everything_is_clean_and_in_order_already():
    shape = FleetShape(devices=50, start_ms=START_MS, schema=SCHEMA, schema_id=7)
    rows = flat(Fleet(1, shape), 5_000)
    model = judged(rows, shape)
    assert (len(model.clean), model.late, model.duplicates, model.rejected) == (5_000, [], [], [])
    last = {}
    for event in DECODER.decode([Record(0, timestamp, key, value) for key, value, timestamp, _ in rows]):
        assert event.event_time_ms > last.get(event.device_id, 0)
        last[event.device_id] = event.event_time_ms


def test_vehicles_move_as_fast_as_they_say_and_stop_now_and_then():
    shape = FleetShape(devices=20, start_ms=START_MS, schema=SCHEMA, schema_id=7, speed_unknown=0.0)
    rows = judged(flat(Fleet(8, shape), 60_000), shape).table.values()
    assert max(row["speed_max_kmh"] for row in rows) <= 130.0
    for row in rows:
        hours = (row["last_event_time"] - row["first_event_time"]) / 3_600_000
        assert row["odometer_km"] / hours == pytest.approx(row["speed_mean_kmh"], rel=0.05)
    assert any(row["stopped_since"] for row in rows)


def test_disorder_that_lateness_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="lateness_ms"):
        dataclasses.replace(SHAPE, lateness_ms=1_000)


def one(value, schema_id=7):
    return DECODER.decode([Record(0, 1, b"d", b"\0" + schema_id.to_bytes(4, "big") + value)])[0]


def encoded(**fields):
    values = {"event_id": "x", "device_id": "d", "sequence": 1, "event_time": 5, "latitude": 1.0, "longitude": 2.0}
    buffer = io.BytesIO()
    schema = fastavro.parse_schema(json.loads(SCHEMA))
    fastavro.schemaless_writer(buffer, schema, {**values, "speed_kmh": None, "heading_deg": None, **fields})
    return buffer.getvalue()


def test_the_block_path_keeps_null_and_nan_apart():
    decoded = DECODER.decode(
        [Record(0, 1, b"d", b"\0\0\0\0\7" + encoded(speed_kmh=speed)) for speed in (None, math.nan, 3.5)]
    )
    assert decoded[0].speed_kmh is None
    assert math.isnan(decoded[1].speed_kmh)
    assert decoded[2].speed_kmh == 3.5


def test_junk_behind_a_record_is_malformed_and_its_neighbours_are_not():
    good = b"\0\0\0\0\7" + encoded()
    decoded = DECODER.decode([Record(row, 1, b"d", value) for row, value in enumerate((good, good + b"\0", good))])
    assert [type(each) for each in decoded] == [Event, Reject, Event]
    assert decoded[1].reason == "malformed"


def test_a_varint_that_is_longer_than_needed_is_decoded_all_the_same():
    value = encoded()
    assert value[0] == 2  # the length of "x": one byte, zigzag
    stretched = one(b"\x82\x00" + value[1:])
    assert (stretched.event_id, stretched.raw[5:]) == ("x", b"\x82\x00" + value[1:])


@pytest.mark.parametrize(
    ("value", "schema_id", "reason"),
    [(b"", 7, "malformed"), (b"\x01", 7, "malformed"), (b"", 8, "unknown_schema"), (b"", 9, "incompatible_schema")],
)
def test_reasons_not_to_decode(value, schema_id, reason):
    assert one(value, schema_id).reason == reason
