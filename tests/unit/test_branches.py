"""Several branches of a flow, each with functions, operators and topics of its own."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from prometheus_client import generate_latest

from streams import (
    Count,
    EventRecords,
    Events,
    Flow,
    Fold,
    Operator,
    OperatorContext,
    OperatorSpec,
    Output,
    OutputTopic,
    Stream,
    WatermarkTrace,
    WindowFold,
    source,
)
from streams.batch.replayed import REPLAYED
from streams.engine.config import TaskConfig
from streams.engine.effects import CycleEnd, Effects
from streams.engine.task import PartitionTask
from streams.flow.chain import operators_of, tree_of
from streams.flow.identity import identity_of
from streams.flow.identity import judged as judged_under
from streams.kafka.partitioner import partitions_of
from streams.state.identity import Identity, Judgement, Places
from streams.state.memory import MemoryStore
from streams.testing import Crash, FlowDriver
from streams.worker.account import CycleAccount
from streams.worker.metrics import WorkerMetrics
from tests.unit.test_own_operators import SCHEMAS, Switches, event, write_schema
from tests.unit.test_task import events

COUNT = Fold("sensor_id", ("is_open",), {"events": Count()})
HOURS = WindowFold("sensor_id", ("is_open",), {"events": Count()})
ROW: dict[str, Any] = {"sensor_id": "string", "events": "long"}
TIME = {"type": "long", "logicalType": "timestamp-millis"}
HOUR: dict[str, Any] = {
    "sensor_id": "string",
    "window_start": TIME,
    "window_end": TIME,
    "revision": "int",
    "events": "long",
}
CLEAN, OPENED, SHUT = "doors.v1.clean", "doors.opened.v1", "doors.shut.v1"


def is_open(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(batch.column("is_open"), 1.0)


def is_shut(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(batch.column("is_open"), 0.0)


def turned(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"is_open": pc.subtract(1.0, batch.column("is_open"))})


def trunk(**more: Any) -> Stream:
    return source("doors.v1", key="sensor_id", fields=("is_open",), out_of_orderness="1s", **more)


def ordered() -> Stream:
    return trunk().deduplicate("1h").reorder()


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    rows = ("opened.state.v1", "shut.state.v1", "turned.state.v1")
    for topic, fields in (SCHEMAS | dict.fromkeys(rows, ROW) | {"doors.hours.v1": HOUR}).items():
        write_schema(tmp_path, topic, fields)
    return tmp_path


def flow_of_branches() -> Flow:
    before = ordered()
    opened = before.filter(is_open)
    return Flow(
        "doors",
        before.to(CLEAN).window(HOURS, size="1h", to="doors.hours.v1"),
        opened.to(OPENED).fold(COUNT, to="opened.state.v1"),
        before.filter(is_shut).to(SHUT).fold(COUNT, to="shut.state.v1"),
        opened.map_batches(turned).process(Switches()),
        before.map_batches(turned, name="all_turned")
        .filter(is_open, name="was_shut")
        .fold(COUNT, to="turned.state.v1"),
    )


def with_own_table() -> Flow:
    """An operator that keeps a table on one branch, and a topic of some of the events on another one."""
    before = ordered()
    shut = before.filter(is_shut).to(SHUT)
    return Flow("doors", before.to(CLEAN).process(Switches(table="doors.open.v1")), shut)


# --- declared ---------------------------------------------------------------------------------------------------------


def test_each_operator_gets_the_events_of_its_branch() -> None:
    tree = {placed.spec.name: placed for placed in tree_of(flow_of_branches().pipeline)}
    after = {name: placed.after for name, placed in tree.items()}
    assert list(tree)[3:] == [
        "publish.doors.v1.clean", "window.doors.hours.v1",
        "filter.is_open", "publish.doors.opened.v1", "fold.opened.state.v1",
        "filter.is_shut", "publish.doors.shut.v1", "fold.shut.state.v1",
        "map.turned", "switches",
        "map.all_turned", "filter.was_shut", "fold.turned.state.v1",
    ]  # fmt: skip
    assert {after[name] for name in ("publish.doors.v1.clean", "filter.is_shut", "map.all_turned")} <= {
        "reorder", "publish.doors.v1.clean", "window.doors.hours.v1",
    }  # fmt: skip
    assert (after["map.turned"], after["filter.was_shut"]) == ("filter.is_open", "map.all_turned")
    assert [name for name, placed in tree.items() if placed.decides][-2:] == ["reorder", "publish.doors.v1.clean"]


def test_the_branches_of_a_flow_with_a_prefix_are_the_same() -> None:
    pipeline = flow_of_branches().pipeline
    moved = pipeline.with_prefix("copy.")
    found = {placed.spec.name: placed.after for placed in tree_of(moved)}
    assert found == {_moved(placed.spec.name): _moved(placed.after) for placed in tree_of(pipeline)}
    assert moved.event_outputs == ("copy.doors.v1.clean", "copy.doors.v1.late", f"copy.{OPENED}", f"copy.{SHUT}")
    assert {topic.name for topic in moved.topics()} == {f"copy.{topic.name}" for topic in pipeline.topics()}


def _moved(name: str) -> str:
    kind, dot, topic = name.partition(".")
    return f"{kind}.copy.{topic}" if dot and kind in {"publish", "fold", "window"} else name


def test_branches_that_only_write_topics_are_a_chain() -> None:
    before = ordered()
    flow = Flow("doors", before.to(CLEAN), before.fold(COUNT, to="a.v1"), before.fold(COUNT, to="b.v1"))
    assert (flow.pipeline.order, flow.pipeline.branches) == ((), {})


def test_a_branch_may_begin_at_the_source() -> None:
    began = trunk()
    flow = Flow("doors", began.deduplicate("2h").reorder().to(CLEAN), began.process(Marked("raw.v1")))
    assert flow.pipeline.branches == {"marked": ""}
    assert flow.pipeline.bounds.horizon_ms == 7_200_000
    assert tree_of(flow.pipeline)[-1].after == ""


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda t: (t.to(CLEAN), t.filter(is_open)), "nothing comes out after filter:is_open: end the branch with"),
        (lambda t: (t.to(CLEAN), t.filter(is_open).map_batches(turned)), "nothing comes out after map_batches:turned"),
        (
            lambda t: (t.filter(is_open).to(CLEAN), t.filter(is_open).to(OPENED)),
            "two steps are called filter:is_open: give them different names",
        ),
        (lambda t: (t.to(CLEAN), t.filter(is_open).to(CLEAN)), "doors.v1.clean is written twice"),
        (
            lambda t: (t.to(CLEAN), ordered().filter(is_open).to(OPENED)),
            r"source\('doors.v1'\) is there twice: let all branches begin with one of them",
        ),
        (
            lambda _: _each_ordered(trunk().deduplicate("1h")),
            r"reorder is there twice: let all branches begin after one reorder\(\)",
        ),
    ],
)
def test_what_a_branch_cannot_be_is_said_where_it_is_declared(declare: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Flow("doors", *declare(ordered()))


def _each_ordered(unique: Stream) -> tuple[Stream, Stream]:
    return unique.reorder().to(CLEAN), unique.filter(is_open).reorder().to(OPENED)


def test_further_topics_of_events_come_after_reorder_too() -> None:
    unique = trunk().deduplicate("1h")
    with pytest.raises(ValueError, match=r"to:doors\.opened\.v1 comes after reorder\(\)"):
        Flow("doors", unique.reorder().to(CLEAN), unique.filter(is_open).to(OPENED))


# --- counted ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marked(OperatorSpec):
    """A user's own that writes all events to a topic and says that they are late, and passes none on."""

    topic: str

    @property
    def name(self) -> str:
        return "marked"

    @property
    def outputs(self) -> list[OutputTopic]:
        return [OutputTopic(self.topic)]

    def build(self, context: OperatorContext) -> Operator:
        del context
        return _Marks(self.topic)


