"""Sinks as a flow declares them: which topic each reads, what is refused, how it is shown."""

import pytest

from logistics.flows.gps import positions
from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from streams import Flow, delta, http, postgres
from streams.errors import UsageError
from streams.flow.topology import as_json, as_text
from streams.schemas.catalog import Catalog
from streams.sink.declared import declared_sink

CLEAN = positions.to("gps.positions.v1.clean")
STATES = CLEAN.fold(VehicleState(), to="vehicles.state.v1")
FLOW = Flow(
    "gps",
    STATES.to(postgres("mart.vehicles"))
    .window(VehicleMinute(), size="1m", to="vehicles.minutes.v1")
    .to(delta("lake/minutes", day_of="window_start"))
    .to(http("https://example.com/hook?team=1", name="hook", topic="gps.positions.v1.clean")),
)


def test_a_sink_reads_what_the_step_before_it_writes_or_the_topic_that_it_names() -> None:
    assert [(sink.name, sink.topic) for sink in FLOW.pipeline.sinks] == [
        ("postgres-mart-vehicles", "vehicles.state.v1"),
        ("delta-lake-minutes", "vehicles.minutes.v1"),
        ("hook", "gps.positions.v1.clean"),
    ]


def test_sinks_change_nothing_for_workers() -> None:
    plain = Flow("gps", STATES.window(VehicleMinute(), size="1m", to="vehicles.minutes.v1"))
    assert [step.id for step in FLOW.plan.steps] == [step.id for step in plain.plan.steps]
    assert FLOW.pipeline.topics() == plain.pipeline.topics()
    assert [topic.name for topic in FLOW.pipeline.with_prefix("b.").sink_topics()] == [
        "b.sinks.postgres-mart-vehicles.dlq", "b.sinks.delta-lake-minutes.dlq", "b.sinks.hook.dlq",
    ]  # fmt: skip


def test_branches_after_a_sink_share_the_steps_before_it() -> None:
    copied = CLEAN.to(postgres("events"))
    flow = Flow("gps", copied.fold(VehicleState(), to="vehicles.state.v1"), copied.to("further.v1"))
    assert len(flow.plan.sinks) == 1
    assert len(flow.plan.steps) == len({step.id for step in flow.plan.steps})


def test_a_flow_beside_it_has_no_sinks() -> None:
    assert FLOW.with_topics("other", {"gps.positions.v1": "gps.positions.v2"}).plan.sinks == ()


def test_a_deployment_adds_sinks_to_a_flow_that_knows_none() -> None:
    plain = Flow("gps", STATES)
    copied = plain.with_sinks(postgres("vehicles", topic="vehicles.state.v1")).with_sinks(
        delta("clean", topic="gps.positions.v1.clean")
    )

    assert ["postgres-vehicles", "delta-clean"] == [sink.name for sink in copied.pipeline.sinks]
    assert plain.plan.steps == copied.plan.steps
    assert plain.pipeline.topics() == copied.pipeline.topics()
    for sinks, words in [
        ([postgres("a")], "names no topic"),
        ([postgres("a", topic="other.v1")], "reads other.v1, which is no output"),
        ([postgres("vehicles", topic="vehicles.state.v1")], "two sinks are called postgres-vehicles"),
    ]:
        with pytest.raises(ValueError, match=words):
            copied.with_sinks(*sinks)


def test_it_is_shown() -> None:
    pipeline = FLOW.pipeline.with_prefix("b.")
    said = "\n".join(as_text(FLOW, pipeline, {"streams_idle_ms": 1}))
    assert "postgres-mart-vehicles  b.vehicles.state.v1 to postgres, table mart.vehicles" in said
    assert "https://example.com/hook" in said
    assert "team=1" not in said
    assert as_json(FLOW, pipeline, {})["sinks"][2]["group"] == "b.streams.sink.hook"


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (positions.to(postgres("a")), "comes after reorder, which writes no topic"),
        (STATES.to(postgres("a", topic="nothing.v1")), "reads nothing.v1, which is no output"),
        (STATES.to(postgres("a")).to(postgres("a")), "two sinks are called postgres-a"),
    ],
)
def test_what_contradicts_itself_is_refused_where_it_is_declared(stream: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Flow("gps", stream)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", ["", "a b", "a;drop", "a.b.c", "1a", "x" * 64])
def test_a_name_that_is_no_table_is_refused(table: str) -> None:
    with pytest.raises(ValueError, match="no name of a table"):
        postgres(table, name="s")


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a//b", "a/../b", "s3://x"])
def test_a_path_that_leaves_its_root_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path below"):
        delta(path, name="s")


@pytest.mark.parametrize("url", ["ftp://x/", "https://", "https://me:secret@x/"])
def test_an_address_that_is_none_or_has_a_password_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sink s") as told:
        http(url, name="s")
    assert "secret" not in str(told.value)


def test_a_table_goes_by_the_key_of_its_flow_and_windows_are_rows() -> None:
    catalog = Catalog.load()
    states, minutes, clean = (declared_sink(FLOW.pipeline, sink, catalog) for sink in FLOW.pipeline.sinks)
    assert (states.key, states.has_tombstones) == (("device_id",), True)
    assert (minutes.key, minutes.has_tombstones) == ((), False)
    assert "event_id" in {column.name for column in clean.columns}
    wrong = delta("x", topic="vehicles.minutes.v1", key=["nothing"])
    with pytest.raises(UsageError, match="no field 'nothing'"):
        declared_sink(FLOW.pipeline, wrong, catalog)
