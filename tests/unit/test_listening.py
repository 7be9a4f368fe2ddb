"""Where web servers listen: real sockets of this machine."""

import asyncio
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from streams.errors import StreamsError, UsageError
from streams.listening import listening, url_of
from streams.monitor.processes import Address, Targets
from streams.worker.web import Web


@pytest.mark.parametrize(
    ("host", "shown", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),  # noqa: S104 - what is tested
        ("::1", "[::1]", "::1"),
        ("[::1]", "[::1]", "::1"),
        ("::", "[::]", "::1"),
        ("::", "[::]", "127.0.0.1"),
    ],
)
def test_a_server_listens_on_addresses_of_both_kinds_and_on_names(host: str, shown: str, reached: str) -> None:
    with listening(host, [0]) as server:
        port = server.getsockname()[1]
        assert f"http://{shown}:{port}" == url_of(server)
        socket.create_connection((reached, port), timeout=5).close()


def test_the_first_free_port_is_taken() -> None:
    with listening("::1", [0]) as taken:
        port = taken.getsockname()[1]
        with listening("::1", [port, 0]) as other:
            assert port != other.getsockname()[1]
        with pytest.raises(StreamsError, match=f"port {port} cannot be used .*--web-port"):
            listening("::1", [port])


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no.such.host.invalid", "a..b", "[", "300.1.1.1"])
def test_a_host_that_is_not_of_this_machine_is_named_with_its_variable(host: str) -> None:
    with pytest.raises(UsageError, match=r"^STREAMS_WEB_HOST: .* address"):
        listening(host, [0])


def test_the_monitor_names_and_finds_workers_on_ipv6() -> None:
    assert (("::1", 6066), ("::1", 6067), ("a", 1)) == Targets.parse("http://[::1]:6066-6067,http://a:1").places
    assert "[::1]:6066" == str(Address("::1", 6066))


@pytest.mark.parametrize("text", ["http://[::1:6066", "http://[zz]:6066", "http://::1:6066", "http://me:s3cret@a:1/x"])
def test_a_place_that_is_none_is_refused_in_one_line_without_secrets(text: str) -> None:
    with pytest.raises(UsageError, match=r"^STREAMS_MONITOR_WORKERS: ") as caught:
        Targets.parse(text)
    assert "s3cret" not in str(caught.value)


def test_a_worker_answers_on_ipv6() -> None:
    async def run() -> str:
        web = Web(CollectorRegistry(), lambda: None, host="::1", port=0)
        await web.start()
        try:
            return await asyncio.to_thread(text_of, f"{url_of(web._socket)}/readyz")
        finally:
            await web.stop()

    assert "ok\n" == asyncio.run(run())


def text_of(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http
        return str(answer.read(), "utf-8")
