"""Count events as clean where a flow has no topic of clean events."""

from dataclasses import dataclass
from typing import ClassVar

from streams.batch.events import Events
from streams.batch.replayed import is_replayed
from streams.operators.base import Operator, OperatorContext
from streams.operators.output import Output
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.publish import CLEAN
from streams.operators.trace import WatermarkTrace


@dataclass(frozen=True)
class Counted(OperatorSpec):
    """Declaration: events are counted as `clean`, and passed on; nothing is written."""

    passes_all: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Name of the operator: `counted`."""
        return "counted"

    def build(self, context: OperatorContext) -> "CountedOperator":
        """Create the operator of one partition."""
        del context
        return CountedOperator()


class CountedOperator(Operator):
    """Counts events, and reports the outcome of replayed dead letters."""

    takes_references = True

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Pass the events on."""
        if not len(events):
            return Output(events, trace)
        replayed = [] if events.headers is None else [one for one in events.headers if is_replayed(one)]
        return Output(
            events, trace, dropped={CLEAN: len(events)}, dropped_replayed={CLEAN: replayed} if replayed else {}
        )
