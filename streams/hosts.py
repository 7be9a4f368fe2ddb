"""Checks the host name of requests to a local web server, and whether they came through a proxy.

A browser sends the name from the address bar as `Host`. It is the only way to tell a site whose own name resolves to
this machine (DNS rebinding) from a user of this machine.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa")
"""Names below these are in no public DNS."""
_PROXY_HEADERS: Final = frozenset({"via", "x-original-host", "x-host"})
_PROXY_PARTS: Final = ("forwarded", "client-ip", "clientip", "real-ip", "connecting-ip")
"""What proxies and content delivery networks add has one of these in its name: X-Forwarded-For, True-Client-IP, ..."""


@lru_cache(maxsize=256)
def host_name(header: str) -> str | None:
    """The name or address in a `Host` header, in lower case and without port; None if it is not well-formed."""
    found = _HOST.fullmatch(header)
    if found is None:
        return None
    address, name = found.groups()
    return address.lower() if address is not None else name.lower().removesuffix(".") or None


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a name or address can only be this machine: `localhost`, 127.0.0.0/8, ::1."""
    plain = host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
    if plain == "localhost":
        return True
    address = _address(plain)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address is not None and address.is_loopback


def proxy_header(names: Iterable[str]) -> str | None:
    """The first of some header names that says that a proxy has passed the request on; None if none does."""
    return _proxy_header(tuple(names))


@lru_cache(maxsize=256)
def _proxy_header(names: tuple[str, ...]) -> str | None:
    for name in names:
        lower = name.lower()
        if lower in _PROXY_HEADERS or any(part in lower for part in _PROXY_PARTS):
            return lower
    return None


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names by which a server may be asked."""

    bound_to: str
    """What it listens on, as name or address."""
    names: frozenset[str] = frozenset()
    """More names that are its own, in lower case."""

    def serve(self, header: str) -> bool:
        """Whether a request with this `Host` header is answered.

        Listening on loopback: `localhost`, loopback addresses and `names`. Otherwise also addresses, names without a
        dot, names that no public DNS has (`.internal`, `.local`), and `names`: a foreign site has none of these.
        """
        host = host_name(header)
        if host is None:
            return False
        if is_loopback(host) or host.endswith(".localhost") or host in self.names:
            return True
        if is_loopback(self.bound_to):
            return False
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES) or _address(host) is not None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
