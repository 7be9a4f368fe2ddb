from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.bench import passthrough_shortfall
from loadtest.comparison import open_ms, windows_run
from loadtest.memory import Memory
from loadtest.oracle.compare import Report
from loadtest.parts import Part
from loadtest.report import Results, Run, cells, named, notes
from streams.errors import UsageError

MINUTE = SimpleNamespace(topic="minutes", size_ms=60_000)


def gps_run(**oracle: Any) -> Run:
    run = Run("bench-gps", 12, 1, 1_000, consume_rate=10.0, events_per_cpu_second=20.0, rss_mb_max=30.0)
    run.oracle = Report(**oracle).as_dict()
    run.operators_us_per_event = {"decode": 3.5, "windows": 0.25, "rest": 2.0}
    return run


def test_windows_are_measured_in_the_drain_of_positions() -> None:
    run = windows_run(gps_run(), Report(window_rows=77))
    assert run.scenario == "bench-windows"
    assert run.as_dict()["window_rows"] == 77
    assert run.as_dict()["operators_us_per_event"] == {"windows": 0.25}
    assert run.events_per_cpu_second == gps_run().events_per_cpu_second
    assert notes(run) == ["time per operator, µs/event: windows 0.25", "rows of windows: 77"]


def test_other_runs_say_nothing_of_windows() -> None:
    assert "window_rows" not in gps_run().as_dict()


def test_the_verdict_counts_windows_and_keeps_what_the_contract_names() -> None:
    contract = {"lost", "duplicated", "out_of_order", "table_mismatches", "late", "rejected", "rejected_expected"}
    assert contract <= (gps_run().oracle or {}).keys()
    assert cells(gps_run())[-1] == "exact"
    wrong = gps_run(window_duplicates=2, table_mismatches=2)
    assert cells(wrong)[-1] == "wrong"
    assert notes(wrong)[0] == "the oracle found: table mismatches 2, window duplicates 2"


def test_ratios_are_of_positions_alone() -> None:
    passthrough = Run("bench-passthrough", 12, 1, 1_000, events_per_cpu_second=40.0)
    orders = Run("bench-orders", 12, 1, 1_000, events_per_cpu_second=5.0)
    assert Results("x", [passthrough, gps_run(), orders]).ratios() == {"passthrough": 0.5}


def test_parts_are_named_after_their_scenarios() -> None:
    assert [*Part] == [
        "passthrough",
        "gps",
        "windows",
        "recovery",
        "orders",
        "faust",
        "latency",
        "steady",
        "kafka-streams",
        "join",
        "memory",
    ]


def test_a_recovery_tells_how_soon_and_how_fast() -> None:
    restore = Run("bench-restore", 12, 1, 1_000, ready_s=3.21, restored_rows=1_000_000, restored_rows_per_s=500_000.0)
    assert notes(restore) == ["at work again 3.2 s after its start, 1,000,000 rows of state from Kafka, 500,000/s"]
    restart = Run("bench-restart", 12, 1, 1_000, ready_s=2.0, restored_rows=0)
    assert notes(restart) == ["at work again 2.0 s after its start, 0 rows of state from Kafka"]
    assert "restored_rows_per_s" not in restart.as_dict()


def test_memory_is_judged_after_the_warm_up() -> None:
    memory = Memory([100.0] * 60 + [300.0] * 60 + [200.0] * 60 + [210.0] * 60 + [220.0] * 60 + [900.0] * 59)
    assert memory.by_minute() == [100.0, 300.0, 200.0, 210.0, 220.0]
    assert memory.spread() == pytest.approx(0.1)
    run = Run("bench-memory", 12, 1, 9, rss_mb_by_minute=memory.by_minute(), rss_spread=memory.spread())
    assert notes(run) == ["RSS by minute, MB: 100 300 200 210 220; spread after the warm-up 10.0%"]


@pytest.mark.parametrize(
    ("newest_ms", "due_ms"), [(120_000, 60_000), (120_001, 59_999), (179_999, 1)], ids=["first", "second", "last"]
)
def test_a_window_is_open_until_its_end_has_passed(newest_ms: int, due_ms: int) -> None:
    assert open_ms([MINUTE], newest_ms) == due_ms
    hour = SimpleNamespace(topic="hours", size_ms=3_600_000, grace_ms=500)
    assert open_ms([MINUTE, hour], newest_ms) == 3_600_500 - newest_ms


def test_the_bar_is_the_pass_through_and_no_ratio_to_faust() -> None:
    assert "" == passthrough_shortfall({"passthrough": 0.45, "faust": 1.5})
    assert "" == passthrough_shortfall({"faust": 0.5})
    assert "0.44 times the pass-through: at least 0.45 is asked for" == passthrough_shortfall({"passthrough": 0.44})


@pytest.mark.parametrize("name", ["", "a/b", "/elsewhere", "..", ".hidden", "latest"])
def test_a_result_is_named_by_one_folder(name: str) -> None:
    """`latest` links by that name: a path would have it point out of the folder of results."""
    with pytest.raises(UsageError, match="one folder's name"):
        named(name, "bench")


def test_latest_points_into_a_new_folder_of_results(tmp_path: Path) -> None:
    """A fresh checkout has no folder of results."""
    root = tmp_path / "results"
    Results(named("first", "bench"), machine={}).write(root)
    Results(named("second", "bench"), machine={}).write(root)
    assert (root / "latest").readlink() == Path("second")
    assert (root / "latest" / "report.json").is_file()
