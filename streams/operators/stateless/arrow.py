"""Filter and map by functions over Arrow: the declared fields of a batch of events as columns of a record batch.

Columns are `event_id`, `key` (strings), `event_time` and `sequence` (integers), and the declared fields by their names:
numbers as doubles, null where there is none, texts as strings. A function gets all events of a call at once, of which
there may be any number. It must decide about each row by that row alone: results may not depend on how the log was cut.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import pyarrow as pa

from streams.batch.columns import Float64, objects
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.batch.replayed import is_replayed
from streams.operators.base import Operator, OperatorContext
from streams.operators.output import Output
from streams.operators.spec import OperatorSpec
from streams.operators.trace import WatermarkTrace

FILTERED: Final = "filtered"

Predicate = Callable[[pa.RecordBatch], pa.Array]
"""Events to booleans, one for each: whether it goes on. Null: it does not."""
BatchMapping = Callable[[pa.RecordBatch], pa.RecordBatch]


def as_record_batch(events: Events) -> pa.RecordBatch:
    """Events as columns."""
    columns: dict[str, pa.Array] = {
        "event_id": pa.array(byte_objects(events.event_id), pa.binary()).cast(pa.string()),
        "key": pa.array(byte_objects(events.key), pa.binary()).cast(pa.string()),
        "event_time": pa.array(events.event_time),
        "sequence": pa.array(events.sequence),
    }
    for name in events.fields.payload:
        values = events.number(name)
        columns[name] = pa.array(values, mask=np.isnan(values))
    for name in events.fields.texts:
        columns[name] = pa.array(events.text(name), pa.binary()).cast(pa.string())
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


@dataclass(frozen=True)
class Filter(OperatorSpec):
    """Declaration: events for which `predicate` is not true are dropped and counted as `filtered`."""

    label: str
    predicate: Predicate

    @property
    def name(self) -> str:
        """Name of the operator, derived from its label."""
        return f"filter.{self.label}"

    def build(self, context: OperatorContext) -> "FilterOperator":
        """Create the operator of one partition."""
        del context
        return FilterOperator(self)


class FilterOperator(Operator):
    """Drops the events for which the function is not true."""

    stage = "filter"
    takes_references = True

    def __init__(self, spec: Filter) -> None:
        self._spec = spec

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Pass on the events for which the predicate is true.

        Raises:
            TypeError: it does not give one boolean for each event.

        """
        if not len(events):
            return Output(events, trace)
        found = self._spec.predicate(as_record_batch(events))
        if len(found) != len(events) or found.type != pa.bool_():
            raise TypeError(f"{self._spec.name}: {len(events)} events gave {len(found)} values of {found.type}")
        kept = np.asarray(found.fill_null(pa.scalar(value=False)), dtype=np.bool_)
        dropped = len(events) - int(np.count_nonzero(kept))
        if not dropped:
            return Output(events, trace)
        replayed = {}
        if events.headers is not None:
            replayed = {FILTERED: [headers for headers in events.headers[~kept] if is_replayed(headers)]}
        return Output(events.take(kept), trace.take(kept), dropped={FILTERED: dropped}, dropped_replayed=replayed)


@dataclass(frozen=True)
class MapBatches(OperatorSpec):
    """Declaration: declared fields get the values that `function` gives; id, key, time, sequence and bytes stay.

    `function` gets a record batch and gives one with a row for each row, in the same order. Columns that it leaves out
    stay as they are; of the others only declared fields are read.
    """

    passes_all: ClassVar[bool] = True
    label: str
    function: BatchMapping

    @property
    def name(self) -> str:
        """Name derived from the label."""
        return f"map.{self.label}"

    def build(self, context: OperatorContext) -> "MapOperator":
        """Create the operator of one partition."""
        del context
        return MapOperator(self)


class MapOperator(Operator):
    """Sets fields to the values that the function returns."""

    stage = "map"
    takes_references = True

    def __init__(self, spec: MapBatches) -> None:
        self._spec = spec

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Pass the events on with other values of their fields.

        Raises:
            TypeError: the function does not give a row for each event.

        """
        if not len(events):
            return Output(events, trace)
        found = self._spec.function(as_record_batch(events))
        if found.num_rows != len(events):
            raise TypeError(f"{self._spec.name}: {len(events)} events gave {found.num_rows} rows")
        payload, texts = events.payload.copy(), events.texts.copy()
        names = set(found.schema.names)
        for row, name in enumerate(events.fields.payload):
            if name in names:
                payload[row] = _doubles(found.column(name))
        for row, name in enumerate(events.fields.texts):
            if name in names:
                texts[row] = objects(found.column(name).cast(pa.string()).cast(pa.binary()).to_pylist())
        return Output(replace(events, payload=payload, texts=texts), trace)


def _doubles(column: pa.Array) -> Float64:
    values: Float64 = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
