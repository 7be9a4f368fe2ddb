"""`streams flows`: the app's flows as text, JSON and a picture."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from streams.cli import main
from streams.flow import discover

SVG = "{http://www.w3.org/2000/svg}"
FLOW = """
from streams import Count, Flow, Fold, source
trunk = source("doors.v1", key="sensor_id", out_of_orderness="3s").deduplicate("1h").reorder()
count = Fold("sensor_id", (), {"events": Count()})
flow = Flow("doors", trunk.to("doors.v1.clean"), trunk.fold(count, to="doors.state.v1"))
"""
EVENT = ("event_id:string", "sensor_id:string", "event_time:long", "sequence:long")


class Streams(Protocol):
    """The command line: what it printed."""

    def __call__(self, *arguments: str, status: int = 0) -> str: ...


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that holds `yard.py` and its schemas, and is the working directory."""
    for topic, fields in (("doors.v1", EVENT), ("doors.state.v1", ("sensor_id:string", "events:long"))):
        write_schema(tmp_path, topic, *fields)
    (tmp_path / "yard.py").write_text(FLOW, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMS_APP", "yard")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "yard"]:
        del sys.modules[name]
    discover._declared.cache_clear()


def write_schema(root: Path, topic: str, *fields: str) -> None:
    folder = root / "schemas" / f"{topic}-value"
    folder.mkdir(parents=True, exist_ok=True)
    named = [{"name": name, "type": kind} for name, _, kind in (field.partition(":") for field in fields)]
    schema = {"type": "record", "name": "Row", "namespace": "yard", "fields": named}
    (folder / "1.avsc").write_text(json.dumps(schema), encoding="utf-8")


@pytest.fixture
def streams(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Streams:
    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["streams", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert int(ended.value.code or 0) == status, printed
        return printed.out if status == 0 else printed.err

    return run


def test_the_flows_of_a_users_app_are_listed(project: Path, streams: Streams) -> None:
    assert streams("flows", "list") == "doors: doors.v1 -> doors.v1.clean, doors.state.v1  (yard:flow)\n"
    (row,) = json.loads(streams("flows", "list", "--format", "json"))
    assert (row["group"], row["declared_in"]) == ("streams.doors", "yard:flow")


def test_the_option_wins_over_the_variable_and_the_default_is_logistics(
    project: Path, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMS_APP", "yard")  # restored afterwards, whatever the option sets
    assert "gps" in streams("--app", "logistics", "flows", "list")
    assert "doors" in streams("--app", "yard:flow", "flows", "list")
    monkeypatch.delenv("STREAMS_APP")
    assert "gps" in streams("flows", "list")


def test_a_topology_shows_branches_topics_and_the_bounds_in_force(
    project: Path, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMS_IDLE_MS", "77")
    monkeypatch.setenv("STREAMS_TOPIC_PREFIX", "staging.")
    lines = streams("flows", "show", "doors").splitlines()
    assert lines[2:7] == [
        "source staging.doors.v1  (id event_id, key sensor_id, time event_time, order sequence)",
        "deduplicate  (horizon 1h)",
        "reorder  (out of orderness 3s)",
        "├─ to staging.doors.v1.clean  (original bytes)",
        "└─ fold to staging.doors.state.v1  (Fold, the last row of each key)",
    ]
    bounds = dict(line.split() for line in lines if line.startswith("  STREAMS_"))
    assert (bounds["STREAMS_LATENESS_MS"], bounds["STREAMS_DEDUP_HORIZON_MS"]) == ("3000", "3600000")
    assert bounds["STREAMS_IDLE_MS"] == "77"
    shown = json.loads(streams("flows", "show", "doors", "--format", "json"))
    assert [(step["id"], step["after"]) for step in shown["steps"]][-1] == ("fold:doors.state.v1", "reorder")
    assert {topic["name"] for topic in shown["topics"]} >= {"staging.doors.v1.journal", "staging.doors.v1.late"}


def test_the_picture_is_svg_with_a_box_for_each_step_and_topic(project: Path, streams: Streams) -> None:
    root = ET.fromstring(streams("flows", "show", "doors", "--format", "svg"))  # noqa: S314 - our own
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"doors.v1", "deduplicate", "reorder", "doors.v1.clean", "doors.state.v1"} <= set(texts)
    boxes = [each for each in root.iter(f"{SVG}rect") if each.get("class")]
    assert len(boxes) == 7
    width = float(root.get("width") or 0)
    assert all(float(box.get("x") or 0) + float(box.get("width") or 0) <= width for box in boxes)


BRANCHES = """
def opened(rows):
    return rows.column("sequence")

def marked(rows):
    return rows

chosen = trunk.filter(opened)
flow = Flow(
    "doors",
    trunk.to("doors.v1.clean"),
    chosen.to("doors.open.v1").fold(count, to="doors.state.v1"),
    chosen.map_batches(marked).to("doors.marked.v1"),
)
"""


def test_branches_have_functions_and_topics_of_their_own(project: Path, streams: Streams) -> None:
    (project / "yard.py").write_text(FLOW.rpartition("flow =")[0] + BRANCHES, encoding="utf-8")
    assert streams("flows", "show", "doors").splitlines()[4:12] == [
        "reorder  (out of orderness 3s)",
        "├─ to doors.v1.clean  (original bytes, counted as clean)",
        "└─ filter opened",
        "   ├─ to doors.open.v1  (original bytes)",
        "   │  fold to doors.state.v1  (Fold, the last row of each key)",
        "   └─ map_batches marked",
        "      to doors.marked.v1  (original bytes)",
        "",
    ]
    root = ET.fromstring(streams("flows", "show", "doors", "--format", "svg"))  # noqa: S314 - our own
    boxes = [each for each in root.iter(f"{SVG}rect") if each.get("class")]
    corners = {text.text: (float(text.get("x") or 0), float(text.get("y") or 0)) for text in root.iter(f"{SVG}text")}
    assert len(boxes) == len({(box.get("x"), box.get("y")) for box in boxes}) == 13
    assert len(list(root.iter(f"{SVG}path"))) == 1 + 12, "the head of an arrow, and one arrow to each box but the first"
    right_of = [
        ("reorder", "filter opened"),
        ("filter opened", "doors.open.v1"),
        ("map_batches marked", "doors.marked.v1"),
    ]
    assert all(corners[left][0] < corners[right][0] for left, right in right_of)
    assert corners["doors.v1.clean"][1] < corners["doors.open.v1"][1] < corners["doors.marked.v1"][1]


def test_a_field_that_the_schema_lacks_is_named_with_the_nearest_one(project: Path, streams: Streams) -> None:
    wrong = FLOW.replace('key="sensor_id"', 'key="sensor_id", order="sequense"')
    (project / "yard.py").write_text(wrong, encoding="utf-8")
    said = streams("flows", "list", status=1)
    assert "sequense: missing" in said
    assert "did you mean 'sequence'?" in said


def test_a_row_that_its_schema_does_not_take_is_refused(project: Path, streams: Streams) -> None:
    write_schema(project, "doors.state.v1", "sensor_id:string", "events:double")
    assert "events: the fold gives long, the schema says double" in streams("flows", "show", "doors", status=1)


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("nobody.flows", "no module 'nobody' here"),
        ("yard.flows", "no module 'yard.flows' here"),
        ("yard:flaw", "yard has no 'flaw'; did you mean 'flow'?"),
        ("yard:trunk", "yard:trunk is no flow, but a Stream"),
        ("json", "json declares no flow"),
        ("a b", "'a b' is no app: MODULE or MODULE:NAME"),
    ],
)
def test_an_app_that_is_none_is_refused_in_a_line(project: Path, streams: Streams, app: str, says: str) -> None:
    said = streams("--app", app, "flows", "list", status=2)
    assert says in said
    assert len(said.splitlines()) == 1


def test_an_app_that_contradicts_itself_is_refused_where_it_is_declared(project: Path, streams: Streams) -> None:
    wrong = FLOW.replace('to="doors.state.v1"', 'to="doors.v1.clean"')
    (project / "yard.py").write_text(wrong, encoding="utf-8")
    said = streams("flows", "list", status=2)
    assert "yard.py:5: flow 'doors': doors.v1.clean is written twice" in said


def test_two_flows_of_one_name_are_refused(project: Path, streams: Streams) -> None:
    (project / "yard.py").write_text(
        f"{FLOW}\nother = flow.with_topics('doors', {{'doors.v1': 'x.v1'}})", encoding="utf-8"
    )
    assert "two flows are called 'doors'" in streams("flows", "list", status=2)


def test_an_unknown_flow_is_named_with_those_that_there_are(project: Path, streams: Streams) -> None:
    assert "no flow 'door': there is doors; did you mean 'doors'?" in streams("flows", "show", "door", status=2)


def test_the_picture_in_the_documents_is_that_of_the_flow(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMS_APP", raising=False)
    shown = (Path(__file__).parents[2] / "docs" / "images" / "flow-gps.svg").read_text(encoding="utf-8")
    assert streams("flows", "show", "gps", "--format", "svg") == shown


READER = """
from streams import Count, Flow, Fold, source
from yard import count
cleaned = source("doors.v1.clean", key="sensor_id", subject="doors.v1-value").deduplicate("1h").reorder()
flow = Flow("alarms", cleaned.fold(count, to="alarms.state.v1"))
"""


def in_package(project: Path, **modules: str) -> None:
    (project / "yard.py").unlink()
    package = project / "yard"
    package.mkdir()
    (package / "__init__.py").write_text(
        'from streams import Count, Fold\ncount = Fold("sensor_id", (), {"events": Count()})\n', encoding="utf-8"
    )
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")


def test_a_flow_reads_what_another_one_writes_and_comes_after_it(project: Path, streams: Streams) -> None:
    in_package(project, alarms=READER, doors=FLOW)
    write_schema(project, "alarms.state.v1", "sensor_id:string", "events:long")
    found = json.loads(streams("flows", "list", "--format", "json"))
    assert [one["name"] for one in found] == ["doors", "alarms"]
    (_, alarms) = discover.declared_flows()
    assert alarms.flow.pipeline.subject == "doors.v1-value"
    assert "doors.v1.clean.clean" not in {topic.name for topic in alarms.flow.pipeline.topics()}


@pytest.mark.parametrize(
    ("doors", "other", "says"),
    [
        (FLOW, READER, "both declare the topic doors.v1.clean"),
        (FLOW, FLOW.replace('"doors"', '"z"').replace('"doors.v1"', '"z.v1"'), "both declare the topic doors.v1.clean"),
        (FLOW.replace('source("doors.v1"', 'source("alarms.state.v1"'), "", "read each other's outputs"),
    ],
)
def test_flows_that_read_or_write_the_same_topic_or_wait_for_each_other_are_refused(
    project: Path, streams: Streams, doors: str, other: str, says: str
) -> None:
    more = {"zzz": other.replace('"alarms"', '"bells"').replace("alarms.state", "bells.state")} if other else {}
    in_package(project, alarms=READER, doors=doors, **more)
    assert says in streams("flows", "list", status=2)
