"""What the metrics of a sink's process say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from streams.monitor.processes import Address, as_written_by, counted
from streams.resilience.breaker import State

BREAKERS: Final = {int(one): one.name.lower().replace("_", "-") for one in State}
"""By number of the metric, the state of a breaker in words."""
OUTCOMES: Final = frozenset({"written", "deleted", "replaced", "rejected"})
_NAME_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class SinkState:
    """A process of a sink at one moment. Counters are cumulative since its start."""

    address: Address
    sink: str
    """Name of the sink; empty: the process has not reported it."""
    ready: bool
    state: str
    """`ready`, or why the process is not ready."""
    breaker: str = ""
    """State of the breaker, one of `BREAKERS`; empty: not known."""
    unwritten_s: float = 0.0
    """Age of the oldest record that was read and that the target does not have."""
    records: Mapping[str, float] = field(default_factory=dict)
    """By outcome, records that the target has or that are dead letters."""
    failures: float = 0.0
    """Attempts that failed because the target is unavailable."""


class SinkKind:
    """Implements `processes.Kind` for processes of sinks."""

    word = "sink"

    def is_ours(self, line: bytes) -> bool:
        """Sinks count records, from their start on."""
        return line.startswith(b"streams_sink_records_total{")

    def read(self, address: Address, text: str, *, ready: bool, state: str) -> SinkState:
        """What its samples say.

        Raises:
            ValueError: it is not the text that Prometheus would read, or a count is none.

        """
        sink, breaker, unwritten_s, failures = "", "", 0.0, 0.0
        records: dict[str, float] = {}
        with as_written_by("sink"):
            for family in text_string_to_metric_families(text):
                for name, labels, value, *_ in family.samples:
                    match name:
                        case "streams_sink_records_total":
                            sink = labels["sink"][:_NAME_CHARACTERS_MAX]
                            if labels["outcome"] in OUTCOMES:
                                records[labels["outcome"]] = counted(value)
                        case "streams_sink_unwritten_seconds":
                            unwritten_s = counted(value)
                        case "streams_sink_failures_total":
                            failures = counted(value)
                        case "streams_breaker_state":
                            breaker = BREAKERS.get(int(counted(value)), "")
                        case _:
                            pass
        return SinkState(address, sink, ready, state, breaker, unwritten_s, records, failures)

    def away(self, address: Address, state: str, last: SinkState | None) -> SinkState:
        """A process that cannot be read is that of the sink that it was."""
        return SinkState(address, "" if last is None else last.sink, ready=False, state=state)
