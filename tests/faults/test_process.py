"""Rows 1 to 6 and 22: a worker dies, is stopped, freezes, comes, goes, stalls, or releases too slowly."""

import random
import signal
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest

from streams.early import TERMINATED
from streams.limits import SESSION_TIMEOUT_MS
from tests.faults.harness import (
    BOTH_FLOWS,
    FENCED,
    READY_S_MAX,
    SEED,
    Scene,
    for_seconds,
    frozen,
    lines,
    metric,
    open_transactions,
)
from tests.integration.workers import PARTITIONS, Worker, wait_until

pytestmark = [pytest.mark.kafka]

LOST = "lost: the group has given our partitions to others"
ABORTED = "cycle aborted: its records run again"
MakeScene = Callable[..., Scene]


# --- 1, 2: it dies in the middle of the commit cycle ------------------------------------------------------------------


def dies_at(scene: Scene, step: str, number: int) -> None:
    scene.start(STREAMS_FAILPOINT=f"{step}:{number}")
    assert scene.worker.wait_ended(120) == -signal.SIGKILL, scene.worker.printed()[-3000:]
    assert scene.worker.said("failpoint reached")
    scene.struck()


@pytest.mark.slow
@BOTH_FLOWS
@pytest.mark.fault(row=1, what="worker dies before offsets are sent")
def test_nothing_of_a_cycle_is_visible_when_the_worker_dies_before_offsets_are_sent(scene: Scene) -> None:
    with scene.load():
        for number, step in enumerate(["begun", "produced", "journalled"] * 2, 1):
            dies_at(scene, step, number * 2)
            scene.settle(scene.worker)
            scene.nothing_is_visible_too_early()
        scene.start()
        scene.recovers()
    scene.exactly_once()


@pytest.mark.slow
@BOTH_FLOWS
@pytest.mark.fault(row=2, what="worker dies between commit and RocksDB write")
def test_the_journal_brings_state_forward_when_the_worker_dies_behind_the_commit(scene: Scene) -> None:
    with scene.load():
        for number in range(1, 6):
            dies_at(scene, "committed", number * 3)
            committed = scene.committed()
            scene.start().wait_ready(READY_S_MAX)
            restored = {line["partition"]: line["offset"] for line in lines(scene.worker, "restored")}
            assert committed == {partition: restored[partition] for partition in committed}
            assert metric(scene.worker, "streams_restore_records_total") > 0
            scene.recovers()
            scene.worker.kill()
        scene.start()
    scene.exactly_once()


# --- 3: it is told to stop --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(row=3, what="graceful stop (SIGTERM)")
def test_a_stopped_worker_leaves_within_its_grace_time_and_no_transaction_open(scene: Scene) -> None:
    grace_s = 30.0  # as in docker-compose.yml
    with scene.load():
        scene.start().wait_ready(READY_S_MAX)
        for _ in range(5):
            scene.flows()
            began = time.monotonic()
            assert scene.worker.terminate() == 0, scene.worker.printed()[-3000:]
            took_s = time.monotonic() - began
            scene.struck()
            assert took_s < grace_s, f"{took_s:.1f} s"
            assert open_transactions(scene.stack) == {}
            scene.start().wait_ready(READY_S_MAX)
            scene.recovers()
    scene.exactly_once()


# --- 4: a zombie ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@BOTH_FLOWS
@pytest.mark.fault(row=4, what="zombie: frozen beyond the session timeout, then woken")
def test_a_zombie_is_fenced_or_rejoins_cleanly(make_scene: MakeScene) -> None:
    scene = make_scene("a", "b")
    zombie, heir = scene.workers
    with scene.load():
        scene.start(zombie).wait_ready(READY_S_MAX)
        for _ in range(3):
            scene.start(heir).wait_ready(READY_S_MAX)
            scene.flows()
            losses_before = len(lines(zombie, LOST))
            with frozen(zombie.pid):
                scene.struck()
                takes_over(scene, heir)
            assert_is_fenced_or_rejoins(scene, zombie, losses_before)
            scene.lifted()
            scene.recovers()
            assert heir.terminate() == 0, heir.printed()[-3000:]
    scene.exactly_once(zombie)


