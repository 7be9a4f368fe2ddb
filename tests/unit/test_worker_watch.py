"""Workers are asked over real sockets, by servers that answer everything that may listen at a worker's address."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest

from streams.monitor.processes import (
    FORGET_S,
    FORGET_UNLISTED_S,
    LOOK_S,
    METRICS_BYTES_MAX,
    READY_BYTES_MAX,
    SAMPLES_MAX,
    Address,
    ProcessWatch,
    Targets,
)
from streams.monitor.workers import OTHER, WorkerKind, WorkerState
from streams.worker.metrics import WorkerMetrics

Serve = Callable[[socket.socket, str], None]
"""Answers a request for a path on a connection."""


class Server:
    """Accepts connections and has `serve` answer each; closes them after that."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.serve(connection, connection.recv(65_536).split(b" ")[1].decode())
            except (OSError, IndexError):
                return  # whoever asked has gone

    def close(self) -> None:
        self.stopped.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def http(body: bytes, *, status: str = "200 OK", headers: bytes = b"", length: int | None = None) -> bytes:
    count = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), count, headers, body)


def metrics_of_a_worker() -> bytes:
    metrics = WorkerMetrics()
    metrics.events.labels("gps", "clean").inc(7)
    return generate_latest(metrics.registry)


WELL = metrics_of_a_worker()


def well(connection: socket.socket, path: str) -> None:
    connection.sendall(http(b"ok\n" if path == "/readyz" else WELL))


def sends(metrics: bytes, ready: bytes | None = None) -> Serve:
    """These bytes as the whole answer."""
    ready = http(b"ok\n") if ready is None else ready
    return lambda connection, path: connection.sendall(ready if path == "/readyz" else metrics)


def drips(head: bytes, part: bytes) -> Serve:
    """Something every moment, for ever: no single read takes long."""

    def serve(connection: socket.socket, _: str) -> None:
        connection.sendall(head)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            connection.sendall(part)
            time.sleep(0.05)

    return serve


def silent(connection: socket.socket, _: str) -> None:
    connection.settimeout(30)
    connection.recv(1)  # until the other side gives up


