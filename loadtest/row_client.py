"""Asks a worker for rows by key over connections that stay open: one thread, without a framework of its own.

A request costs this client some 15 µs of processor time, so that on a machine of two cores it is not what is measured;
what it has cost is reported.
"""

import random
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from streams.errors import StreamsError

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_END: Final = b"\r\n\r\n"
_READ_BYTES: Final = 1 << 16
_SILENT_S: Final = 30.0
"""A worker that answers nothing for so long is given up."""


@dataclass(frozen=True, slots=True)
class Queries:
    """What a run of queries for rows by key has cost, and how long answers took."""

    per_s: float
    latency_ms_p50: float
    latency_ms_p99: float
    """With a rate: since the moment at which the request was due."""
    latency_ms_max: float
    found: int
    other: int
    """Answers that were none: another status than 200 and 404."""
    client_us_each: float
    """Processor time of the client."""


@dataclass(eq=False, slots=True)
class _Connection:
    socket: socket.socket
    received: bytes = b""
    due_s: deque[float] = field(default_factory=deque)
    """When each request that waits for its answer was to be sent, in the order of the requests."""


class Asking:
    """Asks one table for rows by key, over several connections at once."""

    def __init__(
        self, port: int, table: str, keys: Sequence[str], *, connections: int, depth: int = 1, rate: int = 0
    ) -> None:
        """Prepare the requests; `run` connects.

        `depth`: requests that one connection sends before it has the first answer. `rate`: a second, of all
        connections together; 0: as fast as they are answered.
        """
        self._requests = [f"GET /tables/{table}/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for key in keys]
        self._port, self._count, self._depth, self._rate = port, connections, depth, rate
        self._chance = random.Random(0)
        self._latencies_s: list[float] = []
        self._found = self._other = self._sent = 0

    def run(self, seconds: float) -> Queries:
        """Ask for so long.

        Raises:
            StreamsError: the worker closes a connection, or says nothing any more.

        """
        with selectors.DefaultSelector() as selector:
            free: deque[_Connection] = deque()
            for _ in range(self._count):
                one = _Connection(socket.create_connection(("127.0.0.1", self._port)))
                one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(one.socket, selectors.EVENT_READ, one)
                free.extend([one] * self._depth)
            began_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                self._ask(selector, free, began_s, began_s + seconds)
            finally:
                for key in list(selector.get_map().values()):
                    key.data.socket.close()
            took_s, cpu_s = time.perf_counter() - began_s, time.thread_time() - cpu_s
        latencies = sorted(self._latencies_s)
        p50, p99 = (latencies[int(len(latencies) * share)] * 1_000 for share in (0.5, 0.99))
        each_us = cpu_s / len(latencies) * 1e6
        return Queries(len(latencies) / took_s, p50, p99, latencies[-1] * 1_000, self._found, self._other, each_us)

    def _ask(self, selector: selectors.BaseSelector, free: deque[_Connection], began_s: float, until_s: float) -> None:
        heard_s = began_s
        while (now_s := time.perf_counter()) < until_s:
            wait_s = self._send(free, began_s, now_s)
            for key, _ in selector.select(wait_s):
                one: _Connection = key.data
                free.extend([one] * self._read(one))
                heard_s = now_s
            if now_s - heard_s > _SILENT_S:
                raise StreamsError(f"the worker has answered nothing for {_SILENT_S:.0f} s")

    def _send(self, free: deque[_Connection], began_s: float, now_s: float) -> float:
        """Send what is due; returns how long nothing more will be."""
        parts: dict[_Connection, list[bytes]] = {}
        while free:
            due_s = began_s + self._sent / self._rate if self._rate else now_s
            if due_s > now_s:
                break
            one = free.popleft()
            one.due_s.append(due_s)
            parts.setdefault(one, []).append(self._chance.choice(self._requests))
            self._sent += 1
        for one, some in parts.items():
            one.socket.sendall(some[0] if len(some) == 1 else b"".join(some))
        return max(0.0, began_s + self._sent / self._rate - now_s) if self._rate and free else 1.0

    def _read(self, one: _Connection) -> int:
        """Take what has come; returns how many answers."""
        data = one.socket.recv(_READ_BYTES)
        if not data:
            raise StreamsError("the worker has closed a connection")
        data = one.received + data
        start = count = 0
        now_s = time.perf_counter()
        while (end := data.find(_END, start)) >= 0:
            length = _LENGTH.search(data, start, end + 2)
            after = end + len(_END) + (int(length[1]) if length is not None else 0)
            if len(data) < after:
                break
            status = data[start + 9 : start + 12]
            self._found += status == b"200"
            self._other += status not in {b"200", b"404"}
            self._latencies_s.append(now_s - one.due_s.popleft())
            start, count = after, count + 1
        one.received = data[start:]
        return count
