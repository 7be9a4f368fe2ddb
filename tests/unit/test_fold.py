import io
import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyruhvro
import pytest
from numpy.typing import NDArray

from streams.batch.columns import object_rows, objects
from streams.batch.events import Fields
from streams.batch.rows import empty_rows, pack_rows, unpack_rows
from streams.operators.fold.aggregate import Segments
from streams.operators.fold.builder import Fold, WindowFold
from streams.operators.fold.columns import (
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

FIELDS = ("open", "temperature_c")
COLUMNS = {
    "events": Count(),
    "first": FirstTime(),
    "last": LastTime(),
    "is_open": Latest("open", pa.bool_()),
    "warmest": Greatest("temperature_c"),
    "coldest": Least("temperature_c"),
    "degrees": Total("temperature_c", per_unit=10),
}
FOLD = Fold("sensor_id", FIELDS, COLUMNS)
NAN = float("nan")


def segments(*events: tuple[Any, ...]) -> Segments:
    """One segment of (time, open, temperature)."""
    time, is_open, temperature = zip(*events, strict=True)
    count = len(events)
    return Segments(
        event_time=np.array(time),
        sequence=np.zeros(count, np.int64),
        payload=np.array([is_open, temperature], dtype=float),
        texts=object_rows([], count),
        prior=np.empty(0, np.int64),
        start=np.array([0]),
        end=np.array([count - 1]),
        fields=Fields(FIELDS),
    )


def row(state: NDArray[Any]) -> dict[str, Any]:
    batch = FOLD.table(objects([b"s"]), state)
    return {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column)[0].as_py()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def folded(*batches: Segments) -> NDArray[Any]:
    state = np.zeros(1, FOLD.dtype)
    for batch in batches:
        state = FOLD.fold(state, segments(*batch))
    return state


def test_every_column_says_what_it_says() -> None:
    state = folded([(10, 1.0, 2.5), (20, NAN, -1.5), (30, 0.0, NAN)])
    assert row(state) == {
        "sensor_id": "s", "events": 3, "first": 10, "last": 30, "is_open": False,
        "warmest": 2.5, "coldest": -1.5, "degrees": 1.0,
    }  # fmt: skip


def test_what_was_never_known_is_null() -> None:
    found = row(folded([(1, NAN, NAN)]))
    assert (found["is_open"], found["warmest"], found["coldest"], found["degrees"]) == (None, None, None, 0.0)


def test_cuts_change_nothing() -> None:
    events = [(1, 1.0, 0.1), (2, NAN, -0.0), (3, 0.0, 0.0), (4, NAN, 7.25), (5, 1.0, NAN)]
    whole = folded(events)
    for cut in range(1, len(events)):
        assert folded(events[:cut], events[cut:]).tobytes() == whole.tobytes()
    assert folded(*[[event] for event in events]).tobytes() == whole.tobytes()


def test_a_column_of_an_unlisted_field_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'worst' reads 'speed', which is not one of the fields"):
        Fold("sensor_id", FIELDS, {"worst": Greatest("speed")})


def test_a_window_begins_with_nothing() -> None:
    fold = WindowFold("sensor_id", FIELDS, {"events": Count()})
    state = fold.fold(np.zeros(1, fold.dtype), segments((1, 1.0, 1.0)))
    one = np.array([60])
    batch = fold.table(objects([b"s"]), one, one + 60, np.array([2]), state)
    assert batch.schema.names == ["sensor_id", "window_start", "window_end", "revision", "events"]
    assert batch.column("revision").to_pylist() == [2]
    assert fold.carry(state).tobytes() == np.zeros(1, fold.dtype).tobytes()


NUMBERS = Fold(
    "sensor_id",
    FIELDS,
    {"whole": Latest("temperature_c", pa.int64()), "small": Latest("temperature_c", pa.int32()),
     "is_on": Latest("temperature_c", pa.bool_()), "at": Latest("temperature_c", pa.timestamp("ms"))},
)  # fmt: skip


def latest(*values: float) -> list[int | None]:
    state = np.zeros(1, NUMBERS.dtype)
    for value in values:
        state = NUMBERS.fold(state, segments((1, NAN, value)))
    batch = NUMBERS.table(objects([b"s"]), state)
    return [column.cast(pa.int64())[0].as_py() for column in batch.columns[1:]]


@pytest.mark.parametrize("value", [0.5, -0.5, 2.0**63, -(2.0**63), 2.0**53 + 2, 1e300, float("inf"), NAN])
def test_a_value_that_is_none_of_its_column_is_unknown_there(value: float) -> None:
    assert [None] * 4 == latest(value)
    assert [1, 1, 1, 1] == latest(1.0, value)


def test_a_value_is_taken_by_the_columns_that_it_fits() -> None:
    assert [2**53, None, None, 2**53] == latest(2.0**53)
    assert [-(2**31), -(2**31), None, -(2**31)] == latest(-(2.0**31))
    assert [0, 0, 0, 0] == latest(1.0, 0.0)


def test_a_state_that_was_kept_before_with_a_value_that_does_not_fit_is_shown_as_unknown() -> None:
    state = np.zeros(1, NUMBERS.dtype)
    for name in ("whole", "small", "is_on", "at"):
        state[name]["known"], state[name]["value"] = True, 2.0**63
    assert [None] * 4 == [column[0].as_py() for column in NUMBERS.table(objects([b"s"]), state).columns[1:]]


def test_a_type_that_values_cannot_be_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="string is none of double, bool, int32, int64, timestamp"):
        Latest("temperature_c", pa.string())


