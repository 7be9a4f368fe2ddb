"""Processes of sinks that the monitor asks: what their metrics say, and what the page shows of them."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from streams.monitor.processes import Address, ProcessWatch, Targets
from streams.monitor.sinks import SinkKind, SinkState
from streams.monitor.slo import SloTracker
from streams.monitor.snapshot import Snapshot
from streams.monitor.web.views import overview
from streams.resilience.breaker import State
from streams.sink.metrics import SinkMetrics
from streams.sinks.spec import group_of, postgres, sink_of
from tests.unit.test_monitor_health import a_round
from tests.unit.test_worker_watch import Server, http, sends, well

HERE = Address("127.0.0.1", 6080)


def metrics_of_a_sink() -> bytes:
    metrics = SinkMetrics("minutes")
    metrics.took("written", 40)
    metrics.took("deleted", 2)
    metrics.took("rejected", 1)
    metrics.unwritten_seconds.set(12.5)
    metrics.failures.inc(6)
    metrics.breaker_state.labels("sink_minutes").set(State.OPEN)
    return generate_latest(metrics.registry)


def test_what_the_metrics_of_a_sink_say() -> None:
    found = SinkKind().read(HERE, metrics_of_a_sink().decode(), ready=False, state="the target is away")
    records = {"written": 40.0, "deleted": 2.0, "replaced": 0.0, "rejected": 1.0}
    assert found == SinkState(
        HERE,
        "minutes",
        ready=False,
        state="the target is away",
        breaker="open",
        unwritten_s=12.5,
        records=records,
        failures=6,
    )


@pytest.mark.parametrize(
    "line",
    [
        'streams_sink_records_total{sink="a"} 1',
        'streams_sink_records_total{sink="a",outcome="written"} -1',
        'streams_breaker_state{downstream="a"} NaN',
        "streams_sink_unwritten_seconds +Inf",
    ],
)
def test_metrics_that_no_sink_writes_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not what a sink writes|is no count"):
        SinkKind().read(HERE, f"{line}\n", ready=True, state="ready")


def test_a_sink_is_found_a_worker_is_not_taken_for_one_and_one_that_is_gone_keeps_its_name() -> None:
    sink, worker = Server(sends(http(metrics_of_a_sink()))), Server(well)
    watch = ProcessWatch(Targets.parse(f"http://127.0.0.1:{sink.port},http://127.0.0.1:{worker.port}"), SinkKind())
    try:
        (found,) = watch.look(0.0)
        assert (found.sink, found.ready, found.breaker) == ("minutes", True, "open")
        sink.close()
        (gone,) = watch.look(1.0)
        assert (gone.sink, gone.ready, gone.state) == ("minutes", False, "does not answer")
        assert watch.look(1_000.0) == []
    finally:
        watch.close()
        worker.close()


def test_the_page_is_told_of_each_process() -> None:
    snapshot = Snapshot(0, "c", 5.0, a_round(), {}, {}, (), SloTracker().judge(), (), {}, (), None)
    assert overview(snapshot)["sinks"] == []
    state = SinkKind().read(HERE, metrics_of_a_sink().decode(), ready=False, state="the target is away")
    (row,) = overview(replace(snapshot, sinks=(state,)))["sinks"]
    assert row == {
        "sink": "minutes", "process": "127.0.0.1:6080", "ready": False, "state": "the target is away",
        "breaker": "open", "unwritten_s": 12.5, "written": 42.0, "rejected": 1.0, "lag": None, "lag_s": None,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "north."])
def test_the_sink_of_a_group(prefix: str) -> None:
    assert sink_of(group_of(postgres("minutes", name="by-minute"), prefix)) == "by-minute"
    assert sink_of("streams.gps.positions.v1") is None
