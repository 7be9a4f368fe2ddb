"""What the workers say of themselves over HTTP: readiness and metrics. A worker that does not answer is a state."""

import http.client
import re
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from streams.errors import UsageError
from streams.monitor.slo import VISIBLE_S, Counts

TIMEOUT_S: Final = 2.0
WORKERS_MAX: Final = 256
ANSWER_BYTES_MAX: Final = 4 << 20
_TARGET: Final = re.compile(r"^(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?$")
_THREADS: Final = 16
_STATE_CHARACTERS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker may be listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker at one moment. Counters are cumulative since it was started."""

    address: Address
    ready: bool
    state: str
    """`ready`, with remarks about the source, or why not."""
    visible: Counts = field(default_factory=lambda: Counts(0.0, 0.0))
    """Clean events that have a time of arrival, and those visible in time."""
    outcomes: Mapping[str, float] = field(default_factory=dict)
    rejects: Mapping[str, float] = field(default_factory=dict)
    watermark_age_s: Mapping[tuple[str, int], float] = field(default_factory=dict)
    quarantined: float = 0.0


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to look for workers: `http://host:port`, `http://host:first-last`, several with commas between them.

    A name is resolved anew for each look, to all of its addresses: replicas come and go.
    """

    places: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> "Targets":
        """Read the setting.

        Raises:
            UsageError: it is not of that form; the message says where.

        """
        places: list[tuple[str, int]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            url = urlsplit(part)
            found = _TARGET.match(url.netloc)
            if url.scheme != "http" or found is None or url.path.strip("/") or url.query:
                raise UsageError(f"STREAMS_MONITOR_WORKERS: {part!r} is not http://host:port or http://host:first-last")
            first = int(found["first"])
            last = int(found["last"] or first)
            if not 0 < first <= last < 65_536:
                raise UsageError(f"STREAMS_MONITOR_WORKERS: {part!r} has no usable ports")
            places += [(found["host"].strip("[]"), port) for port in range(first, last + 1)]
        if len(places) > WORKERS_MAX:
            raise UsageError(f"STREAMS_MONITOR_WORKERS names {len(places)} places; at most {WORKERS_MAX} are looked at")
        return cls(tuple(places))

    def addresses(self) -> list[Address]:
        """All addresses that the names have now; a name that is not known has none."""
        found: dict[Address, None] = {}
        for host, port in self.places:
            try:
                resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError:
                continue
            found.update({Address(str(one[4][0]), port): None for one in resolved})
        return list(found)[:WORKERS_MAX]


class WorkerWatch:
    """Asks all workers at once. One thread."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._pool = ThreadPoolExecutor(_THREADS, "worker-watch")
        self._known: set[Address] = set()

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> list[WorkerState]:
        """Every worker that answers, and those that once did and do not any more."""
        states = list(self._pool.map(_ask, self._targets.addresses()))
        self._known.update(state.address for state in states if state.state)
        there = {state.address for state in states}
        gone = [WorkerState(address, ready=False, state="does not answer") for address in self._known - there]
        found = [
            state if state.state else WorkerState(state.address, ready=False, state="does not answer")
            for state in states
            if state.address in self._known
        ]
        return sorted([*found, *gone], key=lambda one: (one.address.host, one.address.port))


def _ask(address: Address) -> WorkerState:
    """State of the worker; an empty `state`: nobody is there."""
    ready = _get(address, "/readyz")
    if ready is None:
        return WorkerState(address, ready=False, state="")
    status, text = ready
    metrics = _get(address, "/metrics")
    state = _state_of(status, text)
    if metrics is None or metrics[0] != http.HTTPStatus.OK or "streams_events" not in metrics[1]:
        # Something else that listens there, such as the monitor itself.
        return WorkerState(address, ready=False, state="")
    try:
        return read_metrics(address, metrics[1], ready=status == http.HTTPStatus.OK, state=state)
    except ValueError:
        return WorkerState(address, ready=False, state="its /metrics cannot be read")


def _state_of(status: int, text: str) -> str:
    """What `/readyz` says: `ready`, with its remarks about the source, or why not."""
    if status != http.HTTPStatus.OK:
        return text.strip()[:_STATE_CHARACTERS_MAX] or f"answers {status}"
    remarks = "; ".join(text.strip().splitlines()[1:])
    return f"ready; {remarks}"[:_STATE_CHARACTERS_MAX] if remarks else "ready"


def read_metrics(address: Address, text: str, *, ready: bool, state: str) -> WorkerState:
    """What is of interest in a worker's metrics.

    Raises:
        ValueError: it is not the text that Prometheus would read.

    """
    outcomes: dict[str, float] = {}
    rejects: dict[str, float] = {}
    watermarks: dict[tuple[str, int], float] = {}
    total = good = young = quarantined = 0.0
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            match name:
                case "streams_events_total":
                    _add(outcomes, labels["outcome"], value)
                case "streams_rejects_total":
                    _add(rejects, labels["reason"], value)
                case "streams_watermark_age_seconds":
                    watermarks[labels["topic"], int(labels["partition"])] = value
                case "streams_arrival_age_seconds_count":
                    total = value
                case "streams_arrival_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                    good = value
                case "streams_event_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                    young = value
                case "streams_quarantined_devices":
                    quarantined += value
                case _:
                    pass
    return WorkerState(address, ready, state, Counts(total, good, young), outcomes, rejects, watermarks, quarantined)


def total_of(states: Iterable[WorkerState], what: str) -> dict[str, float]:
    """Sum of `outcomes` or `rejects` over workers."""
    found: dict[str, float] = {}
    for state in states:
        for name, value in getattr(state, what).items():
            _add(found, name, value)
    return found


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value


def _get(address: Address, path: str) -> tuple[int, str] | None:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
