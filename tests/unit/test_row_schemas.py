"""The rows of tables and windows against the Avro schemas of their topics: before a worker meets the first event."""

import io
import json
import re
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyruhvro
import pytest

from streams.avro.resolve import without_logical_types
from streams.batch.rows import empty_rows
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline, Table, Window
from streams.flow.discover import pipelines
from streams.operators.fold.builder import Fold, WindowFold
from streams.operators.fold.columns import (
    Column,
    Count,
    FirstTime,
    Greatest,
    LastTime,
    Latest,
    LatestSymbol,
    LatestText,
    Least,
    Total,
)
from streams.schemas.catalog import Catalog
from streams.schemas.gate.check import check_subject
from streams.schemas.gate.findings import Finding, Rule
from streams.schemas.gate.row_schemas import unfit_rows
from streams.worker.schemas import require_row_schemas

GUIDE = Path(__file__).parents[2] / "docs" / "add-a-stream.md"
TIME = {"type": "long", "logicalType": "timestamp-millis"}
KEY = {"name": "sensor_id", "type": "string"}
WINDOW = [
    KEY,
    {"name": "window_start", "type": TIME},
    {"name": "window_end", "type": TIME},
    {"name": "revision", "type": "int"},
]
SUBJECT = "doors.state.v1-value"
COLUMNS: dict[str, tuple[Column, Any]] = {
    "`Count()`": (Count(), "long"),
    "`FirstTime()`": (FirstTime(), TIME),
    "`LastTime()`": (LastTime(), TIME),
    "`Greatest(field)`": (Greatest("weight"), ["null", "double"]),
    "`Least(field)`": (Least("weight"), ["null", "double"]),
    "`Latest(field)`": (Latest("weight"), ["null", "double"]),
    "`Latest(field, pa.bool_())`": (Latest("weight", pa.bool_()), ["null", "boolean"]),
    "`Latest(field, pa.int32())`": (Latest("weight", pa.int32()), ["null", "int"]),
    "`Latest(field, pa.int64())`": (Latest("weight", pa.int64()), ["null", "long"]),
    '`Latest(field, pa.timestamp("ms"))`': (Latest("weight", pa.timestamp("ms")), ["null", TIME]),
    "`LatestText(field)`": (LatestText("label"), ["null", "string"]),
    "`LatestSymbol(field, symbols)`": (LatestSymbol("weight", ("ON", "OFF")), ["null", "string"]),
    "`Total(field)`": (Total("weight"), "double"),
}
EACH_COLUMN = pytest.mark.parametrize(("column", "kind"), COLUMNS.values(), ids=list(COLUMNS))


def doors(column: Column) -> Pipeline:
    return Pipeline(
        name="doors",
        source="doors.events.v1",
        payload_fields=("weight",),
        text_fields=("label",),
        tables=(Table("doors.state.v1", Fold("sensor_id", ("weight",), {"x": column}, texts=("label",))),),
    )


