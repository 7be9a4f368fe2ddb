"""What the benchmark of joins measures is right: its traffic, and the model that judges the rows."""

import json
from io import BytesIO
from pathlib import Path

import fastavro
import pytest

from loadtest.joins.bench import OWN_SCHEMAS
from loadtest.joins.check import joined, judge
from loadtest.joins.flow import JOINED, POSITIONS, STEPS, WITHIN_MS, flow
from loadtest.joins.traffic import DELAY_MS_MAX, StepShape, steps
from loadtest.oracle.compare import Report
from loadtest.oracle.order_flows import AnyRecord, Position, Row, Step
from streams.schemas.catalog import Catalog

START_MS = 1_700_000_000_000


def position(time_ms: int, vehicle: str = "v") -> Position:
    return Position(time_ms, f"p-{vehicle}-{time_ms}", vehicle, time_ms, time_ms, float(time_ms % 90), 11.0)


def step(time_ms: int, vehicle: str = "v", timestamp_ms: int = 0) -> Step:
    at = timestamp_ms or time_ms
    return Step(at, f"s-{vehicle}-{time_ms}", vehicle, time_ms, time_ms, "o", "DELIVERED", vehicle, None, None, None)


def expected() -> list[Row]:
    positions: list[AnyRecord] = [position(START_MS + each) for each in (0, 2_000, 1_000, 9_000)]
    given: list[AnyRecord] = [
        step(START_MS - 1),
        step(START_MS + 1_500),
        step(START_MS + 1_500),
        step(START_MS + 3_000, "w"),
        step(START_MS + 9_000 + WITHIN_MS + 1),
    ]
    return joined(given, positions, 5_000)


def test_a_step_is_joined_with_the_latest_position_before_it() -> None:
    assert [(row["event_time"] - START_MS, row["vehicle_id"], row["position_time"]) for row in expected()] == [
        (-1, "v", None),
        (1_500, "v", START_MS + 1_000),
        (3_000, "w", None),
        (WITHIN_MS + 9_001, "v", None),
    ]


@pytest.mark.parametrize(
    ("spoilt", "fault"),
    [
        (lambda rows: rows[1:], "lost"),
        (lambda rows: [*rows, rows[0]], "duplicated"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "out_of_order"),
        (lambda rows: [rows[0], {**rows[1], "position_time": START_MS}, *rows[2:]], "table_mismatches"),
        (lambda rows: [*rows, {**rows[2], "event_id": "other"}], "unexpected"),
    ],
)  # fmt: skip
def test_rows_that_are_wrong_are_found(spoilt: object, fault: str) -> None:
    assert callable(spoilt)
    right, wrong = Report(), Report()
    judge(right, expected(), expected())
    assert right.ok
    judge(wrong, expected(), spoilt(expected()))
    assert getattr(wrong, fault) == 1
    assert not wrong.ok


def test_steps_are_the_same_bytes_for_a_seed_and_none_is_late() -> None:
    text = Catalog.load().latest("orders.bound.v1-value").text
    shape = StepShape(vehicles=10, start_ms=START_MS, span_ms=60_000, schema=text, schema_id=7)
    first, again = ([*steps(3, shape, 2_000)] for _ in range(2))
    assert [one.values for one in first] == [one.values for one in again]
    (batch,) = first
    assert len(batch) == 2_000
    parsed = fastavro.parse_schema(json.loads(text))
    rows = [fastavro.schemaless_reader(BytesIO(value[5:]), parsed, None) for value in batch.values]
    assert len({row["event_id"] for row in rows}) < 1_990
    seen: set[str] = set()
    for row, key, at in zip(rows, batch.keys, batch.timestamps_ms, strict=True):
        assert row["bound_to"].encode() == key
        if row["event_id"] not in seen:
            assert at - DELAY_MS_MAX < round(row["event_time"].timestamp() * 1_000) <= at
        seen.add(row["event_id"])


def test_the_app_reads_and_writes_topics_of_the_benchmark() -> None:
    assert [one.topic for one in flow.pipeline.inputs] == [STEPS, POSITIONS]
    assert (Path(OWN_SCHEMAS) / f"{JOINED}-value" / "1.avsc").exists()
