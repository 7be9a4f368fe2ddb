"""What befalls devices (outages, wrong clocks, Zipf), and what events are written with; the model is the judge."""

import dataclasses
import hashlib
import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyruhvro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.fleet import FleetShape, Kind
from loadtest.fleet.encode import encode, frame, times
from loadtest.fleet.layout import even, reports_per_tick, zipf
from loadtest.fleet.mix import NOTHING, REALISTIC, Bounds, Mix, Schemas, Size, mix_of, shape_of
from loadtest.fleet.outages import Outages
from loadtest.fleet.real_tracks import SAMPLE
from loadtest.fleet.traffic import CODES, KINDS, PathsOf
from loadtest.oracle.decode import Decoder, newest_schema
from loadtest.oracle.events import Event
from loadtest.oracle.model import PartitionModel
from tests.examples import examples
from tests.unit.test_fleet import GPS, ORDERS, SCHEMA, SCHEMAS, START_MS, STATE_SCHEMA, World, counted, flat

pytestmark = pytest.mark.thorough

SCHEMA_2 = (SCHEMAS / "gps.positions.v1-value" / "2.avsc").read_text()
IDS = {7: SCHEMA, 8: SCHEMA_2, 9: STATE_SCHEMA}
TWO = World("gps", SCHEMA, Decoder(IDS.get, newest_schema("gps.positions.v1-value"), Event))
OUTAGE_MS = (5_000, 40_000)


def shape(world: World, devices: int = 200, **changed: Any) -> FleetShape:
    return FleetShape(devices, START_MS, world.shape.schema, 7, **changed)


def agrees(world: World, shape: FleetShape, records: int, seed: int = 1) -> tuple[Counter[Kind], PartitionModel]:
    """Whether the model finds exactly what the fleet meant; returns the counts and the model."""
    fleet = world.fleet(seed, shape)
    counts = counted(fleet, records)
    model = world.judged(flat(fleet, records), shape)
    unique = sum(counts[kind] for kind in (Kind.PLAIN, Kind.DISORDERED, Kind.BUFFERED, Kind.SKEWED))
    found = {
        "clean": len(model.clean),
        "duplicates": len(model.duplicates),
        "late": len(model.late),
        "rejects": Counter(each.reason for each in model.rejected),
    }
    rejects = Counter({kind.value: counts[kind] for kind in KINDS[CODES[Kind.NOT_FRAMED] :] if counts[kind]})
    expected = {
        "clean": unique, "duplicates": counts[Kind.DUPLICATE], "late": counts[Kind.LATE], "rejects": rejects,
    }  # fmt: skip
    assert found == expected
    return counts, model


@pytest.mark.parametrize(
    ("world", "digest"),
    [
        (GPS, "1cf2c69d670556731f14672b6959b2896b245154a3b950e884f5c0519c121c8e"),
        (ORDERS, "06afc7bed83cb22d5dab9b48c34443a50895a8f63bbcad24cb4df3b78d52f949"),
    ],
    ids=["gps", "orders"],
)
def test_the_bytes_of_a_seed_stay_what_they_were(world: World, digest: str) -> None:
    found = hashlib.sha256()
    for batch in world.fleet(11).batches(150_000):
        for key, value, timestamp_ms in zip(batch.keys, batch.values, batch.timestamps_ms, strict=True):
            found.update((key or b"") + value + timestamp_ms.to_bytes(8, "big"))
    assert found.hexdigest() == digest


@pytest.mark.parametrize("world", [GPS, ORDERS], ids=["gps", "orders"])
def test_what_a_device_stored_while_it_was_offline_arrives_in_one_go_in_its_order_and_is_not_late(world: World) -> None:
    offline = shape(world, buffered=0.2, outage_ms=OUTAGE_MS, disordered=0.03, late=0.01)
    counts, _ = agrees(world, offline, 40_000)
    assert counts[Kind.BUFFERED] == pytest.approx(8_000, rel=0.1)
    bursts: defaultdict[tuple[bytes | None, int], list[int]] = defaultdict(list)
    rows = flat(world.fleet(1, offline), 40_000)
    for row, event in zip(rows, world.events(rows), strict=True):
        if row[3] == CODES[Kind.BUFFERED] and world is GPS:
            bursts[row[0], row[2]].append(event.event_time_ms)
    spans = [times[-1] - times[0] for times in bursts.values() if len(times) > 2]
    assert all(times == sorted(times) for times in bursts.values())
    if world is GPS:
        assert OUTAGE_MS[1] / 2 < max(spans) <= OUTAGE_MS[1]


