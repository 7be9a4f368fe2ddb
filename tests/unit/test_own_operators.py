"""Operators of a user's own, declared by `.process()`: their topics and their state are the flow's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import generate_latest

from streams import (
    CarriedRows,
    ChangedKeys,
    ChangelogRows,
    Changes,
    Count,
    EventRecords,
    Events,
    Flow,
    Fold,
    KeyedState,
    Operator,
    OperatorContext,
    OperatorSpec,
    Output,
    OutputTopic,
    RowLayout,
    RowRecords,
    Rows,
    StoredRows,
    Stream,
    WatermarkTrace,
    WindowFold,
    source,
)
from streams.batch.replayed import REPLAYED
from streams.engine.effects import CycleEnd, PartitionEffects, TaskCommit
from streams.engine.refusals import Refusals
from streams.errors import StreamsError
from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline
from streams.flow.drawing import drawn
from streams.flow.identity import identity_of
from streams.flow.identity import judged as judge_under
from streams.flow.topics import Cleanup
from streams.flow.topology import as_json, as_text
from streams.kafka.partitioner import partitions_of
from streams.schemas.catalog import Catalog
from streams.schemas.gate.row_schemas import unfit_rows
from streams.sinks.base import Refused
from streams.state.identity import Identity, Judgement, Places
from streams.state.store import WriteBatch
from streams.testing import Crash, FlowDriver
from streams.worker.account import CycleAccount
from streams.worker.metrics import WorkerMetrics
from tests.unit.test_task import events

SWITCH = np.dtype([("is_open", "?"), ("event_time", "<i8")])
LONG, TIME = "long", {"type": "long", "logicalType": "timestamp-millis"}
EVENT = {"event_id": "string", "sensor_id": "string", "sequence": LONG, "event_time": TIME, "is_open": "boolean"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "doors.v1": EVENT,
    "doors.state.v1": {"sensor_id": "string", "events": LONG},
    "doors.switches.v1": {"sensor_id": "string", "is_open": "boolean", "event_time": TIME},
    "doors.open.v1": {"sensor_id": "string", "is_open": "boolean"},
}


def named(keys: np.ndarray) -> pa.Array:
    return pa.array([key.decode() for key in keys], pa.string())


def switches(keys: np.ndarray, rows: Rows) -> pa.RecordBatch:
    times = pa.array(np.ascontiguousarray(rows["event_time"]), pa.timestamp("ms"))
    columns = {"sensor_id": named(keys), "is_open": pa.array(rows["is_open"]), "event_time": times}
    return pa.RecordBatch.from_pydict(columns)


def doors(keys: np.ndarray, rows: Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"sensor_id": named(keys), "is_open": pa.array(rows["state"] == 1)})


@dataclass(frozen=True)
class Switches(OperatorSpec):
    """A row for each door that is opened or closed; the events of those go to a topic too, if it is named.

    What is known of a door travels with the rows of tables, or is a table itself, if it is named.
    """

    topic: str = "doors.switches.v1"
    table: str = ""
    events: str = ""
    subject: str = ""
    called: str = "switches"
    kind: str = "<i1"
    window: int = 1
    bound: tuple[str, int] = ("switches.pause_ms", 5)

    @property
    def name(self) -> str:
        return self.called

    def build(self, context: OperatorContext) -> Operator:
        return SwitchesOperator(self, context)

    @property
    def keyed(self) -> Sequence[KeyedState]:
        known = np.dtype([("state", self.kind)])
        columns = doors if self.table else None
        return [KeyedState(self.table or self.name, self.name, np.zeros(1, known), RowLayout.of(known), columns)]

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        found = [OutputTopic(self.topic, switches, np.zeros(1, SWITCH), self.subject)]
        if self.table:
            found.append(OutputTopic(self.table, doors, self.keyed[0].empty, is_compacted=True))
        return [*found, OutputTopic(self.events)] if self.events else found

    @property
    def settings(self) -> dict[str, dict[str, int]]:
        return {self.name: {"window": self.window}}

    @property
    def bounds(self) -> dict[str, int]:
        return dict([self.bound])


class SwitchesOperator(Operator):
    def __init__(self, spec: Switches, context: OperatorContext) -> None:
        self.spec, self.keys, self.state = spec, context.keys, spec.keyed[0]
        self.known = context.keys.attach(StoredRows(self.state.empty, context.space(spec.name)))
        self.found: list[RowRecords] = []

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        if not len(events):
            return Output(events, trace)
        events = self.keys.located(events)
        switched = np.zeros(len(events), dtype=np.bool_)
        for row, (slot, is_open) in enumerate(zip(events.slot, events.number("is_open") == 1, strict=True)):
            now = 1 if is_open else 2
            switched[row] = self.known.rows["state"][slot] != now
            self.known.rows["state"][slot] = now
        self.keys.touch(events.slot)
        some = events.take(switched)
        rows = np.zeros(len(some), SWITCH)
        rows["is_open"], rows["event_time"] = some.number("is_open") == 1, some.event_time
        self.found.append(RowRecords(self.spec.topic, some.key, rows, switches))
        if not self.spec.events:
            return Output(events, trace)
        return Output(events, trace, [EventRecords(self.spec.events, some, "")])

    def changes(self, changed: ChangedKeys) -> Changes:
        rows = self.known.of(changed.slots)
        found = Changes(rows=[part for part in self.found if len(part)])
        self.found = []
        self.known.write(changed, rows, found.store)
        if self.spec.table:
            found.changelogs = [ChangelogRows(self.spec.table, changed.keys, rows, doors, self.state.digest)]
        else:
            found.carried = CarriedRows(self.state.digest, rows)
        return found


def trunk() -> Stream:
    began = source("doors.v1", key="sensor_id", fields=("is_open",), out_of_orderness="1s")
    return began.deduplicate("1h").reorder().to("doors.v1.clean")


def with_fold(*specs: OperatorSpec) -> Flow:
    stream = trunk().fold(Fold("sensor_id", ("is_open",), {"events": Count()}), to="doors.state.v1")
    for spec in specs:
        stream = stream.process(spec)
    return Flow("doors", stream)


def with_own_table(**more: Any) -> Flow:
    return Flow("doors", trunk().process(Switches(table="doors.open.v1", **more)))


FLOWS = pytest.mark.parametrize("flow", [with_fold(Switches()), with_own_table()], ids=["carried", "own table"])


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    for topic, fields in SCHEMAS.items():
        write_schema(tmp_path, topic, fields)
    return tmp_path


def write_schema(root: Path, topic: str, fields: dict[str, Any]) -> None:
    (root / f"{topic}-value").mkdir()
    listed_fields = [{"name": name, "type": kind} for name, kind in fields.items()]
    schema = {"type": "record", "name": "Row", "namespace": "yard", "fields": listed_fields}
    (root / f"{topic}-value" / "1.avsc").write_text(json.dumps(schema), encoding="utf-8")


def event(number: int, *, is_open: bool = True, sensor: str = "dock-1") -> dict[str, Any]:
    at = 1_700_000_000_000 + number
    return {
        "event_id": f"{sensor}-{number}", "sensor_id": sensor, "sequence": number, "event_time": at, "is_open": is_open,
    }  # fmt: skip


def switched(driver: FlowDriver, topic: str = "doors.switches.v1") -> list[tuple[str, int]]:
    rows = [record.fields for record in driver.read(topic)]
    return [(row["sensor_id"], 1 if row["is_open"] else 0) for row in rows]


# --- it runs ----------------------------------------------------------------------------------------------------------


@FLOWS
@pytest.mark.parametrize("at", list(Crash))
def test_rows_are_written_exactly_once_whatever_crashes(schemas: Path, flow: Flow, at: Crash) -> None:
    driver = FlowDriver(flow, partitions=2, schemas=schemas)
    driver.feed(event(1), event(2), event(1, sensor="dock-2"))
    driver.crash(at)
    driver.advance("1m")
    driver.crash(at)
    driver.feed(event(3), event(4, is_open=False), event(4, is_open=False))
    driver.advance("1m")
    assert sorted(switched(driver)) == [("dock-1", 0), ("dock-1", 1), ("dock-2", 1)]


@FLOWS
def test_state_comes_back_from_the_topics(schemas: Path, flow: Flow) -> None:
    driver = FlowDriver(flow, partitions=2, schemas=schemas)
    driver.feed(event(1), event(2, sensor="dock-2"))
    driver.advance("1m")
    driver.lose_disk()
    driver.feed(event(3), event(4, is_open=False, sensor="dock-2"))
    driver.advance("1m")
    assert sorted(switched(driver)) == [("dock-1", 1), ("dock-2", 0), ("dock-2", 1)]


def test_windows_may_travel_with_a_table_of_its_own(schemas: Path) -> None:
    row = {"sensor_id": "string", "window_start": TIME, "window_end": TIME, "revision": "int", "events": LONG}
    write_schema(schemas, "doors.minutes.v1", row)
    per_minute = WindowFold("sensor_id", ("is_open",), {"events": Count()})
    stream = trunk().process(Switches(table="doors.open.v1")).window(per_minute, size="1m", to="doors.minutes.v1")
    driver = FlowDriver(Flow("doors", stream), schemas=schemas)
    driver.feed(event(1), event(2))
    driver.advance("12s")
    driver.lose_disk()
    driver.feed(event(3, is_open=False))
    driver.advance("5m")
    assert switched(driver) == [("dock-1", 1), ("dock-1", 0)]
    assert [record.fields["events"] for record in driver.read("doors.minutes.v1")] == [3]


def test_a_table_of_its_own_is_read_as_one(schemas: Path) -> None:
    driver = FlowDriver(with_own_table(), schemas=schemas)
    driver.feed(event(1), event(2, is_open=False), event(3, sensor="dock-2"))
    driver.advance("1m")
    assert {key: row["is_open"] for key, row in driver.table("doors.open.v1").items()} == {
        "dock-1": False, "dock-2": True,
    }  # fmt: skip


def test_events_that_go_to_a_topic_of_its_own_are_counted_once_and_lose_the_mark_of_a_replay(schemas: Path) -> None:
    driver = FlowDriver(with_fold(Switches(events="doors.switched.v1")), schemas=schemas)
    driver.feed(event(1), event(2), headers={"trace": b"7", REPLAYED: b"x"})
    driver.advance("1m")
    (found,) = driver.read("doors.switched.v1")
    assert (found.value, found.headers) == (driver.clean()[0].value, {"trace": b"7"})


def test_events_of_a_topic_of_its_own_have_no_outcome() -> None:
    own, clean = EventRecords("own.v1", events((1, 1)), ""), EventRecords("clean.v1", events((1, 1)), "clean")
    assert PartitionEffects(0, [own, clean]).outcomes() == {"clean": 1}


# --- what is refused when it is declared ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hidden(Switches):
    """Does not say where it holds its topic."""

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        return [OutputTopic("hidden.v1")]


@dataclass(frozen=True)
class Forgotten(Switches):
    """Keeps a table that its outputs do not have."""

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        return ()


def before_reorder() -> Flow:
    return Flow("doors", source("doors.v1", key="sensor_id").deduplicate().process(Switches()).reorder().to("c.v1"))


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (lambda: with_fold(Switches(), Switches("b.v1")), "two steps are called process:switches: let the name of"),
        (lambda: with_fold(Switches(called="reorder")), "two operators are called 'reorder'"),
        (lambda: with_fold(Switches("doors.state.v1")), "doors.state.v1 is written twice"),
        (lambda: with_fold(Switches("doors.v1.dlq")), "doors.v1.dlq cannot be an output of it: written for doors.v1"),
        (lambda: with_fold(Switches("a b")), "'a b' is no name of a topic"),
        (lambda: with_fold(Switches(called="a b")), "the name of process:a b is 1 to 100 of"),
        (lambda: Flow("doors", trunk().process(Switches())), "the rows of switches travel with the rows of a table"),
        (before_reorder, r"process:switches keeps rows by key: call \.deduplicate\(\) and \.reorder\(\) before it"),
        (lambda: with_fold(Hidden()), "its outputs cannot be moved to moved.hidden.v1: override with_topics of Hidden"),
        (lambda: with_fold(Forgotten(table="t.v1")), "keeps the table t.v1, which its state is restored from: outputs"),
    ],
)
def test_a_contradiction_is_refused_where_it_is_declared(declared: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"doors'?: .*{says}"):
        declared()


def test_what_is_no_declaration_of_an_operator_is_refused() -> None:
    with pytest.raises(TypeError, match="process takes an OperatorSpec"):
        trunk().process(SwitchesOperator)  # type: ignore[arg-type]


def test_an_output_of_rows_says_what_a_row_is() -> None:
    with pytest.raises(ValueError, match=r"a\.v1: an output of rows has both columns and empty"):
        OutputTopic("a.v1", switches)


# --- its topics -------------------------------------------------------------------------------------------------------


def pipeline_of_all() -> Pipeline:
    return with_fold(Switches(table="doors.open.v1", events="doors.switched.v1", called="own")).pipeline


def test_its_topics_are_the_flows() -> None:
    topics = {topic.name: topic for topic in pipeline_of_all().topics()}
    found = [topics[name] for name in ("doors.switches.v1", "doors.open.v1", "doors.switched.v1")]
    assert [(topic.cleanup, topic.subject) for topic in found] == [
        (Cleanup.DELETE, "doors.switches.v1-value"), (Cleanup.COMPACT, "doors.open.v1-value"), (Cleanup.DELETE, None),
    ]  # fmt: skip
    assert pipeline_of_all().changelogs == ("doors.v1.journal", "doors.state.v1", "doors.open.v1")


def test_a_prefix_moves_its_topics_and_not_its_subjects() -> None:
    moved = pipeline_of_all().with_prefix("copy.")
    assert all(topic.name.startswith("copy.") for topic in moved.topics())
    assert [one.subject for one in moved.row_outputs] == [one.subject for one in pipeline_of_all().row_outputs]
    names = [spec.name for spec in operators_of(moved)]
    assert names[-2:] == ["fold.copy.doors.state.v1", "own"]


def test_an_operator_that_is_called_by_its_topic_can_be_moved() -> None:
    moved = with_fold(Switches(called="doors.switches.v1")).pipeline.with_prefix("copy.")
    assert operators_of(moved)[-1].name == "copy.doors.switches.v1"


def test_the_same_flow_beside_it_writes_other_topics() -> None:
    flow = with_fold(Switches()).with_topics("doors_v2", {"doors.v1": "doors.v2", "doors.switches.v1": "switches.v2"})
    assert [one.topic for one in flow.pipeline.row_outputs] == ["doors.state.v1", "switches.v2"]
    with pytest.raises(ValueError, match=r"flow doors has no topic nobody\.v1: there is .*doors\.switches\.v1"):
        with_fold(Switches()).with_topics("doors_v2", {"nobody.v1": "b.v1"})


def test_it_is_shown_with_its_topics() -> None:
    flow = with_fold(Switches(events="doors.switched.v1"))
    lines = list(as_text(flow, flow.pipeline.with_prefix("copy."), {"a": 1}))
    assert "process switches  (Switches, writes copy.doors.switches.v1, writes copy.doors.switched.v1)" in lines
    picture = drawn(flow, flow.pipeline)
    assert picture.count(">doors.switches.v1</text>") == picture.count(">doors.switched.v1</text>") == 1
    assert picture.count('<path class="line"') == 3 + 2 * 2 + 2
    step = as_json(flow, flow.pipeline, {})["steps"][-1]
    assert (step["id"], step["writes"]) == ("process:switches", ["doors.switches.v1", "doors.switched.v1"])


# --- its rows and their schemas ---------------------------------------------------------------------------------------


def test_rows_that_do_not_fit_their_schema_are_named(schemas: Path) -> None:
    write_schema(schemas, "bad.v1", {"sensor_id": "string", "is_open": LONG})
    flow = with_fold(Switches("bad.v1"))
    found = unfit_rows(Catalog.load(schemas).latest("bad.v1-value"), [flow.pipeline])
    assert [(each.field, each.message) for each in found] == [
        ("is_open", "the operator gives boolean, the schema says long"),
        ("event_time", "missing: the operator gives a column 'event_time' (timestamp-millis)"),
    ]
    with pytest.raises(StreamsError, match="the operator gives boolean, the schema says long"):
        FlowDriver(flow, schemas=schemas)


def test_its_rows_may_go_by_another_subject(schemas: Path) -> None:
    write_schema(schemas, "shared", SCHEMAS["doors.switches.v1"])
    driver = FlowDriver(with_fold(Switches("elsewhere.v1", subject="shared-value")), schemas=schemas)
    driver.feed(event(1))
    driver.advance("1m")
    assert switched(driver, "elsewhere.v1") == [("dock-1", 1)]


# --- its state under a changed declaration ----------------------------------------------------------------------------


def identity(flow: Flow, topics: Mapping[str, str] = MappingProxyType({})) -> Identity:
    return identity_of(flow.pipeline, operators_of(flow.pipeline), Places("c", topics, 1))


def judged(before: Flow, after: Flow) -> Judgement:
    return judge_under(identity(before), identity(after), after.pipeline, operators_of(after.pipeline))


def test_what_changes_its_state_is_brought_over_or_refused_in_words() -> None:
    plain = with_fold(Switches())
    assert judged(plain, plain).is_same
    assert judged(plain, with_fold()).migrated == (
        "switches is no longer declared: its state, with what it has not written yet, is dropped",
    )
    (refused,) = judged(plain, with_fold(Switches(window=2))).refused
    assert refused.startswith("window of switches was 1 and is 2 now: its state cannot be continued")
    (said,) = judged(plain, with_fold(Switches(bound=("switches.pause_ms", 6)))).migrated
    assert said == "switches.pause_ms of switches is 6 now (was 5): it counts from now on"
    (refused,) = judged(plain, with_fold(Switches(kind="<f8"))).refused
    assert refused.startswith("columns state of switches had another type or meaning before")


def test_its_rows_are_not_parted_from_the_table_that_they_travel_with() -> None:
    other = trunk().fold(Fold("sensor_id", ("is_open",), {"events": Count()}), to="other.v1").process(Switches())
    (refused,) = judged(with_fold(Switches()), Flow("doors", other)).refused
    assert refused.startswith("rows of switches are kept with the rows of doors.state.v1, and none of these")


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("doors.switches.v1", "doors.switches.v1 was deleted and created again: it lacks what the state is made of"),
        ("doors.open.v1", "doors.open.v1 was deleted and created again, and its rows are gone"),
    ],
)
def test_a_topic_of_its_own_that_was_created_again_is_noticed(topic: str, says: str) -> None:
    flow = with_own_table()
    found = judge_under(
        identity(flow, {topic: "old"}), identity(flow, {topic: "new"}), flow.pipeline, operators_of(flow.pipeline)
    )
    assert [refused.startswith(says) for refused in found.refused] == [True]


# --- refusals and metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "value", "says"),
    [
        ("doors.switched.v1", b"v1", "doors.switched.v1 refuses it: no"),
        ("doors.switches.v1", b"row", "the row of its key: doors.switches.v1 refuses it: no"),
        ("doors.open.v1", b"row", "the row of its key: doors.open.v1 refuses it: no"),
    ],
)
def test_an_event_whose_row_or_copy_is_refused_becomes_a_dead_letter(topic: str, value: bytes, says: str) -> None:
    refusals = Refusals(pipeline_of_all(), partial(partitions_of, partitions=1))
    one = events((1, 100))
    refusals.note([Refused(topic, one.key[0], value, 0, "no")])
    assert refusals.messages(one) == {0: says}


def test_its_rows_are_counted_and_not_as_those_of_windows() -> None:
    account, metrics = CycleAccount(), WorkerMetrics()
    rows = RowRecords("doors.switches.v1", np.array([b"a", b"b"], dtype=object), np.zeros(2, SWITCH), switches)
    nothing: dict[str, Any] = {"journal": [], "changelogs": [], "carried": [], "store": WriteBatch(), "marks": {}}
    commit = TaskCommit(0, cycle=1, offset_next=2, watermark=0, event_time_max=0, rows=[rows], **nothing)
    account.publish(metrics, pipeline_of_all(), CycleEnd([commit]), now_ms=0, skew_ms_max=1)
    told = generate_latest(metrics.registry).decode()
    assert 'streams_operator_rows_total{topic="doors.switches.v1"} 2.0' in told
    assert "streams_window_rows_total{" not in told


@pytest.mark.parametrize("name", ["horizon_ms", "lateness_ms", "quarantine_rejects"])
def test_a_bound_of_the_name_of_another_is_refused_where_it_is_declared(name: str) -> None:
    """The one that was declared last was recorded for both, and dedup went by it after a restart."""
    with pytest.raises(ValueError, match=f"the bound '{name}' is recorded twice"):
        with_fold(Switches(bound=(name, 1)))
