"""Signatures of webhooks, by Standard Webhooks (https://www.standardwebhooks.com): who sent a body, and when. Pure.

The headers are `webhook-id`, `webhook-timestamp` (seconds since 1970) and `webhook-signature`: `v1,` and the base64 of
the HMAC-SHA256 of `id.timestamp.body`, several of them apart by spaces. The body is signed as it is sent, compressed
where it is. A sender that tries again signs again, with the same id; the same signature twice is a replay.
"""

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from streams.gateway.answers import Refused
from streams.gateway.credentials import Credential, secret_of
from streams.limits import GATEWAY_WEBHOOK_WINDOW_S, GATEWAY_WEBHOOKS_KEPT_MAX

ID: Final = b"webhook-id"
TIMESTAMP: Final = b"webhook-timestamp"
SIGNATURE: Final = b"webhook-signature"
_ID_BYTES_MAX: Final = 256
_SIGNATURES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Signed:
    """What the headers of a signed request say; the body is still to be checked."""

    id: bytes
    timestamp: bytes
    signatures: tuple[bytes, ...]

    def credential(self, body: bytes, candidates: Iterable[Credential]) -> tuple[Credential, bytes] | None:
        """The credential that one of the signatures was made with, and that signature; None: none of them."""
        content = b"%b.%b.%b" % (self.id, self.timestamp, body)
        found = None
        for credential in candidates:
            expected = hmac.digest(secret_of(credential), content, hashlib.sha256)
            for signature in self.signatures:
                if hmac.compare_digest(expected, signature):
                    found = credential, signature
        return found


def signed(headers: Mapping[bytes, bytes], now_s: float) -> Signed | None:
    """The signature of a request; None when it has none.

    Raises:
        Refused: it is not complete, not well-formed, or too old or new.

    """
    if SIGNATURE not in headers:
        return None
    webhook_id, timestamp = headers.get(ID, b""), headers.get(TIMESTAMP, b"")
    if not webhook_id or len(webhook_id) > _ID_BYTES_MAX or not timestamp.isdigit() or len(timestamp) > 12:
        raise _refused("a signed request has the headers webhook-id and webhook-timestamp (seconds since 1970)")
    off_s = int(timestamp) - now_s
    if abs(off_s) > GATEWAY_WEBHOOK_WINDOW_S:
        raise _refused(
            f"webhook-timestamp is {abs(off_s):.0f} s {'after' if off_s > 0 else 'before'} the gateway's clock; at "
            f"most {GATEWAY_WEBHOOK_WINDOW_S} s are allowed: check the clock of the sender"
        )
    signatures = []
    for part in headers[SIGNATURE].split(b" ")[:_SIGNATURES_MAX]:
        version, _, text = part.partition(b",")
        if version == b"v1":
            try:
                signatures.append(base64.b64decode(text, validate=True))
            except binascii.Error:
                continue
    if not signatures:
        raise _refused("webhook-signature names no signature of version v1: v1, and base64 after a comma")
    return Signed(webhook_id, timestamp, tuple(signatures))


class Replays:
    """Signatures that were accepted within the window, or are being looked at: each is taken once.

    Those of this process since its start. What gets by another process or a restart has the event ids of the first
    time, and the flow drops it.
    """

    def __init__(self, kept_max: int = GATEWAY_WEBHOOKS_KEPT_MAX) -> None:
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self._kept_max = kept_max

    def begin(self, signature: bytes, now_s: float) -> None:
        """Take a signature.

        Raises:
            Refused: it was taken before.

        """
        while self._until_s and (len(self._until_s) > self._kept_max or next(iter(self._until_s.values())) < now_s):
            self._until_s.popitem(last=False)
        if signature in self._until_s:
            raise Refused(
                HTTPStatus.CONFLICT, "this webhook was taken before: it is replayed, or sent twice at the same time",
                kind="replayed",
            )  # fmt: skip
        self._until_s[signature] = now_s + 2 * GATEWAY_WEBHOOK_WINDOW_S

    def forget(self, signature: bytes) -> None:
        """Its request was not answered with what became of it: it may come again."""
        self._until_s.pop(signature, None)


def _refused(words: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, words, kind="unauthenticated")