@pytest.mark.parametrize("world", [GPS, ORDERS], ids=["gps", "orders"])
def test_a_wrong_clock_is_wrong_by_a_constant_and_nothing_is_rejected_for_it(world: World) -> None:
    counts, _ = agrees(world, shape(world, skewed=0.3, disordered=0.05, late=0.02, delay_ms_max=0), 60_000)
    assert counts[Kind.SKEWED] > 15_000
    skewed = shape(world, skewed=0.3, delay_ms_max=0)
    rows = flat(world.fleet(1, skewed), 20_000)
    off: defaultdict[bytes | None, set[int]] = defaultdict(set)
    for row, event in zip(rows, world.events(rows), strict=True):
        off[row[0]].add(event.event_time_ms - row[2])
    if world is GPS:
        assert all(len(by_ms) == 1 for by_ms in off.values())
        skews = [min(by_ms) for by_ms in off.values() if by_ms != {0}]
        assert len(skews) / len(off) == pytest.approx(0.3, abs=0.1)
        assert -30_000 <= min(skews) < -10_000
        assert 10_000 < max(skews) <= 30_000


def test_some_vehicles_report_far_more_often_than_others() -> None:
    hot = shape(GPS, devices=500, zipf=1.0, disordered=0.05, late=0.02, duplicate_immediate=0.02)
    counts, model = agrees(GPS, hot, 60_000)
    assert counts[Kind.DISORDERED] == pytest.approx(3_000, rel=0.1)
    assert counts[Kind.LATE] > 500
    events = sorted((row["events"] for row in model.table.values()), reverse=True)
    assert events[0] / sum(events) == pytest.approx(1 / sum(1 / rank for rank in range(1, 501)), rel=0.1)
    assert events[0] / events[9] == pytest.approx(10, rel=0.15)


def test_reports_of_a_hot_vehicle_are_numbered_and_spread_over_the_tick_and_lie_on_its_way() -> None:
    rows = flat(GPS.fleet(3, shape(GPS, devices=100, zipf=1.0, speed_unknown=0.0)), 30_000)
    of = defaultdict(list)
    for event in GPS.events(rows):
        of[event.device_id].append(event)
    hottest = max(of.values(), key=len)
    assert [event.sequence for event in hottest] == list(range(1, len(hottest) + 1))
    gaps = [b.event_time_ms - a.event_time_ms for a, b in itertools.pairwise(hottest)]
    assert max(gaps) < 3 * 1_000 / (len(hottest) / ((rows[-1][2] - START_MS) / 1_000))
    for row in GPS.judged(rows).table.values():
        hours = (row["last_event_time"] - row["first_event_time"]) / 3_600_000
        if row["events"] > 300:
            assert row["odometer_km"] / hours == pytest.approx(row["speed_mean_kmh"], rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_records_are_written_with_two_versions_of_the_schema(share: float) -> None:
    mixed = shape(TWO, version_2=share, schema_2=SCHEMA_2, schema_2_id=8, disordered=0.05)
    agrees(TWO, mixed, 20_000)
    rows = flat(TWO.fleet(1, mixed), 20_000)
    newer = [value for _, value, _, _ in rows if value[:5] == b"\0\0\0\0\x08"]
    assert len(newer) / len(rows) == pytest.approx(share, abs=0.02)


def test_a_version_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="version_2"):
        shape(GPS, version_2=0.1)


def test_vehicles_can_move_along_real_paths() -> None:
    points = pq.read_table(SAMPLE)
    real = shape(GPS, devices=50, paths=PathsOf.REAL, speed_unknown=0.0)
    agrees(GPS, real, 20_000)
    events = GPS.events(flat(GPS.fleet(1, real), 20_000))
    # On the legs between points that were really reported: near one of them, and within their bounds.
    known = np.column_stack([points.column(name).to_numpy() for name in ("latitude", "longitude")])
    for event in events[::400]:
        away = np.abs(known - (event.latitude, event.longitude)).max(axis=1).min()
        assert away < 0.1
    row = max(GPS.judged(flat(GPS.fleet(1, real), 20_000)).table.values(), key=lambda row: row["speed_max_kmh"])
    hours = (row["last_event_time"] - row["first_event_time"]) / 3_600_000
    assert row["odometer_km"] / hours == pytest.approx(row["speed_mean_kmh"], rel=0.2)


SHARES = st.sampled_from([0.0, 0.01, 0.08])


