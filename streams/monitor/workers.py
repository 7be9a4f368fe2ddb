"""What the metrics of a worker say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from streams.batch.rejects import Reason
from streams.monitor.processes import Address, as_written_by, counted
from streams.monitor.slo import VISIBLE_S, Counts

OUTCOMES: Final = frozenset({"clean", "late", "duplicate", "rejected"})
FLOW_OUTCOME: Final = "{}/{}"
OTHER: Final = "other"
"""Stands for every unknown name."""
_REASONS: Final = frozenset(Reason)
_VERSION_CHARACTERS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker at one moment. Counters are cumulative since its start."""

    address: Address
    ready: bool
    state: str
    """`ready`, with remarks about the source, or why not."""
    visible: Mapping[str, Counts] = field(default_factory=dict)
    """Clean events that have an arrival time, dead letters, and those visible in time; by process."""
    outcomes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By process: each has counters of its own, which restart at 0 with it. A single process is ''."""
    rejects: Mapping[str, float] = field(default_factory=dict)
    watermark_age_s: Mapping[tuple[str, int], float] = field(default_factory=dict)
    quarantined: float = 0.0
    version: str = ""
    """Version of the program; empty: not reported."""
    flows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By process, events by flow and outcome (`FLOW_OUTCOME`)."""


class WorkerKind:
    """Implements `processes.Kind` for workers."""

    word = "worker"

    def is_ours(self, line: bytes) -> bool:
        """Workers count events."""
        return line.startswith((b"streams_events_", b"# TYPE streams_events"))

    def read(self, address: Address, text: str, *, ready: bool, state: str) -> WorkerState:
        """See `read_metrics`."""
        return read_metrics(address, text, ready=ready, state=state)

    def away(self, address: Address, state: str, last: WorkerState | None) -> WorkerState:  # noqa: ARG002 - of the protocol
        """Counts of a worker that cannot be read are not those of now."""
        return WorkerState(address, ready=False, state=state)


def read_metrics(address: Address, text: str, *, ready: bool, state: str) -> WorkerState:
    """What is of interest in a worker's metrics. Outcomes and reasons that are none of ours are added up as `other`.

    Raises:
        ValueError: it is not the text that Prometheus would read, or a count is none.

    """
    outcomes: dict[str, dict[str, float]] = {}
    rejects: dict[str, float] = {}
    watermarks: dict[tuple[str, int], float] = {}
    total: dict[str, float] = {}
    good: dict[str, float] = {}
    young: dict[str, float] = {}
    quarantined = 0.0
    version = ""
    flows: dict[str, dict[str, float]] = {}
    with as_written_by("worker"):
        for family in text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                process = labels.get("process", "")
                match name:
                    case "streams_events_total":
                        outcome = _one_of(OUTCOMES, labels["outcome"])
                        _add(outcomes.setdefault(process, {}), outcome, counted(value))
                        _add(flows.setdefault(process, {}), FLOW_OUTCOME.format(labels["pipeline"], outcome), value)
                    case "streams_worker_info":
                        version = labels["version"][:_VERSION_CHARACTERS_MAX]
                    case "streams_rejects_total":
                        _add(rejects, _one_of(_REASONS, labels["reason"]), counted(value))
                    case "streams_watermark_age_seconds" if math.isfinite(value):
                        watermarks[labels["topic"], int(labels["partition"])] = value
                    case "streams_arrival_age_seconds_count":
                        total[process] = counted(value)
                    case "streams_arrival_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                        good[process] = counted(value)
                    case "streams_event_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                        young[process] = counted(value)
                    case "streams_quarantined_devices":
                        quarantined += counted(value)
                    case _:
                        pass
    visible = {
        process: Counts(
            total.get(process, 0.0) + counts.get("rejected", 0.0),  # which are visible nowhere
            good.get(process, 0.0),
            young.get(process, 0.0),
        )
        for process, counts in outcomes.items()
    }
    return WorkerState(address, ready, state, visible, outcomes, rejects, watermarks, quarantined, version, flows)


def _one_of(known: frozenset[str], name: str) -> str:
    return name if name in known else OTHER


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value
