"""Asks workers over HTTP for readiness and metrics. One that does not answer is shown as such.

Anything may listen at a worker's address. So everything is bounded (time, bytes, samples, names), and an answer that
cannot be read is reported as the state of that worker only.
"""

import asyncio
import http
import ipaddress
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streams.batch.rejects import Reason
from streams.errors import UsageError
from streams.masking import masked
from streams.monitor.slo import VISIBLE_S, Counts

TIMEOUT_S: Final = 2.0
"""Time limit of one request, from the connection to the last byte."""
LOOK_S: Final = 12.0
"""Time limit of all requests of a look together."""
WORKERS_MAX: Final = 256
READY_BYTES_MAX: Final = 64 << 10
METRICS_BYTES_MAX: Final = 4 << 20
SAMPLES_MAX: Final = 20_000
"""Bound for one worker: one per partition, and some hundred."""
SAMPLE_BYTES_MAX: Final = 2_000
FORGET_S: Final = 600.0
"""A worker that has not answered for this long is forgotten: alerts have reported it by then."""
FORGET_UNLISTED_S: Final = 60.0
"""The same for an address that its name no longer resolves to: the worker was scaled down, or moved."""
OUTCOMES: Final = frozenset({"clean", "late", "duplicate", "rejected"})
FLOW_OUTCOME: Final = "{}/{}"
OTHER: Final = "other"
"""Stands for every unknown name."""
_REASONS: Final = frozenset(Reason)
_TARGET: Final = re.compile(r"^(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?$")
_AT_ONCE: Final = 16
"""Metrics that are parsed at the same time: a bound on memory."""
_STATE_CHARACTERS_MAX: Final = 500
_VERSION_CHARACTERS_MAX: Final = 50
_OURS: Final = b"streams_"
_HEADERS: Final = {"Accept": "text/plain", "Accept-Encoding": "identity"}
_NO_ANSWER: Final = "does not answer"
_FOREIGN: Final = "answers, but not as a worker does"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker may be listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to look for workers: `http://host:port`, `http://host:first-last`, several with commas between them.

    Names are resolved again for each look, to all addresses, since replicas come and go.
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
            try:
                url = urlsplit(part)
                found = None if url.scheme != "http" or url.path.strip("/") or url.query else _TARGET.match(url.netloc)
            except ValueError:  # brackets around what is no IPv6 address
                found = None
            if found is None:
                raise UsageError(
                    f"STREAMS_MONITOR_WORKERS: {masked(part)!r} is not http://host:port or http://host:first-last"
                )
            first = int(found["first"])
            last = int(found["last"] or first)
            if not 0 < first <= last < 65_536:
                raise UsageError(f"STREAMS_MONITOR_WORKERS: {masked(part)!r} has no usable ports")
            places += [(found["host"].strip("[]"), port) for port in range(first, last + 1)]
        if len(places) > WORKERS_MAX:
            raise UsageError(f"STREAMS_MONITOR_WORKERS names {len(places)} places; at most {WORKERS_MAX} are looked at")
        return cls(tuple(places))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of an address. `readiness` None: none. `samples` None: not a worker's metrics."""

    address: Address
    readiness: tuple[int, str] | None = None
    samples: str | None = None
    problem: str = ""
    """Why there are no samples, where that is worth reporting."""