class _Marks(Operator):
    def __init__(self, topic: str) -> None:
        self._topic = topic

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        none = np.zeros(len(events), dtype=np.bool_)
        return Output(
            events.take(none), trace.take(none), [EventRecords(self._topic, events, "late")], {"filtered": len(events)}
        )


def task_of(flow: Flow) -> PartitionTask:
    config = TaskConfig(flow.pipeline, lambda _: nullcontext(), partial(partitions_of, partitions=1))
    return PartitionTask(config, 0, MemoryStore(), None)


def odd(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(pc.bit_wise_and(batch.column("sequence"), 1), 1)


def even(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(pc.bit_wise_and(batch.column("sequence"), 1), 0)


def gps(*, fields: tuple[str, ...] = ("latitude", "longitude", "speed_kmh", "heading_deg")) -> Stream:
    return source("gps.v1", key="device_id", fields=fields, out_of_orderness="0s").deduplicate().reorder()


FIVE = ((1, 100), (2, 200), (3, 300), (4, 400), (5, 500))


def counted(flow: Flow) -> tuple[dict[str, int], dict[tuple[str, str], int], dict[str, int]]:
    """Outcomes, what branches have dropped, and records by topic, of five events of which the second comes twice."""
    effects = task_of(flow).on_batch(events(*FIVE, (2, 200)), 6)
    topics: dict[str, int] = {}
    for records in effects.records:
        topics[records.topic] = topics.get(records.topic, 0) + len(records.events)
    outcomes = {outcome: count for outcome, count in effects.outcomes().items() if count}
    return outcomes, dict(effects.beside), topics


def test_an_event_that_goes_into_two_branches_is_counted_once() -> None:
    before = gps()
    flow = Flow("x", before.to("c"), before.filter(odd).to("o"), before.filter(even).to("e"))
    assert counted(flow) == (
        {"clean": 5, "duplicate": 1},
        {("filter.odd", "filtered"): 2, ("filter.even", "filtered"): 3},
        {"c": 5, "o": 3, "e": 2},
    )


def test_the_first_topic_of_events_decides_the_outcome() -> None:
    before = gps()
    flow = Flow("x", before.filter(odd).to("o"), before.filter(even).to("e"))
    assert counted(flow) == (
        {"clean": 3, "filtered": 2, "duplicate": 1}, {("filter.even", "filtered"): 3}, {"o": 3, "e": 2},
    )  # fmt: skip


def test_what_is_dropped_after_the_clean_topic_is_clean() -> None:
    flow = Flow("x", gps().to("c").filter(odd).to("o"))
    assert counted(flow) == ({"clean": 5, "duplicate": 1}, {("filter.odd", "filtered"): 2}, {"c": 5, "o": 3})


def test_what_is_dropped_before_the_branches_part_is_filtered_once() -> None:
    before = gps().filter(odd)
    flow = Flow("x", before.to("c"), before.map_batches(lambda rows: rows, name="as_it_is").to("d"))
    assert counted(flow) == ({"clean": 3, "filtered": 2, "duplicate": 1}, {}, {"c": 3, "d": 3})


def test_an_operator_beside_the_clean_topic_says_nothing_of_the_outcome() -> None:
    before = gps()
    flow = Flow("x", before.to("c"), before.process(Marked("m")))
    assert counted(flow) == ({"clean": 5, "duplicate": 1}, {("marked", "filtered"): 5}, {"c": 5, "m": 5})


def test_the_outcome_of_a_replayed_event_is_told_once() -> None:
    before = gps()
    flow = Flow("x", before.to("c"), before.filter(odd).to("o"), before.filter(even).to("e"))
    headers = np.empty(1, dtype=object)
    headers[0] = [(REPLAYED, b"who")]
    effects = task_of(flow).on_batch(replace(events((1, 100)), headers=headers), 1)
    assert effects.dropped_replayed == {}
    assert [(records.topic, records.outcome) for records in effects.records] == [("c", "clean"), ("o", "")]


def test_what_branches_drop_is_a_metric_of_its_own() -> None:
    before = gps()
    flow = Flow("x", before.to("c"), before.filter(odd).to("o"))
    account, metrics = CycleAccount(), WorkerMetrics()
    account.note(Effects(0, 5, [task_of(flow).on_batch(events(*FIVE), 5)]), 0.0)
    account.publish(metrics, flow.pipeline, CycleEnd([]), now_ms=0, skew_ms_max=0)
    text = generate_latest(metrics.registry).decode()
    assert 'streams_branch_events_total{operator="filter.odd",outcome="filtered",pipeline="x"} 2.0' in text
    assert 'streams_events_total{outcome="clean",pipeline="x"} 5.0' in text
    assert 'streams_events_total{outcome="filtered"' not in text


# --- run --------------------------------------------------------------------------------------------------------------


def ids(driver: FlowDriver, topic: str) -> list[str]:
    return [record.fields["event_id"] for record in driver.read(topic)]


def test_each_branch_writes_what_it_passes(schemas: Path) -> None:
    driver = FlowDriver(flow_of_branches(), schemas=schemas)
    driver.feed(
        event(0), event(1), event(2, is_open=False), event(2, is_open=False), event(3, sensor="gate-1"),
        event(4, is_open=False, sensor="barn-1"), event(5_000),
    )  # fmt: skip
    driver.advance("2m")
    everything = ["dock-1-0", "dock-1-1", "dock-1-2", "gate-1-3", "barn-1-4", "dock-1-5000"]
    assert ids(driver, CLEAN) == everything
    assert ids(driver, OPENED) == ["dock-1-0", "dock-1-1", "gate-1-3", "dock-1-5000"]
    assert ids(driver, SHUT) == ["dock-1-2", "barn-1-4"]
    counts = {name: driver.table(f"{name}.state.v1") for name in ("opened", "shut", "turned")}
    assert counts["shut"].items() >= {"dock-1": {"sensor_id": "dock-1", "events": 1}}.items()
    assert {key: row["events"] for key, row in counts["turned"].items()} == {"dock-1": 1, "barn-1": 1}
    switched = [(row.fields["sensor_id"], row.fields["is_open"]) for row in driver.read("doors.switches.v1")]
    assert switched == [("dock-1", False), ("gate-1", False)], "the fields are those that the branch has set"


def test_a_table_has_no_row_of_a_key_whose_events_do_not_get_there(schemas: Path) -> None:
    before = ordered()
    flow = Flow(
        "doors",
        before.to(CLEAN).fold(COUNT, to="doors.state.v1"),
        before.filter(is_shut).fold(COUNT, to="shut.state.v1"),
        before.process(Switches()),
    )
    driver = FlowDriver(flow, schemas=schemas)
    driver.feed(event(0), event(1, sensor="gate-1"), event(2_000, is_open=False, sensor="gate-1"), event(9_000))
    driver.lose_disk()
    driver.feed(event(19_000), event(20_000, sensor="gate-1"), event(29_000))
    assert set(driver.table("doors.state.v1")) == {"dock-1", "gate-1"}
    assert driver.table("shut.state.v1") == {"gate-1": {"sensor_id": "gate-1", "events": 1}}


@pytest.mark.thorough
@pytest.mark.parametrize(("at", "disk"), [(None, "lost"), (Crash.JOURNALLED, "kept"), (Crash.COMMITTED, "kept")])
@pytest.mark.parametrize("flow", [flow_of_branches(), "carried by the table of a branch"], ids=["all", "one table"])
def test_a_crash_and_other_cuts_change_nothing_that_comes_out(
    schemas: Path, at: Crash | None, disk: str, flow: Flow | str
) -> None:
    if isinstance(flow, str):
        before = ordered()
        opened = before.filter(is_open).fold(COUNT, to="opened.state.v1")
        flow = Flow("doors", before.to(CLEAN).window(HOURS, size="1h", to="doors.hours.v1"), opened)
    # All events of dock-3 are shut: its windows travel with a table all the same.
    is_opened = [number % 3 > 0 and number % 4 < 3 for number in range(24)]
    fed = [event(n * 700, is_open=found, sensor=f"dock-{n % 4}") for n, found in enumerate(is_opened)]

    def run(pieces: Iterator[list[dict[str, Any]]], *, faulty: bool) -> list[Any]:
        driver = FlowDriver(flow, schemas=schemas, partitions=2)
        for number, piece in enumerate(pieces):
            if faulty and number % 3 == 1:
                driver.crash(at)
            if faulty and disk == "lost" and number % 5 == 2:
                driver.lose_disk()
            driver.feed(*piece)
        driver.advance("2m")
        driver.advance("2h")
        tables = [driver.table(topic) for topic in flow.pipeline.table_topics]
        read = [topic for topic in flow.pipeline.outputs if topic not in flow.pipeline.table_topics]
        return [*tables, *([(r.partition, r.key, r.value) for r in driver.read(topic)] for topic in read)]

    by_one = run(([one] for one in fed), faulty=True)
    at_once = run(iter([fed]), faulty=False)
    assert [_sorted(part) for part in by_one] == [_sorted(part) for part in at_once]


def _sorted(part: Any) -> Any:
    """Rows of windows come in the order in which the cycles close them: by key they are the same."""
    return part if isinstance(part, dict) else sorted(part)


# --- declared anew ----------------------------------------------------------------------------------------------------


def with_tables(*tables: str) -> Flow:
    """A flow with windows, with a table of all keys, one of a branch, or both."""
    before = ordered()
    branches = {
        "all": lambda: before.fold(COUNT, to="doors.state.v1"),
        "some": lambda: before.filter(is_shut).fold(COUNT, to="shut.state.v1"),
    }
    clean = before.to(CLEAN).window(HOURS, size="1h", to="doors.hours.v1")
    return Flow("doors", clean, *(branches[name]() for name in tables))


def judged(before: Flow, after: Flow) -> Judgement:
    pipeline, operators = after.pipeline, operators_of(after.pipeline)
    return judged_under(Identity.unpack(identity(before).packed), identity(after), pipeline, operators)


def identity(flow: Flow) -> Identity:
    return identity_of(flow.pipeline, operators_of(flow.pipeline), Places())


def test_the_table_that_windows_travel_with_cannot_go_while_a_table_of_a_branch_stays() -> None:
    both = with_tables("all", "some")

    (refused,) = judged(both, with_tables("some")).refused

    assert refused.startswith(
        "rows of doors.hours.v1 are kept with the rows of doors.state.v1, and none of these tables"
    )
    assert not judged(both, with_tables("all")).refused
    assert not judged(with_tables("all"), both).refused
    assert not judged(with_tables("some"), both).refused


def test_the_identity_of_a_flow_without_such_a_table_is_written_as_before() -> None:
    written = identity(with_tables("all"))
    assert "partial" not in written.as_dict()
    assert identity(with_tables("all", "some")).partial == ("shut.state.v1",)
