"""The task of one partition against the oracle's model: any log, cut into batches and cycles in any way."""

import uuid
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loadtest.oracle.model import Event, PartitionModel, compare_rows
from logistics.flows.gps import GPS
from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from streams.batch.clock import Clock
from streams.batch.columns import object_rows, objects
from streams.batch.event_ids import id_words, time_word
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_objects
from streams.engine.config import TaskConfig
from streams.engine.cycle import Written
from streams.engine.effects import PartitionEffects
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.partitioner import partitions_of
from streams.operators.changes import RowRecords
from streams.operators.fold.operator import fold_name
from streams.state.memory import MemoryStore
from streams.state.names import CHECKPOINT, operator_prefix
from tests.effects import clean, duplicates, late
from tests.examples import examples
from tests.window_model import WindowModel

AGGREGATE = VehicleState()
LAST_DUE = operator_prefix("reorder.last")
WINDOW = VehicleMinute()
WINDOW_MS, GRACE_MS = 10, 4
PIPELINE = replace(GPS, windows=(replace(GPS.windows[0], size_ms=WINDOW_MS, grace_ms=GRACE_MS),))
DEVICES = ("a", "b", "c")
UUIDS = tuple(str(uuid.UUID(int=number << 100 | number)) for number in range(4))
SPEEDS = (None, -0.0, 0.0, 2.99, 3.0, 55.123, 120.004, -1.0)


def _event(times: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Few devices, ids and sequences, so that ties and duplicates are common; clocks behind and ahead of the broker."""
    return st.builds(
        lambda device, event_id, sequence, time, skew, place, speed: Event(
            offset=0,
            timestamp_ms=max(time + skew, 0),
            key=device.encode(),
            event_id=event_id,
            device_id=device,
            sequence=sequence,
            event_time_ms=time,
            latitude=place[0],
            longitude=place[1],
            speed_kmh=speed,
            raw=b"",
        ),
        st.sampled_from(DEVICES),
        st.sampled_from(UUIDS) | st.text("xyé", min_size=1, max_size=3),
        st.integers(0, 3),
        times,
        st.sampled_from((0, 0, 1, 20, -1, -5, -30)),
        st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
        st.sampled_from(SPEEDS),
    )


@st.composite
def _logs(draw: st.DrawFn) -> list[Event] | None:
    """Events, a quarter of them sent again: the same event, at another time of the broker's."""
    log: list[Event] = []
    for event in draw(st.lists(_event(st.integers(0, 60)), max_size=30)):
        if log and draw(st.integers(0, 3)) == 0:
            again = draw(st.sampled_from(log))
            log.append(again._replace(timestamp_ms=draw(st.integers(0, 80))))
        log.append(event)
    return numbered(*log)


def numbered(*events: Event) -> list[Event]:
    return [event._replace(offset=i, raw=b"%d" % i) for i, event in enumerate(events)]


LOGS = _logs()
LIMITS = st.tuples(st.sampled_from((0, 1, 5, 20)), st.sampled_from((0, 3, 25, 10**6))).filter(
    lambda limits: limits[0] <= limits[1]
)


def columns(log: list[Event], first: int = 0) -> Events:
    """The events as decode gives them."""
    text = pa.array([event.event_id for event in log], pa.string())
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int32)[: len(log) + 1].astype(np.int64)
    data = np.frombuffer(text.buffers()[2], dtype=np.uint8) if len(log) else np.empty(0, np.uint8)
    ids = objects([event.event_id.encode() for event in log])
    hi, lo, digest = id_words(data, offsets, ids)
    time = np.array([event.event_time_ms for event in log], dtype=np.int64)
    unknown = float("nan")
    return Events(
        row=np.arange(len(log)),
        timestamp_ms=np.array([event.timestamp_ms for event in log], dtype=np.int64),
        event_time=time,
        sequence=np.array([event.sequence for event in log], dtype=np.int64),
        event_id=ids,
        id_hi=hi,
        id_lo=lo,
        id_word=time_word(time, digest),
        key=objects([event.key for event in log]),
        value=objects([event.raw for event in log]),
        headers=None,
        payload=np.array(
            [
                [event.latitude for event in log],
                [event.longitude for event in log],
                [unknown if event.speed_kmh is None else event.speed_kmh for event in log],
                [unknown] * len(log),
            ]
        ),
        texts=object_rows([], len(log)),
        slot=np.full(len(log), -1, dtype=np.int64),
        fields=Fields(GPS.payload_fields, GPS.text_fields),
    )


