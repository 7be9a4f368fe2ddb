"""Who sends a request: by its bearer token, a token as the password of basic authentication, or its signature.

A source without any credential is open to this machine alone, and only while the gateway listens on loopback.
"""

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from streams.gateway.answers import Refused
from streams.gateway.credentials import Credential, Credentials
from streams.gateway.webhooks import Replays, Signed, signed
from streams.hosts import host_name, is_loopback, proxy_header

LOCAL: Final = "local"
"""Name of a sender on this machine that needs no credential."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="streams gateway", Basic realm="streams gateway"'}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: the name and the id of the credential."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A request whose sender is known once its body is: it is signed."""

    signed: Signed
    candidates: tuple[Credential, ...]


@dataclass(frozen=True, slots=True)
class Proved:
    """The sender of a signed request; the signature must be forgotten if nothing comes of the request."""

    sender: Sender
    signature: bytes


class Access:
    """Decides who may send to a source."""

    def __init__(self, credentials: Credentials, *, bound_to: str, clock: Callable[[], float] = time.time) -> None:
        """Check requests by `credentials`; `bound_to` is the address that the gateway listens on."""
        self._credentials, self._clock = credentials, clock
        self._is_local = is_loopback(bound_to)
        self._replays = Replays()

    def admit(self, source: str, headers: Mapping[bytes, bytes], client: str | None) -> Sender | Claim:
        """Who sends to `source`, or what the body has to prove. `headers`: by lower-case name.

        Raises:
            Refused: nobody who may.

        """
        now_s = self._clock()
        found = signed(headers, now_s)
        if found is not None:
            return Claim(found, tuple(self._credentials.webhooks(source, int(now_s * 1000))))
        token = _token(headers.get(b"authorization", b""))
        if token is not None:
            credential = self._credentials.by_token(token, int(now_s * 1000))
            if credential is None:
                raise _unauthenticated("the token is not known, or has ended")
            if source not in credential.sources:
                raise Refused(
                    HTTPStatus.FORBIDDEN, f"the token permits {', '.join(credential.sources)}, not {source}",
                    kind="unauthenticated",
                )  # fmt: skip
            return Sender(credential.name, credential.id)
        if self._credentials.is_guarded(source):
            raise _unauthenticated("send a token (Authorization: Bearer ...), or sign the request")
        self._check_local(source, headers, client)
        return Sender(LOCAL, LOCAL)

    def prove(self, claim: Claim, body: bytes) -> Proved:
        """Who signed the body as it was sent.

        Raises:
            Refused: nobody who may; or it was taken before.

        """
        found = claim.signed.credential(body, claim.candidates)
        if found is None:
            raise _unauthenticated("no signature is right: check the secret, and that the body is signed as it is sent")
        credential, signature = found
        self._replays.begin(signature, self._clock())
        return Proved(Sender(credential.name, credential.id), signature)

    def forget(self, proved: Proved) -> None:
        """Nothing has come of the request: the sender may send the very same again."""
        self._replays.forget(proved.signature)

    def _check_local(self, source: str, headers: Mapping[bytes, bytes], client: str | None) -> None:
        advice = f"make a token: streams gateway token new --source {source} --name NAME"
        if not self._is_local:
            raise _unauthenticated(f"there is no token for {source} yet, and this gateway is not on loopback: {advice}")
        host = host_name(headers.get(b"host", b"").decode("latin-1"))
        if (
            client is None
            or not is_loopback(client)
            or host is None
            or not (is_loopback(host) or host.endswith(".localhost"))
            or proxy_header(name.decode("latin-1") for name in headers) is not None
            or b"origin" in headers
        ):
            raise _unauthenticated(f"without a token only programs on this machine may send, and no web page: {advice}")


def _token(header: bytes) -> str | None:
    """What an Authorization header shows; None: there is none, or of another scheme."""
    scheme, _, given = header.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return given.strip().decode("latin-1")
        case b"basic":
            try:
                pair = base64.b64decode(given.strip(), validate=True)
            except binascii.Error:
                return ""
            return pair.partition(b":")[2].decode("latin-1")
        case _:
            return None if not header else ""


def _unauthenticated(words: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, words, kind="unauthenticated", headers=_CHALLENGE)