def takes_over(scene: Scene, heir: Worker) -> None:
    """Wait until the heir has all partitions, and all is committed that was in the log when the other one froze."""

    def has_all() -> bool:
        return {one for line in lines(heir, "assigned") for one in line["partitions"]} == set(range(PARTITIONS))

    wait_until(has_all, "the heir is given all partitions", timeout_s=READY_S_MAX)
    scene.recovers()


def assert_is_fenced_or_rejoins(scene: Scene, zombie: Worker, losses_before: int) -> None:
    """Rejoined is who was assigned partitions after the loss, and works on them."""

    def decided() -> bool:
        if not zombie.is_running:
            return True
        losses, gains = lines(zombie, LOST), lines(zombie, "assigned")
        return (
            len(losses) > losses_before
            and gains[-1]["timestamp"] > losses[-1]["timestamp"]
            and zombie.readiness()[0] == 200
        )

    wait_until(decided, "the zombie goes, or works again", timeout_s=READY_S_MAX)
    if zombie.is_running:
        scene.note("rejoined")
    else:
        assert zombie.wait_ended() == FENCED, zombie.printed()[-3000:]
        scene.note("fenced")
        scene.start(zombie).wait_ready(READY_S_MAX)


@pytest.mark.slow
@pytest.mark.fault(row=4, what="zombie with a commit in flight, nobody takes over")
def test_a_zombie_that_comes_back_before_its_commit_does_owns_what_it_is_given(scene: Scene) -> None:
    """Its partitions are lost, and assigned again, while the commit holds up what the loss asks for."""
    with scene.load():
        scene.start(STREAMS_FAILPOINT="stall:journalled:5").wait_ready(READY_S_MAX)
        worker = scene.worker
        wait_until(lambda: worker.said("failpoint reached"), "a commit stalls")
        with frozen(worker.pid):
            for_seconds(SESSION_TIMEOUT_MS / 1000 + 3, lambda: worker.is_running, "it is frozen")
        scene.struck()
        wait_until(lambda: lines(worker, LOST), "the zombie notices")
        wait_until(lambda: len(lines(worker, "assigned")) > 1, "its partitions are assigned again")
        assert not lines(worker, ABORTED), "the commit came back first: nothing is tested"
        wait_until(lambda: lines(worker, ABORTED), "the commit is given up")
        scene.recovers()
    scene.exactly_once()


# --- 5: a storm of rebalances -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@BOTH_FLOWS
@pytest.mark.fault(row=5, what="rebalance storm: 20 joins, 20 leaves")
def test_a_partition_has_one_owner_at_any_time_in_a_storm_of_rebalances(make_scene: MakeScene) -> None:
    """Five guests take turns, each away for longer than the group keeps a place: every return is a true join."""
    scene = make_scene("a", "b", "c", "d", "e", "f")
    resident, *guests = scene.workers
    chance = random.Random(SEED)
    deaths: dict[str, list[float]] = {}
    with scene.load():
        scene.start(resident).wait_ready(READY_S_MAX)
        for number in range(20):
            guest = guests[number % len(guests)]
            scene.start(guest)
            waits = chance.random() < 0.7
            if waits:
                guest.wait_ready(READY_S_MAX)
            time.sleep(chance.uniform(0.0, 2.0))  # a moment of chance
            if chance.random() < 0.5:
                # One that is stopped before it has begun ends as a process does that cannot say anything yet.
                clean = {0} if waits else {0, TERMINATED, -signal.SIGTERM}
                assert guest.terminate() in clean, guest.printed()[-3000:]
            else:
                guest.kill()
            deaths.setdefault(guest.log.name, []).append(time.time())
            scene.struck()
        scene.recovers()
    assert_one_owner(scene.workers, deaths)
    scene.exactly_once(resident)


