"""Asks processes over HTTP for readiness and metrics. One that does not answer is shown as such.

Anything may listen at an address. So everything is bounded (time, bytes, samples, names), and an answer that cannot be
read is reported as the state of that process only. What the metrics say is the business of a kind: `monitor.workers`
and `monitor.sinks`.
"""

import asyncio
import http
import ipaddress
import math
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp

from streams.errors import UsageError
from streams.masking import masked

TIMEOUT_S: Final = 2.0
"""Time limit of one request, from the connection to the last byte."""
LOOK_S: Final = 12.0
"""Time limit of all requests of a look together."""
PROCESSES_MAX: Final = 256
READY_BYTES_MAX: Final = 64 << 10
METRICS_BYTES_MAX: Final = 4 << 20
SAMPLES_MAX: Final = 20_000
"""Bound for one process: one per partition, and some hundred."""
SAMPLE_BYTES_MAX: Final = 2_000
FORGET_S: Final = 600.0
"""A process that has not answered for this long is forgotten: alerts have reported it by then."""
FORGET_UNLISTED_S: Final = 60.0
"""The same for an address that its name no longer resolves to: the process was scaled down, or moved."""
_TARGET: Final = re.compile(r"^(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?$")
_AT_ONCE: Final = 16
"""Metrics that are parsed at the same time: a bound on memory."""
STATE_CHARACTERS_MAX: Final = 500
_OURS: Final = b"streams_"
_HEADERS: Final = {"Accept": "text/plain", "Accept-Encoding": "identity"}
_NO_ANSWER: Final = "does not answer"
_FOREIGN: Final = "answers, but not as a {} does"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process may be listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to look for processes: `http://host:port`, `http://host:first-last`, several with commas between them.

    Names are resolved again for each look, to all addresses, since replicas come and go.
    """

    places: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str, variable: str = "STREAMS_MONITOR_WORKERS") -> "Targets":
        """Read the setting `variable`.

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
                raise UsageError(f"{variable}: {masked(part)!r} is not http://host:port or http://host:first-last")
            first = int(found["first"])
            last = int(found["last"] or first)
            if not 0 < first <= last < 65_536:
                raise UsageError(f"{variable}: {masked(part)!r} has no usable ports")
            places += [(found["host"].strip("[]"), port) for port in range(first, last + 1)]
        if len(places) > PROCESSES_MAX:
            raise UsageError(f"{variable} names {len(places)} places; at most {PROCESSES_MAX} are looked at")
        return cls(tuple(places))


class ProcessState(Protocol):
    """A process at one moment."""

    @property
    def address(self) -> Address:
        """Address that the process listens on."""


S = TypeVar("S", bound=ProcessState)


class Kind(Protocol[S]):
    """What tells processes of one kind from others, and what is read of them."""

    @property
    def word(self) -> str:
        """What such a process is called."""

    def is_ours(self, line: bytes) -> bool:
        """Whether a line of `/metrics` is one that only processes of this kind write."""

    def read(self, address: Address, text: str, *, ready: bool, state: str) -> S:
        """What its samples say.

        Raises:
            ValueError: they cannot be read.

        """

    def away(self, address: Address, state: str, last: S | None) -> S:
        """A process that cannot be read now; `state`: why; `last`: as it was when it could."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of an address. `readiness` None: none. `samples` None: not the metrics of such a process."""

    address: Address
    readiness: tuple[int, str] | None = None
    samples: str | None = None
    problem: str = ""
    """Why there are no samples, where that is worth reporting."""