SAMPLE = b'streams_events_total{pipeline="gps",outcome="clean"} '
NEVER_END: dict[str, Serve] = {
    "silence": silent,
    "a line of headers that never ends": drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "headers that never end": drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "a body that never ends": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "interim answers for ever": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
"""Each of these takes as long as a worker is waited for: they are asked at once, as a look does with many workers."""
ANSWERS: dict[str, Serve] = {
    "bytes that are no HTTP": sends(b"\x00\xff" * 500, b"\x00\xff" * 500),
    "bytes that are no HTTP after a good /readyz": sends(b"\x16\x03\x01\x02" * 99),
    "a page for people": sends(http(b"<!doctype html><html><body>streams_events_total</body></html>")),
    "nothing at all": sends(b"", b""),
    "a length that is no number": sends(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
    "a body that is cut off": sends(http(WELL, length=2 * len(WELL))),
    "chunks that are none": sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n"),
    "a /readyz that is too large": sends(http(WELL), http(b"x" * (READY_BYTES_MAX + 1))),
    "metrics that are too large": sends(http(WELL + b"# " + b"x" * METRICS_BYTES_MAX)),
    "too many samples": sends(http(WELL + b"streams_x 1\n" * (SAMPLES_MAX + 1))),
    "a sample that is too long": sends(http(WELL + b'streams_x{a="' + b"x" * 9_000 + b'"} 1\n')),
    "metrics that are not UTF-8": sends(http(WELL + b'streams_x{a="\xff\xfe"} 1\n')),
    "compressed metrics that nobody asked for": sends(http(gzip.compress(WELL), headers=b"Content-Encoding: gzip\r\n")),
    "a redirect": sends(http(b"", status="302 Found", headers=b"Location: http://127.0.0.1:1/metrics\r\n")),
    "an error": sends(http(b"oh", status="500 Internal Server Error")),
    "a sample without a value": sends(http(WELL + SAMPLE + b"\n")),
    "a value that is no number": sends(http(WELL + SAMPLE + b"many\n")),
    "a count that is NaN": sends(http(WELL + SAMPLE + b"NaN\n")),
    "a count that is infinite": sends(http(WELL + SAMPLE + b"+Inf\n")),
    "a count below 0": sends(http(WELL + SAMPLE + b"-1\n")),
    "a sample without its labels": sends(http(WELL + b"streams_events_total 5\n")),
    "a partition that is no number": sends(
        http(WELL + b'streams_watermark_age_seconds{topic="a",partition="first"} 5\n')
    ),
    "labels that do not end": sends(http(WELL + b'streams_events_total{outcome="clean" 5\n')),
    "braces": sends(http(WELL + b"streams_{{{{}}}} 1\n")),
}
EACH = {name: {name: answer} for name, answer in ANSWERS.items()} | {"all that never ends": NEVER_END}
each_answer = pytest.mark.parametrize("answers", EACH.values(), ids=EACH)


@contextmanager
def watching(*servers: Server) -> Iterator[ProcessWatch[WorkerState]]:
    watch = ProcessWatch(Targets.parse(",".join(f"http://127.0.0.1:{server.port}" for server in servers)), WorkerKind())
    try:
        yield watch
    finally:
        watch.close()
        for server in servers:
            server.close()


def by_port(states: list[WorkerState]) -> dict[int, WorkerState]:
    return {state.address.port: state for state in states}


@each_answer
def test_whatever_workers_answer_the_others_are_seen_and_these_are_not_ready(answers: dict[str, Serve]) -> None:
    odd, other = {name: Server(well) for name in answers}, Server(well)
    with watching(*odd.values(), other) as watch:
        assert all(state.ready for state in watch.look(0.0))
        for name, server in odd.items():
            server.serve = answers[name]
        began = time.monotonic()
        found = by_port(watch.look(5.0))

        assert time.monotonic() - began < LOOK_S
        assert (True, "ready", {"": {"clean": 7.0}}) == (
            found[other.port].ready, found[other.port].state, found[other.port].outcomes,
        )  # fmt: skip
        states = {name: found[server.port] for name, server in odd.items()}
        assert [] == [name for name, state in states.items() if state.ready]
        assert {} == {name: state.state for name, state in states.items() if not 0 < len(state.state) <= 500}
        for server in odd.values():
            server.serve = well
        assert all(state.ready for state in watch.look(10.0)), "they are asked again"


@each_answer
def test_what_has_never_answered_as_a_worker_does_is_none_or_says_why_it_cannot_be_read(
    answers: dict[str, Serve],
) -> None:
    with watching(*map(Server, answers.values())) as watch:
        assert all("cannot be read" in state.state and not state.ready for state in watch.look(0.0))


@pytest.mark.thorough
def test_many_that_say_nothing_do_not_make_a_look_take_longer() -> None:
    servers = [Server(silent) for _ in range(60)]
    with watching(*servers, Server(well)) as watch:
        began = time.monotonic()

        assert [True] == [state.ready for state in watch.look(0.0)]
        assert time.monotonic() - began < LOOK_S


def test_a_worker_without_events_yet_is_one() -> None:
    with watching(Server(sends(http(generate_latest(WorkerMetrics().registry))))) as watch:
        (state,) = watch.look(0.0)

        assert (True, {}) == (state.ready, state.outcomes)


def test_a_worker_that_is_not_ready_says_why_and_its_metrics_count_all_the_same() -> None:
    restoring = http(b"restoring a partitions [1]\n", status="503 Service Unavailable")
    with watching(Server(sends(http(WELL), restoring))) as watch:
        (state,) = watch.look(0.0)

        assert (False, "restoring a partitions [1]", {"": {"clean": 7.0}}) == (state.ready, state.state, state.outcomes)


def test_names_that_are_none_of_ours_are_added_up_as_one() -> None:
    lines = [f'streams_events_total{{pipeline="gps",outcome="o{n}"}} 1' for n in range(1_000)]
    lines += [f'streams_rejects_total{{pipeline="gps",reason="r{n}"}} 2' for n in range(1_000)]
    lines += ['streams_rejects_total{pipeline="gps",reason="malformed"} 3', ""]
    with watching(Server(sends(http("\n".join(lines).encode())))) as watch:
        (state,) = watch.look(0.0)

        assert ({"": {OTHER: 1_000.0}}, {OTHER: 2_000.0, "malformed": 3.0}) == (state.outcomes, state.rejects)


def test_a_worker_that_is_gone_is_said_to_be_for_a_while_and_then_forgotten() -> None:
    gone = Server(well)
    with watching(gone, Server(well)) as watch:
        watch.look(0.0)
        gone.serve = sends(b"", b"")

        assert "does not answer" == by_port(watch.look(FORGET_S - 1))[gone.port].state
        assert gone.port not in by_port(watch.look(FORGET_S + 1))
        gone.serve = well
        assert by_port(watch.look(FORGET_S + 2))[gone.port].ready, "who comes back is a worker again"


def test_an_address_that_a_name_no_longer_has_is_forgotten_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(well)
    addresses = ["127.0.0.1"]

    async def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (ip, 0)) for ip in addresses]

    watch = ProcessWatch(Targets.parse(f"http://workers:{server.port}"), WorkerKind())
    monkeypatch.setattr(watch._loop, "getaddrinfo", resolve)
    assert [Address("127.0.0.1", server.port)] == [state.address for state in watch.look(0.0)]
    addresses[:] = []

    assert [False] == [state.ready for state in watch.look(FORGET_UNLISTED_S - 1)]
    assert [] == watch.look(FORGET_UNLISTED_S + 1)
    watch.close()
    server.close()


def test_a_name_whose_server_does_not_answer_keeps_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(well)
    failure: list[OSError] = []

    async def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        for error in failure:
            raise error
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))]

    watch = ProcessWatch(Targets.parse(f"http://workers:{server.port}"), WorkerKind())
    monkeypatch.setattr(watch._loop, "getaddrinfo", resolve)
    watch.look(0.0)
    failure.append(socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert [True] == [state.ready for state in watch.look(1.0)]
    failure[:] = [socket.gaierror(socket.EAI_NONAME, "no such name")]
    assert [False] == [state.ready for state in watch.look(2.0)]
    watch.close()
    server.close()


def test_an_address_is_written_as_a_url_has_it() -> None:
    assert ["127.0.0.1:6066", "[::1]:6066"] == [str(Address(host, 6066)) for host in ("127.0.0.1", "::1")]
