"""The pure parts of the load test: plan, series, bottleneck, report."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message
from rich.console import Console

from loadtest.bottleneck import Load, Wall, judge
from loadtest.charts import ROLE_COLOURS, cores_by_role
from loadtest.command import _length, _mix, _numbers, _works
from loadtest.cost import Prices
from loadtest.demand import PILOT_EVENTS, Budget, Demand, require_room
from loadtest.drives import steady
from loadtest.findings import COLUMNS, Findings, compared, earlier_results, print_findings
from loadtest.generators import Sent
from loadtest.histograms import added, encoded, new_histogram, percentiles_ms, record
from loadtest.measure import Outcome, _partition_share_max, _tail_share, _timed
from loadtest.oracle.compare import Report
from loadtest.plan import FULL, QUICK, Drive, Plan, Point, Work
from loadtest.report import Run
from loadtest.sampler import Role, Sample, Series, Usage
from loadtest.stage import closing_ms, in_turn
from loadtest.statistics import Slope
from loadtest.trial import Trial
from loadtest.visible import Group, Measured, Skewed, grouped
from loadtest.worker_process import DOWNSTREAM, Downstream, hook_of, parse_defect, waiting
from streams.engine.effects import Effects, PartitionEffects
from streams.errors import StreamsError, UsageError
from streams.operators.output import EventRecords
from streams.worker.metrics import WorkerMetrics
from tests.effects import clean
from tests.unit.test_task import events

PLAN = Plan(
    pipeline="gps", drive=Drive.DRAIN, partitions=(3, 6, 12), works=(Work.CPU, Work.DOWNSTREAM), workers=(1, 2),
    workers_max=None, generators=1, events=1_000, rate=0, downstream_ms=100, downstream_records=250, lateness_ms=2_500,
    seed=1, length=replace(QUICK, repetitions=1),
)  # fmt: skip
CALM = Load(cores=4, machine=1.0, workers=(0.3, 0.2), broker=0.4, generators=0.1)


def histogram_of(*values_ms: float) -> str:
    made = new_histogram()
    record(made, np.array(values_ms))
    return encoded(made)


HISTOGRAM = histogram_of(5.0, 10.0, 10.0, 20.0, 30.0)
SLOPE = Slope(0.5, -3.0, 4.0)


def sample(at_s: float, committed: list[int], lag: list[int]) -> Sample:
    return Sample(at_s, committed, [done + behind for done, behind in zip(committed, lag, strict=True)])


def series() -> Series:
    roles = {"worker 1": Role.WORKER, "worker 2": Role.WORKER, "broker": Role.BROKER}
    samples = [
        sample(0.0, [0, 0, 0, 0], [40, 10, 10, 10]),
        sample(1.0, [20, 10, 10, 10], [20, 0, 0, 0]),
        sample(2.0, [40, 10, 10, 10], [0, 0, 0, 0]),
    ]
    usage = [
        Usage(0.0, {"worker 1": 7.0, "broker": 2.0}, {"worker 1": 100.0, "broker": 900.0}, 50.0, 1.0),
        Usage(0.5, {"worker 1": 7.5, "worker 2": 0.0, "broker": 2.2}, {"worker 1": 101.0, "worker 2": 5.0}, 50.9, 1.1),
        Usage(2.0, {"worker 1": 8.0, "worker 2": 0.5, "broker": 2.5}, {"worker 1": 102.0, "worker 2": 9.0}, 52.0, 1.2),
    ]
    return Series(roles, samples, usage)


def trial(rate: float = 100.0, share: float | None = 0.5, **changes: object) -> Trial:
    latency_ms = {"p50": 10.0, "p95": 15.0, "p99": 20.0}
    made = Trial(
        rate_asked=rate, publish_rate=rate, consume_rate=rate, lag_slope=SLOPE, lag_max=70, share=share, counted=1_000,
        due=1_000, latency_ms=latency_ms, publish_delay_ms={"p50": 1.0}, histograms={"latency_usual": HISTOGRAM},
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of it


def outcome(work: Work = Work.CPU, n: int = 3, rate: float = 1_000.0, *, lost: int = 0, repetition: int = 1) -> Outcome:
    point = Point(work, 12, n, repetition) if work is Work.CPU else Point(work, n, 2, repetition)
    report = Report(lost=lost, events=70)
    timed = trial(rate / 2)
    run = Run(
        f"drain-{work}", point.partitions, point.workers, 70, repetition=repetition, publish_rate=5.0,
        consume_rate=rate, latency_ms=timed.latency_ms, latency_rate=timed.publish_rate, lag_max=70,
        cpu_seconds_per_million=9.0, broker_cpu_seconds_per_million=2.0, rss_mb_max=101.0, events_per_cpu_second=111.0,
        oracle=report.as_dict(),
    )  # fmt: skip
    return Outcome(point, run, series(), judge(CALM), [timed], report, ["a note <b>"])


def findings(*outcomes: Outcome) -> Findings:
    return Findings("a test", PLAN, Prices(0.04, "EUR"), list(outcomes))


# --- plan -----------------------------------------------------------------------------------------------------------


def test_cpu_varies_workers_at_fixed_partitions_and_downstream_varies_partitions() -> None:
    points = replace(PLAN, workers=(1, 2, 20), workers_max=4).points()
    assert sorted((each.work, each.partitions, each.workers, each.n) for each in points) == [
        (Work.CPU, 12, 1, 1), (Work.CPU, 12, 2, 2), (Work.CPU, 12, 12, 12),
        (Work.DOWNSTREAM, 3, 3, 3), (Work.DOWNSTREAM, 6, 4, 6), (Work.DOWNSTREAM, 12, 4, 12),
    ]  # fmt: skip
    assert len({each.label for each in points}) == len(points)


def test_workers_that_wait_may_be_more_than_cores() -> None:
    workers = {each.work: each.workers for each in replace(PLAN, workers=()).points() if each.partitions == 12}
    assert workers[Work.DOWNSTREAM] == 12


def test_without_numbers_of_workers_they_double_up_to_the_limit() -> None:
    plan = replace(PLAN, workers=(), workers_max=6, works=(Work.CPU,))
    assert sorted(each.workers for each in plan.points()) == [1, 2, 4, 6]


def test_repetitions_are_rounds_each_in_an_order_of_its_own_that_the_seed_gives_again() -> None:
    plan = replace(PLAN, length=replace(FULL, repetitions=3), partitions=(1, 2, 3, 6, 12, 24))
    points = plan.points()
    rounds = [points[first : first + 8] for first in (0, 8, 16)]
    assert all({each.setting for each in points} == {each.setting for each in one} for one in rounds)
    assert [{each.repetition for each in one} for one in rounds] == [{1}, {2}, {3}]
    orders = [tuple(each.setting for each in one) for one in rounds]
    assert len(set(orders)) == 3
    assert points == plan.points() != replace(plan, seed=2).points()


def test_a_plan_may_name_a_point_twice() -> None:
    points = replace(PLAN, partitions=(3, 12, 3), works=(Work.DOWNSTREAM,)).points()
    assert sorted(each.label for each in points) == [
        "downstream-p12-w12-r1",
        "downstream-p3-w3-r1",
        "downstream-p3-w3-r2",
    ]


def test_a_downstream_lets_through_one_call_a_partition_at_a_time() -> None:
    assert PLAN.downstream_rate(3) == 7_500


@pytest.mark.parametrize("changes", [{"partitions": ()}, {"partitions": (3, 0)}, {"workers": (0,)}, {"works": ()}])
def test_a_plan_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        replace(PLAN, **changes)


def test_options_of_the_command_line() -> None:
    assert _numbers("3,12", "--partitions") == (3, 12)
    assert _numbers("", "--workers") == ()
    assert _works("downstream, cpu") == (Work.DOWNSTREAM, Work.CPU)
    assert _mix(["duplicates=0.2", "--late=0"]) == ("--duplicates", "0.2", "--late", "0")
    wrong = (
        lambda: _numbers("three", "--workers"),
        lambda: _works("disk"),
        lambda: _mix(["late"]),
        lambda: _mix(["a b=1"]),
    )
    for each in wrong:
        with pytest.raises(UsageError, match="--"):
            each()


def test_what_is_asked_for_takes_the_place_of_a_lengths_own() -> None:
    found = _length(QUICK, seconds=5.0, warm_up_s=None, repetitions=4, minutes_max=0.0)
    assert (found.seconds, found.step_s, found.repetitions, found.minutes_max) == (5.0, 5.0, 4, None)
    assert found.warm_up_s == QUICK.warm_up_s


def test_a_full_run_has_a_minute_of_steady_state_three_repetitions_and_enough_points_for_a_law() -> None:
    assert FULL.seconds >= 60
    assert FULL.repetitions >= 3
    assert len(FULL.partitions) >= 6
    assert FULL.latency_shares == (0.5, 0.8, 0.9)
    assert QUICK.minutes_max == 10


def test_a_drain_is_the_traffic_of_a_fleet_and_short_ones_of_a_smaller_one() -> None:
    arguments = PLAN.drain_arguments(9_000_000)
    assert arguments[arguments.index("--devices") + 1] == "200000"
    assert arguments[arguments.index("--report-ms") + 1] == "10000"
    assert PLAN.drain_arguments(50_000)[3] == "10000"
    assert PLAN.fleet_mix(200_000) == ["--zone-devices", "50", "--newest-first", "0.1", "--parked", "0.5"]
    assert PLAN.fleet_mix(400)[:2] == ["--zone-devices", "4"]
    assert PLAN.fleet_mix(4)[:2] == ["--zone-devices", "1"]
    assert "--parked" not in replace(PLAN, pipeline="orders").fleet_mix(1_000)


# --- what it takes --------------------------------------------------------------------------------------------------


def test_a_drain_is_as_long_as_its_steady_state_takes_once_something_was_drained() -> None:
    demand = Demand(replace(PLAN, events=0, length=FULL))
    point = Point(Work.CPU, 12, 2)
    assert demand.events(point) == PILOT_EVENTS
    demand.learn(Point(Work.DOWNSTREAM, 12, 1), 9e9)
    demand.learn(Point(Work.CPU, 12, 1), 40_000.0)
    demand.learn(Point(Work.CPU, 12, 2), 60_000.0)
    assert demand.events(point) >= 80_000 * (FULL.warm_up_s + FULL.seconds)
    assert Demand(PLAN).events(point) == PLAN.events
    assert demand.rate(point) == 80_000
    assert demand.rate(Point(Work.DOWNSTREAM, 12, 12)) == 30_000
    assert demand.pilot().length.latency_shares == ()


def test_no_point_is_begun_that_would_not_end_in_time() -> None:
    now_s = time.monotonic()
    assert Budget(now_s - 3_000, None).allows_another
    budget = Budget(now_s - 540, 10.0)
    assert budget.allows_another
    budget._longest_s = 70.0
    assert not budget.allows_another


def test_what_does_not_fit_on_the_disk_or_into_memory_is_refused() -> None:
    require_room(PLAN, events=1_000, rate=100.0)
    with pytest.raises(StreamsError, match=r"GB in .* which has"):
        require_room(PLAN, events=10**12, rate=100.0)
    with pytest.raises(StreamsError, match="fewer events, or set TMPDIR"):
        require_room(replace(PLAN, length=FULL), events=1_000, rate=1e9)
    with pytest.raises(StreamsError, match="--oracle-memory-mb"):
        require_room(replace(PLAN, length=replace(QUICK, oracle_memory_mb=10**9)), events=1_000, rate=100.0)


# --- series ---------------------------------------------------------------------------------------------------------


def test_a_series_tells_rate_lag_cpu_and_memory() -> None:
    found = series()
    assert found.rate() == 20.0
    assert found.arrival_rate() == 0.0
    assert found.lag_max() == 70
    assert found.cores_by_process(Role.WORKER) == {"worker 1": 0.5, "worker 2": 0.25}
    assert found.cores(Role.WORKER) == 0.75
    assert found.cores(Role.GENERATOR) == 0.0
    assert found.machine_cores() == 1.0
    assert found.stolen_cores() == pytest.approx(0.1)
    assert found.rss_mb_max(Role.WORKER) == 102.0
    assert found.between(0.5, 1.5).samples == found.samples[1:2]
    assert found.between(0.5, 1.5).usage == found.usage[1:2]
    assert Series().rate() == Series().machine_cores() == 0.0


def test_a_mean_is_over_time_however_unevenly_it_was_sampled() -> None:
    # One core for a second, sampled four times, then none for nine seconds, sampled once: 0.1 of a core.
    usage = [Usage(at_s, {"broker": min(at_s, 1.0)}, {}, min(at_s, 1.0)) for at_s in (0.0, 0.25, 0.5, 0.75, 1.0, 10.0)]
    found = Series({"broker": Role.BROKER}, [], usage)
    assert found.cores(Role.BROKER) == pytest.approx(0.1)
    assert found.machine_cores() == pytest.approx(0.1)


def test_a_drain_is_steady_after_its_warm_up_and_before_partitions_run_empty() -> None:
    # Nothing is committed for three seconds; then 100 a second up to 1,000, the last 60 of them slowly.
    done = [0, 0, 0, *range(0, 941, 100), 940, 960, 980, 1_000]
    found = Series({}, [sample(float(at), [each], [1_000 - each]) for at, each in enumerate(done)])
    measured = steady(found, ready_s=1.0, warm_up_s=2.0, seconds=5.0, events=1_000)
    assert (measured.samples[0].at_s, measured.samples[-1].at_s) == (6.0, 11.0)
    assert measured.rate() == 100.0
    late = steady(found, ready_s=7.5, warm_up_s=2.0, seconds=2.0, events=1_000)
    assert (late.samples[0].at_s, late.samples[-1].at_s) == (8.0, 9.0)
    short = steady(found, ready_s=1.0, warm_up_s=30.0, seconds=60.0, events=1_000)
    assert 3.0 < short.seconds() < 8.0
    assert steady(Series(), ready_s=0.0, warm_up_s=1.0, seconds=1.0, events=10).samples == []


def test_a_partition_with_more_than_the_others_shows() -> None:
    assert _partition_share_max(series()) == pytest.approx(40 / 17.5)
    assert _tail_share(series()) == 0.5
    assert _tail_share(Series()) == 0.0


def test_all_workers_are_one_band_and_what_nobody_has_used_is_another() -> None:
    rows = cores_by_role(series())
    first = {row["role"]: row["cores"] for row in rows if row["s"] == 0.5}
    assert first.keys() == ROLE_COLOURS.keys()
    assert first["workers"] == pytest.approx(1.0)
    assert first["unexplained"] == pytest.approx(1.8 - 1.0 - 0.4)


def test_what_generators_have_sent_adds_up() -> None:
    delays = new_histogram()
    record(delays, np.array([1.0, 3.0]))
    one = {
        "records": 10, "records_per_s": 5.0, "behind_ms_max": 3.0, "rejects": {"invalid": 2}, "duplicates": 1,
        "first_timestamp_ms": 100, "last_timestamp_ms": 200, "rejects_exact": True, "due": 7,
        "publish_delays": encoded(delays),
    }  # fmt: skip
    nothing = {
        **one,
        "records": 0,
        "rejects": {},
        "duplicates": 0,
        "first_timestamp_ms": None,
        "last_timestamp_ms": None,
        "due": 0,
    }
    other = {**one, "first_timestamp_ms": 50, "behind_ms_max": 9.0, "rejects_exact": False}
    found = Sent.of([one, nothing, other])
    stored = found.publish_delays
    assert found == Sent(20, 15.0, 9.0, 4, 2, 50, 200, rejects_exact=False, due=14, publish_delays=stored)
    assert added(stored).get_total_count() == 6
    assert percentiles_ms(added(stored))["max"] == 3.0
    assert found.with_due_of(found).due == 28


# --- what becomes visible -------------------------------------------------------------------------------------------


def message(topic: str, key: bytes, timestamp_ms: int) -> Message:
    return Message(topic=topic, key=key, value=b"", timestamp=(1, timestamp_ms), offset=0, partition=0)


def test_records_of_wrong_clocks_and_late_ones_are_apart() -> None:
    skewed = [Skewed(b"1-", 10, frozenset({3})), Skewed(b"2-", 10, frozenset())]
    messages = [
        message("clean", b"1-000003", 1), message("clean", b"1-000004", 2), message("clean", b"2-000003", 3),
        message("late", b"1-000003", 4), message("clean", b"1-0000000013", 5), message("clean", b"closing-3", 6),
    ]  # fmt: skip
    found = grouped(messages, "late", skewed)
    # Order 13 has the place of order 3, ten orders later.
    assert found == {Group.USUAL: [2, 3, 6], Group.SKEWED: [1, 5], Group.LATE: [4]}


def test_only_records_of_the_measured_stretch_are_counted_in_whichever_group() -> None:
    found = Measured(1_000, 2_000)
    found.note(Group.USUAL, np.array([999.0, 1_000.0, 1_999.0, 2_000.0]), 2_500.0)
    found.note(Group.SKEWED, np.array([1_500.0]), 24_700.0)
    assert found.counted == 3
    assert percentiles_ms(found.histograms[Group.USUAL])["max"] == pytest.approx(1_500, rel=0.001)
    assert percentiles_ms(found.histograms[Group.SKEWED])["p50"] == pytest.approx(23_200, rel=0.001)


def test_rates_follow_each_other_without_a_pause() -> None:
    spans = in_turn([10.0, 20.0], warm_up_s=2.0, seconds=5.0)
    assert [(each.after_s, each.ends_s) for each in spans] == [(0.0, 7.0), (7.0, 14.0)]


def test_windows_are_closed_by_an_event_after_all_that_the_fastest_clock_can_have_sent() -> None:
    plan = replace(PLAN, length=FULL)
    window = SimpleNamespace(topic="minutes", size_ms=60_000, grace_ms=30_000)
    assert closing_ms(plan, [window]) > 90_000 + 30_000 + 2_500
    assert closing_ms(plan, []) < closing_ms(plan, [window])


def test_a_rate_is_said_as_it_was_measured() -> None:
    asked = trial(2_531.0, publish_rate=2_100.0, consume_rate=2_065.0, lag_slope=Slope(431.0, 402.0, 460.0))
    assert not asked.is_sustained
    assert asked.words() == (
        "2,100 events/s (2,531 asked for): not sustained, lag changes by +431/s (+402 to +460), "
        "2,065 events/s were consumed"
    )
    assert trial().words() == "100 events/s: undecided, rather sustained, lag changes by +0/s (-3 to +4)"
    assert trial(counted=990).counted_words() == "counted 990 of 1,000 due"
    assert not trial(counted=990).is_complete
    assert trial(counted=None).is_complete


def test_a_point_is_summed_up_by_its_latency_at_four_fifths_of_what_can_be_sustained() -> None:
    found = [trial(share=0.5), trial(share=0.9), trial(share=0.8), trial(share=None, latency_ms={})]
    assert _timed(found) is found[2]
    assert _timed([]) is None


# --- bottleneck -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "wall", "words"),
    [
        (CALM, Wall.NONE, "nothing is full"),
        (replace(CALM, behind_ms=2_500.0, downstream_share=0.9), Wall.GENERATOR, "2.5 s behind"),
        (replace(CALM, behind_ms=1_010.0), Wall.GENERATOR, "a close call: 1% beyond"),
        (replace(CALM, behind_ms=2_500.0, machine=3.9, workers=(1.7, 1.7)), Wall.WORKER_CPU, "2.5 s behind their sch"),
        (replace(CALM, downstream_share=0.9), Wall.DOWNSTREAM, "90% busy"),
        (replace(CALM, partition_share_max=3.0, tail_share=0.5), Wall.SKEWED_PARTITION, "3.0 times the mean"),
        (replace(CALM, partition_share_max=3.0, tail_share=0.1), Wall.NONE, "nothing is full"),
        (replace(CALM, machine=3.9, workers=(1.0, 1.0), harness=0.5), Wall.WORKER_CPU, "all cores"),
        (
            replace(CALM, machine=3.9, workers=(1.3, 1.3), broker=0.9, downstream_share=0.9),
            Wall.WORKER_CPU,
            "90% busy a",
        ),
        (replace(CALM, machine=3.9, workers=(0.8, 0.8), broker=1.5), Wall.MIXED, "by the workers as by the broker"),
        (replace(CALM, machine=3.9, workers=(0.8, 0.8), harness=1.5), Wall.MIXED, "as by the test itself"),
        (replace(CALM, machine=1.5), Wall.NONE, "load test 0.0, unexplained 0.5; 4 cores"),
        (replace(CALM, machine=3.9, broker=2.8), Wall.BROKER, "all cores"),
        (replace(CALM, machine=3.9, generators=2.8), Wall.GENERATOR, "all cores"),
        (replace(CALM, machine=3.9), Wall.OTHERS, "2.9 of them by programs that are no part"),
        (replace(CALM, machine=3.9, stolen=1.6), Wall.OTHERS, "gave 1.6 of 4 cores to others"),
        (replace(CALM, machine=3.9, workers=(1.2, 1.2), stolen=0.4), Wall.WORKER_CPU, "of its host 0.4; 4 cores"),
        (replace(CALM, machine=3.5, workers=(0.8, 0.8), stolen=1.0), Wall.WORKER_CPU, "of its host 1.0; 4 cores"),
        (replace(CALM, workers=(0.97, 0.1)), Wall.WORKER_CPU, "fills its interpreter"),
        (replace(CALM, broker=1.9), Wall.BROKER, "more than anyone"),
        (replace(CALM, broker=None, machine=3.9, workers=(1.7, 1.7)), Wall.WORKER_CPU, "broker elsewhere"),
        (replace(CALM, broker=None, machine=3.9), Wall.OTHERS, "3.3 of them by a broker on this machine, or"),
    ],
)
def test_what_is_in_the_way_is_said(load: Load, wall: Wall, words: str) -> None:
    found = judge(load)
    assert found.wall is wall
    assert words in found.words


# --- report ---------------------------------------------------------------------------------------------------------


def test_the_document_has_what_the_contract_names() -> None:
    repetitions = [
        outcome(Work.DOWNSTREAM, n, rate * n, repetition=r) for n in (3, 6) for r, rate in ((1, 9.0), (2, 11.0))
    ]
    document = json.loads(json.dumps(findings(*repetitions, outcome()).as_dict()))
    assert document.keys() >= {"runs", "ratios", "scaling", "cost", "machine", "commit", "kafka", "plan", "discarded"}
    assert document["quick"]
    run = document["runs"][0]
    assert run.keys() >= {
        "scenario", "partitions", "workers", "events", "publish_rate", "consume_rate", "latency_ms", "lag_max",
        "cpu_seconds_per_million", "rss_mb_max", "oracle",
    }  # fmt: skip
    assert run["bottleneck"]["wall"] == "none"
    assert run["rates"][0]["histograms"] == {"latency_usual": HISTOGRAM}
    assert run["rates"][0]["counted"] == run["rates"][0]["due"] == 1_000
    (three, _) = [each for each in document["settings"] if each["setting"].startswith("downstream")]
    assert three["consume_rate"] == {"median": 30.0, "min": 27.0, "max": 33.0, "repetitions": 2}
    assert document["scaling"]["downstream"]["none"] == "different numbers measured: 2; a law needs 6"
    assert document["scaling"]["downstream"]["times_the_smallest"]["6"]["value"] == pytest.approx(2.0)
    costs = document["cost"]["per_million_events"]["cpu-p12-w3-r1"]
    assert costs["workers"] == pytest.approx(9 / 3600 * 0.04)
    assert costs["broker"] == pytest.approx(2 / 3600 * 0.04, rel=1e-4)
    assert costs["provisioned"] == pytest.approx(1_000 * document["machine"]["cores"] / 3600 * 0.04, rel=1e-4)
    assert document["cost"]["currency"] == "EUR"


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (0.0000213, "0.0000213 EUR"),
        (0.00456, "0.00456 EUR"),
        (1.2345, "1.23 EUR"),
        (1234.5, "1,234.50 EUR"),
        (0.0, "0.00 EUR"),
    ],
)
def test_a_cost_has_its_currency_and_enough_digits(cost: float, shown: str) -> None:
    assert Prices(0.04, "EUR").shown(cost) == shown


def test_everything_is_written_and_the_page_needs_nothing_else(tmp_path: Path) -> None:
    rates = [(3, 1_000.0), (6, 1_900.0), (12, 3_500.0)]
    found = findings(*(outcome(Work.DOWNSTREAM, n, rate) for n, rate in rates))
    found.kafka = {"num.io.threads": "8"}
    folder = found.write(tmp_path)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert "12 partitions bring 3.5 times (measured once) what 3 partitions bring (ideal: 4.0)" in page
    assert "no law: different numbers measured: 3; a law needs 6" in page
    assert "quick run: a look, not a result" in page
    assert "wait for order: 2,500 ms" in page
    assert "counted 1,000 of 1,000 due" in page
    assert "num.io.threads=8" in page
    assert "currentColor" in page
    assert "a note &lt;b&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert (folder / "scaling-downstream.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "latest" / "report.json").exists()


def test_a_law_is_drawn_and_said_where_six_numbers_carry_it() -> None:
    numbers = (1, 2, 3, 6, 12, 24)
    found = findings(
        *(
            outcome(Work.DOWNSTREAM, n, 1_000 * n / (1 + 0.1 * (n - 1) + 0.004 * n * (n - 1)) * factor, repetition=r)
            for n in numbers
            for r, factor in enumerate((0.99, 1.0, 1.01), 1)
        )
    )
    *ratios, law = found.scaling_words()
    assert len(ratios) == 5
    assert "downstream: contention 1" in law
    assert "events/s at most, with 15 partitions" in law
    assert "24 partitions bring 4." in ratios[-1]


def test_a_wrong_run_is_wrong_whatever_its_speed() -> None:
    console = Console(record=True, width=200)
    print_findings(console, findings(outcome(lost=1), outcome(repetition=2)), earlier=None)
    text = console.export_text()
    assert "wrong" in text
    assert "the oracle found: lost 1" in text
    assert findings(outcome(lost=1), outcome(repetition=2)).rows()[0][COLUMNS.index("oracle")] == "wrong"
    assert findings(outcome(), outcome(repetition=2)).rows()[0][COLUMNS.index("oracle")] == "exact"


def test_an_earlier_result_is_compared_by_the_medians_of_scenario_partitions_and_workers(tmp_path: Path) -> None:
    earlier = findings(*(outcome(rate=rate, repetition=r) for r, rate in enumerate((500.0, 510.0, 100.0)))).as_dict()
    lines = compared(findings(outcome(), outcome(n=6)), earlier)
    assert lines[0].startswith("cpu-p12-w3: events/s 500 to 1,000 (+100%)")
    assert lines[1] == "cpu-p12-w6: not in the earlier result"
    (line,) = compared(findings(outcome()), findings(outcome(lost=2)).as_dict())
    assert line.endswith("; the earlier output was wrong: lost 2")
    folder = findings(outcome()).write(tmp_path)
    assert earlier_results(folder.name, tmp_path)["runs"][0]["partitions"] == 12
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="--compare"):
            earlier_results(str(wrong), tmp_path)


# --- the worker of the load test --------------------------------------------------------------------------------------


def test_the_load_tests_worker_waits_for_the_partition_with_the_most_calls_and_loses_what_it_is_told_to() -> None:
    waited: list[float] = []
    metrics = WorkerMetrics()
    effects = Effects(0, 5, [part_of(5, partition=0), part_of(2, partition=1)])
    assert effects == Downstream(100, 2, waiting(metrics), sleep=waited.append).take(effects)
    assert waited == [pytest.approx(0.3)]
    assert metrics.registry.get_sample_value("streams_processing_seconds_count", {"operator": DOWNSTREAM}) == 1
    with waiting(metrics)(DOWNSTREAM):
        time.sleep(0.02)
    waited_s = metrics.registry.get_sample_value("streams_processing_seconds_sum", {"operator": DOWNSTREAM})
    assert waited_s is not None
    assert waited_s >= 0.02, "waiting for a call is what this one is for"

    hook = hook_of(metrics, downstream_ms=0, downstream_records=250, defect="drop:3")
    kept = [len(clean(part) or ()) for _ in range(2) for part in hook(effects).partitions]
    assert kept == [4, 1, 3, 2]
    with pytest.raises(UsageError, match="--defect must be drop:N"):
        parse_defect("drop:0")


def part_of(events_count: int, *, partition: int) -> PartitionEffects:
    clean = events(*((number, number) for number in range(events_count)))
    return PartitionEffects(partition, [EventRecords("clean", clean, "clean")])
