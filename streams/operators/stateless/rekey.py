"""Rekey: writes every event, its bytes as they came, to a topic under another key, the value of a field."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streams.batch.events import Events
from streams.operators.base import Operator, OperatorContext
from streams.operators.output import EventRecords, Output
from streams.operators.spec import OperatorSpec, OutputTopic
from streams.operators.trace import WatermarkTrace

NULL_KEY: Final = "null_key"
"""Outcome of events without a value in the field."""


@dataclass(frozen=True)
class Rekey(OperatorSpec):
    """Declaration: events go to `topic`, which is internal, keyed by the text field `field`."""

    topic: str
    field: str

    @property
    def name(self) -> str:
        """Name derived from the field: the topic's name begins with that of the flow."""
        return f"key_by.{self.field}"

    def build(self, context: OperatorContext) -> "RekeyOperator":
        """An operator for one partition."""
        del context
        return RekeyOperator(self)

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """The internal topic."""
        return (OutputTopic(self.topic, is_internal=True),)


class RekeyOperator(Operator):
    """Writes each event to a topic under another key."""

    def __init__(self, spec: Rekey) -> None:
        self._spec = spec

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Write the events that have a key, and pass all on."""
        keys = events.text(self._spec.field)
        has_key = np.array([bool(key) for key in keys.tolist()], dtype=np.bool_)
        dropped = len(events) - int(np.count_nonzero(has_key))
        if dropped == len(events):
            return Output(events, trace, dropped={NULL_KEY: dropped} if dropped else {})
        sent = replace(events, key=keys, slot=np.full(len(events), -1, dtype=np.int64)).take(has_key)
        records = [EventRecords(self._spec.topic, sent, "")]
        return Output(events, trace, records, {NULL_KEY: dropped} if dropped else {})
