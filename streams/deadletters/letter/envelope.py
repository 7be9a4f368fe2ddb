"""The envelope of a dead letter: the original key, bytes and headers, and headers that say what happened.

The `__streams.errors.*` names are those of Kafka Streams (KIP-1034), so that its tools work here. A record that is
replayed goes back with its own headers and these after them: `dlq.id`, `dlq.attempt` (one more),
`dlq.first_failed_at`, `dlq.history` (what became of the attempts before) and, last, `dlq.replayed`: who replays it,
which is what the worker writes into the audit topic, completed by the outcome. If it fails again, its next dead letter
keeps all but the last.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from streams import __version__
from streams.avro.framing import schema_id_of
from streams.batch.columns import Headers
from streams.batch.rejects import DeadLetter

DLQ_ID: Final = "dlq.id"
REASON: Final = "dlq.reason"
ATTEMPT: Final = "dlq.attempt"
GROUP: Final = "dlq.group"
SCHEMA_ID: Final = "dlq.schema_id"
FIRST_FAILED_AT: Final = "dlq.first_failed_at"
APP_VERSION: Final = "dlq.app_version"
HISTORY: Final = "dlq.history"
OURS: Final = ("__streams.errors.", "dlq.")
"""Headers with this prefix are ours; all others are the record's own."""
HISTORY_BYTES_MAX: Final = 16_384
ID_CHARACTERS: Final = 24

_ID: Final = re.compile(rb"[0-9a-f]{24}")
_ATTEMPT: Final = re.compile(rb"[1-9][0-9]{0,5}")
_TIME: Final = re.compile(rb"-?[0-9]{1,19}")


def id_of_place(place: str) -> str:
    """Id of the dead letter for a place in a log: the same whenever that record is processed again."""
    return hashlib.blake2b(place.encode(), digest_size=ID_CHARACTERS // 2).hexdigest()


def envelope_headers(letter: DeadLetter, *, source: str, group: str, now_ms: int) -> Headers:
    """Headers of the dead letter: the record's own ones, then ours.

    `dlq.id` names the place in the source (the same whenever the record is processed again). A record that was replayed
    from a dead letter keeps the id, attempt, first failure and history that it carries; malformed ones were not written
    by this program and are ignored. `dlq.schema_id` is the id that the record carries, whatever it was rejected for;
    empty if it carries none. `now_ms`: when it fails.
    """
    kept, history = _split(letter.headers or ())
    reject = letter.reject
    schema_id = schema_id_of(letter.value, letter.headers) if reject.schema_id is None else reject.schema_id
    ours: Headers = [
        ("__streams.errors.exception", f"streams.{_exception_name(reject.reason)}".encode()),
        ("__streams.errors.message", reject.message.encode()),
        ("__streams.errors.stacktrace", b""),
        ("__streams.errors.topic", source.encode()),
        ("__streams.errors.partition", str(letter.partition).encode()),
        ("__streams.errors.offset", str(letter.offset).encode()),
        (DLQ_ID, history.get(DLQ_ID) or id_of_place(_place(letter, source)).encode()),
        (REASON, reject.reason.value.encode()),
        (ATTEMPT, history.get(ATTEMPT) or b"1"),
        (GROUP, group.encode()),
        (SCHEMA_ID, b"" if schema_id is None else str(schema_id).encode()),
        (FIRST_FAILED_AT, history.get(FIRST_FAILED_AT) or str(now_ms).encode()),
        (APP_VERSION, __version__.encode()),
    ]
    if HISTORY in history:
        ours.append((HISTORY, history[HISTORY]))
    return [*kept, *ours]


def _place(letter: DeadLetter, source: str) -> str:
    """Place of the record; for an event whose offset is no longer known, its bytes instead."""
    if letter.offset >= 0:
        return f"{source}-{letter.partition}@{letter.offset}"
    return f"{source}-{letter.partition}:{hashlib.sha256(letter.value or b'').hexdigest()}"


def own_headers(headers: Sequence[tuple[str, bytes | None]] | None) -> Headers:
    """The record's own headers, without ours."""
    return [(name, value) for name, value in headers or () if not name.startswith(OURS)]


def _split(headers: Sequence[tuple[str, bytes | None]]) -> tuple[Headers, dict[str, bytes]]:
    """Splits the headers into the record's own and those of its history as a dead letter."""
    history: dict[str, bytes] = {}
    for name, value in headers:
        if not value or not name.startswith("dlq."):
            continue
        match name:
            case "dlq.id" if _ID.fullmatch(value):
                history[name] = value
            case "dlq.attempt" if _ATTEMPT.fullmatch(value):
                history[name] = value
            case "dlq.first_failed_at" if _TIME.fullmatch(value):
                history[name] = value
            case "dlq.history" if len(value) <= HISTORY_BYTES_MAX:
                history[name] = value
            case _:
                pass
    return own_headers(headers), history


def _exception_name(reason: str) -> str:
    return "".join(word.capitalize() for word in reason.split("_"))
