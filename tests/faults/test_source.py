"""Rows 29 to 31: what goes on around the source: open transactions, clocks that step, retention."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from loadtest.fleet import Kind
from logistics.flows.gps import GPS
from streams.monitor.policy import Policy
from tests.faults.harness import READY_S_MAX, Scene, for_seconds, frozen, lines, metric
from tests.faults.test_data import DEVICES, Sender, now_ms
from tests.integration.kafka_helpers import admin_of, run
from tests.integration.test_rejects import Encoder
from tests.integration.workers import PARTITIONS, read, wait_until

pytestmark = [pytest.mark.kafka]

MakeScene = Callable[..., Scene]
NO_REJECTS: dict[Kind, float] = {}
UNREADABLE = "after an open transaction cannot be read yet"
GONE = "deleted unread"


class Devices:
    """Events of one device in each partition, sent in the order of the calls, `at_ms` after a common start."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._encoder = Encoder(scene.stack)
        self._sender = Sender(scene)
        self._start_ms = now_ms()
        self.sent = 0

    def values(self, at_ms: int) -> list[tuple[str, bytes, int]]:
        self.sent += len(DEVICES)
        time_ms = self._start_ms + at_ms
        return [
            (device, self._encoder.framed(device_id=device, event_time=time_ms, sequence=at_ms), time_ms)
            for device in DEVICES
        ]

    def send(self, *times_ms: int) -> None:
        for at_ms in times_ms:
            for device, value, time_ms in self.values(at_ms):
                self._sender.send(device, value, time_ms)
        self._sender.flush()


# --- 29: an upstream transaction stays open ---------------------------------------------------------------------------


@pytest.mark.fault(row=29, what="upstream transaction stays open")
@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        pytest.param("committed", 15, id="15 s, committed"),
        pytest.param("committed", 120, id="2 min, committed", marks=pytest.mark.slow),
        pytest.param("aborted", 120, id="2 min, aborted", marks=pytest.mark.slow),
    ],
)
def test_an_open_transaction_upstream_is_said_and_makes_nothing_late(scene: Scene, end: str, seconds: int) -> None:
    """Records after it cannot be read. The end of what can be read is not the end of the log, so no time is idle."""
    upstream = Producer({
        "bootstrap.servers": scene.stack.bootstrap_servers, "partitioner": "murmur2_random",
        "transactional.id": f"tests-upstream-{time.time_ns()}", "transaction.timeout.ms": 300_000,
    })  # fmt: skip
    upstream.init_transactions(60)
    devices = Devices(scene)
    # Longer than the transaction takes to begin, shorter than it is open.
    idle = {"STREAMS_IDLE_MS": "8000"}
    worker = scene.worker.start({**scene.environment, **idle}).wait_ready(READY_S_MAX)
    devices.send(0, 800)
    upstream.begin_transaction()
    for at_ms in (300, 900):
        for device, value, time_ms in devices.values(at_ms):
            upstream.produce(GPS.source, value, device.encode(), timestamp=time_ms)
    assert upstream.flush(60) == 0
    devices.send(400, 950, 500)
    scene.struck()
    began = time.monotonic()
    in_words: str = wait_until(
        lambda: said if (said := worker.readiness()[1]).count(UNREADABLE) == PARTITIONS else None, "/readyz says it"
    )
    assert f"{GPS.source}-0: 5 records {UNREADABLE}; it begins at offset 2 " in in_words
    assert lines(worker, "an open transaction on the source holds its partition up")
    told = run(scene.stack, "lag", "--group", GPS.group)
    assert told.stdout.count(UNREADABLE) == PARTITIONS, told.stdout
    assert 0 == told.returncode, "a producer may take so long"
    for_seconds(began + seconds - time.monotonic(), lambda: worker.is_running, "the worker waits")
    if seconds > Policy().open_s:
        assert 100 == run(scene.stack, "lag", "--group", GPS.group).returncode
    if end == "committed":
        upstream.commit_transaction(60)
    else:
        upstream.abort_transaction(60)
        devices.sent -= 2 * len(DEVICES)
    scene.lifted()
    wait_until(lambda: worker.readiness() == (200, "ok\n"), "it is over")
    devices.send(20_000)  # else the marker of the transaction is the last in the log, and nobody commits a marker
    scene.recovers()
    report = scene.exactly_once()
    assert (devices.sent, 0) == (report.clean, report.late)


