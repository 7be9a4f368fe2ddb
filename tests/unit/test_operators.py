"""The contract of operators: a chain of them, those without state, and one of a user's own that keeps rows by key."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from logistics.flows.gps import GPS
from streams.batch.events import Events
from streams.batch.rows import RowLayout
from streams.engine.config import TaskConfig
from streams.engine.cycle import Written
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline
from streams.kafka.partitioner import partitions_of
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import CarriedRows, Changes
from streams.operators.keyed import ChangedKeys, StoredRows
from streams.operators.output import EventRecords, Output
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.stateless.arrow import Filter, FilterOperator, MapBatches, MapOperator
from streams.operators.trace import WatermarkTrace
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.store import Store
from tests.unit.test_task import events, none


def task_with(
    *operators: "Filter | NorthSouth | Noting", pipeline: Pipeline = GPS, store: Store | None = None
) -> PartitionTask:
    flow = replace(pipeline, operators=operators)
    config = TaskConfig(
        replace(flow, bounds=Bounds(10, 1_000, quarantine_rejects=0)),
        lambda _: nullcontext(),
        partial(partitions_of, partitions=1),
    )
    return PartitionTask(config, 0, store or MemoryStore(), None)


def build(spec: Filter | MapBatches) -> FilterOperator | MapOperator:
    return spec.build(cast("OperatorContext", None))  # neither asks for anything of it


def trace_of(batch: Events) -> WatermarkTrace:
    return WatermarkTrace.of(0, np.arange(len(batch), dtype=np.int64))


# --- where the watermark stands ---------------------------------------------------------------------------------------


def test_a_trace_knows_where_the_watermark_stood_at_and_before_each_event() -> None:
    trace = WatermarkTrace.of(5, np.array([10, 10, 30]))
    assert (trace.end, trace.at.tolist(), trace.prior.tolist()) == (30, [10, 10, 30], [5, 10, 10])
    kept = trace.take(np.array([False, True, True]))
    assert (kept.end, kept.at.tolist(), kept.prior.tolist()) == (30, [10, 30], [10, 10])
    held = kept.moved(kept.passing(np.array([7, 10, 11])))
    assert (held.at.tolist(), held.prior.tolist()) == ([10, 10, 30], [5, 5, 10])


def test_an_idle_trace_has_no_events_and_moves_the_watermark() -> None:
    trace = WatermarkTrace.idle(5, 9)
    assert (trace.start, trace.end, len(trace.place)) == (5, 9, 0)
    assert trace.moved(trace.passing(np.array([6]))).prior.tolist() == [5]


# --- operators without state ------------------------------------------------------------------------------------------


def test_filter_passes_on_what_is_true_and_counts_the_rest() -> None:
    batch = events((1, 100), (2, 200), (3, 300))
    operator = build(Filter("even", lambda rows: pc.equal(pc.bit_wise_and(rows.column("sequence"), 1), 0)))
    found = operator.process(batch, trace_of(batch))
    assert found.events.value.tolist() == [b"v2"]
    assert found.trace.at.tolist() == [1]
    assert found.dropped == {"filtered": 2}


def test_filter_takes_null_for_no() -> None:
    batch = events((1, 100))
    operator = build(Filter("none", lambda rows: pa.nulls(rows.num_rows, pa.bool_())))
    assert operator.process(batch, trace_of(batch)).dropped == {"filtered": 1}


@pytest.mark.parametrize("answer", [pa.array([True]), pa.array([1, 0])], ids=["too few", "no booleans"])
def test_a_predicate_that_gives_something_else_is_an_error(answer: pa.BooleanArray | pa.Int64Array) -> None:
    batch = events((1, 100), (2, 200))
    with pytest.raises(TypeError, match=r"filter\.odd: 2 events gave"):
        build(Filter("odd", lambda _: answer)).process(batch, trace_of(batch))


def test_replayed_events_that_are_filtered_are_named() -> None:
    headers = np.empty(2, dtype=object)
    headers[:] = [[("dlq.replayed", b"who")], None]
    batch = replace(events((1, 100), (2, 200)), headers=headers)
    found = build(Filter("all", lambda rows: pa.array([False] * rows.num_rows))).process(batch, trace_of(batch))
    assert found.dropped_replayed == {"filtered": [headers[0]]}


def test_map_sets_declared_fields_by_name_and_leaves_the_record_as_it_is() -> None:
    batch = events((1, 100), (2, 200))

    def faster(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({"speed_kmh": pc.add(rows.column("speed_kmh"), 1.0), "other": [1, 2]})

    found = build(MapBatches("faster", faster)).process(batch, trace_of(batch)).events
    assert found.number("speed_kmh").tolist() == [2.0, 2.0]
    assert found.number("latitude").tolist() == batch.number("latitude").tolist() == [1.0, 1.0]
    assert batch.number("speed_kmh").tolist() == [1.0, 1.0]
    assert found.value.tolist() == [b"v1", b"v2"]


def test_a_map_that_loses_rows_is_an_error() -> None:
    batch = events((1, 100), (2, 200))
    with pytest.raises(TypeError, match=r"map\.short: 2 events gave 1 rows"):
        build(MapBatches("short", lambda rows: rows.slice(0, 1))).process(batch, trace_of(batch))


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="no field 'latitud': there is latitude, longitude"):
        events((1, 100)).number("latitud")


# --- in a chain -------------------------------------------------------------------------------------------------------


def test_what_a_flow_filters_is_counted_in_its_effects() -> None:
    task = task_with(Filter("odd", lambda rows: pc.equal(pc.bit_wise_and(rows.column("sequence"), 1), 1)))
    effects = task.on_batch(events((1, 100), (2, 101), (3, 120)), 3)
    assert effects.outcomes() == {"duplicate": 0, "clean": 2}
    assert effects.beside == {("filter.odd", "filtered"): 1}


def test_two_operators_of_one_name_are_refused() -> None:
    same = Filter("a", lambda rows: rows), Filter("a", lambda rows: rows)
    with pytest.raises(ValueError, match=r"two operators are called 'filter\.a'"):
        operators_of(replace(GPS, operators=same))


@dataclass(frozen=True)
class NorthSouth(OperatorSpec):
    """A user's own: an event goes to a topic when its key has crossed a latitude since the event before."""

    topic: str
    latitude: float
    name = "north_south"

    def build(self, context: OperatorContext) -> "Crossings":
        return Crossings(self, context)

    @property
    def keyed(self) -> tuple[KeyedState]:
        dtype = np.dtype([("side", "<i1")])
        return (KeyedState(self.name, self.name, np.zeros(1, dtype), RowLayout.of(dtype)),)


