"""Tokens of the review page: what each permits, and the delay after wrong ones."""

import hmac
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.settings import Settings

PAUSE_S: Final = 1.0
"""After a wrong token its address is ignored for this long; from the third on twice as long each time."""
HOLD_S: Final = PAUSE_S + 0.1
"""Delay of the response to a wrong token: after one mistake the pause is over when it arrives."""
PAUSE_S_MAX: Final = 60.0
FORGOTTEN_S: Final = 600.0
"""An address without wrong tokens for this long after its pause starts again from zero."""
ADDRESSES_MAX: Final = 1_000
"""Addresses with wrong tokens that are remembered; the oldest is forgotten first."""
_FREE_FAILURES: Final = 2
_NETWORK_BITS: Final = 64
"""Leading bits of an IPv6 address that are the same for all addresses of one site."""


class Right(StrEnum):
    """What somebody may do on the review page."""

    READ = "read"
    """Permission to see letters, with personal data masked."""
    REPLAY = "replay"
    """Permission to replay and discard letters."""
    REVEAL = "reveal"
    """See personal data; each look is recorded."""


Rights = frozenset[Right]
EVERY_RIGHT: Final[Rights] = frozenset(Right)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The configured tokens, each with its rights."""

    rights: tuple[tuple[bytes, Rights], ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """Those of the settings: `STREAMS_ADMIN_TOKEN` permits everything, each other one reading and its own right."""
        pairs = (
            (settings.streams_admin_token, EVERY_RIGHT),
            (settings.streams_review_token_read, frozenset({Right.READ})),
            (settings.streams_review_token_replay, frozenset({Right.READ, Right.REPLAY})),
            (settings.streams_review_token_reveal, frozenset({Right.READ, Right.REVEAL})),
        )
        return cls(tuple((token.get_secret_value().encode(), rights) for token, rights in pairs if token is not None))

    def __bool__(self) -> bool:
        return bool(self.rights)

    def rights_of(self, shown: bytes) -> Rights | None:
        """Rights of a token; None for an unknown one. Takes the same time for each."""
        found = None
        for token, rights in self.rights:
            if hmac.compare_digest(shown, token):
                found = rights
        return found


@dataclass(slots=True)
class _Failing:
    failures: int = 0
    until_s: float = 0.0


class Failures:
    """Counts wrong tokens. An address has to wait after each; while it waits, its tokens are not checked."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Failing] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether wrong tokens of any address are remembered."""
        return bool(self._addresses)

    def wait_s(self, address: str, now_s: float) -> float:
        """How long an address has to wait until its next token is checked; 0: not at all."""
        failing = self._addresses.get(_site(address))
        return 0.0 if failing is None else max(0.0, failing.until_s - now_s)

    def add(self, address: str, now_s: float) -> int:
        """Count a wrong token; returns how many there were in a row."""
        site = _site(address)
        failing = self._addresses.setdefault(site, _Failing())
        self._addresses.move_to_end(site)
        if now_s - failing.until_s > FORGOTTEN_S:
            failing.failures = 0
        if len(self._addresses) > ADDRESSES_MAX:
            self._addresses.popitem(last=False)
        failing.failures += 1
        doublings = min(max(0, failing.failures - _FREE_FAILURES), 10)
        failing.until_s = now_s + min(PAUSE_S * 2**doublings, PAUSE_S_MAX)
        return failing.failures


def _site(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False))
