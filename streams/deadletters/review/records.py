"""Makes the records of a replay: those for the source, and those for the audit topic."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from confluent_kafka import Message

from streams.batch.columns import Headers
from streams.deadletters.letter.audit import Act, Actor, RecordWriter
from streams.deadletters.letter.foreign import origin_of
from streams.deadletters.letter.index import Rows
from streams.deadletters.letter.letter import HistoryWriter, Repair, parts_of, plain_parts, replay_headers, sha256
from streams.deadletters.review.letters import letter_of
from streams.errors import StreamsError
from streams.kafka.headers import headers_of

if TYPE_CHECKING:
    from streams.deadletters.review.transform import Transform

_FRAME_BYTES: Final = 512
"""Upper bound of a record's size in the log beyond key, value and headers."""


class Senseless(StreamsError):
    """A transform returned an unusable result."""


@dataclass(slots=True)
class Slice:
    """Some letters as records of their source and of its audit topic: row i of each list belongs to one letter."""

    at_ms: int
    ids: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers | None] = field(default_factory=list)
    partitions: list[int | None] = field(default_factory=list)
    """Partition of a record without a key."""
    marks: list[bytes | None] = field(default_factory=list)
    bytes_used: int = 0
    left_out: list[bytes] = field(default_factory=list)
    """Letters that the source would refuse, and why."""
    refused: list[tuple[bytes, str]] = field(default_factory=list)
    """Letters that the source would not take, and why."""


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes slices of the letters of one dead-letter topic that belong to one source."""

    topic: str
    source: str
    bytes_max: int
    """The largest record that the source accepts."""
    partitions: int
    """Number of partitions of the source."""
    actor: Actor
    transform: "Transform | None"

    def make(self, rows: Rows, messages: Sequence[Message]) -> Slice:
        """The slice of some letters of one partition; `rows` contains them and maybe others, in log order.

        Raises:
            Senseless: the transform fails.

        """
        here = _rows_at(rows, messages)
        ids, attempts, failed_at = here.ids.tolist(), here.attempt.tolist(), here.first_failed_at.tolist()
        reasons, plain = here.reasons(), here.plain()
        now_ms = time.time_ns() // 1_000_000
        transform = None if self.transform is None else self.transform.name
        audit = RecordWriter(Act.REPLAYED, self.actor, topic=self.topic, at_ms=now_ms, transform=transform)
        histories = HistoryWriter(by=self.actor.by, why=self.actor.why, run=self.actor.run, at_ms=now_ms)
        repairs = self._repairs(messages)
        made = Slice(now_ms)
        lies_in = int(messages[0].partition() or 0)
        offsets: list[Any] = list(map(Message.offset, messages))
        for row, message in enumerate(messages):
            letter_id, attempt, reason = ids[row], attempts[row], reasons[row]
            if repairs is not None and repairs[row] is None:
                made.left_out.append(letter_id)
                continue
            key, value, changed = _content(message, None if repairs is None else repairs[row], transform)
            known = plain[row]
            parts = plain_parts(*known) if known is not None else parts_of(headers_of(message))
            mark = audit.record(
                letter_id.decode(), attempt=attempt, reason=reason, partition=lies_in, offset=offsets[row]
            )
            history = histories.history(parts, attempt, reason, None if changed is None else changed[2])
            size = len(value or b"") + len(key or b"") + len(mark) + len(history) + _FRAME_BYTES
            if parts.own:
                size += sum(len(name) + len(text or b"") for name, text in parts.own)
            if size > self.bytes_max:
                made.refused.append((letter_id, f"{size} bytes are more than {self.source} takes (max.message.bytes)"))
                continue
            made.headers.append(
                replay_headers(
                    parts.own, letter_id=letter_id, attempt=attempt + 1, first_failed_at=failed_at[row],
                    history=history, mark=mark, transform=changed,
                )
            )  # fmt: skip
            made.bytes_used += size
            made.keys.append(key)
            made.values.append(value)
            made.marks.append(mark)
            made.ids.append(letter_id)
            made.partitions.append(
                None if key is not None else self._partition(origin_of(headers_of(message)).partition)
            )
        return made

    def _repairs(self, messages: Sequence[Message]) -> list[Repair | None] | None:
        if self.transform is None:
            return None
        try:
            return self.transform.apply([letter_of(self.topic, message) for message in messages])
        except StreamsError as error:
            raise Senseless(str(error)) from None

    def _partition(self, origin: int | None) -> int | None:
        """Partition of a record without a key: its original one, if that still exists."""
        return origin if origin is not None and 0 <= origin < self.partitions else None


def _rows_at(rows: Rows, messages: Sequence[Message]) -> Rows:
    """The rows (which are in log order) of messages of one partition."""
    mine = np.flatnonzero(rows.partition == (messages[0].partition() or 0))
    offsets: list[Any] = list(map(Message.offset, messages))
    return rows.where(mine[np.searchsorted(rows.offset[mine], np.array(offsets))])


def _content(
    message: Message, repair: Repair | None, transform: str | None
) -> tuple[bytes | None, bytes | None, tuple[str, str, str] | None]:
    """Key and value to send, and the changes made by a repair: what, by what, the original's SHA-256."""
    key: Any = message.key()
    value: Any = message.value()
    if repair is None or transform is None:
        return key, value, None
    changed = [name for name, differs in (("key", repair.key != key), ("value", repair.value != value)) if differs]
    if not changed:
        return key, value, None
    return repair.key, repair.value, (",".join(changed), transform, sha256(value))
