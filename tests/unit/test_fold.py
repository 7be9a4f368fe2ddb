import numpy as np
import pyarrow as pa
import pytest

from streams.operators.aggregate import Segments
from streams.operators.columns import object_rows, objects
from streams.operators.fold import Count, FirstTime, Fold, Greatest, LastTime, Latest, Least, Total, WindowFold

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


def segments(*events):
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
    )


def row(state):
    batch = FOLD.table(objects([b"s"]), state)
    return {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column)[0].as_py()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def folded(*batches):
    state = np.zeros(1, FOLD.dtype)
    for batch in batches:
        state = FOLD.fold(state, segments(*batch))
    return state


def test_every_column_says_what_it_says():
    state = folded([(10, 1.0, 2.5), (20, NAN, -1.5), (30, 0.0, NAN)])
    assert row(state) == {
        "sensor_id": "s", "events": 3, "first": 10, "last": 30, "is_open": False,
        "warmest": 2.5, "coldest": -1.5, "degrees": 1.0,
    }  # fmt: skip


def test_what_was_never_known_is_null():
    found = row(folded([(1, NAN, NAN)]))
    assert (found["is_open"], found["warmest"], found["coldest"], found["degrees"]) == (None, None, None, 0.0)


def test_cuts_change_nothing():
    events = [(1, 1.0, 0.1), (2, NAN, -0.0), (3, 0.0, 0.0), (4, NAN, 7.25), (5, 1.0, NAN)]
    whole = folded(events)
    for cut in range(1, len(events)):
        assert folded(events[:cut], events[cut:]).tobytes() == whole.tobytes()
    assert folded(*[[event] for event in events]).tobytes() == whole.tobytes()


def test_a_column_of_an_unlisted_field_is_refused_by_name():
    with pytest.raises(ValueError, match="'worst' reads 'speed', which is not one of the fields"):
        Fold("sensor_id", FIELDS, {"worst": Greatest("speed")})


def test_a_window_begins_with_nothing():
    fold = WindowFold("sensor_id", FIELDS, {"events": Count()})
    state = fold.fold(np.zeros(1, fold.dtype), segments((1, 1.0, 1.0)))
    one = np.array([60])
    batch = fold.table(objects([b"s"]), one, one + 60, np.array([2]), state)
    assert batch.schema.names == ["sensor_id", "window_start", "window_end", "revision", "events"]
    assert batch.column("revision").to_pylist() == [2]
    assert fold.carry(state).tobytes() == np.zeros(1, fold.dtype).tobytes()
