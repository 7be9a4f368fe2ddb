"""Left events that have no value to be joined by: an outer join passes them, an inner one does not."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams import Flow, join_latest, source
from streams.engine.effects import Effects
from streams.flow import merging
from streams.testing import Crash, FlowDriver
from tests.joined import JOINED, KEYLESS, NONE, Interval, Latest, Model, Table, columns, place_of, rows_of, streams_of
from tests.merged import Fed, feed, random_logs, schemas_of

INTERNAL = "pair.key_by.note"
MODELS: dict[str, Model] = {
    "latest": Latest(4_000, grace_ms=2_000),
    "interval": Interval(2_000, 3_000),
    "interval, few matches": Interval(2_000, 2_000, matches_max=1),
    "table": Table(history_ms=3_000),
    "table, as of arrival": Table("arrival"),
}
INNER: dict[str, Model] = {
    "latest": Latest(4_000, outer=False),
    "interval": Interval(2_000, 3_000, outer=False),
    "table": Table(outer=False),
}


@dataclass(frozen=True)
class Noted(Fed):
    """A left event, which is joined by its note."""

    note: str | None = None

    def event(self) -> dict[str, Any]:
        return super().event() | {"note": self.note}


@dataclass(frozen=True)
class Moved(Fed):
    """A left event in the internal topic."""

    own_id: str = ""

    @property
    def id(self) -> str:
        return self.own_id


def noted_logs(rng: random.Random, events: int) -> dict[str, Sequence[Fed]]:
    """Left events have keys of their own that right events have too, and notes; some have none."""
    logs = random_logs(rng, events=events)
    left: list[Fed] = []
    for one in logs["left"]:
        if rng.random() < 0.3:
            nothing = rng.choice((None, None, ""))
            left.append(Noted("left", one.key, one.time, one.sequence + KEYLESS, nothing))
        else:
            left.append(Noted("left", one.key, one.time, one.sequence, rng.choice("abcd")))
    return {"left": left, "right": logs["right"]}


def moved(driver: FlowDriver, logs: Mapping[str, Sequence[Fed]]) -> dict[str, Sequence[Fed]]:
    """The logs that the join reads: those of the internal topic and of the right events."""
    left = [
        Moved(
            "left",
            (record.key or b"").decode(),
            round(one["event_time"].timestamp() * 1_000),
            one["sequence"],
            one["event_id"],
        )
        for record in driver.read(INTERNAL)
        for one in (record.fields,)
    ]
    return {"left": left, "right": logs["right"]}


def count(driver: FlowDriver, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the stage before the join counts beside the outcomes of events, from now on."""
    (stage,) = driver._stages
    write, found = stage._committer.write, Counter[str]()

    def counting(effects: Effects) -> None:
        for part in effects.partitions:
            found.update({outcome: number for (_, outcome), number in part.beside.items()})
        write(effects)

    monkeypatch.setattr(stage._committer, "write", counting)
    return found


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    return schemas_of(tmp_path)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_outer_join_passes_them_in_an_order_that_follows_from_the_logs(schemas: Path, model: Model) -> None:
    seen: set[tuple[bool, bool]] = set()
    for seed in range(3):
        logs = noted_logs(random.Random(seed), 60)
        for interleaving in range(2):
            driver = FlowDriver(model.flow(by_note=True), schemas=schemas, partitions=2)
            feed(driver, logs, random.Random(interleaving))
            wanted = model.due(moved(driver, logs), 2)
            assert rows_of(driver) == wanted, (seed, interleaving)
            seen |= {(row[2] >= KEYLESS, row[-1] != NONE) for row in wanted}
            assert not driver.dead_letters()
    assert seen == {(True, False), (False, True), (False, False)}
    """Without a value and unmatched, with one and matched, with one and unmatched."""


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_crashes_spills_and_an_empty_disk_change_nothing(schemas: Path, model: Model) -> None:
    for seed in range(2):
        rng = random.Random(seed)
        logs = noted_logs(rng, 40)
        driver = FlowDriver(model.flow(by_note=True), schemas=schemas, partitions=2)
        feed(driver, logs, rng, crash=rng.choice(list(Crash)), lose_disk=True, spill=True, expire=True)
        read = moved(driver, logs)
        assert rows_of(driver) == model.due(read, 2), seed
        ids = [one.id for one in read["left"]]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("model", INNER.values(), ids=INNER)
def test_an_inner_join_counts_and_drops_them(schemas: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = noted_logs(random.Random(4), 60)
    driver = FlowDriver(model.flow(by_note=True), schemas=schemas, partitions=2)
    counts = count(driver, monkeypatch)
    feed(driver, logs, random.Random(1))
    read = moved(driver, logs)
    assert counts["null_key"] > 5
    assert not any(one.sequence >= KEYLESS for one in read["left"])
    assert rows_of(driver) == model.due(read, 2)


def test_the_row_has_the_key_that_the_event_had_and_the_field_is_null(
    schemas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = FlowDriver(Latest(4_000).flow(by_note=True), schemas=schemas)
    counts = count(driver, monkeypatch)
    driver.feed(Fed("right", "a", 10_000, 1).event(), of="right")
    driver.feed(Noted("left", "a", 10_500, KEYLESS).event(), Noted("left", "b", 10_500, 1, "a").event(), of="left")
    for _ in range(3):
        driver.advance("2m")
    rows = {record.fields["sequence"]: (record.key, record.fields) for record in driver.read(JOINED)}
    assert rows[KEYLESS][0] == b"a"
    assert (rows[KEYLESS][1]["key"], rows[KEYLESS][1]["input"]) == ("", 0)  # `columns` says: the note is null
    assert rows[1][0] == b"a"
    assert rows[1][1]["input"] == 1
    assert counts["null_key"] == 1


def test_an_event_that_an_earlier_version_holds_is_joined_by_its_key(
    schemas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(merging, "passing_null_keys", lambda stream: stream)  # the field was no text of the left stream
        before = FlowDriver(Latest(4_000).flow(by_note=True), schemas=schemas)
    before.feed(Fed("right", "a", 10_000, 1).event(), of="right")
    before.feed(Noted("left", "b", 10_500, 1, "a").event(), Noted("left", "b", 20_000, 2, "d").event(), of="left")
    assert len(before.read(INTERNAL)) == 1
    after = FlowDriver(Latest(4_000).flow(by_note=True), schemas=schemas)
    after._kafka, after._disk, after._stages, after._taken = before._kafka, {0: {}}, before._stages, before._taken
    after._start()
    for _ in range(3):
        after.advance("2m")
    assert rows_of(after)[0] == ("a", 10_500, 1, place_of(10_000, 1))


def test_only_the_left_side_of_an_outer_join_keeps_them() -> None:
    streams = streams_of(by_note=True)
    given: Any = {"left": streams["right"], "right": streams["left"]}
    for outer, wanted in ((True, False), (False, False)):
        flow = Flow("pair", join_latest(**given, within="1s", to=JOINED, columns=columns, outer=outer))
        (stage,) = flow.stages
        assert "passes_null=True" not in repr(stage.plan) or wanted
    passing = Latest(1_000).flow(by_note=True)
    assert "passes_null=True" in repr(passing.stages[0].plan)
    assert passing.pipeline.inputs[0].text_fields == ("key", "note")


def test_a_field_is_still_named_once_by_a_source() -> None:
    with pytest.raises(ValueError, match="named twice"):
        Flow("plain", source("a.v1", key="key", texts=("key",)).deduplicate().reorder().to("b.v1"))
