"""The as-of join: what each left event is joined with follows from the logs, whichever input is read first."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streams import Flow, join_latest, source
from streams.batch.columns import Objects
from streams.batch.rows import Rows
from streams.kafka.partitioner import partition_of
from streams.testing import Crash, FlowDriver
from tests.merged import LATENESS_MS, NAMES, Fed, expected, feed, random_logs, schemas_of

JOINED = "seen.v1"
WITHIN_MS = 4_000


def columns(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Of the schema of `tests.merged.SEEN`: the input column says whether there is a right event."""
    matched = np.ascontiguousarray(rows["matched"])
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array(keys, pa.binary()).cast(pa.string()),
            "input": pa.array(matched.astype(np.int64)),
            "time": pa.array(np.ascontiguousarray(rows["event_time"])),
            "sequence": pa.array(np.ascontiguousarray(rows["sequence"])),
            "watermark": pa.array(np.where(matched, rows["right.event_time"], -1)),
        }
    )


def joined_flow(*, outer: bool) -> Flow:
    streams = {
        name: source(
            f"{name}.v1", key="key", fields=("value",), texts=("note",), out_of_orderness=f"{LATENESS_MS}ms", idle="1m",
            skew="1h",
        ).deduplicate("24h").reorder()
        for name in NAMES
    }  # fmt: skip
    return Flow("pair", join_latest(**streams, within=f"{WITHIN_MS}ms", to=JOINED, columns=columns, outer=outer))


def due(logs: Mapping[str, Sequence[Fed]], *, outer: bool) -> list[tuple[str, int, int, int]]:
    """Key, time, sequence and the right event's time of each row (-1: none), by one merged event at a time."""
    latest: dict[str, int] = {}
    rows: list[tuple[str, int, int, int]] = []
    for _, (name, key, time, sequence) in expected(logs):
        if name == "right":
            latest[key] = time
            continue
        since = latest.get(key)
        matches = since is not None and time - WITHIN_MS <= since <= time
        if matches or outer:
            rows.append((key, time, sequence, since if matches and since is not None else -1))
    return rows


def rows_of(driver: FlowDriver) -> list[tuple[Any, ...]]:
    found = [record.fields for record in driver.read(JOINED)]
    return [(row["key"], row["time"], row["sequence"], row["watermark"]) for row in found]


@pytest.mark.parametrize("outer", [True, False])
def test_each_left_event_is_joined_with_the_latest_right_one(tmp_path: Path, outer: bool) -> None:
    schemas = schemas_of(tmp_path)
    for seed in range(2):
        rng = random.Random(seed)
        logs = random_logs(rng, events=60)
        wanted = due(logs, outer=outer)
        assert any(row[-1] >= 0 for row in wanted)
        assert not outer or any(row[-1] < 0 for row in wanted)
        for interleaving in range(2):
            driver = FlowDriver(joined_flow(outer=outer), schemas=schemas, partitions=2)
            feed(driver, logs, random.Random(interleaving))
            assert rows_of(driver) == wanted, (seed, interleaving)


def test_it_goes_on_after_crashes_spills_and_on_an_empty_disk(tmp_path: Path) -> None:
    schemas = schemas_of(tmp_path)
    rng = random.Random(5)
    logs = random_logs(rng, events=60)
    driver = FlowDriver(joined_flow(outer=True), schemas=schemas, partitions=2)
    feed(driver, logs, rng, crash=Crash.COMMITTED, lose_disk=True, spill=True)
    assert rows_of(driver) == due(logs, outer=True)


def test_what_is_too_old_to_match_is_forgotten(tmp_path: Path) -> None:
    driver = FlowDriver(joined_flow(outer=True), schemas=schemas_of(tmp_path))

    def stored() -> int:
        (task,) = driver._engine.tasks.values()
        task.maintenance.expire()
        return len(list(task.operators[f"join.{JOINED}"]._space.scan()))  # type: ignore[attr-defined]

    def both(time: int) -> None:
        for name in NAMES:
            driver.feed(Fed(name, "b", time, 1).event(), of=name)

    driver.feed(Fed("right", "a", 10_000, 1).event(), of="right")
    both(16_000)
    assert stored() == 1
    both(40_000)
    both(60_000)
    assert stored() == 0  # that of b at 40,000 neither; the one at 60,000 waits for the other input
    assert partition_of(b"a", 1) == 0


def test_a_join_has_two_inputs() -> None:
    plain = source("a.v1", key="key").deduplicate().reorder()
    with pytest.raises(ValueError, match="two streams"):
        join_latest(a=plain, within="1s", to=JOINED, columns=columns)
