"""`make bench-query`: rows by key and changes that one worker serves while it processes positions at a steady rate.

In one run, in turn: the worker alone; the worker while it is asked for rows by key, at a rate, then as fast as it
answers; the worker while readers follow the changes of its table. Throughput is what the worker has committed of each
phase; "alone" is what the others are compared with, so that ratios do not depend on the machine. The client that asks
and the traffic share the machine with the worker, so rates and latencies are those of a busy machine.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer

from loadtest.prepare import prepare_pipeline
from loadtest.program import run_to_the_end
from loadtest.report import describe_machine
from loadtest.row_client import Asking, Queries
from loadtest.subject import Subject
from loadtest.worker import free_port, worker
from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.local.stack import running_stack
from streams.settings import load_settings

PARTITIONS: Final = 12
TABLE: Final = "vehicles.state.v1"
WARM_S: Final = 8.0
READY_S_MAX: Final = 120.0
_PREFIX: Final = "bench"


@dataclass(frozen=True, slots=True)
class Phase:
    """What the worker did in one phase."""

    phase: str
    events_per_s: float
    """Events per second that the worker has committed."""
    worker_cpu_share: float
    """Processors that the worker has used, as a number of whole ones."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What readers that follow changes have received."""

    readers: int
    rows_per_s: float
    """Mean rate of one reader, in rows per second."""
    rows_per_s_slowest: float
    cut_off: int


async def follow(port: int, readers: int, seconds: float) -> Followed:
    """Follow the changes with several readers for so long."""
    counts, cut_off = [0] * readers, [0]

    async def one(place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        writer.write(f"GET /tables/{TABLE}/changes HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while line := await reader.readline():
            counts[place] += line.count(b'"offset":')
            cut_off[0] += line.startswith(b"event: cut_off")

    tasks = [asyncio.create_task(one(place)) for place in range(readers)]
    await asyncio.sleep(2.0)
    before, began = list(counts), time.perf_counter()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began
    rates = [(after - first) / took_s for after, first in zip(counts, before, strict=True)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Followed(readers, sum(rates) / readers, min(rates), cut_off[0])


class Measured:
    """Measures a worker from outside: events that it commits, and processors that it uses."""

    def __init__(self, pid: int, port: int) -> None:
        self._process, self._port = psutil.Process(pid), port

    async def phase(self, name: str, seconds: float, doing: "asyncio.Future[Any] | None" = None) -> Phase:
        """Measure the worker while `doing` runs, or for so many seconds if there is nothing to do."""
        began, first, cpu = time.perf_counter(), await self._events(), sum(self._process.cpu_times()[:2])
        await asyncio.sleep(seconds) if doing is None else await doing
        took_s, cpu_s = time.perf_counter() - began, sum(self._process.cpu_times()[:2]) - cpu
        found = Phase(name, (await self._events() - first) / took_s, cpu_s / took_s)
        print(f"{name}: {found.events_per_s:,.0f} events/s, {found.worker_cpu_share:.2f} processors", file=sys.stderr)
        return found

    async def _events(self) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        lines = (line for line in text.splitlines() if line.startswith("streams_events_total{"))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def command(
    rate: Annotated[int, typer.Option(min=100, help="Events a second.")] = 20_000,
    devices: Annotated[int, typer.Option(min=100, help="Vehicles.")] = 2_000,
    readers: Annotated[int, typer.Option(min=1, help="Readers of changes.")] = 20,
    seconds: Annotated[float, typer.Option(min=3, help="Seconds of each phase.")] = 15.0,
    ask_rate: Annotated[int, typer.Option(min=1, help="Rows by key a second, in the phase with a rate.")] = 5_000,
    connections: Annotated[int, typer.Option(min=1, help="Connections that ask for rows by key.")] = 32,
    depth: Annotated[int, typer.Option(min=1, help="Requests that each of them has under way.")] = 1,
    output: Annotated[Path | None, typer.Option(help="A file for the figures as JSON.")] = None,
) -> None:
    """Measure rows by key and changes of a worker that processes positions."""
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "stack") as stack:
        os.environ.update(stack.environment())
        settings, port = load_settings(), free_port()
        prepare_pipeline(settings, GPS.name, PARTITIONS)
        log = Path(folder) / "worker.log"
        traffic = [
            "-m", "loadtest.generator", "--any-topic", "--rate", str(rate), "--devices", str(devices),
            "--device-prefix", _PREFIX,
        ]  # fmt: skip
        subject = worker(settings, GPS.name, Path(folder) / "data", port, log, stack.environment())
        sender = Subject("generator", traffic, Path(folder) / "traffic.log", environment=stack.environment())
        with subject as running:
            _await_ready(running)
            with sender:
                asks = Asks(port, ask_rate, connections, depth)
                result = asyncio.run(_phases(Measured(running.pid, port), asks, readers, seconds))
    text = json.dumps(
        {**result, "rate": rate, "devices": devices, "machine": describe_machine()}, indent=2, default=str
    )
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _await_ready(worker: Subject) -> None:
    until_s = time.monotonic() + READY_S_MAX
    while not worker.is_ready():
        if not worker.is_running() or time.monotonic() > until_s:
            raise StreamsError(f"the worker is not ready: {worker.last_words()}")
        time.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Asks:
    """How a client asks for rows."""

    port: int
    rate: int
    connections: int
    depth: int

    def asking(self, keys: list[str], rate: int, seconds: float) -> "asyncio.Future[Queries]":
        """What comes of it, in a thread of its own."""
        client = Asking(self.port, TABLE, keys, connections=self.connections, depth=self.depth, rate=rate)
        return asyncio.ensure_future(asyncio.to_thread(client.run, seconds))


async def _phases(measured: Measured, asks: Asks, readers: int, seconds: float) -> dict[str, object]:
    port = asks.port
    until_s = time.monotonic() + READY_S_MAX
    while not await _keys(port):
        if time.monotonic() > until_s:
            raise StreamsError("the table has no rows: nothing has come to the worker")
        await asyncio.sleep(0.5)
    await asyncio.sleep(WARM_S)
    keys = await _keys(port)
    alone = await measured.phase("alone", seconds)
    paced = asks.asking(keys, asks.rate, seconds)
    asked = await measured.phase("asked", seconds, paced)
    print(f"  {paced.result()}", file=sys.stderr)
    most = asks.asking(keys, 0, seconds)
    pressed = await measured.phase("pressed", seconds, most)
    print(f"  {most.result()}", file=sys.stderr)
    following = asyncio.ensure_future(follow(port, readers, seconds))
    followed = await measured.phase("followed", seconds, following)
    print(f"  {following.result()}", file=sys.stderr)
    again = await measured.phase("alone again", seconds)
    base = (alone.events_per_s + again.events_per_s) / 2
    return {
        "phases": [asdict(one) for one in (alone, asked, pressed, followed, again)],
        "queries": asdict(paced.result()),
        "queries_most": asdict(most.result()),
        "changes": asdict(following.result()),
        "ratios": {
            "throughput_asked": round(asked.events_per_s / base, 3),
            "throughput_pressed": round(pressed.events_per_s / base, 3),
            "throughput_followed": round(followed.events_per_s / base, 3),
        },
    }


async def _keys(port: int) -> list[str]:
    """Keys that the table has, of which rows are asked for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    path = f"/tables/{TABLE}?columns=device_id&limit=5000"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    body = (await reader.read(-1)).partition(b"\r\n\r\n")[2]
    writer.close()
    return [item["key"] for item in json.loads(body)["rows"]]


if __name__ == "__main__":
    run_to_the_end("query_bench", command)
