"""Rekey: writes every event, its bytes as they came, to a topic under another key, the value of a field."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streams.batch.columns import has_text
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.operators.base import Operator, OperatorContext
from streams.operators.output import EventRecords, Output
from streams.operators.spec import OperatorSpec, OutputTopic
from streams.operators.trace import WatermarkTrace

NULL_KEY: Final = "null_key"
"""Outcome of events without a value in the field, whether they go on or not."""


@dataclass(frozen=True)
class Rekey(OperatorSpec):
    """Declaration: events go to `topic`, which is internal, keyed by the text field `field`."""

    topic: str
    field: str
    passes_null: bool = False
    """Whether events without a value go there too, under the key that they have; else they are dropped."""

    @property
    def name(self) -> str:
        """Name derived from the field: the topic's name begins with that of the flow."""
        return f"key_by.{self.field}"

    def build(self, context: OperatorContext) -> "RekeyOperator":
        """Create the operator of one partition."""
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
        """Write the events, count those that have no key, and pass all on."""
        keys = events.text(self._spec.field)
        has_key = has_text(keys)
        without = len(events) - int(np.count_nonzero(has_key))
        counted = {NULL_KEY: without} if without else {}
        if without and self._spec.passes_null:
            keys, has_key = np.where(has_key, keys, byte_objects(events.key)), np.ones(len(events), dtype=np.bool_)
        if not has_key.any():
            return Output(events, trace, dropped=counted)
        sent = replace(events, key=keys, slot=np.full(len(events), -1, dtype=np.int64)).take(has_key)
        return Output(events, trace, [EventRecords(self._spec.topic, sent, "")], counted)
