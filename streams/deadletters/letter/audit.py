"""The audit record: what was done about a dead letter, by whom, when and why, and what the outcome was.

One JSON object a record, keyed by the dead letter's id in a compacted topic, so the newest one of each id stays. A
replay writes it in the transaction that sends the event again; the event carries the same object as a header, and the
worker writes it again, completed by the outcome, in the transaction that holds the outcome.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from streams.batch.columns import Headers
from streams.batch.replayed import REPLAYED, is_replayed
from streams.deadletters.letter.envelope import DLQ_ID, HISTORY

MARK_BYTES_MAX: Final = 4_096
TEXT_CHARACTERS_MAX: Final = 500
"""Characters that a reason or a name may have."""
_ID: Final = re.compile(r"[0-9a-f]{24}")


class Act(StrEnum):
    """What was done about a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Outcome(StrEnum):
    """What became of a replayed event."""

    CLEAN = "clean"
    LATE = "late"
    DUPLICATE = "duplicate"
    """Its event had gone through meanwhile: dropped."""
    FILTERED = "filtered"
    """The flow filters it out: dropped."""
    REJECTED = "rejected"
    """It failed again: this is the dead letter's next attempt."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, why, and in which run of which command."""

    by: str
    why: str
    run: str
    """Tells the runs of one person apart."""

    def __post_init__(self) -> None:
        if max(len(self.by), len(self.why)) > TEXT_CHARACTERS_MAX:
            raise ValueError(f"a name or a reason has at most {TEXT_CHARACTERS_MAX} characters")


class RecordWriter:
    """Audit records of one run over one dead-letter topic; what they have in common is encoded once."""

    def __init__(self, act: Act, actor: Actor, *, topic: str, at_ms: int, transform: str | None = None) -> None:
        rest = {"by": actor.by, "at": at_ms, "why": actor.why, "run": actor.run, "letter_topic": topic}
        if transform is not None:
            rest["transform"] = transform
        self._head = f'","resolution":"{act.value}","attempt":'
        self._tail = f",{json.dumps(rest)[1:]}"

    def record(self, letter_id: str, *, attempt: int, reason: str, partition: int, offset: int) -> bytes:
        """The record of one letter, as it lies at `partition` and `offset` of the dead-letter topic."""
        place = f'"letter_partition":{partition},"letter_offset":{offset}'
        return f'{{"id":"{letter_id}{self._head}{attempt},"reason":{json.dumps(reason)},{place}{self._tail}'.encode()


def reveal_record(letter_id: str, actor: Actor, *, at_ms: int, reveal_id: str) -> tuple[bytes, bytes]:
    """Key and value of the record that masked fields were shown. Its key is unique, so that compaction keeps it."""
    value = {
        "id": letter_id, "resolution": "revealed", "by": actor.by, "at": at_ms, "why": actor.why, "run": actor.run,
    }  # fmt: skip
    return f"{letter_id}:revealed:{reveal_id}".encode(), json.dumps(value).encode()


def forget_record(actor: Actor, partition: int, *, at_ms: int) -> tuple[bytes, bytes]:
    """Key and value of the record that a key of the flow was forgotten, without the key: the record stays."""
    value = {
        "resolution": "forgotten", "partition": partition, "by": actor.by, "at": at_ms, "why": actor.why,
        "run": actor.run,
    }  # fmt: skip
    return f"forgotten:{actor.run}".encode(), json.dumps(value).encode()


def is_resolution_key(key: bytes | None) -> bool:
    """Whether an audit record resolves a letter (and is not the note of a reveal)."""
    return key is not None and len(key) == 24


@dataclass(frozen=True, slots=True)
class Settled:
    """What a worker writes about replayed events: their headers, and the audit records of the outcomes."""

    headers: list[Headers | None]
    keys: list[bytes | None]
    values: list[bytes | None]


def settle(headers: Sequence[Headers | None], outcome: Outcome, now_ms: int) -> Settled:
    """Remove the marks of replayed events, and make audit records from them.

    Of a replay only id, attempt and first failure stay in the headers; a mark that this program did not write is
    dropped.
    """
    going_on: list[Headers | None] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    for each in headers:
        if not each or not is_replayed(each):
            going_on.append(each)
            continue
        record = outcome_record(each, outcome, now_ms)
        if record is not None:
            keys.append(record[0])
            values.append(record[1])
        going_on.append([pair for pair in each if pair[0] not in {REPLAYED, HISTORY}])
    return Settled(going_on, keys, values)


def outcome_record(headers: Headers, outcome: Outcome, now_ms: int) -> tuple[bytes, bytes] | None:
    """Audit record of a replayed event's outcome; None when its mark was not written by a replay."""
    mark = headers[-1][1]
    letter_id = next((value for name, value in headers if name == DLQ_ID), None)
    if mark is None or letter_id is None or len(mark) > MARK_BYTES_MAX:
        return None
    if not mark.startswith(b'{"id":"' + letter_id + b'","resolution":"replayed",') or not mark.endswith(b"}"):
        return None
    if parsed(mark) is None:
        return None
    return letter_id, mark[:-1] + f',"outcome":"{outcome.value}","outcome_at":{now_ms}}}'.encode()


def parsed(value: bytes | None) -> dict[str, Any] | None:
    """An audit record as a dictionary; None when it is not one."""
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("resolution") not in set(Act):
        return None
    well_formed = isinstance(found.get("id"), str) and _ID.fullmatch(found["id"]) and _is_count(found.get("attempt"))
    return found if well_formed else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000
