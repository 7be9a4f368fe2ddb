"""An operator's result for a micro-batch: events for the next operator, records for topics, counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from streams.batch.columns import Bools, Headers
from streams.batch.events import Events
from streams.operators.trace import WatermarkTrace


@dataclass(frozen=True, slots=True)
class EventRecords:
    """Events that go to a topic as they came: key, value, headers; in this order."""

    topic: str
    events: Events
    outcome: str
    """What the events are counted as, and what is told of those that were replayed: `clean`, `late`. Empty: they go on
    to other operators as well, which decide that. It counts on the way to the flow's clean topic only."""

    def take(self, rows: Bools) -> "EventRecords":
        """Only the events at `rows`."""
        return replace(self, events=self.events.take(rows))

    def headers(self, originals: Sequence[Headers | None] | None) -> Sequence[Headers | None] | None:
        """Headers of each record, given those that its event came with."""
        return originals


@dataclass(frozen=True, slots=True)
class RefusedEvents:
    """Events that become dead letters since an output has refused them, and why, in words."""

    events: Events
    """`row` is the one in the micro-batch that they came in; -1: they were held from an earlier one."""
    messages: list[str]
    input_number: int | None = None
    """Input of the flow that they came from; None: the one whose records are being processed."""


@dataclass(frozen=True, slots=True)
class Output:
    """An operator's result for a micro-batch."""

    events: Events
    """For the next operator, in the order in which it shall see them."""
    trace: WatermarkTrace
    """Watermark trace of these events."""
    records: Sequence[EventRecords] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Events that are not passed on, by outcome: `duplicate`, `filtered`. Beside the way to the flow's clean topic they
    are counted for the operator: they have their outcome elsewhere."""
    dropped_replayed: Mapping[str, Sequence[Headers]] = field(default_factory=dict)
    """Headers of those of them that were replayed from dead letters, by outcome: the replay reports their outcome."""
    found: Mapping[str, int] = field(default_factory=dict)
    """What was noticed and changes nothing, by name: `contradictions`."""
    refused: Sequence[RefusedEvents] = ()


class RefusedOutputs(Protocol):
    """What outputs have refused. Falsy when there is nothing."""

    def __bool__(self) -> bool: ...

    def messages(self, events: Events) -> dict[int, str]:
        """Those of `events` that become dead letters: position and why."""