def schema(*fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Row", "namespace": "logistics", "fields": list(fields)}


def catalog(root: Path, *fields: Any, subject: str = SUBJECT) -> Catalog:
    (root / subject).mkdir(exist_ok=True)
    (root / subject / "1.avsc").write_text(json.dumps(schema(*fields), indent=1), encoding="utf-8")
    return Catalog.load(root)


def found(root: Path, pipeline: Pipeline, *fields: Any) -> list[Finding]:
    return unfit_rows(catalog(root, *fields).latest(SUBJECT), [pipeline])


def test_the_rows_of_every_pipeline_fit_their_schemas() -> None:
    committed, running = Catalog.load(), list(pipelines().values())
    written = {each.subject for pipeline in running for each in (*pipeline.tables, *pipeline.windows)}
    assert len(written) >= 3
    for subject in written:
        assert [] == unfit_rows(committed.latest(subject), running)


@EACH_COLUMN
def test_a_column_fits_the_type_that_the_guide_names_and_comes_out_as_it(
    column: Column, kind: Any, tmp_path: Path
) -> None:
    assert [] == found(tmp_path, doors(column), KEY, {"name": "x", "type": kind})
    fold = doors(column).tables[0].aggregate
    rows = fold.table(np.array([b"a"], dtype=object), empty_rows(fold.dtype, 1))
    text = json.dumps(schema(KEY, {"name": "x", "type": kind}))
    (encoded,) = pyruhvro.serialize_record_batch(rows, text, 1)
    plain = fastavro.parse_schema(without_logical_types(json.loads(text)))
    row = fastavro.schemaless_reader(io.BytesIO(encoded[0].as_py()), plain, None)
    assert row == {"sensor_id": "a", "x": None if isinstance(kind, list) else 0}


def test_the_guide_names_the_type_of_each_column() -> None:
    rows = re.findall(r"^\| (`.*) \| (.*) \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {}
    for columns, types in rows:
        kinds = [json.loads(each) for each in re.findall(r"`([\[{\"].*?)`", types)]
        names = re.findall(r"`[A-Z]\w*\([^`]*\)`", columns)
        for position, name in enumerate(names):
            named[name] = kinds[position % len(kinds)]
    assert named == {name: kind for name, (_, kind) in COLUMNS.items()}


@EACH_COLUMN
@pytest.mark.parametrize("other", ["boolean", "int", "long", "float", "double", "string", "bytes", TIME])
def test_a_column_fits_no_other_type(column: Column, kind: Any, other: Any, tmp_path: Path) -> None:
    branches = kind if isinstance(kind, list) else [kind]
    wanted = [] if other in branches and "null" not in branches else [("x", Rule.ROW_SCHEMA)]
    assert wanted == [(f.field, f.rule) for f in found(tmp_path, doors(column), KEY, {"name": "x", "type": other})]
    nullable = found(tmp_path, doors(column), KEY, {"name": "x", "type": ["null", other]})
    assert ([] if other in branches else ["x"]) == [finding.field for finding in nullable]


def test_a_misfit_is_said_with_both_types_and_who_breaks(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, doors(Total("weight")), KEY, {"name": "x", "type": "long"})
    assert finding.message == "the fold gives double, the schema says long"
    assert finding.breaks == "flow doors: its worker would stop with the first row of doors.state.v1"
    assert finding.fix == "make it double; docs/add-a-stream.md lists the Avro type of each column"
    text = catalog(tmp_path, KEY, {"name": "x", "type": "long"}).latest(SUBJECT).text
    assert text.splitlines()[finding.line].strip() == '"name": "x",'
    (finding,) = found(tmp_path, doors(Greatest("weight")), KEY, {"name": "x", "type": "double"})
    assert finding.message == "the fold gives null where no value is known, the schema says double"
    (finding,) = found(tmp_path, doors(LastTime()), KEY, {"name": "x", "type": "long"})
    assert finding.message == "the fold gives timestamp-millis, the schema says long"


def test_fields_that_are_missing_or_too_many_are_named(tmp_path: Path) -> None:
    pipeline = doors(Count())
    assert [("x", "missing: the fold gives a column 'x' (long)")] == [
        (f.field, f.message) for f in found(tmp_path, pipeline, KEY)
    ]
    more = found(tmp_path, pipeline, KEY, {"name": "x", "type": "long"}, {"name": "y", "type": "long", "default": 0})
    assert [("y", "the fold gives no such column")] == [(f.field, f.message) for f in more]
    assert [] == found(tmp_path, pipeline, {"name": "x", "type": "long"}, KEY)  # they are found by their names


def test_windows_are_compared_with_the_window_they_publish(tmp_path: Path) -> None:
    window = Window(
        "doors.state.v1", WindowFold("sensor_id", ("weight",), {"x": Total("weight")}), size_ms=1, grace_ms=0
    )
    pipeline = Pipeline(
        name="doors",
        source="doors.events.v1",
        payload_fields=("weight",),
        tables=(Table("doors.other.v1", Fold("sensor_id", (), {"events": Count()})),),
        windows=(window,),
    )
    assert [] == found(tmp_path, pipeline, *WINDOW, {"name": "x", "type": "double"})
    wrong = found(tmp_path, pipeline, *WINDOW[:-1], {"name": "revision", "type": "long"}, {"name": "x", "type": "long"})
    assert ["revision", "x"] == [finding.field for finding in wrong]


def test_a_fold_that_cannot_show_a_key_without_events_is_judged_by_its_types(tmp_path: Path) -> None:
    class Mean(Fold):
        def table(self, keys: Any, state: Any) -> pa.RecordBatch:
            for count in state["x"]["count"].tolist():
                _ = 1 / count
            return super().table(keys, state)

    pipeline = Pipeline(
        name="doors",
        source="doors.events.v1",
        tables=(Table("doors.state.v1", Mean("sensor_id", (), {"x": Count()})),),
    )
    assert [] == found(tmp_path, pipeline, KEY, {"name": "x", "type": "long"})
    assert ["x"] == [f.field for f in found(tmp_path, pipeline, KEY, {"name": "x", "type": "double"})]


def test_an_enum_has_every_symbol_that_the_fold_publishes(tmp_path: Path) -> None:
    def kind(*symbols: str) -> dict[str, Any]:
        return {"name": "x", "type": ["null", {"type": "enum", "name": "Kind", "symbols": list(symbols)}]}

    pipeline = doors(LatestSymbol("weight", ("ON", "OFF")))
    assert [] == found(tmp_path, pipeline, KEY, kind("OFF", "ON", "BROKEN"))
    (finding,) = found(tmp_path, pipeline, KEY, kind("ON"))
    assert (finding.field, finding.message) == ("x", "the fold gives symbols that the enum lacks: OFF")


class Whole(Fold):
    """A fold that publishes a column of any type beside its count."""

    def __init__(self, given: pa.Array) -> None:
        super().__init__("sensor_id", (), {"x": Count()})
        self._given = given

    def table(self, keys: Any, state: Any) -> pa.RecordBatch:
        return super().table(keys, state).append_column("given", self._given.slice(0, len(keys)))


@pytest.mark.parametrize(
    ("given", "kind", "fits"),
    [
        (pa.array([[1]]), {"type": "array", "items": "long"}, True),
        (pa.array([[1]]), ["null", {"type": "array", "items": "long"}], True),
        (pa.array([[]], pa.list_(pa.float64())), {"type": "array", "items": "long"}, False),
        (pa.array([{"a": 1}]), {"type": "record", "name": "P", "fields": [{"name": "a", "type": "long"}]}, True),
        (pa.array([{"a": 1}]), {"type": "record", "name": "P", "fields": [{"name": "b", "type": "long"}]}, False),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), {"type": "map", "values": "long"}, True),
        (pa.array(["A"]), {"type": "enum", "name": "Kind", "symbols": ["A"]}, True),
        (pa.array([b"A"]), "bytes", False),
        (pa.array([1], pa.int16()), "int", False),
        (pa.array([1.5], pa.float32()), "float", True),
        (pa.array([1], pa.date32()), {"type": "int", "logicalType": "date"}, True),
        (pa.array([1], pa.timestamp("us")), {"type": "long", "logicalType": "timestamp-micros"}, True),
        (pa.array([1], pa.timestamp("us")), TIME, False),
        (pa.array([1]), ["null", "long", "string"], False),
    ],
)
def test_the_verdict_on_a_column_is_what_the_encoder_does_with_it(
    given: pa.Array, kind: Any, tmp_path: Path, *, fits: bool
) -> None:
    fold = Whole(given)
    pipeline = Pipeline(name="doors", source="doors.events.v1", tables=(Table("doors.state.v1", fold),))
    fields = (KEY, {"name": "x", "type": "long"}, {"name": "given", "type": kind})
    wrong = found(tmp_path, pipeline, *fields)
    assert fits == (wrong == []), wrong
    rows = fold.table(np.array([b"a"], dtype=object), empty_rows(fold.dtype, 1))
    if fits:
        assert 1 == len(pyruhvro.serialize_record_batch(rows, json.dumps(schema(*fields)), 1)[0])
    else:
        with pytest.raises(ValueError, match=r"fast_encode|panicked|missing column"):
            pyruhvro.serialize_record_batch(rows, json.dumps(schema(*fields)), 1)


def test_check_and_the_start_of_a_worker_refuse_what_does_not_fit(tmp_path: Path) -> None:
    committed = catalog(tmp_path, KEY, {"name": "x", "type": "long"})
    pipeline = doors(Total("weight"))
    assert [Rule.ROW_SCHEMA] == [f.rule for f in check_subject(committed, SUBJECT, {}, [pipeline]).findings]
    with pytest.raises(StreamsError, match=r"1\.avsc: x: the fold gives double, the schema says long; make it double"):
        require_row_schemas(committed, pipeline)
    require_row_schemas(committed, doors(Count()))
