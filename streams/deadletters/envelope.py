"""The envelope of a dead letter: the original key, bytes and headers, and headers that say what happened.

The `__streams.errors.*` names are Kafka Streams' (KIP-1034), so that tools made for them work here.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from streams import __version__
from streams.operators.columns import Headers
from streams.operators.rejects import DeadLetter

DLQ_ID: Final = "dlq.id"
ATTEMPT: Final = "dlq.attempt"
FIRST_FAILED_AT: Final = "dlq.first_failed_at"
_HISTORY: Final = frozenset({DLQ_ID, ATTEMPT, FIRST_FAILED_AT})
_OURS: Final = ("__streams.errors.", "dlq.")


def envelope_headers(letter: DeadLetter, *, source: str, group: str) -> Headers:
    """Headers of the dead letter: the record's own ones, then ours.

    `dlq.id` names the place in the source (the same whenever the record is processed again). A record that was replayed
    from a dead letter brings its id, attempt and first failure with it, and keeps them.
    """
    kept, history = _split(letter.headers or ())
    place = f"{source}-{letter.partition}@{letter.offset}"
    reject = letter.reject
    ours: Headers = [
        ("__streams.errors.exception", f"streams.{_exception_name(reject.reason)}".encode()),
        ("__streams.errors.message", reject.message.encode()),
        ("__streams.errors.stacktrace", b""),
        ("__streams.errors.topic", source.encode()),
        ("__streams.errors.partition", str(letter.partition).encode()),
        ("__streams.errors.offset", str(letter.offset).encode()),
        (DLQ_ID, history.get(DLQ_ID) or hashlib.blake2b(place.encode(), digest_size=12).hexdigest().encode()),
        ("dlq.reason", reject.reason.value.encode()),
        (ATTEMPT, history.get(ATTEMPT) or b"1"),
        ("dlq.group", group.encode()),
        ("dlq.schema_id", b"" if reject.schema_id is None else str(reject.schema_id).encode()),
        (FIRST_FAILED_AT, history.get(FIRST_FAILED_AT) or str(letter.timestamp_ms).encode()),
        ("dlq.app_version", __version__.encode()),
    ]
    return [*kept, *ours]


def _split(headers: Sequence[tuple[str, bytes | None]]) -> tuple[Headers, dict[str, bytes]]:
    """The record's own headers, and what it carries of its history as a dead letter."""
    kept = [(name, value) for name, value in headers if not name.startswith(_OURS)]
    history = {name: value for name, value in headers if name in _HISTORY and value}
    return kept, history


def _exception_name(reason: str) -> str:
    return "".join(word.capitalize() for word in reason.split("_"))
