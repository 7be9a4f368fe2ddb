"""Discard: a person says that a letter needs nothing more, and why. Nothing is deleted; the audit topic says it."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streams.deadletters.letter.audit import Act, Actor, RecordWriter
from streams.deadletters.letter.index import Filter, Rows
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.choice import Job, Refusals, check_pin, check_reasons, require_audits, to_discard
from streams.deadletters.review.desk import Desk, Undone
from streams.deadletters.review.inbox import Inbox
from streams.errors import StreamsError

BATCH_LETTERS: Final = 20_000
TRIES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class DiscardResult:
    """What a run did."""

    selected: int
    """Open letters that the filter means."""
    discarded: int
    """0 for a dry run."""
    by_topic: Mapping[str, int]
    """Letters that were, or would be, discarded, by their dead-letter topic."""
    refusals: Refusals
    """Letters that belong to no declared flow: they are open as before."""
    pin: Pin | None = None
    """Where the topics ended when the letters were chosen."""


def discard(
    inbox: Inbox, wanted: Filter, actor: Actor, *, limit: int | None = None, dry_run: bool = False
) -> DiscardResult:
    """Resolve the open letters that are meant as discarded. `limit`: the oldest ones only.

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
    desk = Desk(inbox.settings, job.flow.source)
    try:
        chosen: Rows | None = None
        for _ in range(TRIES_MAX):
            desk.sit_down()
            audit = job.box.audit(job.flow)
            audit.refresh(inbox.counts())
            left = job.rows.where(audit.resolutions.of(job.rows).is_open)
            chosen = left if chosen is None else chosen
            try:
                _write(desk, audit.topic, job.box.topic, left, actor)
            except Undone:
                continue
            return len(chosen)
    finally:
        desk.close()
    raise StreamsError(f"discarding dead letters of {job.flow.source} fails: run the same command again for the rest")


def _write(desk: Desk, audit: str, topic: str, rows: Rows, actor: Actor) -> None:
    now_ms = time.time_ns() // 1_000_000
    writer = RecordWriter(Act.DISCARDED, actor, topic=topic, at_ms=now_ms)
    columns = zip(rows.ids.tolist(), rows.attempt.tolist(), rows.reasons(), rows.places(), strict=True)
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    for letter_id, attempt, reason, place in columns:
        keys.append(letter_id)
        values.append(
            writer.record(
                letter_id.decode(), attempt=attempt, reason=reason, partition=place.partition, offset=place.offset
            )
        )
    for first in range(0, len(keys), BATCH_LETTERS):
        part = slice(first, first + BATCH_LETTERS)
        desk.send(audit, keys[part], values[part], None, at_ms=now_ms)
        desk.commit()
