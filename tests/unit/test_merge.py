"""Several inputs of one flow: merged in an order that the logs alone decide, exactly once, through crashes."""

import random
from pathlib import Path

import pytest

from streams import Flow, merge, source
from streams.flow.builder import Stream
from streams.operators.merge.section import INPUT
from streams.testing import Crash, FlowDriver
from tests.merged import Fed, expected, feed, merged_flow, random_logs, schemas_of, seen


def test_events_of_two_sources_come_in_one_order_whichever_is_read_first(tmp_path: Path) -> None:
    schemas = schemas_of(tmp_path)
    for seed in range(3):
        rng = random.Random(seed)
        logs = random_logs(rng, events=40)
        wanted = expected(logs)
        assert wanted, "nothing to compare"
        for interleaving in range(3):
            driver = FlowDriver(merged_flow(), schemas=schemas, partitions=2)
            feed(driver, logs, random.Random(100 * seed + interleaving))
            assert seen(driver) == wanted, (seed, interleaving)


@pytest.mark.parametrize("at", [None, *Crash])
def test_a_crash_at_any_step_changes_nothing(tmp_path: Path, at: Crash | None) -> None:
    schemas = schemas_of(tmp_path)
    for seed in range(1):
        rng = random.Random(seed)
        logs = random_logs(rng, events=30)
        driver = FlowDriver(merged_flow(), schemas=schemas, partitions=2)
        feed(driver, logs, rng, crash=at, lose_disk=True)
        assert seen(driver) == expected(logs), seed


def test_what_waits_for_the_other_source_is_spilled_and_comes_back(tmp_path: Path) -> None:
    schemas = schemas_of(tmp_path)
    rng = random.Random(3)
    logs = random_logs(rng, events=60)
    driver = FlowDriver(merged_flow(), schemas=schemas, partitions=2)
    feed(driver, logs, rng, spill=True)
    assert seen(driver) == expected(logs)


def test_a_silent_source_keeps_the_other_waiting_until_it_counts_as_idle(tmp_path: Path) -> None:
    driver = FlowDriver(merged_flow(), schemas=schemas_of(tmp_path))
    feed_one = Fed("left", "a", 1_000, 1)
    driver.feed(feed_one.event(), of="left")
    driver.feed(Fed("left", "a", 9_000, 2).event(), of="left")
    assert seen(driver) == []
    driver.advance("59s")
    assert seen(driver) == []
    driver.advance("10s")
    assert [each for _, each in seen(driver)] == [("left", "a", 1_000, 1), ("left", "a", 9_000, 2)]


def test_an_input_that_begins_after_an_hour_of_silence_is_merged(tmp_path: Path) -> None:
    driver = FlowDriver(merged_flow(), schemas=schemas_of(tmp_path))
    for number in range(4):
        driver.feed(Fed("left", "a", 1_000 + 1_000 * number, number).event(), of="left")
    driver.advance("1h")
    before = len(seen(driver))
    assert before
    driver.feed(Fed("right", "a", 3_605_000, 1).event(), of="right")
    driver.feed(Fed("left", "a", 3_606_000, 9).event(), of="left")
    driver.advance("1h")
    assert [each for _, each in seen(driver)[-2:]] == [("right", "a", 3_605_000, 1), ("left", "a", 3_606_000, 9)]


def test_each_source_has_dead_letters_late_events_and_duplicates_of_its_own(tmp_path: Path) -> None:
    driver = FlowDriver(merged_flow(), schemas=schemas_of(tmp_path))
    driver.feed_raw(b"junk", key=b"a", of="right")
    driver.feed_raw(b"junk too", key=b"a", of="left")
    letters = [(one.record.topic, one.reason) for one in driver.dead_letters()]
    assert sorted(letters) == [("left.v1.dlq", "not_framed"), ("right.v1.dlq", "not_framed")]
    for name in ("left", "right"):
        driver.feed(Fed(name, "a", 50_000, 5).event(), Fed(name, "a", 50_000, 5).event(), of=name)
        driver.feed(Fed(name, "a", 90_000, 6).event(), of=name)
        driver.feed(Fed(name, "a", 40_000, 4).event(), of=name)
    driver.advance("10m")
    assert sorted(record.topic for record in driver.late()) == ["left.v1.late", "right.v1.late"]
    assert len(seen(driver)) == 4


def test_merged_fields_are_named_after_their_input() -> None:
    plan = merged_flow().plan
    assert plan.merge is not None
    fields = plan.fields_at(plan.steps[-1])
    assert fields.payload == (INPUT, "left.value", "right.value")
    assert fields.texts == ("left.note", "right.note")


def _plain(topic: str) -> Stream:
    return source(topic, key="key", fields=("value",)).deduplicate().reorder()


def test_what_cannot_be_merged_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="at least two"):
        merge(one=_plain("a.v1"))
    with pytest.raises(ValueError, match=r"merge: two is not source"):
        merge(one=_plain("a.v1"), two=source("b.v1", key="key").deduplicate())
    with pytest.raises(ValueError, match="each input is another topic"):
        merge(one=_plain("a.v1"), two=_plain("a.v1"))
    both = merge(one=_plain("a.v1"), two=_plain("b.v1"))
    with pytest.raises(ValueError, match="several schemas"):
        Flow("x", both.to("c.v1"))
