"""All partitions of a micro-batch in one call for each operator: what comes of it is what each alone comes to."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.batch.columns import object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_values
from streams.batch.rows import concat_rows, empty_rows, put_rows, rows_where
from streams.engine.config import TaskConfig
from streams.engine.cycle import Written
from streams.engine.effects import PartitionEffects, TaskCommit
from streams.engine.task import PartitionTask, run_together
from streams.flow.bounds import Bounds
from streams.state.memory import MemoryStore

FIELDS = Fields(GPS.payload_fields, GPS.text_fields)
PARTITIONS, ROUNDS, MINUTE_MS = 5, 25, 60_000


def tasks() -> list[PartitionTask]:
    config = TaskConfig(
        replace(GPS, bounds=Bounds(3_000, 10**9, quarantine_rejects=0)),
        lambda _: nullcontext(),
        lambda keys: np.array([key[0] for key in keys], dtype=np.int64),
    )
    return [PartitionTask(config, partition, MemoryStore(), None) for partition in range(PARTITIONS)]


def some_events(rng: np.random.Generator, partition: int, now_ms: int) -> Events:
    """None, a few, or many, of keys of one partition; some late, some after a silence, some of unknown speed."""
    count = int(rng.choice([0, 1, 2, 7, 40]))
    times = now_ms + rng.integers(-20_000, 40_000, count)
    number = rng.integers(0, 1 << 40, count).astype(np.int64)
    payload = rng.random((len(FIELDS.payload), count)) * 50
    payload[FIELDS.payload.index("speed_kmh")] -= 10.0
    return Events(
        row=np.arange(count),
        timestamp_ms=times,
        event_time=times,
        sequence=number % 50,
        event_id=objects([b"e%d" % i for i in number]),
        id_hi=number.astype(np.uint64),
        id_lo=number.astype(np.uint64),
        id_word=(2 * times + 2).astype(np.uint64),
        key=objects([bytes([partition, key]) for key in rng.integers(0, 4, count)]),
        value=objects([b"v%d" % i for i in number]),
        headers=None,
        payload=payload,
        texts=object_rows([objects([b"t"] * count)] * len(FIELDS.texts), count),
        slot=np.full(count, -1),
        fields=FIELDS,
    )


def told(effects: PartitionEffects) -> Any:
    records = [(one.topic, one.outcome, byte_values(one.events.event_id)) for one in effects.records]
    return effects.partition, records, dict(effects.dropped), dict(effects.found)


def committed(task: PartitionTask) -> Any:
    commit: TaskCommit | None = task.cycle.close()
    if commit is None:
        return None
    task.cycle.applied(commit, Written(commit.cycle, commit.cycle + 1, {}))
    rows = [(one.topic, one.keys.tolist(), one.rows.tobytes()) for one in (*commit.changelogs, *commit.rows)]
    return commit.journal, rows, commit.store.puts, commit.watermark


@pytest.mark.parametrize("seed", range(3))
def test_partitions_together_come_to_what_each_alone_comes_to(seed: int) -> None:
    rng = np.random.default_rng(seed)
    together, alone = tasks(), tasks()
    closed = 0
    for number in range(1, ROUNDS + 1):
        now_ms = 1_700_000_000_000 + number * MINUTE_MS * int(rng.integers(1, 8))
        batches = [some_events(rng, partition, now_ms) for partition in range(PARTITIONS)]
        found = run_together([task.begin(one, number) for task, one in zip(together, batches, strict=True)])
        expected = [task.on_batch(one, number) for task, one in zip(alone, batches, strict=True)]
        assert list(map(told, found)) == list(map(told, expected))
        if number % 2:
            ends = list(map(committed, together))
            assert ends == list(map(committed, alone))
            closed += sum(bool(topic != "vehicles.state.v1") for end in ends if end for topic, *_ in end[1])
        assert [task.next_timer() for task in together] == [task.next_timer() for task in alone]
    assert closed > PARTITIONS, "windows were closed"


def test_rows_are_put_together_set_and_chosen_as_numpy_does() -> None:
    for dtype in (
        np.dtype([("a", "<i8"), ("b", [("c", "?"), ("d", "<f8")])]),
        np.dtype([("a", "<i8"), ("b", "O")]),
    ):
        first, second = empty_rows(dtype, 3), empty_rows(dtype, 2)
        first["a"], second["a"] = [1, 2, 3], [4, 5]
        assert concat_rows([first, second])["a"].tolist() == [1, 2, 3, 4, 5]
        assert concat_rows([first, second]).dtype == dtype
        assert concat_rows([first]) is first
        put_rows(first, np.array([2, 0]), second)
        assert first["a"].tolist() == [5, 2, 4]
        both = rows_where(np.array([True, False]), second, first[:2])
        assert (both["a"].tolist(), first["a"].tolist()) == ([4, 2], [5, 2, 4])
    nothing = np.zeros(0, [("a", "<i8")])
    assert len(concat_rows([nothing, nothing])) == 0
    padded = np.zeros(2, np.dtype({"names": ["a"], "formats": ["<i8"], "itemsize": 16}))
    put_rows(padded, np.array([True, False]), np.array([(7,)], [("a", "<i8")]))
    assert padded["a"].tolist() == [7, 0]