class Run:
    """A task over a log, and what came of it."""

    def __init__(self, limits: tuple[int, int], clock: Clock | None = None) -> None:
        self.clock = clock
        lateness_ms, horizon_ms = limits
        config = TaskConfig(
            replace(PIPELINE, bounds=Bounds(lateness_ms, horizon_ms, quarantine_rejects=0)),
            lambda _: nullcontext(),
            partial(partitions_of, partitions=1),
        )
        self.store = MemoryStore()
        self.task = PartitionTask(config, 0, self.store, None)
        self.clean: dict[bytes | None, list[bytes]] = {}
        self.late: list[tuple[int, str, int]] = []
        self.duplicates = 0
        self.journal_next = 0
        self.windows: dict[str, list[dict[str, object]]] = {}

    def take(self, effects: PartitionEffects) -> None:
        released = clean(effects)
        if released is not None:
            for key, value in zip(released.key, released.value, strict=True):
                self.clean.setdefault(key, []).append(value)
        for part in late(effects):
            reason = "beyond_horizon" if part.beyond_horizon else "late"
            self.late += [(int(v), reason, by) for v, by in zip(part.events.value, part.by_ms.tolist(), strict=True)]
        self.duplicates += duplicates(effects)

    def feed(self, events: list[Event]) -> None:
        self.take(self.task.on_batch(columns(events), events[-1].offset + 1, self.clock))

    def cycle(self) -> None:
        commit = self.task.cycle.close()
        if commit is None:
            return
        for closed in commit.rows:
            self.note(closed)
        first, self.journal_next = self.journal_next, self.journal_next + len(commit.journal)
        self.task.cycle.applied(commit, Written(first, self.journal_next, {}))

    def note(self, closed: RowRecords) -> None:
        start = np.ascontiguousarray(closed.rows["start"])
        state = closed.rows["state"]
        batch = WINDOW.table(byte_objects(closed.keys), start, start + WINDOW_MS, closed.rows["revision"], state)
        for name in ("window_start", "window_end"):
            position = batch.schema.get_field_index(name)
            batch = batch.set_column(position, name, batch.column(position).cast(pa.int64()))
        for row in batch.to_pylist():
            self.windows.setdefault(row["device_id"], []).append(row)

    def end(self) -> "Run":
        self.take(self.task.on_idle(10**9))
        self.cycle()
        return self

    @property
    def rows(self) -> dict[bytes, bytes]:
        prefix = operator_prefix(fold_name("vehicles.state.v1"))
        return {key[len(prefix) :]: value for key, value in self.store.scan(prefix)}

    @property
    def table(self) -> dict[str, Any]:
        keys = sorted(self.rows)
        if not keys:
            return {}
        state = np.array([np.frombuffer(self.rows[key], AGGREGATE.dtype)[0] for key in keys], AGGREGATE.dtype)
        batch = AGGREGATE.table(objects(keys), state)
        for position, field in enumerate(batch.schema):
            if pa.types.is_timestamp(field.type):
                batch = batch.set_column(position, field.name, batch.column(position).cast(pa.int64()))
        return {row["device_id"]: row for row in batch.to_pylist()}

    def results(self) -> object:
        return self.clean, sorted(self.late), self.duplicates, self.rows, self.windows


def at_once(limits: tuple[int, int], log: list[Event]) -> Run:
    run = Run(limits)
    if log:
        run.feed(log)
    return run.end()


def one_by_one(limits: tuple[int, int], log: list[Event]) -> Run:
    run = Run(limits)
    for event in log:
        run.feed([event])
        run.cycle()
    return run.end()


Modelled = tuple[PartitionModel, dict[str, list[dict[str, object]]]]
"""The model at the end of a log, and the rows of windows by device."""


def modelled(limits: tuple[int, int], log: list[Event]) -> Modelled:
    model = PartitionModel(*limits, 10**9, 1 << 20)
    windows = WindowModel(model, size_ms=WINDOW_MS, grace_ms=GRACE_MS)
    for event in log:
        windows.feed(event)
    windows.idle(10**9)
    return model, windows.rows


def assert_as_modelled(run: Run, modelled: Modelled) -> None:
    model, windows = modelled
    expected: dict[bytes | None, list[bytes]] = {}
    for event in model.clean:
        expected.setdefault(event.key, []).append(event.raw)
    assert run.clean == expected
    assert sorted(run.late) == sorted((late.event.offset, late.reason, late.by_ms) for late in model.late)
    assert run.duplicates == len(model.duplicates)
    assert run.table.keys() == model.table.keys()
    for device, row in model.table.items():
        assert compare_rows(row, run.table[device]) == []
    assert run.windows == windows


