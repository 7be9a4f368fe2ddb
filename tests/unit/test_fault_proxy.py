"""The proxy of the fault tests: what it does to a network, and that it knows a request when it sees its pieces."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.protocol import END_TXN, METADATA, Answers, Requests
from tests.faults.proxy import Faults, Proxy


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while chunk := connection.recv(65_536):
                connection.sendall(chunk)

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy(echo_port) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as connected:
        yield connected


def answered(client: socket.socket, sent: bytes) -> bytes:
    client.sendall(sent)
    got = b""
    while len(got) < len(sent):
        chunk = client.recv(65_536)
        if not chunk:
            break
        got += chunk
    return got


def request(api_key: int, body: bytes = b"x" * 30) -> bytes:
    return struct.pack(">ih", 2 + len(body), api_key) + body


def test_it_passes_everything_on_by_default(client: socket.socket) -> None:
    sent = bytes(range(256)) * 4_000

    assert sent == answered(client, sent)


def test_latency_is_added_in_each_direction(proxy: Proxy, client: socket.socket) -> None:
    proxy.faults = Faults(latency_s=0.2)
    began = time.monotonic()

    assert request(3) == answered(client, request(3))
    assert time.monotonic() - began >= 0.4


def test_bandwidth_is_limited(proxy: Proxy, client: socket.socket) -> None:
    proxy.faults = Faults(bytes_per_s=200_000)
    began = time.monotonic()

    answered(client, request(3, bytes(200_000)))

    assert time.monotonic() - began >= 0.6


def test_a_connection_that_lost_an_answer_is_reset_when_the_silence_ends(proxy: Proxy, client: socket.socket) -> None:
    proxy.faults = Faults(silent=True)
    client.sendall(b"ping")
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.recv(10)

    proxy.faults = Faults()

    client.settimeout(20)
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_only_a_request_to_end_a_transaction_is_reset(proxy: Proxy, client: socket.socket) -> None:
    proxy.faults = Faults(reset_commits=True)

    assert request(3) == answered(client, request(3))
    client.sendall(request(END_TXN))
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    assert 1 == proxy.commits


@pytest.mark.parametrize("size", [1, 2, 5, 7, 13, 1_000])
def test_requests_are_found_in_pieces_of_any_size(size: int) -> None:
    stream = request(3) + request(END_TXN) + request(0, b"12345678") + request(END_TXN, b"y" * 500)
    requests = Requests()

    found = [one.api_key for chunk in pieces(stream, size) for one in requests.feed(chunk)]

    assert [3, END_TXN, 0, END_TXN] == found


BROKERS = [b"\x00\x00\x00\x01" + b"\x0a127.0.0.1" + b"\x00\x00\x23\x84" + b"\x00" + b"\x00"] * 2
REST = b"\x05cafe" + b"\x00\x00\x00\x01" + b"topics"


def metadata(correlation_id: int, brokers: list[bytes]) -> bytes:
    """As much of a metadata answer (version 9 and up) as matters here."""
    body = struct.pack(">i", correlation_id) + b"\x00" + b"\x00\x00\x00\x07" + bytes([len(brokers) + 1])
    body += b"".join(brokers) + REST
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("size", [1, 3, 8, 1_000])
def test_answers_to_metadata_requests_lose_their_brokers_and_nothing_else(size: int) -> None:
    answers = Answers()
    answers.expect(Requests().feed(struct.pack(">ihhi", 8, METADATA, 12, 5)))
    other = struct.pack(">ii", 24, 4) + b"z" * 20
    stream = other + metadata(5, BROKERS) + other

    passed = b"".join(answers.feed(chunk, no_brokers=True) for chunk in pieces(stream, size))

    assert other + metadata(5, []) + other == passed


@pytest.mark.parametrize("size", [1, 3, 8, 1_000])
def test_answers_pass_untouched_without_that_fault(size: int) -> None:
    answers = Answers()
    answers.expect(Requests().feed(struct.pack(">ihhi", 8, METADATA, 12, 5)))
    stream = metadata(5, BROKERS) + struct.pack(">ii", 24, 4) + b"z" * 20

    assert stream == b"".join(answers.feed(chunk, no_brokers=False) for chunk in pieces(stream, size))


def pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[place : place + size] for place in range(0, len(stream), size)]