class WorkerWatch:
    """Asks all workers at once. One thread, with an event loop of its own during a look; `close` when done."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._loop = asyncio.new_event_loop()
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._answered_s: dict[Address, float] = {}
        """Workers, and when they last answered."""

    def close(self) -> None:
        """Close the event loop and connections."""
        self._loop.close()

    def look(self, now_s: float) -> list[WorkerState]:
        """Every worker that answers, and those that did recently. `now_s`: monotonic. Takes at most `LOOK_S`."""
        listed, answers = self._loop.run_until_complete(self._ask_all())
        states: dict[Address, WorkerState] = {}
        problems: dict[Address, str] = {}
        for answer in answers:
            problems[answer.address] = answer.problem
            state = _read(answer)
            if state is not None:
                states[answer.address] = state
            is_unreadable = answer.readiness is not None and answer.problem not in {"", _FOREIGN}
            if state is not None or (is_unreadable and answer.address in self._answered_s):
                self._answered_s[answer.address] = now_s
        for address, answered_s in list(self._answered_s.items()):
            limit_s = FORGET_S if address in listed else FORGET_UNLISTED_S
            if address in states:
                continue
            if now_s - answered_s > limit_s:
                del self._answered_s[address]
            else:
                states[address] = WorkerState(address, ready=False, state=problems.get(address) or _NO_ANSWER)
        return sorted(states.values(), key=lambda one: (one.address.host, one.address.port))

    async def _ask_all(self) -> tuple[frozenset[Address], list[_Answer]]:
        """Ask all addresses that the targets have now; returns the answers that arrived in time."""
        listed = await self._addresses()
        gate = asyncio.Semaphore(_AT_ONCE)
        async with aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as session:
            asked = [asyncio.ensure_future(_ask(session, gate, address)) for address in listed]
            if asked:
                done, late = await asyncio.wait(asked, timeout=LOOK_S)
                for one in late:
                    one.cancel()
                await asyncio.gather(*late, return_exceptions=True)
        return frozenset(listed), [one.result() for one in asked if one in done] if asked else []

    async def _addresses(self) -> list[Address]:
        """Addresses of a name. An unknown name has none; if the name server does not answer, the last ones are used."""
        hosts = list(dict.fromkeys(host for host, _ in self._targets.places))
        self._resolved = dict(zip(hosts, await asyncio.gather(*map(self._resolve, hosts)), strict=True))
        found = {Address(ip, port): None for host, port in self._targets.places for ip in self._resolved[host]}
        return list(found)[:WORKERS_MAX]

    async def _resolve(self, host: str) -> tuple[str, ...]:
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass  # a name
        try:
            async with asyncio.timeout(TIMEOUT_S):
                told = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except TimeoutError:
            return self._resolved.get(host, ())
        except OSError as error:
            return self._resolved.get(host, ()) if error.errno == socket.EAI_AGAIN else ()
        except UnicodeError:  # a name that no server can be asked for
            return ()
        return tuple(dict.fromkeys(str(one[4][0]) for one in told))


async def _ask(session: aiohttp.ClientSession, gate: asyncio.Semaphore, address: Address) -> _Answer:
    readiness = await _get(session, address, "/readyz", READY_BYTES_MAX)
    if isinstance(readiness, str):
        return _Answer(address, problem=readiness)
    status, body = readiness
    ready = (status, body.decode(errors="replace"))
    async with gate:
        metrics = await _get(session, address, "/metrics", METRICS_BYTES_MAX)
    if isinstance(metrics, str):
        return _Answer(address, ready, problem=metrics)
    try:
        samples = _ours(metrics[1]) if metrics[0] == http.HTTPStatus.OK else None
    except ValueError as error:
        return _Answer(address, ready, problem=f"its /metrics cannot be read: {error}")
    return _Answer(address, ready, samples, problem=_FOREIGN if samples is None else "")


async def _get(session: aiohttp.ClientSession, address: Address, path: str, bytes_max: int) -> tuple[int, bytes] | str:
    """Status and body of an answer; or why there is none."""
    body = bytearray()
    try:
        async with session.get(f"http://{address}{path}", allow_redirects=False) as answer:
            async for part in answer.content.iter_any():
                body += part
                if len(body) > bytes_max:
                    return f"its {path} is larger than {bytes_max >> 10} KiB"
            return answer.status, bytes(body)
    except TimeoutError:
        return f"{_NO_ANSWER} to {path} within {TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError):
        return _NO_ANSWER
    except ValueError:  # what is not HTTP
        return f"its {path} is not HTTP"


def _ours(body: bytes) -> str | None:
    """The samples in a worker's metrics with our names; None: there are none, so something else listens there.

    Raises:
        ValueError: they are too many, too long, or not text.

    """
    lines = [line for line in body.splitlines() if line.startswith(_OURS)]
    if not any(line.startswith(b"streams_events_") for line in lines) and b"# TYPE streams_events" not in body:
        return None
    if len(lines) > SAMPLES_MAX:
        raise ValueError(f"more than {SAMPLES_MAX} samples")
    if max(map(len, lines), default=0) > SAMPLE_BYTES_MAX:
        raise ValueError(f"a sample of more than {SAMPLE_BYTES_MAX} bytes")
    return b"\n".join([*lines, b""]).decode()


def _read(answer: _Answer) -> WorkerState | None:
    """State of the worker; None: it does not answer, or is none (the monitor itself may listen there)."""
    if answer.readiness is None or answer.samples is None:
        return None
    status, text = answer.readiness
    try:
        return read_metrics(
            answer.address, answer.samples, ready=status == http.HTTPStatus.OK, state=_state_of(status, text)
        )
    except ValueError as error:
        return WorkerState(
            answer.address, ready=False, state=f"its /metrics cannot be read: {error}"[:_STATE_CHARACTERS_MAX]
        )


def _state_of(status: int, text: str) -> str:
    """The answer of `/readyz`: `ready`, with remarks about the source, or why not."""
    if status != http.HTTPStatus.OK:
        return text.strip()[:_STATE_CHARACTERS_MAX] or f"answers {status}"
    remarks = "; ".join(text.strip().splitlines()[1:])
    return f"ready; {remarks}"[:_STATE_CHARACTERS_MAX] if remarks else "ready"


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
    try:
        for family in text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                process = labels.get("process", "")
                match name:
                    case "streams_events_total":
                        outcome = _one_of(OUTCOMES, labels["outcome"])
                        _add(outcomes.setdefault(process, {}), outcome, _counted(value))
                        _add(flows.setdefault(process, {}), FLOW_OUTCOME.format(labels["pipeline"], outcome), value)
                    case "streams_worker_info":
                        version = labels["version"][:_VERSION_CHARACTERS_MAX]
                    case "streams_rejects_total":
                        _add(rejects, _one_of(_REASONS, labels["reason"]), _counted(value))
                    case "streams_watermark_age_seconds" if math.isfinite(value):
                        watermarks[labels["topic"], int(labels["partition"])] = value
                    case "streams_arrival_age_seconds_count":
                        total[process] = _counted(value)
                    case "streams_arrival_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                        good[process] = _counted(value)
                    case "streams_event_age_seconds_bucket" if float(labels["le"]) == VISIBLE_S:
                        young[process] = _counted(value)
                    case "streams_quarantined_devices":
                        quarantined += _counted(value)
                    case _:
                        pass
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # as the parser fails at what it does not expect
        raise ValueError(f"not what a worker writes ({error!r})") from None
    visible = {
        process: Counts(
            total.get(process, 0.0) + counts.get("rejected", 0.0),  # which are visible nowhere
            good.get(process, 0.0),
            young.get(process, 0.0),
        )
        for process, counts in outcomes.items()
    }
    return WorkerState(address, ready, state, visible, outcomes, rejects, watermarks, quarantined, version, flows)


def _counted(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{value} is no count")
    return value


def _one_of(known: frozenset[str], name: str) -> str:
    return name if name in known else OTHER


def _add(sums: dict[str, float], name: str, value: float) -> None:
    sums[name] = sums.get(name, 0.0) + value