def simple(event_id: str, time: int, timestamp: int, device: str = "a") -> Event:
    return Event(0, timestamp, device.encode(), event_id, device, 0, time, 1, 2, 3.0, b"")


QUICK = settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
RETRANSMITTED = numbered(simple("x", 50, 10), simple("x", 50, 50), simple("y", 40, 40))
"""A clock ahead of the broker's: the copy of an event moves the watermark more than the event itself did."""


@QUICK
@given(LIMITS, LOGS)
@example((0, 10**6), RETRANSMITTED)
def test_a_whole_log_in_one_batch_does_what_the_model_says(limits: tuple[int, int], log: list[Event]) -> None:
    assert_as_modelled(at_once(limits, log), modelled(limits, log))


@QUICK
@given(LIMITS, LOGS)
@example((0, 10**6), RETRANSMITTED)
@example((5, 10**6), RETRANSMITTED)
def test_batches_of_one_and_one_batch_of_all_agree_bit_for_bit(limits: tuple[int, int], log: list[Event]) -> None:
    assert one_by_one(limits, log).results() == at_once(limits, log).results()


@QUICK
@given(LIMITS, LOGS, st.data())
def test_batches_cycles_and_spills_anywhere_change_nothing(
    limits: tuple[int, int], log: list[Event], data: st.DataObject
) -> None:
    run = Run(limits)
    at = 0
    while at < len(log):
        count = data.draw(st.integers(1, len(log) - at), label="batch")
        run.feed(log[at : at + count])
        at += count
        if data.draw(st.booleans(), label="commit"):
            run.cycle()
            if data.draw(st.booleans(), label="spill"):
                run.task.maintenance.spill(
                    below=data.draw(st.sampled_from((0, 10, 40, 10**9)), label="ids below"),
                    rows_keep=data.draw(st.sampled_from((0, 1, 3, 10**6)), label="keep"),
                    keep_keys=data.draw(st.booleans(), label="keep keys"),
                )
    run.end()
    assert_as_modelled(run, modelled(limits, log))
    assert run.results() == at_once(limits, log).results()


@QUICK
@given(LIMITS, LOGS)
def test_the_checkpoint_and_the_last_due_rows_are_those_of_the_log(limits: tuple[int, int], log: list[Event]) -> None:
    run = at_once(limits, log)
    if not log:
        assert run.store.get_many([CHECKPOINT]) == [None]
        return
    assert run.task.checkpoint.offset_next == len(log)
    assert {key[len(LAST_DUE) :] for key, _ in run.store.scan(LAST_DUE)} == run.clean.keys()
    assert run.task.is_settled


@QUICK
@given(LIMITS, LOGS)
def test_every_event_is_accounted_for_once(limits: tuple[int, int], log: list[Event]) -> None:
    run = one_by_one(limits, log)
    placed = [int(value) for values in run.clean.values() for value in values] + [offset for offset, *_ in run.late]
    assert len(placed) == len(set(placed))
    assert len(placed) + run.duplicates == len(log)


START_MS = 1_750_000_000_000
NO_TIMES = (-1, 0, 86_400_000, START_MS // 1_000, START_MS + 10**9)
"""Record timestamps that are no time for who reads the log soon after it was written."""


@QUICK
@given(LIMITS, LOGS, st.data())
def test_timestamps_that_are_no_time_are_judged_by_the_clock_and_when_exactly_that_was_decides_nothing(
    limits: tuple[int, int], log: list[Event], data: st.DataObject
) -> None:
    log = [
        event._replace(
            event_time_ms=START_MS + event.event_time_ms,
            timestamp_ms=data.draw(st.sampled_from((START_MS + event.timestamp_ms,) * 3 + NO_TIMES), label="timestamp"),
        )
        for event in log
    ]
    model = PartitionModel(*limits, 10**6, 1 << 20, now_ms=START_MS + 100)
    windows = WindowModel(model, size_ms=WINDOW_MS, grace_ms=GRACE_MS)
    for event in log:
        windows.feed(event)
    windows.idle(START_MS + 10**9)
    run = Run(limits)
    for event in log:
        run.clock = Clock(START_MS + data.draw(st.integers(100, 10_000), label="read after"), 10**6)
        run.feed([event])
        run.cycle()
    run.take(run.task.on_idle(START_MS + 10**9))
    run.cycle()
    assert_as_modelled(run, (model, windows.rows))
