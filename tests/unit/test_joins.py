"""Joins of two inputs: what is joined follows from the logs, whichever input is read first, and whatever happens."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from streams import Flow, join_interval, join_latest, join_table, source, table
from streams.batch.moved import MOVED_HEADER
from streams.flow.topics import Cleanup
from streams.kafka.partitioner import partition_of
from streams.operators.join.latest import JoinLatestOperator
from streams.testing import Crash, FlowDriver
from tests.joined import JOINED, NONE, Interval, Latest, Model, Table, columns, place_of, rows_of
from tests.merged import NAMES, Fed, feed, random_logs, schemas_of

MODELS: Final[dict[str, Model]] = {
    "table": Table(),
    "table, with history": Table(history_ms=8_000),
    "table, with history and ttl": Table(history_ms=3_000, ttl_ms=2_000),
    "table, as of arrival": Table("arrival", outer=False),
    "table, as of arrival, with ttl": Table("arrival", ttl_ms=4_000),
    "latest": Latest(4_000, outer=True),
    "latest, inner": Latest(4_000, outer=False),
    "latest, with grace": Latest(2_000, grace_ms=6_000),
    "interval": Interval(300, 900),
    "interval, inner": Interval(2_000, 3_000, outer=False),
    "interval, one-sided": Interval(0, 700, grace_ms=2_000),
    "interval, few matches": Interval(2_000, 2_000, matches_max=1),
}


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    return schemas_of(tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_order_of_arrival_changes_nothing(schemas: Path, model: Model) -> None:
    matched: set[bool] = set()
    for seed in range(3):
        logs = random_logs(random.Random(seed), events=60)
        wanted = model.due(logs, 2)
        matched |= {row[-1] != NONE for row in wanted}
        for interleaving in range(2):
            driver = FlowDriver(model.flow(), schemas=schemas, partitions=2)
            feed(driver, logs, random.Random(interleaving))
            assert rows_of(driver) == wanted, (seed, interleaving)
    assert matched == ({True, False} if model.outer else {True})


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_crashes_spills_and_an_empty_disk_change_nothing(schemas: Path, model: Model) -> None:
    for seed in range(5, 7):
        rng = random.Random(seed)
        logs = random_logs(rng, events=40)
        driver = FlowDriver(model.flow(), schemas=schemas, partitions=2)
        feed(driver, logs, rng, crash=rng.choice(list(Crash)), lose_disk=True, spill=True, expire=True)
        assert rows_of(driver) == model.due(logs, 2), seed


DAY_MS = 86_400_000


@pytest.mark.parametrize("kind", ["latest", "interval", "table"])
@pytest.mark.parametrize("ahead", NAMES)
def test_clocks_that_are_a_day_apart_change_nothing_but_what_matches(schemas: Path, kind: str, ahead: str) -> None:
    """What is ahead waits in the merge, and in the store, until the other input has come so far, or is idle."""
    model, rng = MODELS[kind], random.Random(7)
    logs = random_logs(rng, events=40, begins=(10_000,))
    apart = {
        name: [replace(one, time=one.time + DAY_MS * (name == ahead)) for one in log] for name, log in logs.items()
    }
    behind = next(name for name in NAMES if name != ahead)
    last = max(one.time for one in apart[ahead])
    caught_up = {**apart, behind: [*apart[behind], *(Fed(behind, key, last, 1) for key in "abcd")]}
    driver = FlowDriver(model.flow(), schemas=schemas, partitions=2)
    feed(driver, caught_up, rng, spill=True)
    assert rows_of(driver) == model.due(caught_up, 2)
    assert rows_of(driver)


@pytest.mark.parametrize("loses_disk", [False, True])
def test_an_input_that_is_silent_for_an_hour_holds_up_nothing_and_is_joined_again(
    schemas: Path, *, loses_disk: bool
) -> None:
    driver = FlowDriver(Latest(1_800_000).flow(), schemas=schemas)
    hour = 3_600_000

    def found() -> dict[int, int]:
        return {row[1]: row[-1] for row in rows_of(driver)}

    driver.feed(Fed("right", "a", 10_000, 1).event(), of="right")
    driver.feed(Fed("left", "a", 20_000, 1).event(), of="left")
    for minute in range(5, 65, 5):  # the right input is silent, the left one is not
        driver.feed(Fed("left", "a", minute * 60_000, minute).event(), of="left")
        driver.advance("61s")
    assert found()[20_000] == place_of(10_000, 1)
    assert found()[300_000] == place_of(10_000, 1)
    assert found()[45 * 60_000] == NONE  # what it has said is too old by then
    if loses_disk:
        driver.lose_disk()
    for name, time in (("right", hour + 600_000), ("left", hour + 601_000)):
        driver.feed(Fed(name, "a", time, 2).event(), of=name)
    driver.advance("10m")
    assert found()[hour + 601_000] == place_of(hour + 600_000, 2)
    assert len(found()) == 14


def test_left_events_without_a_match_come_out_when_time_passes(schemas: Path) -> None:
    driver = FlowDriver(Interval(1_000, 2_000, grace_ms=1_000).flow(), schemas=schemas)
    driver.feed(Fed("left", "a", 100_000, 1).event(), of="left")
    driver.feed(Fed("right", "b", 100_500, 1).event(), of="right")
    driver.crash()
    driver.advance("61s")  # idle time: what is held comes out a second later, and what is closed three seconds later
    assert rows_of(driver) == []
    driver.lose_disk()
    driver.advance("10s")
    assert rows_of(driver) == [("a", 100_000, 1, NONE)]


def test_what_is_too_old_to_match_is_forgotten(schemas: Path) -> None:
    driver = FlowDriver(Latest(4_000).flow(), schemas=schemas)

    def kept() -> tuple[int, int]:
        (task,) = driver._engine.tasks.values()
        task.maintenance.spill(below=task.watermark, rows_keep=0, keep_keys=True)
        task.maintenance.expire()
        joined = task.operators[f"join.{JOINED}"]
        assert isinstance(joined, JoinLatestOperator)
        return joined.in_memory()[f"join.{JOINED}.right"], sum(len(rows) for _, rows in joined.right._stored.all())

    def both(time: int) -> None:
        for name in NAMES:
            driver.feed(Fed(name, "b", time, 1).event(), of=name)

    driver.feed(Fed("right", "a", 10_000, 1).event(), of="right")
    both(16_000)
    assert kept() == (1, 1)
    both(40_000)
    both(60_000)
    assert kept() == (0, 0)  # that of b at 40,000 neither; the one at 60,000 waits for the other input
    assert partition_of(b"a", 1) == 0


def test_a_join_has_two_inputs() -> None:
    plain = source("a.v1", key="key").deduplicate().reorder()
    with pytest.raises(ValueError, match="two streams"):
        join_latest(a=plain, within="1s", to=JOINED, columns=columns)
    with pytest.raises(ValueError, match="two streams"):
        join_interval(a=plain, before="1s", after="1s", to=JOINED, columns=columns)


def test_the_number_of_matches_is_bounded() -> None:
    streams = {name: source(f"{name}.v1", key="key").deduplicate().reorder() for name in NAMES}
    with pytest.raises(ValueError, match="from 1 to 10000"):
        join_interval(**streams, before="1s", after="1s", to=JOINED, columns=columns, matches_max=10_001)  # type: ignore[arg-type]


def test_a_row_that_is_deleted_matches_nothing_until_there_is_another_one(schemas: Path) -> None:
    driver = FlowDriver(Table(outer=True).flow(), schemas=schemas)
    begin = 1_704_067_200_000
    """A deletion's time is its record's timestamp, which has to be one (ADR 16)."""

    def seen(after: int) -> int:
        """Which row an order of this time sees."""
        time = begin + after
        driver.feed(Fed("left", "a", time, 1).event(), of="left")
        for name in NAMES:
            driver.feed(Fed(name, "b", time + 20_000, 1).event(), of=name)
        return {row[1]: row[-1] for row in rows_of(driver) if row[0] == "a"}[time]

    driver.feed(Fed("right", "a", begin + 100_000, 1).event(), of="right")
    assert seen(101_000) == place_of(begin + 100_000, 1)
    driver.feed_raw(None, key=b"a", timestamp_ms=begin + 140_000, of="right")
    driver.feed_raw(None, key=b"a", timestamp_ms=begin + 141_000, of="right", headers={MOVED_HEADER: b"2-1"})
    driver.feed_raw(None, key=b"", timestamp_ms=begin + 141_000, of="right")
    assert seen(150_000) == NONE
    driver.lose_disk()
    assert seen(190_000) == NONE
    driver.feed(Fed("right", "a", begin + 230_000, 2).event(), of="right")
    assert seen(231_000) == place_of(begin + 230_000, 2)
    assert [letter.reason for letter in driver.dead_letters()] == ["not_framed"]


def test_a_table_is_declared_as_one() -> None:
    plain: dict[str, Any] = {name: source(f"{name}.v1", key="key").deduplicate().reorder() for name in NAMES}
    rows = table("rows.v1", key="key")
    with pytest.raises(ValueError, match="right is no table"):
        join_table(**plain, to=JOINED, columns=columns)
    with pytest.raises(ValueError, match="one of event_time, arrival"):
        join_table(left=plain["left"], right=rows, to=JOINED, columns=columns, as_of="now")
    with pytest.raises(ValueError, match="the first stream leads, and is no table"):
        join_table(left=rows, right=table("more.v1", key="key"), to=JOINED, columns=columns)
    flow = Flow("joined", join_table(left=plain["left"], right=rows, to=JOINED, columns=columns))
    (read,) = (topic for topic in flow.pipeline.topics() if topic.name == "rows.v1")
    assert read.cleanup is Cleanup.COMPACT