def test_a_single_value_beyond_what_a_total_holds_is_left_out() -> None:
    state = folded([(1, NAN, 1.5), (2, NAN, 1e300), (3, NAN, -9e15), (4, NAN, 2.0)])
    assert 3.5 == row(state)["degrees"]


KINDS = ("OPENED", "CLOSED")
NAMED = Fold(
    "door_id",
    ("kind", "temperature_c"),
    {
        "events": Count(),
        "kind": LatestSymbol("kind", KINDS),
        "guard": LatestText("guard"),
        "badge": LatestText("badge"),
    },
    texts=("badge", "guard"),
)


def named(*events: tuple[Any, ...]) -> Segments:
    """Segments of (door, kind, badge, guard), doors ascending."""
    door, kind, badge, guard = zip(*events, strict=True)
    count = len(events)
    start = np.flatnonzero(np.diff(np.array(door), prepend=-1))
    return Segments(
        event_time=np.arange(count),
        sequence=np.zeros(count, np.int64),
        payload=np.array([kind, [NAN] * count], dtype=float),
        texts=object_rows([objects(list(badge)), objects(list(guard))], count),
        prior=np.empty(0, np.int64),
        start=start,
        end=np.append(start[1:], count) - 1,
        fields=Fields(("kind", "temperature_c"), ("badge", "guard")),
    )


def test_texts_and_symbols_are_the_newest_that_are_known_of_each_key() -> None:
    state = empty_rows(NAMED.dtype, 2)
    state = NAMED.fold(state, named((0, 0.0, b"7", None), (0, NAN, None, "Jürgen".encode()), (1, NAN, None, None)))
    state = NAMED.fold(state, named((0, 1.0, b"8", None), (1, 5.0, None, None)))
    assert NAMED.table(objects([b"a", b"b"]), state).to_pylist() == [
        {"door_id": "a", "events": 3, "kind": "CLOSED", "guard": "Jürgen", "badge": "8"},
        {"door_id": "b", "events": 2, "kind": None, "guard": None, "badge": None},
    ]
    packed = pack_rows(state)
    assert pack_rows(unpack_rows(NAMED.dtype, packed)) == packed


def test_text_and_symbols_are_written_by_their_avro_schema() -> None:
    schema = {
        "type": "record",
        "name": "Door",
        "fields": [
            {"name": "door_id", "type": "string"},
            {"name": "events", "type": "long"},
            {"name": "kind", "type": ["null", {"type": "enum", "name": "Kind", "symbols": list(KINDS)}]},
            {"name": "guard", "type": ["null", "string"]},
            {"name": "badge", "type": ["null", "string"]},
        ],
    }
    state = NAMED.fold(empty_rows(NAMED.dtype, 2), named((0, 1.0, b"7", None), (1, NAN, None, None)))
    [values] = pyruhvro.serialize_record_batch(NAMED.table(objects([b"a", b"b"]), state), json.dumps(schema), 1)
    parsed = fastavro.parse_schema(schema)
    rows = [fastavro.schemaless_reader(io.BytesIO(value), parsed, None) for value in values.to_pylist()]
    assert [(row["kind"], row["guard"], row["badge"]) for row in rows] == [("CLOSED", None, "7"), (None, None, None)]


def test_a_text_column_reads_listed_texts_only_and_is_no_part_of_a_window() -> None:
    with pytest.raises(ValueError, match=r"'guard' reads 'guard', which is not one of the texts \['badge'\]"):
        Fold("door_id", ("guard",), {"guard": LatestText("guard")}, texts=("badge",))
    with pytest.raises(ValueError, match="'guard' is text: rows of a window hold numbers only"):
        WindowFold("door_id", ("kind",), {"guard": LatestText("guard")})
    assert WindowFold("door_id", ("kind",), {"kind": LatestSymbol("kind", KINDS)}).meanings == {
        "kind": "LatestSymbol(field='kind')"
    }
    with pytest.raises(ValueError, match="no symbols"):
        LatestSymbol("kind", ())
