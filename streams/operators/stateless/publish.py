"""Publish: every event goes to a topic as it came, and on to the next operator."""

from dataclasses import dataclass
from typing import ClassVar, Final

from streams.batch.events import Events
from streams.operators.base import Operator, OperatorContext
from streams.operators.output import EventRecords, Output
from streams.operators.spec import OperatorSpec
from streams.operators.trace import WatermarkTrace

CLEAN: Final = "clean"


@dataclass(frozen=True)
class Publish(OperatorSpec):
    """Declaration: events go to `topic`, and are counted as `outcome`."""

    passes_all: ClassVar[bool] = True
    topic: str
    outcome: str = CLEAN

    @property
    def name(self) -> str:
        """Name derived from the topic."""
        return f"publish.{self.topic}"

    def build(self, context: OperatorContext) -> "PublishOperator":
        """Create the operator of one partition."""
        del context
        return PublishOperator(self)


class PublishOperator(Operator):
    """Writes each event to a topic, and passes it on."""

    takes_references = True

    def __init__(self, spec: Publish) -> None:
        self._spec = spec

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Publish the events and pass them on."""
        if not len(events):
            return Output(events, trace)
        return Output(events, trace, [EventRecords(self._spec.topic, events, self._spec.outcome)])
