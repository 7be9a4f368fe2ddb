"""Rows by key that are answered without the framework: the same answers, and nothing taken that is not plain."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from prometheus_client import CollectorRegistry

from logistics.flows import gps
from streams.engine.task import PartitionTask
from streams.settings import Settings
from streams.state.store import StoreUnavailable
from streams.tables.connection import WAITING_MAX
from streams.tables.heads import HEAD_BYTES_MAX
from streams.tables.lookups import Lookups
from streams.tables.metrics import TableMetrics
from streams.tables.owners import Known, Owners
from streams.tables.rendering import body_of, dicts_of, texts_of
from streams.tables.served import ServedFlow
from streams.tables.stored import FlowState, StoredTables
from streams.tables.web import TablesWeb
from streams.worker.web import Web, take_port
from tests.unit.test_tables import DEVICES, VEHICLES, Driven

READ, REVEAL = "a-token-that-may-read-rows", "a-token-that-may-see-people"
TABLE = f"/tables/{VEHICLES.topic}"


class Owning(Owners):
    """Knows of no other worker; or is asked for ever."""

    def __init__(self, *, answers: bool = True) -> None:
        self._answers = answers
        self.asked = asyncio.Event()

    @property
    def known(self) -> Known:
        return {}

    async def look(self) -> Known:
        self.asked.set()
        if not self._answers:
            await asyncio.Event().wait()
        return {}

    def close(self) -> None:
        """There is nothing to end."""


class Served:
    """The tables of one flow behind a web server, twice: with direct answers and without."""

    def __init__(self, driven: Driven, owners: Owning, *, settings: Settings, gone: Sequence[int] = ()) -> None:
        def tasks() -> dict[int, PartitionTask]:
            return {number: task for number, task in driven.driver._engine.tasks.items() if number not in gone}

        state = FlowState(tasks, lambda: None, 3)
        stored = StoredTables(state)
        shape = replace(VEHICLES, personal=frozenset({"latitude", "stopped_since"}))
        flow = ServedFlow(gps.GPS, {shape.topic: shape}, state, stored, Lookups(stored), owners, "me")
        self.registry = CollectorRegistry()
        self.tables = TablesWeb(settings, [flow], TableMetrics(self.registry))
        self.sockets = [take_port("127.0.0.1", 0) for _ in range(2)]
        routes, connections = self.tables.routes(), self.tables.connections()
        self.direct = Web(
            self.registry, lambda: None, listener=self.sockets[0], further=routes, connections=connections
        )
        self.framework = Web(self.registry, lambda: None, listener=self.sockets[1], further=routes)

    def port(self, *, direct: bool = True) -> int:
        return int(self.sockets[0 if direct else 1].getsockname()[1])

    def counted(self, status: int) -> float:
        found = self.registry.get_sample_value("streams_table_queries_total", {"kind": "key", "status": str(status)})
        return found or 0.0


@asynccontextmanager
async def served(
    driven: Driven, owners: Owning | None = None, *, gone: Sequence[int] = (), **settings: Any
) -> AsyncIterator[Served]:
    found = Served(driven, owners or Owning(), settings=Settings(**settings), gone=gone)
    await found.direct.start()
    await found.framework.start()
    try:
        yield found
    finally:
        await found.tables.close()
        await found.direct.stop()
        await found.framework.stop()


@pytest.fixture(scope="module")
def driven() -> Driven:
    found = Driven()
    found.feed(0)
    found.driver.advance("60s")
    return found


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def answers(port: int, *pieces: bytes, count: int = 1) -> list[bytes]:
    """Answers to what is sent piece by piece on one connection, without the time of day."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    async with asyncio.timeout(10):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
        for _ in range(count):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length is not None else 0)
            found.append(re.sub(rb"date: [^\r]*\r\n", b"", head) + body)
    writer.close()
    return found