# --- 30: the wall clock steps -----------------------------------------------------------------------------------------


STEPPING_CLOCK = """
import os, time

def _stepping(name, per_second):
    real = getattr(time, name)
    def now():
        with open(os.environ["TESTS_CLOCK_FILE"]) as file:
            return real() + int(file.read()) * per_second
    setattr(time, name, now)

_stepping("time", 1)
_stepping("time_ns", 1_000_000_000)
"""
"""For the interpreter's start: a time of day that a file moves. libfaketime breaks sleeping where the monotonic clock
is left alone, and that one must not step."""


class Clock:
    """The time of day of workers that are started with its environment."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(STEPPING_CLOCK)
        self.environment = {
            "PYTHONPATH": f"{directory}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "TESTS_CLOCK_FILE": str(self._file),
        }
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set it to this many seconds from ours."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(str(seconds))
        partial.replace(self._file)


@pytest.mark.fault(row=30, what="wall clock steps by an hour, forward and back")
def test_a_step_of_the_wall_clock_releases_nothing_and_makes_nothing_late(
    make_scene: MakeScene, tmp_path: Path
) -> None:
    clock = Clock(tmp_path / "stepping")
    scene = make_scene("a", environment=clock.environment)
    devices = Devices(scene)
    worker = scene.worker.start({**scene.environment, "STREAMS_IDLE_MS": "600000"}).wait_ready(READY_S_MAX)
    devices.send(0, 800)
    scene.flows()
    for seconds in (3_600, 0, -3_600, 0):
        clock.step(seconds)
        scene.struck()
        for_seconds(1.5, lambda: worker.is_running, "the worker waits")
        assert [] == read(scene.stack, GPS.clean), "what is held waits for time that passes"
    devices.send(400, 500, 900)
    scene.flows()
    report = scene.exactly_once()
    assert (devices.sent, 0) == (report.clean, report.late)


# --- 31: retention overtakes the worker -------------------------------------------------------------------------------


@pytest.mark.fault(row=31, what="retention overtakes the worker")
@pytest.mark.parametrize("how", ["while it runs", "while it is down"])
def test_records_that_are_deleted_unread_are_counted_and_said(scene: Scene, how: str) -> None:
    worker = scene.start().wait_ready(READY_S_MAX)
    devices = Devices(scene)
    devices.send(*range(0, 10_000, 100))
    scene.flows()
    if how == "while it runs":
        with frozen(worker.pid):
            time.sleep(1)  # an answer to a fetch of before may be on its way
            lost = deleted(scene, devices)
    else:
        assert 0 == worker.terminate()
        lost = deleted(scene, devices)
        worker = scene.start().wait_ready(READY_S_MAX)
    scene.struck()
    wait_until(lambda: metric(worker, "streams_records_lost_total", topic=GPS.source) == lost, "the loss is counted")
    status, said = worker.readiness()
    assert (200, PARTITIONS) == (status, said.count(GONE)), said
    assert f"{GPS.source}-0: 50 records {GONE}" in said
    assert PARTITIONS == len(lines(worker, LOST_LINE))
    devices.send(*range(20_000, 40_000, 100))
    scene.recovers()
    assert lost == metric(worker, "streams_records_lost_total", topic=GPS.source), "each is counted once"
    out = [message.value() for topic in (GPS.clean, GPS.late) for message in read(scene.stack, topic)]
    assert len(out) == len(set(out))
    assert worker.terminate() == 0
    assert 0 < len(out) <= devices.sent - lost


LOST_LINE = (
    "records were deleted unread: retention has overtaken this worker, or it was down for longer than it; "
    "raise retention.ms of the source, then send them again (runbook records-lost)"
)


def deleted(scene: Scene, devices: Devices) -> int:
    """Records that are sent and deleted at once."""
    before = devices.sent
    devices.send(*range(10_000, 15_000, 100))
    ends: Any = scene.probe.log_ends(GPS.source)
    where = [TopicPartition(GPS.source, partition, end) for partition, end in ends.items()]
    client = admin_of(scene.stack)
    for future in client.delete_records(where).values():
        future.result(30)
    return devices.sent - before
