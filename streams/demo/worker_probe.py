"""Reads a worker's metrics over HTTP, and keeps totals and rates across its restarts."""

import http.client
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from streams.local.ports import HOST

OUTCOMES: Final = ("clean", "late", "duplicate", "rejected")
TIMEOUT_S: Final = 2.0
WINDOW_S: Final = 2.0
"""Time over which rates are computed, approximately."""
READY: Final = "ready"

Counter = tuple[str, str]
"""A flow, and what is counted of it."""


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds from event time to commit, of the clean events of the last moments."""

    mean_s: float
    p99_s_max: float
    """Upper bound of the histogram bucket in which the 99th percentile lies."""


@dataclass(frozen=True, slots=True)
class FlowReading:
    """One flow at one moment. Rates are events a second."""

    totals: Mapping[str, int]
    """Totals by outcome; rates have the same keys."""
    rates: Mapping[str, float]
    watermark_age_s_max: float | None
    """Age of the watermark that is the oldest of its partitions; None: there is none yet."""


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """The worker at one moment."""

    state: str
    """`ready`, or why the worker is not ready."""
    flows: Mapping[str, FlowReading]
    age: Age | None
    """Age of the clean events of all flows."""


class WorkerProbe:
    """Reads /readyz and /metrics of one worker after the other on one port.

    Counters of a worker that was killed are carried on from where they were last seen: what it counted after that is
    missing from the totals (not from the topics).
    """

    def __init__(self, port: int, topics_by_flow: Mapping[str, Sequence[str]]) -> None:
        """Read the worker at `port`; `topics_by_flow` names the flows whose metrics count, and the topics of each."""
        self._port = port
        self._flows = tuple(topics_by_flow)
        self._flow_of = {topic: flow for flow, topics in topics_by_flow.items() for topic in topics}
        self._seen_ready = False
        self._before: dict[Counter, float] = {}
        self._current: dict[Counter, float] = {}
        self._window: deque[tuple[float, dict[Counter, float]]] = deque()

    def restarted(self) -> None:
        """The worker is another one from now on: its counters begin at zero."""
        self._before, self._current = self._totals(), {}

    def sample(self, now_s: float) -> WorkerReading:
        """Ask once. A worker that does not answer is a state, not an error."""
        state = self._readiness()
        watermark_age_s = self._scrape()
        totals = self._totals()
        self._window.append((now_s, totals))
        while len(self._window) > 2 and now_s - self._window[1][0] >= WINDOW_S:
            self._window.popleft()
        first_s, first = self._window[0]
        seconds = max(now_s - first_s, 0.001)
        gained = {name: value - first.get(name, 0.0) for name, value in totals.items()}
        flows = {
            flow: FlowReading(
                {name: int(totals.get((flow, name), 0)) for name in OUTCOMES},
                {name: gained.get((flow, name), 0.0) / seconds for name in OUTCOMES},
                watermark_age_s.get(flow),
            )
            for flow in self._flows
        }
        leading = {name: value for (flow, name), value in gained.items() if flow == self._flows[0]}
        return WorkerReading(state, flows, _age(leading))

    def _readiness(self) -> str:
        answer = self._get("/readyz")
        if answer is None:
            return "not answering" if self._seen_ready else "starting"
        status, text = answer
        if status == http.HTTPStatus.OK:
            self._seen_ready = True
            return READY
        return text.strip()

    def _scrape(self) -> dict[str, float]:
        answer = self._get("/metrics")
        if answer is None:
            return {}
        watermark_age_s: dict[str, float] = {}
        counters: dict[Counter, float] = {}
        for family in text_string_to_metric_families(answer[1]):
            for name, labels, value, *_ in family.samples:
                flow = labels.get("pipeline", self._flows[0])
                if flow not in self._flows:
                    continue
                if name == "streams_events_total":
                    counter = (flow, labels["outcome"])
                    counters[counter] = counters.get(counter, 0.0) + value
                elif name == "streams_watermark_age_seconds" and labels["topic"] in self._flow_of:
                    flow = self._flow_of[labels["topic"]]
                    watermark_age_s[flow] = max(watermark_age_s.get(flow, 0.0), value)
                elif name == "streams_event_age_seconds_bucket":
                    counters[flow, f"le {labels['le']}"] = value
                elif name in {"streams_event_age_seconds_sum", "streams_event_age_seconds_count"}:
                    counters[flow, name.removeprefix("streams_event_")] = value
        self._current = counters
        return watermark_age_s

    def _totals(self) -> dict[Counter, float]:
        names = self._before.keys() | self._current.keys()
        return {name: self._before.get(name, 0.0) + self._current.get(name, 0.0) for name in names}

    def _get(self, path: str) -> tuple[int, str] | None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _age(gained: Mapping[str, float]) -> Age | None:
    """Age of the events gained; None when there are none."""
    count = gained.get("age_seconds_count", 0.0)
    if count <= 0:
        return None
    bounds = sorted((float(name.removeprefix("le ")), value) for name, value in gained.items() if name[:3] == "le ")
    p99_s_max = next((bound for bound, below in bounds if below >= 0.99 * count), float("inf"))
    return Age(gained.get("age_seconds_sum", 0.0) / count, p99_s_max)
