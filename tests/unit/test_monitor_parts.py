"""Small parts of the monitor: addresses of workers, words, metrics of a worker, rounds as bytes, settings."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from streams.errors import UsageError
from streams.flow.declaration import DeviceClass, Pipeline
from streams.growth.stages import Standing
from streams.kafka.round import Group, Member, Round
from streams.monitor.exposition import label
from streams.monitor.processes import Address, Targets
from streams.monitor.slo import Counts
from streams.monitor.words import duration, rate
from streams.monitor.workers import read_metrics
from streams.settings import load_settings
from streams.worker.merged_metrics import Families, merged
from streams.worker.metrics import WorkerMetrics


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("http://127.0.0.1:6066", [("127.0.0.1", 6066)]),
        ("http://127.0.0.1:6066-6068", [("127.0.0.1", port) for port in (6066, 6067, 6068)]),
        ("http://worker:6066, http://[::1]:7000", [("worker", 6066), ("::1", 7000)]),
        ("", []),
    ],
)
def test_workers_are_looked_for_where_the_setting_says(text: str, places: list[tuple[str, int]]) -> None:
    assert places == list(Targets.parse(text).places)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:6066", "https://a:1", "http://a", "http://a:0", "http://a:70000", "http://a:9-3", "http://a:1/path",
     "http://a:1-9999", "ftp://a:1"],
)  # fmt: skip
def test_a_place_that_is_none_is_refused_and_named(text: str) -> None:
    with pytest.raises(UsageError, match="STREAMS_MONITOR_WORKERS"):
        Targets.parse(text)


def test_a_workers_metrics_are_read_as_it_writes_them() -> None:
    metrics = WorkerMetrics()
    metrics.events.labels("gps", "clean").inc(90)
    metrics.events.labels("orders", "clean").inc(5)
    metrics.rejects.labels("gps", "malformed").inc(3)
    metrics.watermark_age_seconds.labels("gps.positions.v1", "2").set(5.5)
    metrics.event_age_seconds.observe(np.array([0.2, 86_400.0, 86_400.0]))
    metrics.arrival_age_seconds.observe(np.array([0.2, 59.0, 61.0]))
    metrics.quarantined_devices.labels("gps.positions.v1").set(4)

    state = read_metrics(Address("127.0.0.1", 1), generate_latest(metrics.registry).decode(), ready=True, state="ready")

    assert {"": Counts(3.0, 2.0, 1.0)} == state.visible
    assert {"": {"clean": 95.0}} == state.outcomes
    assert {"malformed": 3.0} == state.rejects
    assert {("gps.positions.v1", 2): 5.5} == state.watermark_age_s
    assert 4.0 == state.quarantined


def test_a_round_survives_being_sent_from_one_process_to_another() -> None:
    column = np.arange(3, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    members = (Member("m-1", "client ü", "/10.0.0.1", (0, 2)),)
    sent = Round(
        "c", 123, (("a", 2), ("b", 1)), (Group("g", "STABLE", members), Group("h", "UNKNOWN", None)), ("h",),
        column, column + 1, column + 2, none, none, column * 0, column, none, none, none, np.arange(12),
    )  # fmt: skip

    got = Round.from_bytes(sent.to_bytes())

    assert (sent.cluster, sent.time_ms, sent.topics, sent.groups, sent.failed) == (
        got.cluster, got.time_ms, got.topics, got.groups, got.failed,
    )  # fmt: skip
    assert [2, 3, 4] == got.high.tolist()
    assert {"a": 0, "b": 2} == got.base
    assert {0: Standing(0, 1, 2, 3), 1: Standing(4, 5, 6, 7)} == got.standings("g", "a")
    assert {0: Standing(8, 9, 10, 11)} == got.standings("g", "b")
    assert {} == got.standings("h", "a") == got.standings("g", "c")
    assert {} == replace(got, commit_growth=none).standings("g", "a"), "not told"
    assert [("a", 0), ("a", 1), ("b", 0)] == got.partitions


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (120, "2 min"), (7_200, "2.0 h"),
     (172_800, "2.0 d"), (float("inf"), "?"), (-1, "0.0 s")],
)  # fmt: skip
def test_lengths_of_time_are_told_in_units_that_fit(seconds: float, words: str) -> None:
    assert words == duration(seconds)


def test_rates_are_told_with_a_digit_only_where_it_matters() -> None:
    assert ["0.0/s", "9.9/s", "10/s", "12,346/s", "?/s"] == [
        rate(value) for value in (0, 9.94, 9.96, 12_345.6, float("nan"))
    ]


def test_labels_are_escaped() -> None:
    assert r"a\"b\\c\nd" == label('a"b\\c\nd')


def test_a_window_holds_three_samples_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_MONITOR_INTERVAL_S", "10")
    monkeypatch.setenv("STREAMS_MONITOR_WINDOW_S", "20")

    with pytest.raises(UsageError, match="STREAMS_MONITOR_WINDOW_S must be at least three times"):
        load_settings()


def test_device_classes_have_different_names_and_a_time() -> None:
    trucks = DeviceClass("trucks", "truck-", 60.0)

    with pytest.raises(ValueError, match="same name"):
        Pipeline("p", "t", device_classes=(trucks, trucks))
    with pytest.raises(ValueError, match="above 0"):
        DeviceClass("trucks", "truck-", 0.0)


def test_counters_of_the_processes_of_one_worker_are_kept_apart() -> None:
    texts: dict[int, str] = {}
    for number in (0, 1):
        metrics = WorkerMetrics()
        metrics.events.labels("gps", "clean").inc(10 + number)
        metrics.events.labels("gps", "rejected").inc(number)
        metrics.arrival_age_seconds.observe(np.array([0.2] * (10 + number)))
        texts[number] = openmetrics.generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call]  # the library's
    registry = CollectorRegistry()
    registry.register(Families(merged(texts)))

    state = read_metrics(Address("127.0.0.1", 1), generate_latest(registry).decode(), ready=True, state="ready")

    assert {"0": Counts(10.0, 10.0), "1": Counts(12.0, 11.0)} == state.visible
    assert {"0": {"clean": 10.0, "rejected": 0.0}, "1": {"clean": 11.0, "rejected": 1.0}} == state.outcomes
