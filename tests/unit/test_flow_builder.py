"""Declarations: what the verbs make, and what is refused where it is declared."""

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streams import Count, DeviceClass, Flow, Fold, Greatest, Quarantine, Stream, WindowFold, source
from streams.flow.bounds import Bounds
from streams.flow.durations import DURATION_MS_MAX, milliseconds, written

FIELDS = ("is_open", "temperature_c")
STATE = Fold("sensor_id", FIELDS, {"events": Count(), "warmest_c": Greatest("temperature_c")})
HOUR = WindowFold("sensor_id", FIELDS, {"events": Count()})


def doors(**more: Any) -> Stream:
    return source("doors.v1", **{"key": "sensor_id", "fields": FIELDS, **more}).deduplicate().reorder()


def test_a_flow_is_what_its_verbs_say() -> None:
    flow = Flow(
        "doors",
        doors(
            ranges={"temperature_c": (-100, 200)},
            out_of_orderness="3s",
            skew="2m",
            idle="7s",
            quarantine=Quarantine(5, "10s"),
            silent_after="1h",
            device_classes=[DeviceClass("docks", key_prefix="dock-", silent_after_s=900)],
        )
        .to("doors.v1.clean")
        .fold(STATE, to="doors.state.v1")
        .window(HOUR, size="1h", grace="1m", to="doors.hours.v1", subject="hours"),
    )
    runs = flow.pipeline
    assert (runs.name, runs.source, runs.clean) == ("doors", "doors.v1", "doors.v1.clean")
    assert (runs.id_field, runs.key_field, runs.time_field, runs.sequence_field) == (
        "event_id", "sensor_id", "event_time", "sequence",
    )  # fmt: skip
    assert (runs.payload_fields, runs.text_fields, runs.field_ranges) == (FIELDS, (), {"temperature_c": (-100, 200)})
    assert [(t.topic, t.aggregate, t.subject) for t in runs.tables] == [
        ("doors.state.v1", STATE, "doors.state.v1-value")
    ]
    assert [(w.topic, w.size_ms, w.grace_ms, w.subject) for w in runs.windows] == [
        ("doors.hours.v1", 3_600_000, 60_000, "hours")
    ]
    assert (runs.silent_after_s, runs.device_classes[0].name) == (3600.0, "docks")
    assert runs.bounds == Bounds(3_000, 86_400_000, 120_000, 7_000, 5, 10_000)
    assert [step.id for step in flow.plan.steps] == [
        "source:doors.v1", "deduplicate", "reorder",
        "to:doors.v1.clean", "fold:doors.state.v1", "window:doors.hours.v1",
    ]  # fmt: skip


def test_branches_share_what_comes_before_them() -> None:
    trunk = doors()
    flow = Flow("doors", trunk.to("doors.clean"), trunk.fold(STATE, to="a.v1"), trunk.fold(STATE, to="b.v1"))
    assert [(step.id, step.after) for step in flow.plan.steps][2:] == [
        ("reorder", "deduplicate"), ("to:doors.clean", "reorder"), ("fold:a.v1", "reorder"), ("fold:b.v1", "reorder"),
    ]  # fmt: skip
    assert [table.topic for table in flow.pipeline.tables] == ["a.v1", "b.v1"]
    assert flow.pipeline.clean == "doors.clean"
    assert flow.pipeline.with_prefix("x.").clean == "x.doors.clean"


def test_a_flow_with_other_topics_is_one_of_its_own() -> None:
    flow = Flow("doors", doors().to("doors.v1.clean").fold(STATE, to="doors.state.v1"))
    topics = {"doors.v1": "doors.v2", "doors.v1.clean": "doors.v2.clean", "doors.state.v1": "doors.state.v2"}
    other = flow.with_topics("doors_v2", topics)
    assert not {topic.name for topic in other.pipeline.topics()} & {topic.name for topic in flow.pipeline.topics()}
    assert (other.name, other.pipeline.bounds, other.pipeline.subject) == (
        "doors_v2",
        flow.pipeline.bounds,
        "doors.v2-value",
    )
    assert [step.after for step in other.plan.steps][1] == "source:doors.v2"
    with pytest.raises(ValueError, match=r"flow doors has no topic nobody.v1: there is doors.state.v1, doors.v1"):
        flow.with_topics("x", {"nobody.v1": "y"})


