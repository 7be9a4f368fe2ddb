"""How reconcile shows what it found, what it chooses, and how it paces itself."""

from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.reconcile.chosen import Chosen
from streams.reconcile.differences import Column, Difference, Findings, Kind, Place, Unchecked, differing
from streams.reconcile.page import page_of
from streams.reconcile.plan import plan_of
from streams.reconcile.point import Point
from streams.reconcile.reading import Pace
from streams.reconcile.report import Personal, document_of, lines_of, write_metrics
from streams.reconcile.run import Options, Result
from streams.schemas.catalog import Catalog
from streams.sinks.base import Committed

KEYS = [f"truck-{number}".encode() for number in range(1_000)]


@pytest.fixture
def result() -> Result:
    plan = plan_of(GPS, Catalog.load().latest(GPS.subject).text, 1_000_000)
    point = Point(
        1_700_000_000_000, 1, {GPS.source: 1}, {(GPS.source, 0): 0}, {}, {0: Committed(70, 3)}, {0: Committed(70, 3)}
    )
    findings = Findings()
    late = Place(0, 60, "e-60", 1_700_000_060_000)
    findings.note(Difference(Kind.LOST, b"truck-2", GPS.clean, "it is nowhere: e-60", late))
    first = Place(0, 7, "e-7", 1_700_000_007_000)
    column = (Column("latitude", 48.1, 48.2),)
    findings.note(Difference(Kind.WRONG_ROW, b"<script>", "vehicles.state.v1", "it differs", first, column))
    findings.unchecked[Unchecked.OPEN_WINDOWS] += 3
    return Result("gps", point.at_ms, point, plan, Options(), findings, records=70, keys=2)


def test_the_key_with_the_earliest_event_comes_first(result: Result) -> None:
    document = document_of(result, Personal())
    assert [each["key"] for each in document["by_key"]] == ["<script>", "truck-2"]
    assert document["by_key"][0]["first_event"]["offset"] == 7
    lines = list(lines_of(document))
    assert lines[0] == "gps at 2023-11-14 22:13:20.000 UTC: 2 differences of 2 keys"
    assert "      latitude: expected 48.1, actual 48.2" in lines
    assert "             3  windows that are still open" in lines


def test_what_is_put_into_the_page_is_escaped(result: Result) -> None:
    page = page_of(document_of(result, Personal()))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_personal_data_is_not_shown(result: Result) -> None:
    shown = str(document_of(result, Personal(frozenset({"latitude"}), keys=True, ids=True)))
    assert not any(secret in shown for secret in ("truck-2", "script", "e-60", "e-7", "48.1", "48.2"))


def test_metrics_name_every_kind_so_that_what_is_over_is_seen(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "reconcile.prom"
    write_metrics(path, result)
    text = path.read_text()
    assert 'streams_reconcile_differences{kind="lost event",pipeline="gps"} 1.0' in text
    assert 'streams_reconcile_differences{kind="doubled event",pipeline="gps"} 0.0' in text
    assert 'streams_reconcile_last_run_timestamp_seconds{pipeline="gps"} 1.7e+09' in text


def test_each_key_is_in_one_slice_and_a_sample_is_the_same_in_each_run() -> None:
    slices = [Chosen(slice=number, slices=4) for number in range(4)]
    assert all(sum(one.has(key) for one in slices) == 1 for key in KEYS)
    chosen = [key for key in KEYS if Chosen(sample=0.1).has(key)]
    assert 50 < len(chosen) < 150
    assert chosen == [key for key in KEYS if Chosen(sample=0.1).has(key)]
    assert set(chosen) < {key for key in KEYS if Chosen(sample=0.2).has(key)}


def test_a_quarter_of_the_time_is_three_times_as_much_rest_as_work() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(0.25, lambda: now[0], sleep)
    now[0] += 4.0
    pace.rest()
    assert sum(slept) == pytest.approx(12.0)
    assert max(slept) <= 5.0
    now[0] += 1.0
    pace.rest()
    assert pace.paused_s == pytest.approx(15.0)


def test_numbers_may_be_off_by_what_arithmetic_allows() -> None:
    slack = {"km": (2e-6, 1e-9)}
    assert not differing({"km": 10.0}, {"km": 10.000001}, slack)
    assert differing({"km": 10.0}, {"km": 10.00001}, slack) == (Column("km", 10.0, 10.00001),)
    assert differing({"km": None}, {"km": 1.0}, slack)
    assert not differing({"new": 1}, {})
