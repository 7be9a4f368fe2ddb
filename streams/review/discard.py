"""Discard: a person says that a letter needs nothing more, and why. Nothing is deleted; the audit topic says it."""

import time
from typing import Final

from streams.deadletters.audit import Act, Actor, RecordWriter
from streams.deadletters.index import Filter, Rows
from streams.errors import StreamsError
from streams.review.desk import Desk, Undone
from streams.review.inbox import Box, Inbox

BATCH_LETTERS: Final = 20_000
TRIES_MAX: Final = 5


def discard(inbox: Inbox, wanted: Filter, actor: Actor, *, limit: int | None = None, dry_run: bool = False) -> int:
    """Resolve the open letters that are meant as discarded; returns their number. `limit`: the oldest ones only.

    Raises:
        StreamsError: an audit topic is missing, or the broker fails: what was committed is recorded, nothing else.
        FencedError: another replay or discard of the same source has started.

    """
    inbox.refresh()
    asked = Filter(
        wanted.ids, wanted.reasons, wanted.keys, wanted.schema_ids, wanted.since_ms, wanted.until_ms, is_open=True
    )
    jobs: list[tuple[Box, str, Rows]] = []
    left = limit
    for found in inbox.find(asked):
        rows = found.rows.oldest_first()
        if left is not None:
            rows = rows.where(slice(0, left))  # type: ignore[arg-type]  # a slice is an index, too
            left -= len(rows)
        sources = sorted(set(rows.sources()))
        jobs += [(found.box, _audited_by(found.box, source), rows.of_source(source)) for source in sources]
    counts = inbox.counts()
    for _, source, _ in jobs:
        if f"{source}.dlq.audit" not in counts:
            raise StreamsError(
                f"there is no audit topic {source}.dlq.audit to record it in: nothing was discarded; "
                "`streams topics apply` creates those of the declared pipelines"
            )
    if dry_run:
        return sum(len(rows) for _, _, rows in jobs)
    return sum(_discard(inbox, box, source, rows, actor) for box, source, rows in jobs)


def _audited_by(box: Box, source: str) -> str:
    """The source in whose audit topic a letter is resolved: one of which nothing is known belongs to its topic's."""
    if source:
        return source
    if box.pipeline is None:
        raise StreamsError(
            f"{box.topic} has dead letters of which nothing says where they come from, so there is no audit topic to "
            "record it in: nothing was discarded; leave them out by --reason"
        )
    return box.pipeline.source


def _discard(inbox: Inbox, box: Box, source: str, rows: Rows, actor: Actor) -> int:
    desk = Desk(inbox.settings, source)
    try:
        chosen: Rows | None = None
        for _ in range(TRIES_MAX):
            desk.sit_down()
            audit = box.audit(source)
            if audit is None:
                raise StreamsError(f"the audit topic of {source} is not known")
            audit.refresh(inbox.counts())
            left = rows.where(audit.resolutions.of(rows).is_open)
            chosen = left if chosen is None else chosen
            try:
                _write(desk, audit.topic, box.topic, left, actor)
            except Undone:
                continue
            return len(chosen)
    finally:
        desk.close()
    raise StreamsError(f"discarding dead letters of {source} fails: run the same command again for the rest")


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