class Crossings(Operator):
    def __init__(self, spec: NorthSouth, context: OperatorContext) -> None:
        self.spec, self.keys = spec, context.keys
        self.rows = StoredRows(spec.keyed[0].empty, context.space(spec.name))
        context.keys.attach(self.rows)

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        if not len(events):
            return Output(events, trace)
        events = self.keys.located(events)
        side = np.where(events.number("latitude") >= self.spec.latitude, 1, -1).astype("<i1")
        crossed = np.zeros(len(events), dtype=np.bool_)
        for row, slot in enumerate(events.slot.tolist()):
            before = self.rows.rows["side"][slot]
            crossed[row] = before not in {0, side[row]}
            self.rows.rows["side"][slot] = side[row]
        self.keys.touch(events.slot)
        return Output(events, trace, [EventRecords(self.spec.topic, events.take(crossed), "")])

    def changes(self, changed: ChangedKeys) -> Changes:
        found = Changes()
        rows = self.rows.of(changed.slots)
        self.rows.write(changed, rows, found.store)
        found.carried = CarriedRows(self.spec.keyed[0].digest, rows)
        return found


def test_rows_by_key_without_a_table_to_travel_with_are_refused() -> None:
    with pytest.raises(ValueError, match="the rows of north_south travel with the rows of a table"):
        operators_of(replace(GPS, tables=(), windows=(), operators=(NorthSouth("t", 0.0),)))


def at_latitude(batch: Events, *latitudes: float) -> Events:
    return replace(batch, payload=np.array([latitudes, *batch.payload[1:]]))


def test_an_operator_of_a_users_own_keeps_rows_by_key_and_carries_them_with_the_tables() -> None:
    store = MemoryStore()
    task = task_with(NorthSouth("crossings", 50.0), store=store)
    effects = task.on_batch(at_latitude(events((1, 100), (2, 101), (3, 200)), 49.0, 51.0, 52.0), 3)
    assert [records.events.value.tolist() for records in effects.records if records.topic == "crossings"] == [[b"v2"]]
    commit = task.cycle.close()
    assert commit is not None
    [digest] = [rows.digest for rows in commit.carried if rows.digest == NorthSouth("crossings", 50.0).keyed[0].digest]
    assert digest in [rows.digest for rows in commit.carried]
    task.cycle.applied(commit, Written(0, 1, {}))
    assert store.get_many([operator_prefix("north_south") + b"d"]) == [b"\1"]
    task.maintenance.spill(below=10**12, rows_keep=0, keep_keys=False)
    effects = task.on_batch(at_latitude(events((4, 300)), 48.0), 4)
    assert task.on_idle(300).of("")[-1].events.value.tolist() == [b"v4"]


def test_no_events_pass_every_operator_of_a_chain() -> None:
    task = task_with(Filter("any", lambda rows: pa.array([True] * rows.num_rows)), NorthSouth("t", 1.0))
    assert task.on_idle(10**6).records == []
    assert task.on_batch(none(), 1).records == []


@dataclass(frozen=True)
class Noting(OperatorSpec):
    """Writes a section of the journal under a name that it shares with another one."""

    called: str

    @property
    def name(self) -> str:
        return self.called

    def build(self, context: OperatorContext) -> "Notes":
        del context
        return Notes()


class Notes(Operator):
    def changes(self, changed: ChangedKeys) -> Changes:
        del changed
        return Changes(sections={"notes": [b"1"]})


def test_two_operators_that_write_the_same_section_are_stopped_before_they_mix_it_up() -> None:
    task = task_with(Noting("a"), Noting("b"))
    task.on_batch(events((1, 100)), 1)
    with pytest.raises(ValueError, match="two operators write 'notes' to the journal: call it by the operator's name"):
        task.cycle.close()
