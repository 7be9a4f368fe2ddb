"""Workers in one group, by both of Kafka's protocols and both kinds of membership: they join, leave and take over."""

import json
import os
from pathlib import Path

import pytest

from streams.local.stack import Stack
from tests.integration.test_exactly_once import wait_for_progress
from tests.integration.workers import (
    NEVER_IDLE,
    Traffic,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = int(os.environ.get("SEED", "1"))
RECORDS_PER_S = 500
# Static members of the classic protocol are in test_exactly_once.
KINDS = pytest.mark.parametrize(
    ("protocol", "static"),
    [
        ("consumer", "true"),
        ("consumer", "false"),
        ("classic", "false"),
    ],
)


def kind(protocol: str, static: str) -> dict[str, str]:
    return {**NEVER_IDLE, "STREAMS_GROUP_PROTOCOL": protocol, "STREAMS_GROUP_STATIC": static}


@pytest.mark.slow
@KINDS
def test_workers_join_leave_and_take_over(stack: Stack, tmp_path: Path, protocol: str, static: str) -> None:
    probe = fresh_world(stack)
    environment = kind(protocol, static)
    with workers(stack, tmp_path, "a", "b") as (first, second):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            first.start(environment).wait_ready()
            wait_for_progress(probe)
            second.start(environment).wait_ready()
            wait_for_progress(probe)
            assert second.terminate() == 0, second.printed()[-4000:]
            wait_for_progress(probe)
            second.start(environment).wait_ready()
            wait_for_progress(probe)
            assert not first.said("releasing partitions takes long")
            first.kill()
            first.start(environment).wait_ready(timeout_s=150)
            wait_for_progress(probe, timeout_s=150)
        assert second.terminate() == 0, second.printed()[-4000:]
        wait_until(probe.all_is_committed, "the first worker has caught up alone", timeout_s=150)
        end_of_run(first)
        assert_exactly_once(stack, probe, first, seed=SEED)


def test_a_worker_joins_leaves_and_comes_back_by_the_consumer_protocol(stack: Stack, tmp_path: Path) -> None:
    """The short form: nobody is killed, and no place is kept for 45 s, as the broker does for a static member."""
    probe = fresh_world(stack)
    environment = kind("consumer", "false")
    with workers(stack, tmp_path, "a", "b") as (first, second):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            first.start(environment).wait_ready()
            second.start(environment).wait_ready()
            wait_for_progress(probe)
            before = len(first.said('"assigned"'))
            assert second.terminate() == 0, second.printed()[-4000:]
            # Within less than any session.
            wait_until(lambda: len(first.said('"assigned"')) > before, "the other has it all", timeout_s=9)
            second.start(environment).wait_ready()
            wait_for_progress(probe)
            assert not first.said("releasing partitions takes long")
        wait_until(probe.all_is_committed, "both have caught up")
        assert second.terminate() == 0, second.printed()[-4000:]
        end_of_run(first)
        assert_exactly_once(stack, probe, first, seed=SEED)


@pytest.mark.parametrize("protocol", [pytest.param("classic", marks=pytest.mark.slow), "consumer"])
def test_a_static_member_that_comes_back_within_its_session_reads_nothing_to_restore(
    stack: Stack, tmp_path: Path, protocol: str
) -> None:
    probe = fresh_world(stack)
    environment = kind(protocol, "true")
    with (
        workers(stack, tmp_path, "a", "b") as (first, second),
        Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S),
    ):
        first.start(environment).wait_ready()
        wait_for_progress(probe)
        second.start(environment).wait_ready()
        for _ in range(4):
            wait_for_progress(probe)
            moves = len(first.said('"assigned"'))
            assert second.terminate() == 0, second.printed()[-4000:]
            second.start(environment).wait_ready()
            if moves == len(first.said('"assigned"')):
                break
            # It took this machine longer than the session to stop and start a process: the other one has taken over.
        else:
            pytest.skip("this machine is too busy to restart a worker within ten seconds")
        wait_for_progress(probe)
        assert 0 == second.metric("streams_restore_records_total")
        assert len(second.said('"assigned"')) == 1


@pytest.mark.slow  # in short: `test_a_worker_joins_leaves_and_comes_back_by_the_consumer_protocol`
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_dynamic_member_that_stops_hands_its_partitions_over_at_once(
    stack: Stack, tmp_path: Path, protocol: str
) -> None:
    probe = fresh_world(stack)
    environment = kind(protocol, "false")
    with (
        workers(stack, tmp_path, "a", "b") as (first, second),
        Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S),
    ):
        first.start(environment).wait_ready()
        second.start(environment).wait_ready()
        wait_for_progress(probe)
        before = len(first.said('"assigned"'))
        assert second.terminate() == 0, second.printed()[-4000:]
        # Within less than any session: a static member's place would be kept for 10 s, or for 45.
        wait_until(lambda: len(first.said('"assigned"')) > before, "the other has it all", timeout_s=9)
        wait_for_progress(probe)


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.slow)])
def test_a_static_member_that_is_told_to_leave_hands_its_partitions_over_at_once(
    stack: Stack, tmp_path: Path, protocol: str
) -> None:
    probe = fresh_world(stack)
    environment = kind(protocol, "true")
    with (
        workers(stack, tmp_path, "a", "b") as (first, second),
        Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S),
    ):
        first.start(environment).wait_ready()
        second.start(environment, options=["--leave"]).wait_ready()
        wait_for_progress(probe)
        kept, before = first.partitions(), len(first.said('"assigned"'))
        revoked = len(first.said('"revoked"'))
        assert second.terminate() == 0, second.printed()[-4000:]
        # Without it the place is kept for a session of 10 s, which begins with the last heartbeat.
        wait_until(lambda: len(first.said('"assigned"')) > before, "the other has it all", timeout_s=7)
        assert ("classic" == protocol) == bool(second.said("left the group"))
        wait_for_progress(probe)
        taken = json.loads(first.said('"assigned"')[-1])["partitions"]
        assert kept
        assert kept.isdisjoint(taken), "what it kept is not restored again"
        assert revoked == len(first.said('"revoked"'))


@pytest.mark.slow
def test_several_workers_of_one_machine_share_the_work(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    environment = kind("consumer", "false")
    with workers(stack, tmp_path, "a", "b", "c") as three:
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            for worker in three:
                worker.start(environment).wait_ready()
            wait_for_progress(probe)
        wait_until(probe.all_is_committed, "all is processed")
        for worker in three[1:]:
            assert worker.terminate() == 0, worker.printed()[-4000:]
        end_of_run(three[0])
        assert_exactly_once(stack, probe, three[0], seed=SEED)


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.slow)])
def test_of_two_workers_of_one_name_one_ends_as_fenced(stack: Stack, tmp_path: Path, protocol: str) -> None:
    probe = fresh_world(stack)
    environment = kind(protocol, "true")
    with workers(stack, tmp_path, "a", "b") as (first, double):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            first.start(environment).wait_ready()
            wait_for_progress(probe)
            double.data_dir.mkdir(parents=True)
            (double.data_dir / "worker.id").write_text((first.data_dir / "worker.id").read_text())
            double.start(environment)
            assert 3 == first.wait_ended(120), first.printed()[-4000:]
            assert first.said("streams: another ")
            wait_for_progress(probe, timeout_s=120)
        end_of_run(double)
        assert_exactly_once(stack, probe, double, seed=SEED)
