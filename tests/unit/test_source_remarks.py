"""What a worker says of its source: refused partitions, lost records, open transactions, misrouted keys."""

import asyncio
import time
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.clock import monotonic_ms
from streams.engine.effects import Effects, PartitionEffects
from streams.limits import (
    KEY_BYTES_LOGGED,
    MISROUTED_KEYS_LOGGED,
    MISROUTED_LOG_INTERVAL_MS,
    MISROUTED_SAID_MS,
    RECORDS_LOST_SAID_MS,
)
from streams.monitor.processes import ProcessWatch, Targets
from streams.monitor.workers import WorkerKind, WorkerState
from streams.sources.base import Unreadable
from streams.worker.metrics import WorkerMetrics
from streams.worker.misrouted import MisroutedNews, MisroutedWatch, shown
from streams.worker.remarks import SourceRemarks
from streams.worker.web import Web


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


# --- partitions that were added ---------------------------------------------------------------------------------------


def test_partitions_that_the_state_has_no_place_for_are_refused_in_words(metrics: WorkerMetrics) -> None:
    remarks, other = SourceRemarks(GPS, metrics, partitions=3), SourceRemarks(ORDERS, metrics, partitions=3)
    assert remarks.refusal() is None

    assert [0, 2] == remarks.assigned([0, 2, 3, 5])
    assert [1] == other.assigned([1, 4])

    assert "gps.positions.v1 partitions [3, 5] are not consumed" in (remarks.refusal() or "")
    assert "partitions 0 to 2 (murmur2 of the key modulo 3)" in (remarks.refusal() or "")
    assert 3 == value(metrics, "streams_paused_partitions", reason="not_in_layout")
    remarks.gone([0, 3, 5])
    assert remarks.refusal() is None
    assert 1 == value(metrics, "streams_paused_partitions", reason="not_in_layout")


# --- records that are gone or cannot be read --------------------------------------------------------------------------


def test_lost_records_are_counted_from_zero_and_named_for_an_hour(metrics: WorkerMetrics) -> None:
    remarks = SourceRemarks(GPS, metrics, partitions=3)
    assert 0 == value(metrics, "streams_records_lost_total", topic=GPS.source), "else the first loss is no increase"
    remarks.records_lost(1, 100, 140)
    remarks.records_lost(1, 150, 160)
    remarks.records_lost(2, 7, 8)

    assert 51 == value(metrics, "streams_records_lost_total", topic=GPS.source)
    one, two = remarks.remarks(monotonic_ms())
    assert one.startswith(f"{GPS.source}-1: 50 records deleted unread, last noticed at 2")
    assert two.startswith(f"{GPS.source}-2: 1 record deleted unread")
    assert [] == remarks.remarks(monotonic_ms() + RECORDS_LOST_SAID_MS)


def test_an_open_transaction_is_named_while_it_is_open_and_logged_once(metrics: WorkerMetrics) -> None:
    remarks = SourceRemarks(GPS, metrics, partitions=3)
    with capture_logs() as logged:
        for records in (4, 5):
            remarks.unreadable({0: Unreadable(records, 100, monotonic_ms() - 20_000)}, monotonic_ms())
        (said,) = remarks.remarks(monotonic_ms())
        assert "0: 5 records after an open transaction cannot be read yet; it begins at offset 100" in said
        remarks.unreadable({}, monotonic_ms())
        assert [] == remarks.remarks(monotonic_ms())
        remarks.unreadable({0: Unreadable(1, 200, monotonic_ms() - 20_000)}, monotonic_ms())
    assert 2 == len(logged)


def seen(port: int) -> WorkerState:
    """What a monitor makes of the worker at the port; to be asked in a thread, it has an event loop of its own."""
    watch = ProcessWatch(Targets.parse(f"http://127.0.0.1:{port}"), WorkerKind())
    try:
        (state,) = watch.look(time.monotonic())
        return state
    finally:
        watch.close()


def test_remarks_follow_the_readiness_and_the_monitor_shows_them() -> None:
    reasons: list[str] = []
    metrics = WorkerMetrics()

    async def story() -> None:
        web = Web(metrics.registry, lambda: reasons[0] if reasons else None, lambda: ["a", "b"], port=0)
        await web.start()
        port = web._socket.getsockname()[1]
        ask = lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()  # noqa: E731
        assert b"ok\na\nb\n" == await asyncio.to_thread(ask)
        state = await asyncio.to_thread(seen, port)
        assert (True, "ready; a; b") == (state.ready, state.state)
        reasons.append("restoring")
        state = await asyncio.to_thread(seen, port)
        assert (False, "restoring\na\nb") == (state.ready, state.state)
        await web.stop()

    asyncio.run(story())


def test_without_remarks_the_readiness_is_what_it_was() -> None:
    async def story() -> None:
        web = Web(CollectorRegistry(), lambda: None, port=0)
        await web.start()
        port = web._socket.getsockname()[1]
        ask = lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()  # noqa: E731
        assert b"ok\n" == await asyncio.to_thread(ask)
        await web.stop()

    asyncio.run(story())


# --- keys in the wrong partition --------------------------------------------------------------------------------------


def news(events: int, *keys: bytes, partition: int = 0) -> MisroutedNews:
    found = MisroutedNews()
    part = PartitionEffects(partition, misrouted=events, misrouted_keys=keys)
    found.add(Effects(0, events, [part]))
    return found


def test_misrouted_events_are_counted_from_zero_and_logged_once_a_minute_with_some_of_their_keys(
    metrics: WorkerMetrics,
) -> None:
    watch = MisroutedWatch(GPS, 3, metrics)
    assert 0 == value(metrics, "streams_misrouted_total", topic=GPS.source), "else the first ones are no increase"
    with capture_logs() as logged:
        watch.tell(news(0), 0)
        assert [] == logged
        assert watch.remark(0) is None
        watch.tell(news(2, b"car-1"), 1_000)
        watch.tell(news(3, b"car-2", b"car-1"), 2_000)
        watch.tell(news(1, b"car-3", partition=2), 3_000)
        assert 1 == len(logged)
        watch.tell(news(0), 1_000 + MISROUTED_LOG_INTERVAL_MS)
    assert 6 == value(metrics, "streams_misrouted_total", topic=GPS.source)
    assert f"{GPS.source}: 6 events since the start have a key of another partition" in (watch.remark(4_000) or "")
    assert watch.remark(3_000 + MISROUTED_SAID_MS) is None
    assert [2, 4] == [line["events"] for line in logged]
    assert {0: ["car-1"]} == logged[0]["keys"]
    assert {0: ["car-2", "car-1"], 2: ["car-3"]} == logged[1]["keys"]


def test_a_log_line_names_few_keys_and_shortens_and_escapes_them(metrics: WorkerMetrics) -> None:
    watch = MisroutedWatch(GPS, 3, metrics)
    with capture_logs() as logged:
        watch.tell(news(100, *(b"car-%d" % number for number in range(100))), 0)
    assert MISROUTED_KEYS_LOGGED == len(logged[0]["keys"][0])
    assert r"a\n\x1b[31m\\xff\u20ac" == shown(b"a\n\x1b[31m" + b"\xff" + "€".encode())
    long = shown(b"x" * 100_000)
    assert long.startswith("x" * KEY_BYTES_LOGGED + "...")
    assert len(long) < KEY_BYTES_LOGGED + 30
