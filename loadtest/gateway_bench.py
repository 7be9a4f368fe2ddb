"""`make bench-gateway`: events a second that `streams gateway` takes, beside a Starlette application that does nothing.

Both are processes of their own with the same HTTP parser and event loop; the same client sends to both in turn, in one
run, so that the ratios do not depend on the machine. What counts is the processor time of the server ("per core"): the
client shares the machine with it. `nothing` reads the body and answers; `gateway` answers when Kafka has acknowledged.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from loadtest.prepare import prepare_pipeline
from loadtest.program import run_to_the_end
from loadtest.worker import free_port
from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.errors import StreamsError
from streams.gateway.http_limits import bounded_protocol
from streams.local.stack import running_stack
from streams.settings import load_settings

BATCH: Final = 500
CONNECTIONS: Final = 32
WARM_S: Final = 1.0
_READY_S: Final = 120.0
_PATH: Final = f"/v1/events/{GPS.source}"


@dataclass(frozen=True, slots=True)
class Figures:
    """One server under one kind of requests."""

    server: str
    events_per_request: int
    requests_per_s: float
    events_per_s: float
    events_per_cpu_s: float
    """By the processor time of the server's process."""
    latency_ms_p50: float
    latency_ms_p99: float
    refused: int


class Nothing:
    """An ASGI application that reads each body and answers at once: what the gateway is compared with."""

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        while (await receive()).get("more_body"):
            pass
        head = {"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"3")]}
        await send(head)
        await send({"type": "http.response.body", "body": b"{}\n"})


def serve_nothing(port: int) -> None:
    """Run the server that does nothing but answer, which the gateway is compared with."""
    uvicorn.run(
        Starlette(routes=[Route("/v1/events/{source}", Nothing(), methods=["POST"])]),
        port=port, http=bounded_protocol(), ws="none", lifespan="off", access_log=False, log_level="warning",
    )  # fmt: skip


def body_of(events: int, number: int) -> bytes:
    """Positions as NDJSON, one as JSON; every event has its own id."""
    rows = (
        {
            "event_id": f"b-{number}-{place}",
            "device_id": f"van-{(number + place) % 1_000}",
            "sequence": number,
            "event_time": 1_767_225_600_000 + place,
            "latitude": 52.5,
            "longitude": 13.4,
            "speed_kmh": 43.5,
            "heading_deg": 271.0,
        }
        for place in range(events)
    )
    return b"\n".join(json.dumps(row).encode() for row in rows)


class Client:
    """Sends requests over connections that stay open, as fast as they are answered or at a rate."""

    def __init__(self, port: int, events: int, *, connections: int, rate: float | None) -> None:
        self._port, self._events, self._connections, self._rate = port, events, connections, rate
        self._number = time.time_ns() // 1_000 % 10**12
        self.latencies_s: list[float] = []
        self.refused = 0

    async def run(self, seconds: float) -> float:
        """Send for so long; returns the seconds that it took."""
        started = time.perf_counter()
        self._until = started + seconds
        await asyncio.gather(*(self._send(place) for place in range(self._connections)))
        return time.perf_counter() - started

    async def _send(self, place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        kind = "application/json" if self._events == 1 else "application/x-ndjson"
        head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nPrefer: return=minimal\r\n"
        pause_s = None if self._rate is None else self._connections / self._rate
        due = time.perf_counter() + (0 if pause_s is None else pause_s * place / self._connections)
        while (now := time.perf_counter()) < self._until:
            if pause_s is not None:
                await asyncio.sleep(max(0.0, due - now))
            begin = due if pause_s is not None else now
            self._number += 1
            body = body_of(self._events, self._number)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            self.latencies_s.append(time.perf_counter() - begin)
            self.refused += not answer.startswith(b"HTTP/1.1 202")
            if pause_s is not None:
                due += pause_s
        writer.close()


def measure(
    server: str, process: psutil.Process, port: int, events: int, *, seconds: float, rate: float | None
) -> Figures:
    """Figures of one server under requests of so many events."""
    connections = CONNECTIONS if events == 1 else 4
    asyncio.run(Client(port, events, connections=connections, rate=rate).run(WARM_S))
    client = Client(port, events, connections=connections, rate=rate)
    before = sum(process.cpu_times()[:2])
    took_s = asyncio.run(client.run(seconds))
    cpu_s = sum(process.cpu_times()[:2]) - before
    found = sorted(client.latencies_s)
    done = len(found) * events
    return Figures(
        server=server,
        events_per_request=events,
        requests_per_s=len(found) / took_s,
        events_per_s=done / took_s,
        events_per_cpu_s=done / max(cpu_s, 1e-9),
        latency_ms_p50=found[len(found) // 2] * 1_000,
        latency_ms_p99=found[int(len(found) * 0.99)] * 1_000,
        refused=client.refused,
    )


@contextmanager
def server(arguments: list[str], environment: dict[str, str], port: int, path: str) -> Iterator[psutil.Process]:
    """A server as a process of its own, once it answers."""
    process = subprocess.Popen([sys.executable, *arguments], env=environment)
    try:
        asyncio.run(_until_it_answers(process, port, path))
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


async def _until_it_answers(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StreamsError(f"the server has ended with status {process.returncode}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            writer.close()
            if status.startswith((b"HTTP/1.1 200", b"HTTP/1.1 405")):
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    raise StreamsError(f"the server did not answer within {_READY_S:g} s")


def command(
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Each server this often, in turn.")] = 2,
    output: Annotated[Path | None, typer.Option(help="A file for the figures as JSON.")] = None,
    *,
    use_running: Annotated[bool, typer.Option("--use-running", help="The stack of KAFKA_BOOTSTRAP_SERVERS.")] = False,
) -> None:
    """Measure single events and batches of 500, beside a server that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        if use_running:
            _run(Path(folder), {}, seconds, rounds, output)
            return
        with running_stack(Path(folder) / "stack") as stack:
            _run(Path(folder), stack.environment(), seconds, rounds, output)


def _run(folder: Path, connection: dict[str, str], seconds: float, rounds: int, output: Path | None) -> None:
    os.environ.update(connection)
    for flow in (GPS, ORDERS):  # a gateway is not ready as long as a source of its flows lacks its topics
        prepare_pipeline(load_settings(), flow.name, 3)
    environment = {**os.environ, "STREAMS_GATEWAY_DIR": str(folder / "gateway"), "STREAMS_LOG_FORMAT": "json"}
    ports = {"nothing": free_port(), "gateway": free_port()}
    here = ["-m", "loadtest.gateway_bench", "--nothing", str(ports["nothing"])]
    gateway = ["-m", "streams", "gateway", "--web-port", str(ports["gateway"])]
    found: list[Figures] = []
    with (
        server(here, environment, ports["nothing"], _PATH) as nothing,
        server(gateway, environment, ports["gateway"], "/readyz") as taking,
    ):
        processes = {"nothing": nothing, "gateway": taking}
        for _ in range(rounds):
            for events in (BATCH, 1):
                for name, process in processes.items():
                    found.append(_said(measure(name, process, ports[name], events, seconds=seconds, rate=None)))
        half = max(one.requests_per_s for one in found if one.server == "gateway" and one.events_per_request == 1) / 2
        steady = _said(measure("gateway", taking, ports["gateway"], 1, seconds=seconds, rate=half))
    if refused := sum(one.refused for one in (*found, steady)):
        raise StreamsError(f"{refused} requests were refused: these are no figures of what is accepted")
    result = {
        "httptools": "HttpTools" in bounded_protocol().__name__,
        "runs": [asdict(one) for one in found],
        "steady_half_rate": asdict(steady),
        "ratios": {
            "batch_events_per_cpu_s": _ratio(found, BATCH),
            "single_events_per_cpu_s": _ratio(found, 1),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _ratio(found: list[Figures], events: int) -> float:
    """What the gateway does of what the server that does nothing does; the best of each."""
    best = {
        name: max(one.events_per_cpu_s for one in found if one.server == name and one.events_per_request == events)
        for name in ("gateway", "nothing")
    }
    return round(best["gateway"] / best["nothing"], 3)


def _said(one: Figures) -> Figures:
    print(
        f"{one.server:8} {one.events_per_request:4} a request: {one.requests_per_s:9,.0f} requests/s "
        f"{one.events_per_s:9,.0f} events/s {one.events_per_cpu_s:9,.0f} events per CPU-second "
        f"p50 {one.latency_ms_p50:7.1f} ms p99 {one.latency_ms_p99:7.1f} ms refused {one.refused}",
        file=sys.stderr,
    )
    return one


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["--nothing"]:
        serve_nothing(int(sys.argv[2]))
        return
    run_to_the_end("gateway_bench", command)


if __name__ == "__main__":
    main()