class ProcessWatch(Generic[S]):
    """Asks all processes of a kind at once. One thread, with an event loop of its own; `close` when done."""

    def __init__(self, targets: Targets, kind: Kind[S]) -> None:
        self._targets, self._kind = targets, kind
        self._loop = asyncio.new_event_loop()
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._answered: dict[Address, tuple[float, S]] = {}
        """When each has last answered, and what it said when it could last be read."""

    def close(self) -> None:
        """Close the event loop and connections."""
        self._loop.close()

    def look(self, now_s: float) -> list[S]:
        """Every process that answers, and those that did recently. `now_s`: monotonic. Takes at most `LOOK_S`."""
        listed, answers = self._loop.run_until_complete(self._ask_all())
        states: dict[Address, S] = {}
        problems: dict[Address, str] = {}
        for answer in answers:
            problems[answer.address] = answer.problem
            state = self._read(answer)
            if state is not None:
                states[answer.address] = state
                self._answered[answer.address] = now_s, state
                continue
            known = self._answered.get(answer.address)
            is_unreadable = answer.readiness is not None and answer.problem not in {"", self._foreign}
            if is_unreadable and known is not None:
                self._answered[answer.address] = now_s, known[1]
        for address, (answered_s, last) in list(self._answered.items()):
            limit_s = FORGET_S if address in listed else FORGET_UNLISTED_S
            if address in states:
                continue
            if now_s - answered_s > limit_s:
                del self._answered[address]
            else:
                states[address] = self._kind.away(address, problems.get(address) or _NO_ANSWER, last)
        return sorted(states.values(), key=lambda one: (one.address.host, one.address.port))

    @property
    def _foreign(self) -> str:
        return _FOREIGN.format(self._kind.word)

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
            asked = [asyncio.ensure_future(self._ask(session, gate, address)) for address in listed]
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
        return list(found)[:PROCESSES_MAX]

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

    async def _ask(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, address: Address) -> _Answer:
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
            samples = _ours(metrics[1], self._kind) if metrics[0] == http.HTTPStatus.OK else None
        except ValueError as error:
            return _Answer(address, ready, problem=f"its /metrics cannot be read: {error}")
        return _Answer(address, ready, samples, problem=self._foreign if samples is None else "")

    def _read(self, answer: _Answer) -> S | None:
        """State of the process; None: it does not answer, or is none (the monitor itself may listen there)."""
        if answer.readiness is None or answer.samples is None:
            return None
        status, text = answer.readiness
        try:
            is_ready = status == http.HTTPStatus.OK
            return self._kind.read(answer.address, answer.samples, ready=is_ready, state=_state_of(status, text))
        except ValueError as error:
            problem = f"its /metrics cannot be read: {error}"[:STATE_CHARACTERS_MAX]
            known = self._answered.get(answer.address)
            return self._kind.away(answer.address, problem, None if known is None else known[1])


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


def _ours(body: bytes, kind: Kind[S]) -> str | None:
    """The samples with our names; None: there are none, so something else listens there.

    Raises:
        ValueError: they are too many, too long, or not text.

    """
    whole = body.splitlines()
    if not any(map(kind.is_ours, whole)):
        return None
    lines = [line for line in whole if line.startswith(_OURS)]
    if len(lines) > SAMPLES_MAX:
        raise ValueError(f"more than {SAMPLES_MAX} samples")
    if max(map(len, lines), default=0) > SAMPLE_BYTES_MAX:
        raise ValueError(f"a sample of more than {SAMPLE_BYTES_MAX} bytes")
    return b"\n".join([*lines, b""]).decode()


def _state_of(status: int, text: str) -> str:
    """The answer of `/readyz`: `ready`, with remarks about the source, or why not."""
    if status != http.HTTPStatus.OK:
        return text.strip()[:STATE_CHARACTERS_MAX] or f"answers {status}"
    remarks = "; ".join(text.strip().splitlines()[1:])
    return f"ready; {remarks}"[:STATE_CHARACTERS_MAX] if remarks else "ready"


@contextmanager
def as_written_by(word: str) -> Iterator[None]:
    """Reads samples in a block.

    Raises:
        ValueError: they are not as such a process writes them: the parser fails, or a label is not there.

    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:  # as the parser fails at what it does not expect
        raise ValueError(f"not what a {word} writes ({error!r})") from None


def counted(value: float) -> float:
    """The value of a counter.

    Raises:
        ValueError: it is no count.

    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{value} is no count")
    return value