def row(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    return json.loads(body)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


SAME = [
    get(f"{TABLE}/truck-01"),
    get(f"{TABLE}/truck%2D01"),
    get(f"{TABLE}/no%20truck"),
    get(f"{TABLE}/%FF%00"),
    get(f"{TABLE}/"),
    get(f"{TABLE}/{'x' * 2_000}"),
    get("/tables/none/truck-01"),
    get("/tables//truck-01"),
    get(f"{TABLE}/truck-01?columns=device_id,events"),
    get(f"{TABLE}/truck-01?columns=nothing"),
    get(f"{TABLE}/truck-01?"),
    get(f"{TABLE}/truck-01", "Accept: application/vnd.apache.arrow.stream"),
    get(f"{TABLE}/truck-01", "X-Forwarded-For: 10.1.1.1"),
    get(f"{TABLE}/truck-01", "Streams-Routed: 1"),
    get(f"{TABLE}/truck-01", "Connection: keep-alive", "Accept: */*", "User-Agent: "),
    get(f"{TABLE}/truck-01", "Connection: close"),
    get(f"{TABLE}?limit=3"),
    get("/healthz"),
    get(f"{TABLE}/truck-01").replace(b"localhost", b"example.org"),
    get(f"{TABLE}/truck-01").replace(b"GET", b"POST"),
    get(f"{TABLE}/truck-01").replace(b"HTTP/1.1", b"HTTP/1.0"),
]


def test_the_answer_is_the_frameworks_byte_for_byte(driven: Driven) -> None:
    async def test() -> None:
        async with served(driven) as both:
            for asked in SAME:
                for _ in range(2):  # as new, and as known
                    theirs, ours = [await answers(both.port(direct=direct), asked) for direct in (False, True)]
                    assert theirs == ours, asked

    run(test)


def test_requests_may_come_together_in_pieces_and_mixed_and_are_answered_in_their_order(driven: Driven) -> None:
    async def test() -> None:
        async with served(driven) as both:
            keys = [DEVICES[number % len(DEVICES)] for number in range(2 * WAITING_MAX)]
            together = b"".join(get(f"{TABLE}/{key}") for key in keys)
            found = await answers(both.port(), together, count=len(keys))
            assert keys == [row(one)["row"]["device_id"] for one in found]
            pieces = [together[at : at + 50] for at in range(0, 700, 50)]
            some = len(b"".join(pieces)) // len(get(f"{TABLE}/{keys[0]}"))
            assert found[:some] == await answers(both.port(), *pieces, count=some)
            mixed = [get(f"{TABLE}/truck-01?columns=events"), get(f"{TABLE}/truck-02"), get("/healthz"), together]
            found = await answers(both.port(), b"".join(mixed), count=3 + len(keys))
            assert [{"events": 1}, "truck-02"] == [row(found[0])["row"], row(found[1])["key"]]
            assert found[2].endswith(b"ok\n")
            assert keys == [row(one)["key"] for one in found[3:]], "the framework has the connection from here on"
            assert both.counted(200) == 2 * len(keys) + some + 2

    run(test)


def test_a_head_that_is_too_long_or_no_head_is_left_to_the_framework(driven: Driven) -> None:
    async def test() -> None:
        async with served(driven) as both:
            long = get(f"{TABLE}/truck-01", f"X-Long: {'x' * HEAD_BYTES_MAX}")
            assert "truck-01" == row((await answers(both.port(), long))[0])["key"]
            [refused] = await answers(both.port(), b"GET /tables/\x00 nonsense\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 400 ")
            [refused] = await answers(both.port(), b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 400 ")

    run(test)


def test_tokens_decide_what_is_seen_and_wrong_ones_are_held_off_whoever_has_asked_before(driven: Driven) -> None:
    def shown(token: str) -> bytes:
        return get(f"{TABLE}/truck-01", f"Authorization: Bearer {token}")

    async def test() -> None:
        async with served(driven, streams_review_token_read=READ, streams_review_token_reveal=REVEAL) as both:
            for _ in range(2):  # as new, and as known
                [masked], [revealed] = (
                    await answers(both.port(), shown(READ)),
                    await answers(both.port(), shown(REVEAL)),
                )
                assert ("•••", 48.1) == (row(masked)["row"]["latitude"], row(revealed)["row"]["latitude"])
                assert row(masked)["row"]["stopped_since"] is None, "what is not there is not masked"
            [nobody] = await answers(both.port(), get(f"{TABLE}/truck-01"))
            assert nobody.startswith(b"HTTP/1.1 401 ")
            wrong = asyncio.create_task(answers(both.port(), shown("a-token-that-is-none")))
            await asyncio.sleep(0.2)
            [held] = await answers(both.port(), shown(READ))
            assert held.startswith(b"HTTP/1.1 429 "), "a token that is known is not looked at either"
            assert b"retry-after: " in held
            assert (await wrong)[0].startswith(b"HTTP/1.1 401 ")
            await asyncio.sleep(1.1)
            assert masked == (await answers(both.port(), shown(READ)))[0], "one wrong token counts once"

    run(test)


def test_a_store_that_refuses_is_said(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("the disk is gone")

    async def test() -> None:
        async with served(driven) as both:
            monkeypatch.setattr(StoredTables, "look", refuse)
            [refused] = await answers(both.port(), get(f"{TABLE}/truck-01"))
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"the disk is gone" in refused

    run(test)


@pytest.mark.parametrize("direct", [True, False])
def test_a_worker_that_stops_says_so_to_those_who_wait(driven: Driven, direct: bool) -> None:
    async def test() -> None:
        owners = Owning(answers=False)
        async with served(driven, owners, gone=(0, 1, 2)) as both:
            waits = asyncio.create_task(answers(both.port(direct=direct), get(f"{TABLE}/truck-01")))
            await owners.asked.wait()
            await both.tables.close()
            [refused] = await waits
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in refused
            assert b"this worker stops" in refused
            [late] = await answers(both.port(direct=direct), get(f"{TABLE}/truck-01"))
            assert late.startswith(b"HTTP/1.1 503 ")

    run(test)


def test_a_client_that_goes_away_or_says_nothing_holds_nothing(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.tables.connection.KEEP_ALIVE_S", 0.2)

    async def test() -> None:
        async with served(driven) as both:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", both.port())) as leaves:
                    leaves.sendall(get(f"{TABLE}/truck-01"))
            reader, writer = await asyncio.open_connection("127.0.0.1", both.port())
            async with asyncio.timeout(5):
                assert b"" == await reader.read(1), "closed, as it says nothing"
            writer.close()
            assert "truck-01" == row((await answers(both.port(), get(f"{TABLE}/truck-01")))[0])["key"]

    run(test)


def test_rows_as_texts_are_what_their_dictionaries_say() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            'odd "%s" name': pa.array(["a\n", None, 'é"\\'], pa.string()),
            "whole": pa.array([1, None, -(2**63)], pa.int64()),
            "number": pa.array([0.1, None, 1e300], pa.float64()),
            "none": pa.array([float("nan"), float("-inf"), 1.5], pa.float64()),
            "large": pa.array([1.7e308, 1.7e308, 1.0], pa.float64()),
            "single": pa.array([0.1, None, 3.0], pa.float32()),
            "truth": pa.array([True, None, False], pa.bool_()),
            "time": pa.array([0, None, -1], pa.timestamp("ms", "UTC")),
            "far": pa.array([10**17, None, 0], pa.timestamp("ms", "UTC")),
            "nanos": pa.array([1, None, 2], pa.timestamp("ns")),
            "local": pa.array([1, None, 2], pa.timestamp("us")),
            "bytes": pa.array([b"\x00", None, b"x"], pa.binary()),
            "list": pa.array([[1], None, []], pa.list_(pa.int64())),
            "nothing": pa.array([None, None, None], pa.null()),
        }
    )
    for masked in ((), ("number", "truth", "time")):
        assert [body_of(one).decode() for one in dicts_of(batch, masked=masked)] == texts_of(batch, masked=masked)
    assert ["1970-01-01T00:00:00.000Z", None, "1969-12-31T23:59:59.999Z"] == [one["time"] for one in dicts_of(batch)]
    assert ["{}", "{}", "{}"] == texts_of(batch.select([]))


def test_times_are_said_as_arrow_says_them() -> None:
    for unit, last in (("s", 2**36), ("ms", 2**46), ("us", 2**56)):
        times = pa.array([*range(-last, last, last // 50), None], pa.timestamp(unit, "UTC"))
        said = [one["t"] for one in dicts_of(pa.RecordBatch.from_arrays([times], ["t"]))]
        assert pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ").to_pylist() == said
