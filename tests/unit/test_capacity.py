"""`streams plan`: what follows from measured figures, and which reports are believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.capacity import EVENTS_MIN, PARTITIONS_STEP, SHIPPED, Basis, Demand, Figures, Plan, read_figures
from streams.errors import UsageError

FIGURES = Figures("a test", worker_rate=10_000.0, events_per_cpu_second=20_000.0, rss_mb=500.0)


def test_the_plan_follows_from_the_figures() -> None:
    plan = Plan.of(Demand(100_000, 10.0, peak=2.0, core_hour=0.1, gb_month=1.0), FIGURES)

    assert 10_000 == plan["rate"].value
    assert 3 == plan["workers"].value  # 20,000/s at 0.7 of 10,000/s each
    assert 12 == plan["partitions"].value
    assert 1.0 == plan["worker_cores"].value
    assert 1.5 == plan["worker_memory_gb"].value
    assert pytest.approx(10_000 * 86_400 * 48 / 1e9) == plan["state_disk_gb"].value
    assert pytest.approx(10_000 * 604_800 * 990 / 1e9) == plan["kafka_disk_gb"].value
    assert pytest.approx(73.0) == plan["worker_cost_month"].value


@pytest.mark.parametrize(("devices", "basis"), [(1_000, Basis.MEASURED), (1_000_000, Basis.EXTRAPOLATED)])
def test_what_several_workers_do_is_extrapolated(devices: int, basis: Basis) -> None:
    plan = Plan.of(Demand(devices, 1.0))

    assert {basis} == {plan[name].basis for name in ("workers", "worker_cores", "worker_memory_gb")}
    assert {Basis.ASSUMED} == {plan[name].basis for name in ("state_disk_gb", "kafka_disk_gb", "partitions")}


@given(st.integers(1, 10_000_000), st.floats(0.1, 3_600.0), st.floats(1.0, 20.0))
def test_workers_keep_up_with_the_peak_and_each_may_have_a_partition(
    devices: int, interval_s: float, peak: float
) -> None:
    plan = Plan.of(Demand(devices, interval_s, peak=peak))

    assert plan["workers"].value * SHIPPED.worker_rate >= plan["peak_rate"].value
    assert plan["partitions"].value >= plan["workers"].value
    assert plan["partitions"].value % PARTITIONS_STEP == 0


def run_of(**changed: Any) -> dict[str, Any]:
    return {
        "scenario": "bench-gps", "events": 500_000, "workers": 2, "consume_rate": 90_000.0, "rss_mb_max": 900.0,
        "events_per_cpu_second": 50_000.0, "oracle": {"lost": 0, "duplicated": 0}, **changed,
    }  # fmt: skip


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_figures_come_from_the_exact_run_with_the_most_events(tmp_path: Path) -> None:
    wrong = run_of(events=9_000_000, oracle={"lost": 1, "duplicated": 0})
    path = written(tmp_path / "report.json", {"runs": [run_of(events=EVENTS_MIN, consume_rate=1.0), run_of(), wrong]})

    figures = read_figures(path)

    assert (45_000.0, 50_000.0, 450.0) == (figures.worker_rate, figures.events_per_cpu_second, figures.rss_mb)
    assert "bench-gps, 500,000 events, 2 workers" in figures.source


@pytest.mark.parametrize(
    "content",
    [
        [], {}, {"runs": {}}, {"runs": [3]}, {"runs": [run_of(oracle=None)]}, {"runs": [run_of(consume_rate=0.0)]},
        {"runs": [run_of(events=EVENTS_MIN - 1)]}, {"runs": [run_of(rss_mb_max=None)]},
    ],
)  # fmt: skip
def test_a_report_without_a_usable_run_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run of this system"):
        read_figures(written(tmp_path / "report.json", content))


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")

    for path in (tmp_path / "report.json", tmp_path / "none"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_figures(path)


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"interval_s": 0.0}, {"peak": 0.5}, {"retention_h": float("nan")}])
def test_a_demand_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Demand(**{"devices": 1, "interval_s": 1.0, **wrong})
