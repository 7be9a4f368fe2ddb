"""Row 34: sinks are killed, zombies wake; the broker is killed, and targets are killed, frozen, full or away."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from streams.local.stack import Stack
from tests.databases import Postgres
from tests.faults.disk import SmallDisk
from tests.faults.harness import RECOVERY_S_MAX, Result
from tests.faults.sinks import SinkLoad, SinkScene, sink_scene_of
from tests.integration.workers import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS: Final = 20
BLOWS: Final = 5
FREEZE_S: Final = 5.0
AWAY_S: Final = 600.0
INTO_POSTGRES: Final = ("minutes", "vehicles")
INTO_ALL: Final = ("minutes", "vehicles", "lake", "lake-vehicles", "posts", "hook")


@pytest.fixture
def scene(stack: Stack, tmp_path: Path, postgres: Postgres, result: Result) -> Iterator[SinkScene]:
    with sink_scene_of(stack, tmp_path, postgres, result) as made:
        yield made


@pytest.mark.timeout(900)
@pytest.mark.fault(row=34, what="sink killed")
@pytest.mark.parametrize(
    ("name", "processes"),
    [
        pytest.param("minutes", 2, id="PostgreSQL, rows"),
        pytest.param("vehicles", 2, id="PostgreSQL, table"),
        pytest.param("lake", 2, id="Delta, rows"),
        pytest.param("lake-vehicles", 1, id="Delta, table"),
        pytest.param("posts", 2, id="HTTP, rows"),
        pytest.param("hook", 2, id="HTTP, table"),
    ],
)
def test_sinks_that_are_killed_again_and_again_lose_and_double_nothing(
    scene: SinkScene, name: str, processes: int
) -> None:
    chance = random.Random(name)
    with SinkLoad(scene.yard):
        living = scene.start(*[name] * processes)
        for number in range(KILLS):
            time.sleep(chance.uniform(0, 3))
            living.pop(chance.randrange(processes)).kill()
            scene.struck()
            living.append(scene.yard.sink(name))
            if number % 5 == 4:
                scene.recovers(name)
    scene.each_once(name)
    if again := scene.sent_again():
        scene.note(f"{again} rows sent again, with their ids")


@pytest.mark.fault(row=34, what="PostgreSQL killed under sinks")
def test_a_database_that_is_killed_again_and_again_has_every_row_once(scene: SinkScene) -> None:
    with SinkLoad(scene.yard):
        living = scene.start(*INTO_POSTGRES)
        for _ in range(BLOWS):
            time.sleep(2)
            scene.postgres.kill()
            time.sleep(2)
            scene.postgres.start()
            scene.struck()
            scene.recovers(*INTO_POSTGRES)
    scene.each_once(*INTO_POSTGRES)
    assert [sink.stop() for sink in living] == [0, 0]


@pytest.mark.fault(row=34, what=f"PostgreSQL frozen for {FREEZE_S:.0f} s under sinks")
def test_a_database_that_is_frozen_again_and_again_has_every_row_once(scene: SinkScene) -> None:
    with SinkLoad(scene.yard):
        living = scene.start(*INTO_POSTGRES)
        for _ in range(BLOWS):
            time.sleep(2)
            with scene.postgres.frozen():
                time.sleep(FREEZE_S)
            scene.struck()
            scene.recovers(*INTO_POSTGRES)
    scene.each_once(*INTO_POSTGRES)
    assert [sink.stop() for sink in living] == [0, 0]


@pytest.mark.timeout(900)
@pytest.mark.fault(row=34, what="broker killed under sinks into PostgreSQL, Delta and HTTP")
def test_a_broker_that_is_killed_under_sinks_loses_and_doubles_nothing(scene: SinkScene) -> None:
    with SinkLoad(scene.yard) as load:
        living = scene.start(*INTO_ALL)
        for _ in range(BLOWS):
            time.sleep(2)
            scene.yard.stack.restart_kafka(signal.SIGKILL)
            scene.struck()
            scene.recovers(*INTO_ALL)
    scene.each_once(*INTO_ALL)
    scene.note(
        f"{load.interrupted} transactions of the producer interrupted; HTTP: {scene.sent_again()} rows sent again, "
        "with their ids"
    )
    for sink in living:
        assert sink.stop() == 0, sink.log.read_text()[-3000:]


@pytest.mark.fault(row=34, what="disk of a Delta table full, then enlarged")
def test_a_full_disk_at_the_target_stalls_its_sink_only(scene: SinkScene) -> None:
    with SmallDisk(scene.yard.folder / "lake", mb=32) as disk:
        rows, other = scene.start("lake", "hook")
        scene.yard.minutes(100)
        scene.recovers("lake")
        scene.result.recover_s.clear()
        disk.fill()
        scene.yard.minutes(300)
        scene.yard.states(100)
        wait_until(lambda: rows.ready()[0] == 503, "the outage is said", timeout_s=90)
        assert "No space left" in rows.ready()[1]
        table = scene.copies["hook"]
        wait_until(lambda: table.reaches(table.expected()), "the other sink goes on")
        assert other.ready()[0] == 200
        disk.enlarge(mb=64)
        scene.struck()
        scene.recovers("lake")
        scene.each_once("lake", "hook")
        assert other.ready()[0] == 200
        assert [rows.stop(), other.stop()] == [0, 0]


@pytest.mark.fault(row=34, what="zombie: a sink frozen until its partitions have moved, then woken")
@pytest.mark.parametrize("name", [pytest.param("minutes", id="PostgreSQL"), pytest.param("lake", id="Delta")])
def test_a_zombie_that_wakes_up_after_its_partitions_moved_writes_nothing(scene: SinkScene, name: str) -> None:
    (zombie,) = scene.start(name)
    scene.yard.minutes(300)
    wait_until(lambda: scene.copies[name].found().total() == 300, "the first rows are there")
    scene.yard.minutes(300)  # some are in the zombie's hands, most are not
    with zombie.frozen():
        scene.struck()
        scene.yard.minutes(300)
        heir = scene.yard.sink(name)
        scene.recovers(name)
    scene.yard.minutes(100)
    scene.each_once(name)
    assert [heir.stop(), zombie.stop()] == [0, 0]


@pytest.mark.timeout(1_500)
@pytest.mark.fault(row=34, what=f"PostgreSQL away for {AWAY_S / 60:.0f} minutes")
def test_a_database_that_is_away_for_long_hurts_no_other_sink_and_catches_up(scene: SinkScene) -> None:
    minutes, lake = scene.start("minutes", "lake")
    scene.yard.minutes(100)
    wait_until(lambda: scene.copies["minutes"].found().total() == 100, "the first rows are there")
    scene.postgres.kill()
    try:
        back_s = time.monotonic() + AWAY_S
        while time.monotonic() < back_s:
            scene.yard.minutes(100)
            time.sleep(5)
            assert lake.ready()[0] == 200
        expected = scene.copies["lake"].expected()
        wait_until(lambda: scene.copies["lake"].reaches(expected), "the other sink has all", timeout_s=RECOVERY_S_MAX)
        assert minutes.ready()[0] == 503
    finally:
        scene.postgres.start()
    scene.struck()
    scene.recovers("minutes")
    scene.each_once("minutes", "lake")
    assert [minutes.stop(), lake.stop()] == [0, 0]
