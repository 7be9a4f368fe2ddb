import pytest

from streams.hosts import Hosts, host_name, is_loopback, proxy_header


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Monitor:8080", "monitor"), ("127.0.0.1", "127.0.0.1"), ("[::1]:80", "::1"), ("a.example.", "a.example"),
        ("", None), (":80", None), ("a b", None), ("a@b", None), ("a/b", None), ("[::1", None), ("a:80:80", None),
        ("\xe9", None), (".", None), ("a:port", None),
    ],
)  # fmt: skip
def test_a_host_header_is_a_name_or_nothing(header: str, name: str | None) -> None:
    assert name == host_name(header)


def test_loopback_is_this_machine_and_nothing_else() -> None:
    assert all(map(is_loopback, ["localhost", "Localhost.", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "host"]))


def test_a_server_of_this_machine_is_asked_by_its_names_alone() -> None:
    hosts = Hosts("127.0.0.1", frozenset({"dlq.example"}))
    assert all(map(hosts.serve, ["localhost:8080", "127.0.0.1", "[::1]:1", "a.localhost", "DLQ.example:443"]))
    assert not any(map(hosts.serve, ["evil.example", "monitor", "10.0.0.1", "", "x.dlq.example", "monitor.internal"]))


def test_a_server_that_others_reach_is_asked_by_addresses_and_by_names_that_no_foreign_site_has() -> None:
    hosts = Hosts("::", frozenset({"dlq.example"}))
    assert all(map(hosts.serve, ["monitor:8080", "10.0.0.1", "[fd00::1]:80", "dlq.example", "m.ns.svc.cluster.local"]))
    assert not any(map(hosts.serve, ["evil.example:8080", "10.0.0.1.nip.io", "", "a@b", "local.evil"]))


def test_headers_of_proxies_are_known_by_their_names() -> None:
    assert "x-forwarded-for" == proxy_header(["Host", "X-Forwarded-For"])
    assert "via" == proxy_header(["via"])
    plain = ["host", "user-agent", "accept", "cookie", "origin", "sec-fetch-site", "sec-ch-ua", "connection", "referer"]
    assert proxy_header([*plain, "upgrade-insecure-requests", "priority", "te", "dnt"]) is None
