"""The monitor's rounds and what it says of itself, whatever fails in a round."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.errors import StreamsError
from streams.kafka.offsets_process import RoundFailed
from streams.kafka.round import Round
from streams.monitor import exposition
from streams.monitor.health import STUCK_S, Health
from streams.monitor.missing import MissingTopic
from streams.monitor.slo import SloTracker
from streams.monitor.snapshot import Snapshot
from streams.monitor.watcher import Watcher
from streams.monitor.web.panel_metrics import PanelMetrics
from streams.settings import load_settings
from tests.integration.workers import wait_until

WELL = Health(
    interval_s=5.0, rounds=10, failures=0, deaths=0, round_s=0.1, failure=None, age_s=2.0, is_alive=True, quiet_s=2.0,
    doing="waiting",
)  # fmt: skip


def column(*values: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(values, dtype=np.int64)


def a_round() -> Round:
    none = column()
    return Round(
        "c", time.time_ns() // 1_000_000, (("a", 1),), (), (), column(5), column(0), column(5), none, none,
        none, none, none, none, none,
    )  # fmt: skip


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setenv("STREAMS_MONITOR_INTERVAL_S", "0.5")
    monkeypatch.setenv("STREAMS_MONITOR_WORKERS", "")
    return Watcher(load_settings(kafka_bootstrap_servers="127.0.0.1:1"), ())


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_monitor_that_sees_lives_and_is_ready() -> None:
    assert (None, None) == (WELL.dead, WELL.blind)


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (replace(WELL, is_alive=False), "no more rounds are run"),
        (replace(WELL, is_alive=False, failure="boom"), "boom"),
        (replace(WELL, quiet_s=STUCK_S + 6, doing="workers"), "has not ended for 126 s: it is at workers"),
    ],
)
def test_a_dead_or_stuck_round_is_noticed(health: Health, says: str) -> None:
    assert says in (health.dead or "")
    assert health.dead == health.blind


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (replace(WELL, age_s=None), "the first round is not done yet"),
        (replace(WELL, age_s=None, failure="no Kafka broker answers"), "no Kafka broker answers"),
        (replace(WELL, age_s=31.0, failure="no Kafka broker answers"), "31 s old: no Kafka broker answers"),
        (replace(WELL, age_s=31.0, doing="sources"), "31 s old: a round is at sources"),
    ],
)
def test_offsets_that_are_old_are_said_to_be_by_a_monitor_that_lives(health: Health, says: str) -> None:
    assert health.dead is None
    assert says in (health.blind or "")


# --- rounds -----------------------------------------------------------------------------------------------------------


def test_rounds_go_on_after_any_failure(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [KeyError("topic"), RoundFailed("the broker is away"), ValueError("not a round"), MemoryError()]

    def look() -> tuple[Round, dict[str, object]]:
        if failures:
            raise failures.pop()
        return a_round(), {}

    monkeypatch.setattr(watcher._evaluator, "look", look)
    watcher.start()
    wait_until(lambda: watcher.health().rounds >= 2, "rounds succeed again", timeout_s=15)
    health = watcher.health()
    watcher.stop()

    assert (4, True, None) == (health.failures, health.is_alive, health.blind)
    assert watcher.latest is not None
    assert watcher.latest.failure is None


def test_a_failure_that_nobody_expects_is_said_and_makes_the_offsets_old(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [a_round(), a_round()]

    def look() -> tuple[Round, dict[str, object]]:
        return looks.pop(), {}  # from the third one on: IndexError

    monkeypatch.setattr(watcher._evaluator, "look", look)
    watcher.start()
    wait_until(lambda: watcher.health().failures >= 2, "rounds fail", timeout_s=15)
    wait_until(lambda: watcher.health().blind, "the monitor is blind", timeout_s=15)
    health = watcher.health()
    watcher.stop()

    assert health.dead is None
    assert "a round failed at offsets: IndexError" in (health.blind or "")


def test_sources_and_workers_that_fail_take_no_lag_away(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise KeyError("whatever")

    monkeypatch.setattr(watcher._evaluator, "look", lambda: (a_round(), {}))
    monkeypatch.setattr(watcher._sources, "look", fails)
    monkeypatch.setattr(watcher._workers, "look", fails)
    watcher.start()
    wait_until(lambda: watcher.health().rounds >= 2, "rounds succeed", timeout_s=15)
    watcher.stop()

    assert (None, 0) == (watcher.health().failure, watcher.health().failures)
    assert watcher.latest is not None


def test_a_round_that_never_ends_is_noticed_and_does_not_keep_the_monitor_from_ending(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(watcher._evaluator, "look", lambda: release.wait(60) and (a_round(), {}))
    monkeypatch.setattr("streams.monitor.health.STUCK_S", 0.5)
    monkeypatch.setattr("streams.monitor.watcher.STOP_S", 0.2)
    watcher.start()
    wait_until(lambda: watcher.health().dead, "the round is said to be stuck", timeout_s=10)
    assert "it is at offsets" in (watcher.health().dead or "")
    began = time.monotonic()
    watcher.stop()
    assert time.monotonic() - began < 2
    release.set()


def test_a_watcher_that_was_never_started_is_dead(watcher: Watcher) -> None:
    assert "no more rounds are run" in (watcher.health().dead or "")
    watcher.stop()


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_age_of_the_offsets_is_told_and_missing_before_the_first_round() -> None:
    def told(health: Health) -> dict[str, float]:
        families = text_string_to_metric_families(exposition.render_health(health).decode())
        return {sample.name: sample.value for family in families for sample in family.samples}

    assert 2.0 == told(WELL)["streams_monitor_round_age_seconds"]
    assert 10.0 == told(WELL)["streams_monitor_rounds_total"]
    fresh = told(replace(WELL, age_s=None, failures=3))
    assert "streams_monitor_round_age_seconds" not in fresh
    assert 3.0 == fresh["streams_monitor_round_failures_total"]


def test_what_panels_count_is_told_with_its_age_and_a_scrape_never_waits() -> None:
    release, away = threading.Event(), threading.Event()
    counted = iter(range(1, 1_000))

    def letters() -> bytes:
        if away.is_set():
            raise StreamsError("no Kafka broker answers")
        return b"letters %d\n" % next(counted)

    def slow() -> bytes:
        release.wait(30)
        return b"slow 1\n"

    def broken() -> bytes:
        raise KeyError("whatever")

    panels = PanelMetrics({"/letters": letters, "/slow": slow, "/broken": broken}, every_s=0.1)
    assert b"" == panels.content()
    panels.start()
    wait_until(lambda: b"letters 2\n" in panels.content(), "it is counted again", timeout_s=10)
    away.set()
    time.sleep(0.5)
    old = panels.content()
    assert old.startswith(b"letters ")
    age_s = float(old.split(b'streams_monitor_panel_age_seconds{panel="/letters"} ')[1].split()[0])
    assert 0.3 < age_s < 5
    assert b"slow" not in old
    away.clear()
    release.set()
    wait_until(lambda: b"slow 1\n" in panels.content(), "the slow one has answered", timeout_s=10)
    assert b'panel="/broken"' not in panels.content()
    panels.stop()


def test_a_topic_that_is_missing_has_a_row_and_one_that_is_there_has_none() -> None:
    snapshot = Snapshot(0, "c", 5.0, a_round(), {}, {}, (), SloTracker().judge(), (), {}, (), None)
    gone = replace(snapshot, missing=(MissingTopic('gps."x"', "streams.gps"),))

    assert b'streams_topic_missing{topic="gps.\\"x\\"",group="streams.gps"} 1.0' in exposition.render(gone)
    assert b"streams_topic_missing{" not in exposition.render(snapshot)


def test_partitions_of_too_many_groups_are_left_out_the_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Group:
        def __init__(self, status: int, partitions: int) -> None:
            self.status, self.lag_sum, self.partitions = status, 0, [("t", n) for n in range(partitions)]

    monkeypatch.setattr(exposition, "PARTITIONS_MAX", 10)
    slo = SloTracker().judge()
    groups = {"fine": Group(1, 4), "bad": Group(3, 4), "worse": Group(4, 5), "tiny": Group(1, 1)}
    snapshot = Snapshot(0, "c", 5.0, a_round(), groups, {}, (), slo, (), {}, (), None)  # type: ignore[arg-type]

    assert {"worse", "bad", "tiny"} == exposition._bounded(snapshot).groups.keys()
    assert b"streams_monitor_groups_left_out" in exposition.render(replace(snapshot, groups={}))