class ByPosition:
    """A fold of a user's own that reads a third number."""

    dtype = np.dtype([("sum", "<f8")])

    def fold(self, state: Any, segments: Any) -> Any:
        return state + segments.payload[2]

    def table(self, keys: Any, state: Any) -> pa.RecordBatch:
        raise NotImplementedError


class Reads(ByPosition):
    reads = ("temprature_c",)


class ByName(ByPosition):
    def fold(self, state: Any, segments: Any) -> Any:
        return state + segments.number("temprature_c")


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: Flow("x"), "flow 'x' has no stream"),
        (lambda: Flow("a b", doors().to("c")), "the name of a flow is"),
        (lambda: Flow("x", doors()), "nothing comes out of it"),
        (lambda: Flow("x", doors().to("a.v1").fold(STATE, to="a.v1")), "flow 'x': a.v1 is written twice"),
        (lambda: Flow("x", doors().to("c").fold(STATE, to="s").fold(STATE, to="s")), "s is written twice"),
        (lambda: Flow("x", doors().to("doors.v1")), "doors.v1 cannot be an output of it: its source"),
        (lambda: Flow("x", doors().to("doors.v1.dlq")), "written for doors.v1 already"),
        (lambda: Flow("x", doors().to("no spaces")), "'no spaces' is no name of a topic"),
        (
            lambda: Flow("x", source("a", key="k").to("c"), source("b", key="k").to("d")),
            "it has several sources, a and b",
        ),
        (lambda: Flow("x", source("a", key="k").deduplicate().fold(STATE, to="s")), "fold:s needs events in order"),
        (lambda: Flow("x", source("a", key="k").reorder().fold(STATE, to="s")), "fold:s would fold copies twice"),
        (lambda: Flow("x", doors().deduplicate().to("c")), "deduplicate is there twice"),
        (lambda: Flow("x", source("a", key="k").reorder().deduplicate().to("c")), "deduplicate comes before reorder"),
        (lambda: Flow("x", doors(key="is_open").to("c")), "the field 'is_open' is named twice"),
        (
            lambda: Flow("x", doors(ranges={"temprature_c": (0, 1)}).to("c")),
            r"ranges names 'temprature_c'.*did you mean 'temperature_c'\?",
        ),
        (lambda: Flow("x", doors(ranges={"is_open": (1, 0)}).to("c")), "the range of 'is_open' begins with 1"),
        (
            lambda: Flow("x", doors().to("c").fold(ByPosition(), to="s")),
            r"fold:s reads more than source\('doors.v1'\) declares: fields=\['is_open', 'temperature_c'\]",
        ),
        (
            lambda: Flow("x", doors().to("c").fold(Reads(), to="s")),
            "fold:s reads 'temprature_c', which is in neither fields nor texts",
        ),
        (
            lambda: Flow("x", doors().to("c").fold(ByName(), to="s")),
            r"fold:s reads 'temprature_c', which is in neither fields nor texts.*did you mean 'temperature_c'\?",
        ),
        (
            lambda: Flow("x", doors().to("c").window(HOUR, size="1h", to="h")),
            "open windows travel with the rows of a table",
        ),
        (lambda: doors(out_of_orderness="2d").to("c"), "ids are remembered for 86400000 ms, which is shorter"),
        (
            lambda: Flow("x", doors().filter(lambda batch: batch).to("c")),
            "a lambda has no name",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_words(declare: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        declare()


@pytest.mark.parametrize(
    ("text", "ms"),
    [("0s", 0), ("250ms", 250), ("5s", 5_000), ("90m", 5_400_000), ("24h", 86_400_000), ("7d", 604_800_000)],
)
def test_durations_are_a_number_and_a_unit(text: str, ms: int) -> None:
    assert milliseconds(text, what="x") == ms == milliseconds(timedelta(milliseconds=ms), what="x")
    assert milliseconds(written(ms), what="x") == ms


@pytest.mark.parametrize("wrong", ["5", "", "5 s", "-5s", "1.5s", "5sec", f"{DURATION_MS_MAX + 1}ms"])
def test_what_is_no_duration_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="the horizon is"):
        milliseconds(wrong, what="the horizon")


def test_a_bare_number_has_no_unit() -> None:
    with pytest.raises(TypeError, match="which has no unit"):
        milliseconds(5, what="the horizon")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole milliseconds"):
        milliseconds(timedelta(microseconds=1), what="the horizon")
