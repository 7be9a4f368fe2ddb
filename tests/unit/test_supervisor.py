"""The supervisor of several processes: what an end means, its directories, its memory, what all of them say together.

That processes are started, killed, started again and stopped is in `tests/integration/test_worker_processes.py`.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from streams.errors import StreamsError, UsageError
from streams.logs import OfProcess
from streams.settings import load_settings
from streams.worker.lifeline import Supervised
from streams.worker.merged_metrics import Families, merged
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.restarts import IN_ORDER_S, RESTARTS_MAX, EndAll, Restart, Restarts
from streams.worker.supervisor import SharedDirectory, memory_share_mb
from streams.worker.supervisor_web import Readiness, readiness_of_all


@pytest.mark.parametrize(("status", "was_ready"), [(3, True), (2, True), (1, False), (3, False)])
def test_what_would_happen_again_ends_all(status: int, *, was_ready: bool) -> None:
    end = Restarts().ended(status, was_ready=was_ready, ran_s=5.0)

    assert isinstance(end, EndAll)
    assert status == end.status


@pytest.mark.parametrize(("status", "was_ready"), [(-9, False), (-11, True), (1, True), (0, True), (143, False)])
def test_another_end_is_followed_by_a_start(status: int, *, was_ready: bool) -> None:
    assert isinstance(Restarts().ended(status, was_ready=was_ready, ran_s=5.0), Restart)


def test_a_failure_at_a_later_start_is_none_of_the_configuration() -> None:
    restarts = Restarts()
    restarts.ended(-9, was_ready=True, ran_s=5.0)

    assert isinstance(restarts.ended(1, was_ready=False, ran_s=1.0), Restart)


def test_pauses_grow_until_a_run_was_in_order_and_then_all_end() -> None:
    restarts = Restarts()

    def pause_s(ran_s: float) -> float:
        found = restarts.ended(-9, was_ready=True, ran_s=ran_s)
        assert isinstance(found, Restart)
        return found.pause_s

    assert [1.0, 2.0, 4.0, 8.0, 16.0, 30.0] == [pause_s(1.0) for _ in range(6)]
    assert 1.0 == pause_s(IN_ORDER_S)
    assert RESTARTS_MAX - 1 == len([pause_s(1.0) for _ in range(RESTARTS_MAX - 1)])
    end = restarts.ended(-9, was_ready=True, ran_s=1.0)
    assert isinstance(end, EndAll)
    assert 1 == end.status


def test_memory_is_divided_and_too_little_is_refused_with_what_is_enough() -> None:
    settings = load_settings(streams_memory_mb_max=1_024)

    assert (1_024 - 160) // 2 == memory_share_mb(settings, 2)
    with pytest.raises(UsageError, match="set it to 1184 or more"):
        memory_share_mb(settings, 4)


def test_the_directory_of_a_single_worker_is_not_taken_by_several(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data).release()

    with pytest.raises(UsageError, match="single worker") as refused:
        SharedDirectory(data, 2)

    command = str(refused.value).partition("`")[2].rstrip("`")
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=10)
    identity = (data / "0" / "worker.id").read_text()
    SharedDirectory(data, 2).release()
    assert identity == DataDirectory(data / "0").worker_id


def test_the_directory_of_several_is_not_taken_by_a_single_one(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "0").release()

    with pytest.raises(UsageError, match="--processes"):
        DataDirectory(tmp_path)


def test_two_supervisors_do_not_share_a_directory(tmp_path: Path) -> None:
    first = SharedDirectory(tmp_path, 2)
    with pytest.raises(StreamsError, match="in use by another worker"):
        SharedDirectory(tmp_path, 2)
    first.release()


def test_all_are_ready_when_each_is() -> None:
    ready = Readiness(is_ready=True, lines=("ok",))
    remarks = Readiness(is_ready=True, lines=("ok", "3 keys are misrouted"))
    starting = Readiness(is_ready=False, lines=("gps: restoring",))

    assert (200, "ok\n") == readiness_of_all({0: ready, 1: ready})
    assert (200, "ok\nprocess 1: 3 keys are misrouted\n") == readiness_of_all({0: ready, 1: remarks})
    assert (503, "process 0: gps: restoring\n") == readiness_of_all({0: starting, 1: ready})


def test_metrics_of_all_have_the_process_as_a_label_and_are_valid_in_both_forms() -> None:
    texts: dict[int, str] = {}
    for number in (0, 1):
        metrics = WorkerMetrics()
        metrics.begin("gps")
        metrics.events.labels("gps", "clean").inc(10 + number)
        metrics.commit_seconds.observe(0.02)
        texts[number] = openmetrics.generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call]  # the library's
    registry = CollectorRegistry()
    registry.register(Families(merged(texts)))

    of_openmetrics: str = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]  # the library's
    for text in (generate_latest(registry).decode(), of_openmetrics):
        assert 'streams_events_total{outcome="clean",pipeline="gps",process="0"} 10.0' in text
        assert 'streams_events_total{outcome="clean",pipeline="gps",process="1"} 11.0' in text
        assert 'streams_commit_seconds_count{process="1"} 1.0' in text
        assert 1 == text.count("# TYPE streams_commit_seconds histogram")


def test_a_line_of_the_log_says_its_process_unless_it_is_about_another() -> None:
    assert {"event": "x", "process": 1} == OfProcess(1)(None, "info", {"event": "x"})
    assert {"event": "x", "process": 7} == OfProcess(1)(None, "info", {"event": "x", "process": 7})


def test_what_a_process_is_told_is_what_it_reads() -> None:
    told = Supervised(1, 4, 11, 12)

    assert told == Supervised.parse(str(told))
    with pytest.raises(UsageError):
        Supervised.parse("1/4:11")


_ORPHAN = """
import sys, time, signal
from streams.worker.lifeline import Supervised
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
Supervised.parse(sys.argv[1]).end_with_the_supervisor()
print("up", flush=True)
time.sleep(60)
"""


def test_a_process_stops_when_its_supervisor_is_gone() -> None:
    reading, held = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as web:
        told = str(Supervised(0, 1, web.fileno(), reading))
        child = subprocess.Popen(
            [sys.executable, "-c", _ORPHAN, told], pass_fds=(web.fileno(), reading), stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert b"up\n" == child.stdout.readline()
        assert child.poll() is None
        began = time.monotonic()
        os.close(held)
        assert 7 == child.wait(timeout=15)
        assert time.monotonic() - began < 10
        child.stdout.close()
    os.close(reading)