def assert_one_owner(workers: list[Worker], deaths: dict[str, list[float]]) -> None:
    """No partition was consumed by two workers at a time, by what they said of their assignments, and when."""
    held: dict[int, list[tuple[float, float, str]]] = {}
    for worker in workers:
        for partition, begin, end in tenures(worker, deaths.get(worker.log.name, [])):
            held.setdefault(partition, []).append((begin, end, worker.log.name))
    assert set(held) == set(range(PARTITIONS))
    assert sum(map(len, held.values())) > 2 * PARTITIONS, "no partition ever moved"
    for partition, spans in held.items():
        for one, next_one in pairwise(sorted(spans)):
            assert one[1] <= next_one[0], f"partition {partition}: {one} and {next_one}"


def tenures(worker: Worker, deaths: list[float]) -> list[tuple[int, float, float]]:
    """(partition, from, to) of each time that a worker had a partition."""
    ended = ("revoked", LOST)
    events = [
        (datetime.fromisoformat(line["timestamp"]).timestamp(), line["event"], line["partitions"])
        for event in ("assigned", *ended)
        for line in lines(worker, event, all_runs=True)
    ]
    events += [(death, "dead", list(range(PARTITIONS))) for death in deaths]
    since: dict[int, float] = {}
    found = []
    for at, event, partitions in sorted(events):
        for partition in partitions:
            if event == "assigned":
                since[partition] = at
            elif partition in since:
                found.append((partition, since.pop(partition), at))
    return found + [(partition, begin, time.time()) for partition, begin in since.items()]


# --- 6: the transaction is open for too long --------------------------------------------------------------------------


@pytest.mark.slow  # in short: tests/integration/test_transactions.py, what was open for longer than the broker allows
@pytest.mark.fault(row=6, what="transaction timeout: stalled")
@pytest.mark.parametrize("step", ["produced", "journalled", "offsets_sent"])
def test_a_batch_runs_again_when_the_broker_has_aborted_its_transaction(scene: Scene, step: str) -> None:
    with scene.load():
        scene.start(STREAMS_FAILPOINT=f"stall:{step}:5").wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        wait_until(lambda: scene.worker.said("failpoint reached"), "it stalls")
        scene.struck()
        wait_until(lambda: lines(scene.worker, ABORTED), "the cycle is aborted")
        scene.lifted()
        scene.recovers()
        assert pid == scene.worker.pid
        aborts = [line["reason"] for line in lines(scene.worker, ABORTED)]
        assert len(aborts) == 1
        scene.note(aborts[0])
    scene.exactly_once()


# --- 22: a release takes longer than the group waits ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault(row=22, what="release slower than the revoke timeout, another worker takes over")
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_nothing_of_a_partition_is_committed_once_it_was_given_away(make_scene: MakeScene, protocol: str) -> None:
    """The commit thread stalls for 40 s; the group waits 10 s and gives partitions to a worker without state."""
    scene = make_scene("a", "b", environment={"STREAMS_GROUP_PROTOCOL": protocol})
    slow, heir = scene.workers
    with scene.load():
        scene.start(slow, STREAMS_FAILPOINT="stall:committed:40").wait_ready(READY_S_MAX)
        wait_until(lambda: slow.said("failpoint reached"), "a commit stalls")
        scene.struck()
        scene.start(heir)
        wait_until(lambda: slow.said("releasing partitions takes long"), "the group goes on")
        wait_until(heir.partitions, "the other worker restores what it was given")
        wait_until(lambda: lines(slow, ABORTED), "the cycle with partitions of others is given up")
        scene.lifted()
        scene.recovers()
        # Who notices first, the worker or the broker, is a matter of timing.
        assert lines(slow, ABORTED)[0]["reason"] in {"partitions_lost", "illegal_generation"}
        assert not [line for worker in (slow, heir) for line in lines(worker, "state cannot be restored")]
        kept, taken = slow.partitions(), heir.partitions()
        assert kept
        assert taken
        assert not kept & taken
    scene.exactly_once(heir)