@given(
    world=st.sampled_from([TWO, ORDERS]),
    seed=st.integers(0, 1 << 32),
    devices=st.integers(120, 300),
    tick_ms=st.sampled_from([200, 1_000]),
    mix=st.builds(
        Mix, duplicate_immediate=SHARES, duplicate_delayed=SHARES, disordered=SHARES, late=SHARES, buffered=SHARES,
        skewed=SHARES, zipf=st.sampled_from([0.0, 0.5, 1.0]), version_2=SHARES, malformed=SHARES, key_mismatch=SHARES,
        future_timestamp=SHARES, too_large=st.just(0.0), paths=st.sampled_from(PathsOf),
    ),
)  # fmt: skip
@settings(max_examples=examples(12), deadline=None)
def test_whatever_the_mix_the_model_finds_what_the_fleet_meant(
    world: World, seed: int, devices: int, tick_ms: int, mix: Mix
) -> None:
    schemas = Schemas(world.shape.schema, 7, SCHEMA_2, 8, foreign_id=9)
    size = Size(devices, START_MS, tick_ms=tick_ms, delay_ms_max=50)
    agrees(world, shape_of(mix_of(world.pipeline, mix), size, schemas, Bounds(record_bytes_max=2_000)), 6_000, seed)


def test_nothing_befalls_anything_in_the_mix_of_that_name() -> None:
    nothing = shape_of(NOTHING, Size(50, START_MS), Schemas(SCHEMA, 7), Bounds())
    assert counted(GPS.fleet(1, nothing), 5_000) == {Kind.PLAIN: 5_000}


def test_every_kind_occurs_in_the_realistic_mix() -> None:
    schemas = Schemas(SCHEMA, 7, SCHEMA_2, 8, foreign_id=9)
    mix = dataclasses.replace(REALISTIC, too_large=0.0002)
    counts, _ = agrees(TWO, shape_of(mix, Size(500, START_MS), schemas, Bounds(record_bytes_max=2_000)), 80_000)
    assert {kind for kind in KINDS if counts[kind]} == set(KINDS) - {Kind.NEWEST_FIRST}


def test_too_much_time_offline_is_refused() -> None:
    with pytest.raises(ValueError, match="offline"):
        GPS.fleet(1, shape(GPS, buffered=0.9))


def test_zipf_is_refused_for_orders() -> None:
    with pytest.raises(ValueError, match="vehicles"):
        flat(ORDERS.fleet(1, shape(ORDERS, zipf=1.0)), 1)


@given(st.integers(0, (1 << 31) - 1))
@settings(max_examples=examples(50), deadline=None)
def test_the_frame_of_a_value_is_the_schema_id_whatever_its_bits_mean_as_a_float(schema_id: int) -> None:
    fields = {"event_id": ["e"], "device_id": ["d"], "sequence": [1], "event_time": times(np.array([5]))}
    numbers = {name: [0.5] for name in ("latitude", "longitude", "speed_kmh", "heading_deg")}
    (value,) = encode(pa.record_batch({**fields, **numbers}), SCHEMA, schema_id).to_pylist()
    plain = pyruhvro.serialize_record_batch(pa.record_batch({**fields, **numbers}), SCHEMA, 1)[0][0].as_py()
    assert value == b"\0" + schema_id.to_bytes(4, "big") + plain == frame(schema_id) + plain


