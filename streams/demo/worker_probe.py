"""Reads a worker's metrics over HTTP, and keeps totals and rates across its restarts."""

import http.client
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from streams.local.ports import HOST

OUTCOMES: Final = ("clean", "late", "duplicate", "rejected")
TIMEOUT_S: Final = 2.0
WINDOW_S: Final = 2.0
"""Rates are over about this long."""
READY: Final = "ready"


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds from event time to commit, of the clean events of the last moments."""

    mean_s: float
    p99_s_max: float
    """Upper bound of the histogram bucket in which the 99th percentile lies."""


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """The worker at one moment. Rates are events a second."""

    state: str
    """`ready`, or why not."""
    totals: Mapping[str, int]
    rates: Mapping[str, float]
    watermark_age_s: Mapping[int, float]
    age: Age | None


class WorkerProbe:
    """Reads /readyz and /metrics of one worker after the other on one port.

    Counters of a worker that was killed are carried on from where they were last seen: what it counted after that is
    missing from the totals (not from the topics).
    """

    def __init__(self, port: int, pipeline: str, source: str) -> None:
        """Of what the worker counts, that of one flow and its source."""
        self._port = port
        self._pipeline = pipeline
        self._source = source
        self._seen_ready = False
        self._before: dict[str, float] = {}
        self._current: dict[str, float] = {}
        self._window: deque[tuple[float, dict[str, float]]] = deque()

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
        return WorkerReading(
            state,
            {name: int(totals.get(name, 0)) for name in OUTCOMES},
            {name: gained.get(name, 0.0) / seconds for name in OUTCOMES},
            watermark_age_s,
            _age(gained),
        )

    def _readiness(self) -> str:
        answer = self._get("/readyz")
        if answer is None:
            return "not answering" if self._seen_ready else "starting"
        status, text = answer
        if status == http.HTTPStatus.OK:
            self._seen_ready = True
            return READY
        return text.strip()

    def _scrape(self) -> dict[int, float]:
        answer = self._get("/metrics")
        if answer is None:
            return {}
        watermark_age_s: dict[int, float] = {}
        counters: dict[str, float] = {}
        for family in text_string_to_metric_families(answer[1]):
            for name, labels, value, *_ in family.samples:
                if labels.get("pipeline", self._pipeline) != self._pipeline:
                    continue
                if name == "streams_events_total":
                    counters[labels["outcome"]] = counters.get(labels["outcome"], 0.0) + value
                elif name == "streams_watermark_age_seconds" and labels["topic"] == self._source:
                    watermark_age_s[int(labels["partition"])] = value
                elif name == "streams_event_age_seconds_bucket":
                    counters[f"le {labels['le']}"] = value
                elif name in {"streams_event_age_seconds_sum", "streams_event_age_seconds_count"}:
                    counters[name.removeprefix("streams_event_")] = value
        self._current = counters
        return watermark_age_s

    def _totals(self) -> dict[str, float]:
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
