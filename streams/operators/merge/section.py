"""What is merged as it is held: by when it is due, its own event time beside it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.batch.events import Events, Fields

HELD: Final = "merge.held"
_EVENT_TIME: Final = "merge.event_time"
"""Payload column of held events: milliseconds, which a double holds exactly up to 2^53."""


def held_fields(fields: Fields) -> Fields:
    """Fields of held events, whose event time is when they are due."""
    return Fields((*fields.payload, _EVENT_TIME), fields.texts)


def as_held(events: Events, due: Int64) -> Events:
    """Events as they are held: without a place in a micro-batch or a key space."""
    unset = np.full(len(events), -1, dtype=np.int64)
    own_time: Float64 = events.event_time.astype(np.float64)
    return replace(
        events,
        row=unset,
        slot=unset,
        event_time=due,
        payload=np.concatenate([events.payload, own_time[None, :]]),
        fields=held_fields(events.fields),
    )


def own_times(held: Events) -> Int64:
    """Event times of held events."""
    times: Int64 = held.number(_EVENT_TIME).astype(np.int64)
    return times


INPUT: Final = "merge.input"
"""Field of merged events: the number of the input that they come from, counted from 0."""


def merged_fields(inputs: Sequence[tuple[str, Fields]]) -> Fields:
    """Fields of merged events, of the name and the fields of each input."""
    return Fields(
        (INPUT, *(f"{name}.{field}" for name, fields in inputs for field in fields.payload)),
        tuple(f"{name}.{field}" for name, fields in inputs for field in fields.texts),
    )


class Union:
    """Brings held events of each input to the columns of all: those of other inputs are null."""

    def __init__(self, inputs: Sequence[tuple[str, Fields]]) -> None:
        """Merge inputs, given the name and the fields of each."""
        self._fields = merged_fields(inputs)
        self._places: list[tuple[Int64, Int64]] = []
        """For each input: where its numbers and its texts are among those of all inputs."""
        for name, fields in inputs:
            of = [f"{name}.{field}" for field in fields.payload], [f"{name}.{field}" for field in fields.texts]
            all_of = (self._fields.payload, self._fields.texts)
            numbers, texts = (
                np.array([known.index(one) for one in mine], dtype=np.int64)
                for mine, known in zip(of, all_of, strict=True)
            )
            self._places.append((numbers, texts))

    def of(self, number: int, held: Events) -> Events:
        """Merged events of held ones of an input."""
        numbers, texts = self._places[number]
        payload = np.full((len(self._fields.payload), len(held)), np.nan)
        payload[0] = number  # `INPUT`
        payload[numbers] = held.payload[:-1]  # the last one is the event's own time
        columns = np.empty((len(self._fields.texts), len(held)), dtype=object)  # None, all of them
        columns[texts] = held.texts
        return replace(held, event_time=own_times(held), payload=payload, texts=columns, fields=self._fields)
