"""`streams gateway` as a process of its own, and senders that know what was acknowledged."""

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from logistics.flows.gps import GPS
from streams.local import ports
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess
from tests.integration.kafka_helpers import committed_records, decoded
from tests.integration.workers import wait_until


class RunningGateway:
    """A gateway, started and stopped as often as one likes, always at the same port."""

    def __init__(
        self, stack: Stack, directory: Path, *, bootstrap_servers: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self.port = ports.free_port()
        self.log = directory / "gateway.log"
        self._environment = {
            **os.environ,
            **stack.environment(),
            "STREAMS_GATEWAY_DIR": str(directory),
            "STREAMS_LOG_FORMAT": "json",
        }
        if bootstrap_servers is not None:
            self._environment["KAFKA_BOOTSTRAP_SERVERS"] = bootstrap_servers
        self._options = options
        self._process: ForkedProcess | None = None

    def members(self) -> list[int]:
        """Processes that it has started and that live, by their pids."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        return sorted(one.pid for one in children if one.status() != psutil.STATUS_ZOMBIE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def start(self) -> None:
        """Start it, and return when it takes events."""
        arguments = ["gateway", "--web-port", str(self.port), *self._options]
        self._process = ForkedProcess(arguments, self._environment, stdout=self.log)
        wait_until(self.is_ready, "the gateway is ready")

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and wait for its end: its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(30)

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 30.0, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of an answer. Names of headers with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def send(self, rows: Sequence[dict[str, Any]], *, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """Send rows as NDJSON."""
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path = f"/v1/events/{GPS.source}"
        return self.ask("POST", path, body, timeout_s=timeout_s, Content_Type="application/x-ndjson")


class Senders:
    """Threads that send batches until they are told to stop, each batch again and again until it is accepted."""

    def __init__(self, gateway: RunningGateway, *, threads: int = 4, seed: int = 8123) -> None:
        self.acknowledged: set[str] = set()
        """Ids of events whose request was answered with 202."""
        self.sent: set[str] = set()
        self.retries = 0
        self.statuses: Counter[int] = Counter()
        self._gateway = gateway
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n, seed + n), daemon=True) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, number: int, seed: int) -> None:
        seeded = random.Random(seed)
        batch = 0
        while not self._stop.is_set():
            rows = [self._row(number, batch, place) for place in range(seeded.choice((1, 1, 20, 200)))]
            batch += 1
            ids = {str(row["event_id"]) for row in rows}
            with self._lock:
                self.sent |= ids
            self._deliver(rows, ids)

    def _deliver(self, rows: list[dict[str, Any]], ids: set[str]) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                status, _ = self._gateway.send(rows, timeout_s=15.0)
            except OSError:
                status = 0
            with self._lock:
                self.statuses[status] += 1
                if status == 202:
                    self.acknowledged |= ids
                    return
                self.retries += 1
            if self._stop.is_set() and status == 0:
                return  # the gateway may be gone for good
            time.sleep(0.05)
        raise AssertionError("a batch was not accepted within a minute")

    @staticmethod
    def _row(number: int, batch: int, place: int) -> dict[str, Any]:
        return {
            "event_id": f"s{number}-{batch}-{place}",
            "device_id": f"van-{number}",
            "sequence": batch * 1_000 + place,
            "event_time": 1_767_225_600_000 + batch * 1_000 + place,
            "latitude": 50 + place / 1_000,
            "longitude": 10.0,
        }


def assert_nothing_is_lost(stack: Stack, senders: Senders) -> None:
    """Every event that was acknowledged is in the topic; one that is there twice is the same both times."""
    events = decoded(committed_records(stack, GPS.source), GPS.subject)
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        assert found.setdefault(event["event_id"], event) == event, "the flow drops a copy by id and time"
    assert senders.acknowledged <= found.keys(), f"{len(senders.acknowledged - found.keys())} are lost"
    assert found.keys() <= senders.sent
