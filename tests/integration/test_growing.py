"""A topic grows in place while traffic flows and a worker is killed: as one stream per key."""

import time
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.kafka.admin import partition_counts
from streams.local.stack import Stack
from tests.integration.growing import GrowingTraffic, Growth, clean_count, counted, still
from tests.integration.kafka_helpers import admin_of
from tests.integration.workers import fresh_world, wait_until, workers

pytestmark = pytest.mark.kafka

QUIET_MS = 2_000
SETTINGS = {"STREAMS_GROWTH_QUIET_MS": str(QUIET_MS)}


def test_a_topic_grows_under_traffic_while_a_worker_is_killed(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    with workers(stack, tmp_path, "a", "b") as (first, second):
        for worker in (first, second):
            worker.start(SETTINGS)
        first.wait_ready()
        second.wait_ready()
        with GrowingTraffic(stack) as traffic:
            wait_until(lambda: traffic.sent.count > 300, "traffic flows")
            growth = Growth(stack, 6).start()
            wait_until(lambda: growth.has_come_to("adopted"), f"children adopt: {growth.steps}")
            first.kill()
            first.start(SETTINGS)
            wait_until(lambda: growth.has_come_to("settled"), "all keys have moved")
            traffic.release_slow()
            growth.wait(60)
        still(stack, lambda: clean_count(stack), traffic.sent.count)
        count = counted(stack, traffic.sent)
        assert count.ok, f"{count}\n{first.printed()[-3000:]}\n{second.printed()[-3000:]}"
        assert count.clean == traffic.sent.count > 1_000
        assert 6 == partition_counts(admin_of(stack))[GPS.source]
        for worker in (first, second):
            assert worker.terminate() == 0, worker.printed()[-3000:]
    fresh_world(stack)  # with as many partitions as other tests expect


@pytest.mark.slow
def test_a_topic_grows_twice_with_a_backlog_while_the_worker_of_some_parents_is_away(
    stack: Stack, tmp_path: Path
) -> None:
    fresh_world(stack)
    with workers(stack, tmp_path, "a", "b") as (first, second):
        first.start(SETTINGS)
        second.start(SETTINGS)
        first.wait_ready()
        second.wait_ready()
        traffic = GrowingTraffic(stack, devices=96, records_per_s=400, slow=12)
        first.kill()
        second.kill()
        traffic.send(20_000)
        first.start(SETTINGS)
        second.start(SETTINGS)
        with traffic:
            growth = Growth(stack, 12).start()
            wait_until(lambda: growth.has_come_to("adopted"), "all have cut, with a backlog", timeout_s=120)
            second.kill()  # partitions of it, parents among them, are nobody's for a session
            time.sleep(15)
            second.start(SETTINGS)
            wait_until(lambda: growth.has_come_to("settled"), "all keys have moved", timeout_s=120)
            traffic.release_slow()
            growth.wait(120)
            again = Growth(stack, 24).start()
            wait_until(lambda: again.has_come_to("adopted"), "all have cut again", timeout_s=120)
            first.kill()
            first.start(SETTINGS)
            again.wait(180)
        still(stack, lambda: clean_count(stack), traffic.sent.count, timeout_s=120)
        count = counted(stack, traffic.sent)
        assert count.ok, f"{count}\n{first.printed()[-3000:]}\n{second.printed()[-3000:]}"
        assert 24 == partition_counts(admin_of(stack))[GPS.source]
    fresh_world(stack)  # with as many partitions as other tests expect