# --- pure parts -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.01, 0.4), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_outages_do_not_depend_on_how_time_is_cut(seed: int, share: float, cuts: list[int]) -> None:
    outages = Outages(seed, 20, share, 3, 12)
    whole = outages.back(0, sum(cuts))
    begins = itertools.accumulate(cuts[:-1], initial=0)
    pieces = [outages.back(begin, ticks) for begin, ticks in zip(begins, cuts, strict=True)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_a_device_is_offline_for_as_long_and_as_often_as_asked_for() -> None:
    back = Outages(1, 300, 0.1, 5, 20).back(0, 3_000)
    assert (back >= 0).mean() == pytest.approx(0.1, abs=0.005)
    ticks = np.arange(3_000)[:, None]
    assert (back[back >= 0] > np.broadcast_to(ticks, back.shape)[back >= 0]).all()
    offline = [[len(list(run)) for is_off, run in itertools.groupby(column >= 0) if is_off] for column in back.T]
    lengths = [length for runs in offline for length in runs[1:-1]]
    assert (min(lengths), max(lengths)) == (5, 20)


@given(st.integers(1, 400), st.floats(0.0, 1.5), st.integers(1, 3_000))
def test_reports_of_a_device_keep_their_order_in_time_and_number(devices: int, exponent: float, tick_ms: int) -> None:
    rng = np.random.default_rng(devices)
    layout = zipf(rng, devices, exponent)
    assert reports_per_tick(devices, exponent) * devices == pytest.approx(layout.events_per_tick)
    assert ((layout.turns == 1) | (layout.every == 1)).all()
    phase_ms = layout.phase_ms(rng.integers(0, tick_ms, devices), tick_ms)
    delay_ms_max = layout.delay_ms_max(tick_ms - 1, tick_ms)
    tick, column = np.nonzero(layout.active(0, 12))
    sequence, device = layout.sequence(tick, column), layout.device[column]
    order = np.lexsort((sequence, device))
    same = np.diff(device[order]) == 0
    earliest_ms = (tick * tick_ms + phase_ms[column])[order]
    latest_ms = earliest_ms + delay_ms_max[column][order]
    assert (np.diff(sequence[order])[same] == 1).all()
    assert (earliest_ms[1:][same] >= latest_ms[:-1][same]).all()


def test_without_an_exponent_every_device_reports_once_a_tick() -> None:
    found, expected = zipf(np.random.default_rng(0), 5, 0.0), even(5)
    for name in ("device", "turn", "turns", "every", "offset"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert expected.is_even


def test_devices_that_share_a_dead_zone_are_offline_at_the_same_time() -> None:
    offline = shape(GPS, devices=95, buffered=0.2, outage_ms=OUTAGE_MS, zone_devices=10)
    stored = defaultdict(set)
    for key, value, timestamp_ms, kind in flat(GPS.fleet(1, offline), 30_000):
        if KINDS[kind] is Kind.BUFFERED:
            (event,) = GPS.events([(key, value, timestamp_ms, kind)])
            stored[int(key[-6:])].add((event.event_time_ms - START_MS) // 1_000)
    assert stored[0]
    for zone in range(0, 90, 10):
        assert len({frozenset(stored[device]) for device in range(zone, zone + 10)}) == 1
    assert stored[0] != stored[10]
    agrees(TWO, dataclasses.replace(offline, disordered=0.03), 30_000)


def test_what_some_devices_store_arrives_newest_first_and_is_clean_or_late() -> None:
    reversing = shape(GPS, buffered=0.2, outage_ms=OUTAGE_MS, newest_first=0.3)
    fleet = GPS.fleet(1, reversing)
    rows = flat(fleet, 40_000)
    counts, model = counted(fleet, 40_000), GPS.judged(rows, reversing)
    assert counts[Kind.NEWEST_FIRST] == pytest.approx(
        0.3 * (counts[Kind.BUFFERED] + counts[Kind.NEWEST_FIRST]), rel=0.2
    )
    assert len(model.clean) + len(model.late) == 40_000
    assert 0.5 * counts[Kind.NEWEST_FIRST] < len(model.late) < counts[Kind.NEWEST_FIRST]
    sent = [row for row in rows if KINDS[row[3]] is Kind.NEWEST_FIRST]
    by_device = defaultdict(list)
    for event in GPS.events(sent):
        by_device[event.device_id].append(event)
    back_to_back = [
        (earlier, later) for events in by_device.values() for earlier, later in itertools.pairwise(events)
        if later.timestamp_ms - earlier.timestamp_ms <= 1
    ]  # fmt: skip
    assert len(back_to_back) > 1_000
    assert all(earlier.event_time_ms > later.event_time_ms for earlier, later in back_to_back)


def test_parked_vehicles_report_rarely_and_the_model_finds_what_the_fleet_meant() -> None:
    stopping = shape(GPS, devices=400, tick_ms=10_000, parked=0.5, late=0.01, lateness_ms=30_000, disordered=0.02)
    agrees(TWO, stopping, 30_000)
    rows = flat(GPS.fleet(1, stopping), 30_000)
    times = defaultdict(list)
    for event in GPS.events(rows):
        times[event.device_id].append(event.event_time_ms)
    gaps = Counter(
        round((later - earlier) / 10_000)
        for each in times.values()
        for earlier, later in itertools.pairwise(sorted(each))
    )
    assert gaps[1] > 0.8 * sum(gaps.values())
    assert gaps[30] > 100
    ticks = (max(map(max, times.values())) - START_MS) / 10_000
    assert len(rows) / (400 * ticks) == pytest.approx(0.5 + 0.5 / 30, rel=0.1)


def test_the_mix_says_who_parks_and_who_shares_a_dead_zone() -> None:
    mix = dataclasses.replace(REALISTIC, parked=0.5, newest_first=0.1, zone_devices=20)
    fleet_shape = shape_of(mix, Size(300, START_MS), Schemas(SCHEMA, 7, SCHEMA_2, 8, foreign_id=9), Bounds())
    assert fleet_shape.parked == 0.5
    assert (fleet_shape.newest_first, fleet_shape.zone_devices) == (0.1, 20)
    assert mix_of("orders", mix).parked == 0.0
