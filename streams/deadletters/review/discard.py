"""Discards letters: records in the audit topic that nothing more has to be done, and why. Nothing is deleted."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streams.deadletters.letter.audit import Act, Actor, RecordWriter
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.index import Rows
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.choice import Job, Refusals, check_pin, check_reasons, require_audits, to_discard
from streams.deadletters.review.inbox import Inbox
from streams.deadletters.review.session import ReplaySession, Unfinished, still_open_of
from streams.errors import StreamsError
from streams.sinks.base import Outgoing

PORTION_LETTERS_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class DiscardResult:
    """Result of a run."""

    selected: int
    """Open letters that the filter selects."""
    discarded: int
    """Number of letters that were discarded; 0 for a dry run."""
    by_topic: Mapping[str, int]
    """Letters that were, or would be, discarded, by their dead-letter topic."""
    refusals: Refusals
    """Letters that belong to no declared flow: they stay open."""
    pin: Pin | None = None
    """Where the topics ended when the letters were chosen."""


def discard(
    inbox: Inbox, wanted: Filter, actor: Actor, *, limit: int | None = None, dry_run: bool = False
) -> DiscardResult:
    """Resolve the selected open letters as discarded. `limit`: only the oldest ones.

    Raises:
        UsageError: a reason or pin that is asked for does not exist.
        StreamsError: an audit topic is missing, or the broker fails: what was committed is recorded, nothing else.
        FencedError: another replay or discard of the same source has started.

    """
    inbox.refresh()
    check_reasons(inbox, wanted)
    check_pin(inbox, wanted)
    choice = to_discard(inbox, wanted, limit=limit)
    require_audits(inbox, choice, "nothing was discarded")
    pin = wanted.pin or inbox.pin()
    if dry_run:
        return DiscardResult(choice.selected, 0, choice.by_topic, choice.refusals, pin)
    by_topic: Counter[str] = Counter()
    for job in choice.jobs:
        by_topic[job.box.topic] += _discard(inbox, job, actor)
    return DiscardResult(by_topic.total() + choice.refusals.count, by_topic.total(), by_topic, choice.refusals, pin)


def _discard(inbox: Inbox, job: Job, actor: Actor) -> int:
    session = ReplaySession(inbox.settings, job.flow.source, still_open_of(inbox, job))
    try:
        chosen = session.open(job.rows)
        session.work_off(chosen, lambda left: _write(session, job.flow.audit, job.box.topic, left, actor))
        return len(chosen)
    except Unfinished as error:
        raise StreamsError(
            f"discarding dead letters of {job.flow.source} fails: {error}; what was committed is done and recorded: "
            "run the same command again for the rest"
        ) from None
    finally:
        session.close()


def _write(session: ReplaySession, audit: str, topic: str, rows: Rows, actor: Actor) -> None:
    now_ms = time.time_ns() // 1_000_000
    writer = RecordWriter(Act.DISCARDED, actor, topic=topic, at_ms=now_ms)
    columns = zip(rows.ids.tolist(), rows.attempt.tolist(), rows.reasons(), rows.places(), strict=True)
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    bytes_used = 0
    for letter_id, attempt, reason, place in columns:
        value = writer.record(
            letter_id.decode(), attempt=attempt, reason=reason, partition=place.partition, offset=place.offset
        )
        keys.append(letter_id)
        values.append(value)
        bytes_used += len(value)
    size = session.portion(PORTION_LETTERS_MAX)
    for first in range(0, len(keys), size):
        part = slice(first, first + size)
        marks = Outgoing(audit, keys[part], values[part], now_ms)
        session.write([marks], letters=len(marks.keys), bytes_used=bytes_used * len(marks.keys) // len(keys))
