"""Which letters a replay or discard concerns: sorted by destination, and those that must be left alone.

The command line and the page use it, both for the question and for the action.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import gt
from typing import Final

import numpy as np

from streams.acls.rights import Operation, on_topic
from streams.batch.rejects import Reason
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.index import Rows, replayable
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.inbox import Box, Inbox
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.kafka import acls
from streams.limits import DLQ_ATTEMPTS_MAX

REFUSED_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Refusal:
    """A letter that must be left alone, and why."""

    id: str
    why: str


@dataclass(slots=True)
class Refusals:
    """Letters that must be left alone: all of them counted, the first ones with their reasons."""

    count: int = 0
    shown: list[Refusal] = field(default_factory=list)

    def add(self, letter_ids: Iterable[bytes], why: str) -> None:
        """Count letters that are left for one reason."""
        for letter_id in letter_ids:
            self.count += 1
            if len(self.shown) < REFUSED_SHOWN:
                self.shown.append(Refusal(letter_id.decode(), why))


@dataclass(frozen=True, slots=True)
class Job:
    """Letters of one dead-letter topic that belong to one flow."""

    box: Box
    flow: Pipeline
    rows: Rows


@dataclass(frozen=True, slots=True)
class Choice:
    """The selected letters, sorted: `selected` = letters of all jobs + capped + refused."""

    jobs: list[Job]
    capped: int
    """Left alone: they were tried too often."""
    refusals: Refusals

    @property
    def letters(self) -> int:
        """Letters of all jobs."""
        return sum(len(job.rows) for job in self.jobs)

    @property
    def selected(self) -> int:
        """All letters that were selected."""
        return self.letters + self.capped + self.refusals.count

    @property
    def by_source(self) -> Mapping[str, int]:
        """How many letters would go into each source topic."""
        return _counted((job.flow.source, len(job.rows)) for job in self.jobs)

    @property
    def by_topic(self) -> Mapping[str, int]:
        """How many letters of each dead-letter topic."""
        return _counted((job.box.topic, len(job.rows)) for job in self.jobs)


def to_replay(
    inbox: Inbox, wanted: Filter, *, limit: int | None = None, attempts_max: int = DLQ_ATTEMPTS_MAX
) -> Choice:
    """The open letters that a replay of `wanted` sends, as of the last refresh, in log order; `limit`: the oldest ones.

    A letter goes into the source of a declared flow of this set, and from that flow's own dead-letter topic into no
    other. A letter whose envelope is incomplete or names another topic is refused, the others are sent.
    """
    sorting = _Sorting(limit)
    capped = 0
    for found in inbox.find(wanted.opened()):
        whole = replayable(found.rows)
        why = "its envelope is incomplete: nothing says what it was; discard it"
        sorting.refusals.add(found.rows.where(~whole).ids.tolist(), why)
        rows = found.rows.where(whole)
        for source, flow, mine in _by_flow(found.box, rows):
            if flow is None or flow.source != source:
                sorting.refusals.add(mine.ids.tolist(), _names_another(found.box, source))
                continue
            tired = mine.attempt >= attempts_max
            capped += int(np.count_nonzero(tired))
            sorting.take(found.box, flow, mine.where(~tired))
    return Choice(sorting.jobs(), capped, sorting.refusals)


def to_discard(inbox: Inbox, wanted: Filter, *, limit: int | None = None) -> Choice:
    """The open letters that a discard of `wanted` closes, as of the last refresh; `limit`: the oldest ones.

    What was done about a letter is recorded in the audit topic of a declared flow of this set. A letter that belongs to
    none is refused, the others are discarded.
    """
    sorting = _Sorting(limit)
    for found in inbox.find(wanted.opened()):
        for source, flow, mine in _by_flow(found.box, found.rows):
            if flow is None:
                sorting.refusals.add(mine.ids.tolist(), _names_another(found.box, source))
            else:
                sorting.take(found.box, flow, mine)
    return Choice(sorting.jobs(), 0, sorting.refusals)


def require_audits(inbox: Inbox, choice: Choice, nothing_done: str) -> None:
    """Check that actions on the letters can be recorded.

    Raises:
        StreamsError: an audit topic is missing; the message says `nothing_done`.

    """
    _require(inbox, {job.flow.audit: "audit topic {} to record it in" for job in choice.jobs}, nothing_done)


def require_sources(inbox: Inbox, choice: Choice, nothing_done: str) -> None:
    """Check that the topics exist into which letters are replayed.

    Raises:
        StreamsError: one is missing; the message says `nothing_done`.

    """
    _require(inbox, {job.flow.source: "source topic {} to replay into" for job in choice.jobs}, nothing_done)


def _require(inbox: Inbox, topics: Mapping[str, str], nothing_done: str) -> None:
    acls.require(inbox.client, (on_topic(topic, Operation.WRITE) for topic in topics))
    counts = inbox.counts()
    for topic, what in topics.items():
        if topic not in counts:
            raise StreamsError(f"there is no {what.format(topic)}: {nothing_done}; {inbox.flows.hint(topic)}")


def known_reasons(inbox: Inbox) -> tuple[list[str], list[str]]:
    """Reasons that can be filtered by: those of this program, and other ones among the letters that were read."""
    known = sorted(reason.value for reason in Reason)
    return known, sorted({name for box in inbox.boxes for name in box.letters.reasons()} - set(known))


def check_reasons(inbox: Inbox, wanted: Filter) -> None:
    """Check that the requested reasons exist.

    Raises:
        UsageError: one does not; the message names those that do.

    """
    known, foreign = known_reasons(inbox)
    unknown = sorted(wanted.reasons.difference(known, foreign))
    if unknown:
        also = f"; among these letters also {', '.join(foreign[:REFUSED_SHOWN])}" if foreign else ""
        raise UsageError(f"there is no reason {unknown[0]!r}: reasons are {', '.join(known)}{also}")


def check_pin(inbox: Inbox, wanted: Filter) -> None:
    """Check that the pin, if there is one, fits these topics as they are now.

    Raises:
        UsageError: it is of other topics, or one was created again since: its ends are past what is there.

    """
    if wanted.pin is None:
        return
    read = {box.topic: box.tail.ends() for box in inbox.boxes}
    if read.keys().isdisjoint(wanted.pin.ends):
        raise UsageError(f"this pin is of other topics than {', '.join(read)}: ask again with --dry-run")
    for topic, pinned in wanted.pin.ends.items():
        ends = read.get(topic)
        if ends is not None and (len(pinned) > len(ends) or any(map(gt, pinned, ends))):
            raise UsageError(f"{topic} was created again since this pin was taken: ask again with --dry-run")


@dataclass(frozen=True, slots=True)
class Survey:
    """What to show before an action, and the pin with which the action concerns the same letters."""

    pin: Pin
    replay: Choice
    discard: Choice


def survey(inbox: Inbox, wanted: Filter, *, limit: int | None = None) -> Survey:
    """What a replay and a discard of `wanted` would do now; refreshes the inbox.

    Show the counts and topics, and act with `wanted.pinned(survey.pin)`.

    Raises:
        StreamsError: the broker does not answer.

    """
    inbox.refresh()
    pin = inbox.pin()
    pinned = wanted.pinned(pin)
    return Survey(pin, to_replay(inbox, pinned, limit=limit), to_discard(inbox, pinned, limit=limit))


@dataclass(slots=True)
class _Sorting:
    """Selects the oldest letters of each topic until the limit is reached."""

    left: int | None
    refusals: Refusals = field(default_factory=Refusals)
    _taken: list[tuple[Box, Pipeline, Rows]] = field(default_factory=list)

    def take(self, box: Box, flow: Pipeline, rows: Rows) -> None:
        if self.left is not None:
            rows = rows.oldest_first()
            rows = rows.where(np.arange(min(self.left, len(rows))))
            self.left -= len(rows)
        self._taken.append((box, flow, rows))

    def jobs(self) -> list[Job]:
        return [Job(box, flow, rows.in_log_order()) for box, flow, rows in self._taken if len(rows)]


def _by_flow(box: Box, rows: Rows) -> list[tuple[str, Pipeline | None, Rows]]:
    """Letters by the source that their envelopes name, with the flow that they belong to."""
    return [(source, box.flow_of(source), rows.of_source(source)) for source in sorted(set(rows.sources()))]


def _names_another(box: Box, source: str) -> str:
    named = f"its envelope names {source!r}" if source else "its envelope names no topic"
    if box.flow is not None:
        return f"{named}, and what is in {box.topic} goes back to {box.flow.source} only"
    return f"{named}, which is the source of no declared flow"


def _counted(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for name, number in pairs:
        counted[name] += number
    return counted
