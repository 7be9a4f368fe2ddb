"""Where a web server listens: an IPv4 or IPv6 address, or a name."""

import errno
import socket
from collections.abc import Iterable
from typing import Final

from streams.errors import StreamsError, UsageError

HOST_VARIABLE: Final = "STREAMS_WEB_HOST"


def listening(host: str, ports: Iterable[int], *, shared: bool = False) -> socket.socket:
    """A socket that listens on the first of `ports` that is free; `0` is any free one.

    `host`: an address (IPv6 with or without brackets; `::` takes IPv4 as well) or a name; a name that has addresses of
    both kinds means the IPv4 one. `shared`: others of this user may listen on the same port, if they say so, too.

    Raises:
        UsageError: `host` is no address of this machine.
        StreamsError: every port is taken; the message names the first.

    """
    name = host.strip().removeprefix("[").removesuffix("]")
    family, address = _resolved(name)
    first, reason = None, ""
    for port in ports:
        try:
            return socket.create_server(
                (address, port),
                family=family,
                reuse_port=shared,
                dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise UsageError(f"{HOST_VARIABLE}: {name} is not an address of this machine") from None
            first, reason = port if first is None else first, error.strerror or str(error)
    raise StreamsError(f"port {first} cannot be used ({reason}): choose another with --web-port")


def listening_together(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets that listen on one port, each with a part of the connections; port 0 is any free one.

    Raises:
        UsageError: `host` is no address of this machine.
        StreamsError: the port is taken.

    """
    found = [listening(host, [port], shared=True)]
    port = found[0].getsockname()[1]
    return found + [listening(host, [port], shared=True) for _ in range(count - 1)]


def address_of(server: socket.socket, *, toward: str) -> str:
    """Where others reach a listening socket: `10.0.0.5:6066`.

    Where it listens on all addresses, it is the one by which this machine reaches `toward`, such as a broker,
    `host:port`; empty if it cannot be told.
    """
    host, port = server.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        name, _, there = toward.rpartition("://")[2].partition(",")[0].strip().rpartition(":")
        family = socket.AF_INET6 if name.startswith("[") else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting it sends nothing
                probe.connect((name.strip("[]"), int(there)))
                host = probe.getsockname()[0]
        except (OSError, ValueError):
            return ""
    return host_and_port(host, port)


def own_url_of(server: socket.socket) -> str:
    """Where this machine reaches a listening socket, also one that listens on all addresses."""
    host, port = server.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{host_and_port(local, port)}"


def url_of(server: socket.socket) -> str:
    """`http://127.0.0.1:6066`, or `http://[::1]:6066`: where a listening socket is reached on this machine."""
    host, port = server.getsockname()[:2]
    return f"http://{host_and_port(host, port)}"


def host_and_port(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolved(name: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"{HOST_VARIABLE}: {name!r} is neither an address nor a name that is known here") from None
    family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    return family, str(address[0])
