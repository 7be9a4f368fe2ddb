"""A dead letter as a person or a repair sees it, and what a repair gives back."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from streams.batch.columns import Headers
from streams.batch.replayed import REPLAYED
from streams.deadletters.letter.envelope import (
    ATTEMPT,
    DLQ_ID,
    FIRST_FAILED_AT,
    HISTORY,
    HISTORY_BYTES_MAX,
)
from streams.deadletters.letter.foreign import message_of, origin_of, own_headers_of

ATTEMPTS_KEPT_MAX: Final = 20
MESSAGE_CHARACTERS_MAX: Final = 300
TRANSFORM: Final = "dlq.transform"
CHANGED: Final = "dlq.changed"
ORIGINAL_SHA256: Final = "dlq.original_sha256"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it came, and what its envelope says."""

    id: str
    topic: str
    """The dead-letter topic, and the place there."""
    partition: int
    offset: int
    timestamp_ms: int
    source: str
    """The topic to which it belongs."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """Headers of the record itself, without those of the envelope."""
    reason: str
    message: str
    attempt: int
    schema_id: int | None
    first_failed_at: int


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair: the new value, and the new key if that changes, too."""

    value: bytes
    key: bytes | None = None
    """None: the key stays as it is."""


Repairing = Callable[[Letter], "bytes | Repair | None"]
"""A user's repair: returns the new value, or value and key, or None to leave the letter unsent."""


class NotARepair(Exception):
    """A user's repair raised, or returned something else; the message says which."""

    def __init__(self, what: str, words: str = "") -> None:
        """`words`: the user's message, which may quote the record; `what` does not."""
        super().__init__(f"{what}: {words}" if words else what)
        self.what = what


def repaired(letter: Letter, repairing: Repairing) -> Repair | None:
    """Key and value after `repairing` the letter; None when the repair leaves it out.

    Raises:
        NotARepair: it raised, or returned something else than bytes, a Repair or None.

    """
    try:
        found = repairing(letter)
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises is said, and nothing is sent
        raise NotARepair(f"it raised {type(error).__name__}", str(error)) from None
    if found is None:
        return None
    if isinstance(found, bytes):
        found = Repair(found)
    good = isinstance(found, Repair) and isinstance(found.value, bytes) and isinstance(found.key, bytes | None)
    if not good:
        raise NotARepair(f"it returned {type(found).__name__}, not bytes, a Repair or None")
    return found if found.key is not None else Repair(found.value, letter.key)


class Parts(NamedTuple):
    """The headers of a dead letter, split: the record's own ones, and the input of the next history."""

    own: Headers
    message: bytes
    place: str
    """Place in the source as written in a history; empty when it is not known."""
    history: bytes | None


def plain_parts(message: bytes, partition: int, offset: int) -> Parts:
    """The parts of a letter whose headers say nothing else."""
    return Parts([], message, f'"partition":{partition},"offset":{offset},', None)


def parts_of(headers: Headers) -> Parts:
    """Split the headers of a dead letter; those written by the worker by position."""
    count = len(headers)
    for trail in (13, 14):
        first = count - trail
        if first >= 0 and headers[first + 6][0] == DLQ_ID and headers[first][0] == "__streams.errors.exception":
            partition, offset = headers[first + 4][1] or b"", headers[first + 5][1] or b""
            place = f'"partition":{int(partition)},"offset":{int(offset)},' if (partition + offset).isdigit() else ""
            history = headers[-1][1] if trail == 14 and headers[-1][0] == HISTORY else None
            return Parts(headers[:first], headers[first + 1][1] or b"", place, history)
    origin = origin_of(headers)
    place = ""
    if origin.partition is not None and origin.offset is not None:
        place = f'"partition":{origin.partition},"offset":{origin.offset},'
    return Parts(
        own_headers_of(headers),
        message_of(headers).encode(),
        place,
        next((value for name, value in headers if name == HISTORY), None),
    )


def replay_headers(
    own: Headers,
    *,
    letter_id: bytes,
    attempt: int,
    first_failed_at: int,
    history: bytes,
    mark: bytes,
    transform: tuple[str, str, str] | None = None,
) -> Headers:
    """Headers of a record that is replayed: its own ones, then ours; the mark is the last.

    `attempt` is the one that begins. `transform`: what has changed, by what, and the SHA-256 of the original value.
    """
    headers = [
        *own,
        (DLQ_ID, letter_id),
        (ATTEMPT, str(attempt).encode()),
        (FIRST_FAILED_AT, str(first_failed_at).encode()),
    ]
    if transform is not None:
        headers += zip((CHANGED, TRANSFORM, ORIGINAL_SHA256), map(str.encode, transform), strict=True)
    return [*headers, (HISTORY, history), (REPLAYED, mark)]


def sha256(value: bytes | None) -> str:
    """Hexadecimal SHA-256 of a value; None counts as empty."""
    return hashlib.sha256(value or b"").hexdigest()


class HistoryWriter:
    """Writes the histories of one run's letters: earlier attempts, and this one."""

    def __init__(self, *, by: str, why: str, run: str, at_ms: int) -> None:
        self._tail = json.dumps({"by": by, "why": why, "run": run, "replayed_at": at_ms})[1:]

    def history(self, parts: Parts, attempt: int, reason: str, original_sha256: str | None = None) -> bytes:
        """JSON list of attempts, this one the last; of many, or long ones, the newest."""
        digest = "" if original_sha256 is None else f'"original_sha256":"{original_sha256}",'
        words = f'"reason":{_quoted(reason)},"message":{_quoted(parts.message)}'
        entry = f'{{"attempt":{attempt},{words},{parts.place}{digest}{self._tail}'
        if parts.history is None:
            return f"[{entry}]".encode()
        entries = [*map(json.dumps, history_of(parts.history)), entry][-ATTEMPTS_KEPT_MAX:]
        while len(entries) > 1 and sum(map(len, entries)) + 2 * len(entries) > HISTORY_BYTES_MAX:
            entries.pop(0)
        return f"[{','.join(entries)}]".encode()


def history_of(header: bytes | None) -> list[dict[str, Any]]:
    """The attempts in a history header; entries that are not ours are ignored."""
    if header is None or len(header) > HISTORY_BYTES_MAX:
        return []
    try:
        found = json.loads(header)
    except (ValueError, RecursionError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


@lru_cache(maxsize=10_000)
def _quoted(text: str | bytes) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return json.dumps(words[:MESSAGE_CHARACTERS_MAX])
