"""Ports of this machine's loopback interface."""

import secrets
import socket

from streams.errors import StreamsError

HOST = "127.0.0.1"
FREE_PORTS = range(15_000, 32_000)
"""Below the range from which systems take the local ports of outgoing connections (Linux: 32768 on). A port of that
range can be taken by any client between two starts of a server, even by a client that tries to reach this server."""
FREE_PORT_ATTEMPTS_MAX = 200
CONNECT_TIMEOUT_S = 1.0


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closing connections do not count
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Tell whether something accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


def free_port(*taken: int) -> int:
    """Find a port on which nothing listens, none of `taken`; it stays free unless somebody asks for just that one.

    Raises:
        StreamsError: none was found.

    """
    for _ in range(FREE_PORT_ATTEMPTS_MAX):
        port = FREE_PORTS.start + secrets.randbelow(len(FREE_PORTS))
        if port not in taken and is_free(port):
            return port
    raise StreamsError(f"found no free port on {HOST} between {FREE_PORTS.start} and {FREE_PORTS.stop}")
