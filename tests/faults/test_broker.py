"""Rows 8, 9 and 12: the broker restarts, freezes, or runs out of disk."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.faults.disk import SmallDisk
from tests.faults.harness import (
    BOTH_FLOWS,
    READY_S_MAX,
    Result,
    Scene,
    cpu_s,
    for_seconds,
    frozen,
    lines,
    metric,
    rss_mb,
    scene_of,
)
from tests.faults.proxy import Faults, Proxy
from tests.integration.workers import PARTITIONS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

FREEZE_S = 45.0
STRANDED = "the Kafka client has lost every broker and does not look for them again; re-creating it"


# --- 8: it restarts ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
@BOTH_FLOWS
@pytest.mark.fault(row=8, what="broker restarted")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["clean", "hard"])
def test_the_worker_goes_on_by_itself_each_time_the_broker_restarts(scene: Scene, how: signal.Signals) -> None:
    with scene.load() as traffic:
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        for _ in range(5):
            scene.stack.restart_kafka(how)
            scene.struck()
            traffic.wait_for(2_000, timeout_s=120)
            scene.recovers()
        assert pid == scene.worker.pid
        assert "Traceback" not in scene.worker.printed()
    scene.exactly_once()


@pytest.mark.timeout(900)
@pytest.mark.fault(row=8, what="broker that goes down says that there is no broker")
def test_a_client_that_has_lost_every_broker_for_good_is_made_anew(behind_proxy: Scene, proxy: Proxy) -> None:
    scene = behind_proxy
    stranded: list[dict[str, Any]] = []
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        for _ in range(10):
            proxy.faults = Faults(no_brokers=True)
            proxy.reset_all()
            for_seconds(3.0, lambda: scene.worker.is_running, "the worker waits")
            proxy.faults = Faults()
            proxy.reset_all()
            scene.struck()
            scene.recovers()
            stranded = lines(scene.worker, STRANDED)
            if stranded:
                break
        assert stranded, "a race in the client: it should be lost within a few times"
        assert pid == scene.worker.pid
    scene.exactly_once()


# --- 9: it freezes ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.fault(row=9, what=f"broker frozen for {FREEZE_S:.0f} s")
def test_a_frozen_broker_makes_no_storm_of_retries_and_no_heap(scene: Scene) -> None:
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        scene.flows()
        said, cpu, memory = len(scene.worker.printed().splitlines()), cpu_s(pid), rss_mb(pid)
        broker = scene.stack.kafka_pid
        assert broker is not None
        with frozen(broker):
            for_seconds(FREEZE_S, lambda: scene.worker.is_running, "the worker waits")
            cpu_share = (cpu_s(pid) - cpu) / FREEZE_S
            said_meanwhile = len(scene.worker.printed().splitlines()) - said
        scene.struck()
        scene.recovers()
        grown_mb = rss_mb(pid) - memory
        assert pid == scene.worker.pid
        assert said_meanwhile < 2 * FREEZE_S
        assert cpu_share < 0.5
        assert grown_mb < 200
        aborts = metric(scene.worker, "streams_aborts_total")
        assert aborts <= FREEZE_S / 5
        scene.note(
            f"meanwhile {cpu_share:.0%} of a core, {said_meanwhile} log lines; {grown_mb:+.0f} MB, "
            f"{aborts:.0f} cycles aborted"
        )
    scene.exactly_once()


# --- 12: its disk is full ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "stack" / "kafka", mb=512) as disk:
        yield disk


@pytest.fixture
def cramped(small_disk: SmallDisk) -> Iterator[Stack]:
    """A stack of its own, the broker's log directory on the small disk."""
    stack = Stack(small_disk.path.parent)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.mark.timeout(600)
@pytest.mark.fault(row=12, what="broker's disk full, then enlarged and restarted")
def test_what_a_broker_with_a_full_disk_has_acknowledged_is_there_afterwards(
    cramped: Stack, small_disk: SmallDisk, tmp_path: Path, result: Result
) -> None:
    with scene_of(cramped, tmp_path, result) as scene:
        with scene.load() as traffic:
            scene.start().wait_ready(READY_S_MAX)
            pid = scene.worker.pid
            scene.flows()
            small_disk.fill()
            wait_until(lambda: cramped.kafka_pid is None, "the broker gives up", timeout_s=120)
            assert "No space left on device" in cramped.kafka.process.log.read_text(errors="replace")
            assert scene.worker.is_running
            small_disk.enlarge(mb=1024)
            cramped.restart_kafka()
            scene.struck()
            scene.recovers()
            assert pid == scene.worker.pid
        ends = scene.probe.log_ends(GPS.source)
        assert ends is not None
        assert len(ends) == PARTITIONS
        assert traffic.sent == sum(ends.values()), "every acknowledged record is in the log, once"
        scene.exactly_once()
