"""The pure parts of the load test: plan, series, bottleneck, report."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from loadtest.bottleneck import Load, Wall, judge
from loadtest.command import _mix, _numbers, _works
from loadtest.findings import COLUMNS, Findings, compared, earlier_results, print_findings
from loadtest.generators import Sent
from loadtest.measure import Outcome, _partition_share_max, _tail_share
from loadtest.oracle.compare import Report
from loadtest.plan import Drive, Plan, Point, Work
from loadtest.report import Run
from loadtest.sampler import Role, Sample, Series
from loadtest.worker_process import DOWNSTREAM, Downstream, hook_of, parse_defect
from streams.engine.effects import Effects, PartitionEffects
from streams.errors import UsageError
from streams.operators.output import EventRecords
from streams.worker.metrics import WorkerMetrics
from tests.effects import clean
from tests.unit.test_task import events

PLAN = Plan(
    pipeline="gps", drive=Drive.DRAIN, partitions=(3, 6, 12), works=(Work.CPU, Work.DOWNSTREAM), workers_max=None,
    generators=1, events=1_000, rate=0, seconds=10, downstream_ms=100, downstream_records=250, lateness_ms=2_500,
    seed=1,
)  # fmt: skip
CALM = Load(cores=4, machine=1.0, workers=(0.3, 0.2), broker=0.4, generators=0.1)


def sample(at_s: float, committed: list[int], lag: list[int], cores: float = 0.5) -> Sample:
    names = {"worker 1": cores, "broker": 0.25}
    return Sample(at_s, committed, lag, names, {"worker 1": 100.0 + at_s, "broker": 900.0}, 0.8)


def series() -> Series:
    roles = {"worker 1": Role.WORKER, "broker": Role.BROKER}
    samples = [
        sample(0.0, [0, 0, 0, 0], [40, 10, 10, 10]),
        sample(1.0, [20, 10, 10, 10], [20, 0, 0, 0], 0.9),
        sample(2.0, [40, 10, 10, 10], [0, 0, 0, 0], 0.1),
    ]
    return Series(roles, samples)


def outcome(work: Work = Work.CPU, partitions: int = 3, rate: float = 1_000.0, *, lost: int = 0) -> Outcome:
    report = Report(lost=lost, events=70)
    run = Run(
        f"drain-{work}", partitions, 2, 70, consume_rate=rate, latency_ms={"p50": 10.0, "p95": 15.0, "p99": 20.0},
        lag_max=70, cpu_seconds_per_million=9.0, rss_mb_max=101.0, events_per_cpu_second=111.0, oracle=report.as_dict(),
    )  # fmt: skip
    curve = [(0.0, 5.0), (50.0, 10.0), (99.0, 20.0), (100.0, 30.0)]
    return Outcome(Point(work, partitions, 2), run, series(), judge(CALM), curve, report, ["a note <b>"])


def findings(*outcomes: Outcome) -> Findings:
    return Findings("a test", PLAN, 0.04, list(outcomes))


# --- plan -----------------------------------------------------------------------------------------------------------


def test_a_worker_for_each_partition_up_to_the_limit():
    points = replace(PLAN, workers_max=4).points()
    assert [(each.work, each.partitions, each.workers) for each in points] == [
        (Work.CPU, 3, 3), (Work.CPU, 6, 4), (Work.CPU, 12, 4),
        (Work.DOWNSTREAM, 3, 3), (Work.DOWNSTREAM, 6, 4), (Work.DOWNSTREAM, 12, 4),
    ]  # fmt: skip
    assert len({each.label for each in points}) == len(points)


def test_workers_that_wait_may_be_more_than_cores():
    workers = {each.work: each.workers for each in PLAN.points() if each.partitions == 12}
    assert workers[Work.DOWNSTREAM] == 12


def test_a_downstream_lets_through_one_call_a_partition_at_a_time():
    assert PLAN.downstream_rate(3) == 7_500


@pytest.mark.parametrize("changes", [{"partitions": ()}, {"partitions": (3, 0)}, {"partitions": (3, 3)}, {"works": ()}])
def test_a_plan_that_cannot_be(changes: dict[str, tuple[int, ...]]):
    with pytest.raises(UsageError, match="--"):
        replace(PLAN, **changes)


def test_options_of_the_command_line():
    assert _numbers("3,12") == (3, 12)
    assert _works("downstream, cpu") == (Work.DOWNSTREAM, Work.CPU)
    assert _mix(["duplicates=0.2", "--late=0"]) == ("--duplicates", "0.2", "--late", "0")
    for wrong in (lambda: _numbers("three"), lambda: _works("disk"), lambda: _mix(["late"]), lambda: _mix(["a b=1"])):
        with pytest.raises(UsageError, match="--"):
            wrong()


# --- series ---------------------------------------------------------------------------------------------------------


def test_a_series_tells_rate_lag_cpu_and_memory():
    found = series()
    assert found.rate() == 35.0
    assert found.lag_max() == 70
    assert found.cores(Role.WORKER) == pytest.approx(0.5)
    assert found.cores(Role.GENERATOR) == 0.0
    assert found.rss_mb_max(Role.WORKER) == 102.0
    assert found.between(0.5, 1.5).samples == found.samples[1:2]
    assert Series().rate() == 0.0


def test_a_partition_with_more_than_the_others_shows():
    assert _partition_share_max(series()) == pytest.approx(40 / 17.5)
    assert _tail_share(series()) == 0.5
    assert _tail_share(Series()) == 0.0


def test_what_generators_have_sent_adds_up():
    one = {
        "records": 10, "records_per_s": 5.0, "behind_ms_max": 3.0, "rejects": {"invalid": 2}, "duplicates": 1,
        "first_timestamp_ms": 100, "last_timestamp_ms": 200, "rejects_exact": True,
    }  # fmt: skip
    nothing = {
        **one,
        "records": 0,
        "rejects": {},
        "duplicates": 0,
        "first_timestamp_ms": None,
        "last_timestamp_ms": None,
    }
    other = {**one, "first_timestamp_ms": 50, "behind_ms_max": 9.0, "rejects_exact": False}
    assert Sent.of([one, nothing, other]) == Sent(20, 15.0, 9.0, 4, 2, 50, 200, rejects_exact=False)


# --- bottleneck -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "wall", "words"),
    [
        (CALM, Wall.NONE, "nothing is full"),
        (replace(CALM, behind_ms=2_500.0, downstream_share=0.9), Wall.GENERATOR, "2.5 s behind"),
        (replace(CALM, behind_ms=2_500.0, machine=3.9, workers=(1.7, 1.7)), Wall.WORKER_CPU, "2.5 s behind their sch"),
        (replace(CALM, downstream_share=0.9), Wall.DOWNSTREAM, "90% busy"),
        (replace(CALM, partition_share_max=3.0, tail_share=0.5), Wall.SKEWED_PARTITION, "3.0 times the mean"),
        (replace(CALM, partition_share_max=3.0, tail_share=0.1), Wall.NONE, "nothing is full"),
        (replace(CALM, machine=3.9, workers=(1.0, 1.0), harness=0.5), Wall.WORKER_CPU, "all cores"),
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
def test_what_is_in_the_way_is_said(load: Load, wall: Wall, words: str):
    found = judge(load)
    assert found.wall is wall
    assert words in found.words


# --- report ---------------------------------------------------------------------------------------------------------


def test_the_document_has_what_the_contract_names():
    document = json.loads(json.dumps(findings(outcome(), outcome(partitions=6), outcome(partitions=12)).as_dict()))
    assert document.keys() >= {"runs", "ratios", "scaling", "cost", "machine"}
    run = document["runs"][0]
    assert run.keys() >= {
        "scenario", "partitions", "workers", "events", "publish_rate", "consume_rate", "latency_ms", "lag_max",
        "cpu_seconds_per_million", "rss_mb_max", "oracle",
    }  # fmt: skip
    assert run["bottleneck"]["wall"] == "none"
    assert document["scaling"]["cpu"]["contention"] == pytest.approx(1.0)
    assert document["cost"]["per_million_events"]["cpu-p3-w2"] == pytest.approx(9 / 3600 * 0.04)


def test_everything_is_written_and_the_page_needs_nothing_else(tmp_path):
    rates = [(3, 1_000.0), (6, 1_900.0), (12, 3_500.0)]
    found = findings(*(outcome(Work.DOWNSTREAM, n, rate) for n, rate in rates))
    folder = found.write(tmp_path)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4
    assert "3.50 times the throughput from 3 to 12 partitions" in page
    assert "a note &lt;b&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "latest" / "report.json").exists()


def test_a_wrong_run_is_wrong_whatever_its_speed():
    console = Console(record=True, width=200)
    print_findings(console, findings(outcome(lost=1)), earlier=None)
    text = console.export_text()
    assert "wrong" in text
    assert "the oracle found: lost 1" in text
    assert findings(outcome(lost=1)).rows()[0][COLUMNS.index("oracle")] == "wrong"


def test_an_earlier_result_is_compared_by_scenario_partitions_and_workers(tmp_path):
    earlier = findings(outcome(rate=500.0)).as_dict()
    lines = compared(findings(outcome(), outcome(partitions=6)), earlier)
    assert lines[0].startswith("cpu-p3-w2: events/s 500 to 1,000 (+100%)")
    assert lines[1] == "cpu-p6-w2: not in the earlier result"
    (line,) = compared(findings(outcome()), findings(outcome(lost=2)).as_dict())
    assert line.endswith("; the earlier output was wrong: lost 2")
    folder = findings(outcome()).write(tmp_path)
    assert earlier_results(folder.name, tmp_path)["runs"][0]["partitions"] == 3
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="--compare"):
            earlier_results(str(wrong), tmp_path)


# --- the worker of the load test --------------------------------------------------------------------------------------


def test_the_load_tests_worker_waits_for_the_partition_with_the_most_calls_and_loses_what_it_is_told_to():
    waited: list[float] = []
    metrics = WorkerMetrics()
    effects = Effects(0, 5, [part_of(5, partition=0), part_of(2, partition=1)])
    assert effects == Downstream(100, 2, metrics.stopwatch, sleep=waited.append).take(effects)
    assert waited == [pytest.approx(0.3)]
    assert metrics.registry.get_sample_value("streams_processing_seconds_count", {"operator": DOWNSTREAM}) == 1

    hook = hook_of(metrics, downstream_ms=0, downstream_records=250, defect="drop:3")
    kept = [len(clean(part) or ()) for _ in range(2) for part in hook(effects).partitions]
    assert kept == [4, 1, 3, 2]
    with pytest.raises(UsageError, match="--defect must be drop:N"):
        parse_defect("drop:0")


def part_of(events_count: int, *, partition: int) -> PartitionEffects:
    clean = events(*((number, number) for number in range(events_count)))
    return PartitionEffects(partition, [EventRecords("clean", clean, "clean")])
