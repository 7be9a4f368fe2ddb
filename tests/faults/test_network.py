"""Rows 7 and 10: the network loses answers, is slow, narrow, or breaks connections."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from tests.faults.harness import READY_S_MAX, Scene, lines, metric
from tests.faults.proxy import Faults, Proxy
from tests.integration.workers import wait_until

pytestmark = [pytest.mark.kafka]

UNKNOWN = "the outcome of a commit is unknown; re-creating the producer to settle it"
ABORTED = "cycle aborted: its records run again"


@pytest.fixture(autouse=True)
def network_again(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.faults = Faults()


# --- 7: the answer to a commit is lost --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(row=7, what="commit answer lost, connection reset")
def test_a_commit_whose_answer_is_lost_in_a_reset_happens_once(behind_proxy: Scene, proxy: Proxy) -> None:
    scene = behind_proxy

    def commits(wanted: int) -> bool:
        return proxy.commits >= wanted

    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        for _ in range(10):
            wanted = proxy.commits + 1
            proxy.faults = Faults(reset_commits=True)
            wait_until(partial(commits, wanted), "a commit loses its answer")
            scene.struck()
            proxy.faults = Faults()
            scene.recovers()
        assert pid == scene.worker.pid
    scene.exactly_once()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault(row=7, what="commit answers lost in silence for over a minute")
def test_the_outcome_of_a_commit_that_is_never_answered_is_settled(behind_proxy: Scene, proxy: Proxy) -> None:
    scene = behind_proxy
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        proxy.faults = Faults(lose_commit_answers=True)
        wait_until(lambda: lines(scene.worker, UNKNOWN), "the worker gives the answer up", timeout_s=180)
        scene.struck()
        proxy.faults = Faults()
        scene.recovers()
        settled = lines(scene.worker, "the commit had happened")
        aborted = metric(scene.worker, "streams_aborts_total", reason="outcome_settled")
        assert len(settled) + aborted == len(lines(scene.worker, UNKNOWN))
        assert pid == scene.worker.pid
    scene.note("the commit had happened" if settled else "the commit had not happened")
    scene.exactly_once()


# --- 10: a bad link ---------------------------------------------------------------------------------------------------

SLOW = {
    "latency 250 ms each way": Faults(latency_s=0.25),
    "bandwidth 300 kB/s": Faults(bytes_per_s=300_000),
    "latency 100 ms, 500 kB/s": Faults(latency_s=0.1, bytes_per_s=500_000),
}


@pytest.mark.slow
@pytest.mark.fault(row=10, what="slow link")
@pytest.mark.parametrize("name", list(SLOW))
def test_a_slow_link_slows_the_worker_and_aborts_nothing(behind_proxy: Scene, proxy: Proxy, name: str) -> None:
    scene = behind_proxy
    with scene.load(records_per_s=1_000) as traffic:
        scene.start().wait_ready(READY_S_MAX)
        proxy.faults = SLOW[name]
        scene.struck()
        sent = traffic.sent
        wait_until(lambda: traffic.sent > sent + 15_000, "traffic goes on")
        scene.recovers()
        assert metric(scene.worker, "streams_aborts_total") == 0
    scene.exactly_once()


@pytest.mark.slow
@pytest.mark.fault(row=10, what="connections reset 20 times, on a slow link")
def test_a_link_that_breaks_all_the_time_is_no_abort_loop(behind_proxy: Scene, proxy: Proxy) -> None:
    scene = behind_proxy
    resets = 20
    with scene.load() as traffic:
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        proxy.faults = Faults(latency_s=0.02)
        for _ in range(resets):
            traffic.wait_for(2_000)
            assert proxy.reset_all() > 0
            scene.struck()
        scene.recovers()
        assert pid == scene.worker.pid
        aborts = metric(scene.worker, "streams_aborts_total")
        assert aborts <= resets
        scene.note(f"{aborts:.0f} cycles aborted")
        proxy.faults = replace(proxy.faults, latency_s=0.0)
    scene.exactly_once()
