"""The inbox: the letters in dead-letter topics, and what was done about them; refreshed on demand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from streams.acls.rights import Operation, on_topic
from streams.deadletters.letter.audit import parsed
from streams.deadletters.letter.figures import Figures, figures
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.foreign import read_envelopes
from streams.deadletters.letter.index import Letters, Rows
from streams.deadletters.letter.pin import Pin
from streams.deadletters.letter.resolutions import Resolutions, States
from streams.deadletters.review.flows import Flows
from streams.deadletters.review.scan import TopicTail
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.kafka import acls
from streams.kafka.admin import admin_client, partition_counts, wait_for_broker
from streams.kafka.headers import read_headers
from streams.settings import Settings

Progress = Callable[[str, int], None]
"""Called with the topic that is read and the number of records read."""

_CLOCKS_MS: Final = 3_600_000
"""Bound on the difference between writers' clocks."""


@dataclass(frozen=True, slots=True)
class Found:
    """Letters of one topic and what was done about them, row by row."""

    box: "Box"
    rows: Rows
    states: States

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, keep: Any) -> "Found":
        """Some of the letters, by mask or index."""
        return Found(self.box, self.rows.where(keep), self.states.where(keep))


class Audit:
    """The audit topic of one flow; `exists` is false until the topic exists."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        self.topic = flow.audit
        self.exists = False
        self.resolutions = Resolutions()
        self._tail = TopicTail(settings, self.topic)

    def begin_at(self, since_ms: int, counts: dict[str, int]) -> None:
        """Skip older records; call it before the first `refresh`."""
        if self.topic in counts:
            self._tail.since(since_ms, counts[self.topic])

    def refresh(self, counts: dict[str, int], progress: Progress | None = None) -> None:
        """Read what has arrived since the last call."""
        self.exists = self.topic in counts
        if self.exists:
            told = None if progress is None else (lambda read: progress(self.topic, read))
            self._tail.read(counts[self.topic], self._take, told)

    def close(self) -> None:
        """Close the connections."""
        self._tail.close()

    def _take(self, messages: list[Message]) -> None:
        partitions: list[Any] = list(map(Message.partition, messages))
        offsets: list[Any] = list(map(Message.offset, messages))
        keys: list[Any] = list(map(Message.key, messages))
        values: list[Any] = list(map(Message.value, messages))
        self.resolutions.add(keys, values, partitions, offsets)

    def record_of(self, letter_id: bytes) -> dict[str, Any] | None:
        """What was done about a letter, in full; None when nothing was."""
        place = self.resolutions.place_of(letter_id)
        if place is None:
            return None
        found: Any = [each.value() for batch in self._tail.fetch([place]) for each in batch]
        return parsed(found[0]) if found else None


class Box:
    """One dead-letter topic.

    All letters in a declared flow's own topic belong to that flow, whatever their envelopes say: anybody can write
    those headers. In any other topic a letter belongs to the declared flow whose source its envelope names.
    """

    def __init__(self, settings: Settings, topic: str, flows: Flows, audits: dict[str, Audit]) -> None:
        self.topic = topic
        self.flow: Pipeline | None = flows.by_dlq(topic)
        """The flow that this is the dead-letter topic of."""
        self.letters = Letters(topic)
        self.tail = TopicTail(settings, topic)
        self._settings = settings
        self._flows = flows
        self._audits = audits
        self._since_ms: int | None = None

    def begin_at(self, since_ms: int, counts: dict[str, int]) -> None:
        """Skip older records; call it before the first `refresh`."""
        self._since_ms = since_ms
        self.tail.since(since_ms, counts[self.topic])

    def refresh(self, counts: dict[str, int], progress: Progress | None = None) -> None:
        """Read what has arrived since the last call, and the audits of all sources that the letters name."""
        partitions = counts[self.topic]
        if len(self.letters):
            self.letters.forget_before(self.tail.lows(partitions))
        told = None if progress is None else (lambda read: progress(self.topic, read))
        self.tail.read(partitions, self._take, told)
        for flow in self.flows():
            audit = self._audits.get(flow.source)
            if audit is None:
                audit = self._audits[flow.source] = Audit(self._settings, flow)
                if self._since_ms is not None:
                    # a letter is not resolved before it exists, apart from clock differences
                    audit.begin_at(max(0, self._since_ms - _CLOCKS_MS), counts)
            audit.refresh(counts, progress)

    def flow_of(self, source: str) -> Pipeline | None:
        """The flow to which a letter belongs that names `source`: its audit topic says what was done about it.

        None: no declared one, so nothing can be done about the letter here.
        """
        return self.flow or self._flows.by_source(source)

    def flows(self) -> list[Pipeline]:
        """Flows that the letters belong to."""
        if self.flow is not None:
            return [self.flow]
        return [flow for source in self.letters.sources() if (flow := self._flows.by_source(source)) is not None]

    def audit(self, flow: Pipeline) -> Audit:
        """The audit of a flow to which letters here belong.

        Raises:
            StreamsError: the letters that were read belong to others.

        """
        audit = self._audits.get(flow.source)
        if audit is None:
            raise StreamsError(f"the audit topic {flow.audit} is not known")
        return audit

    def find(self, wanted: Filter) -> Found:
        """Letters that a filter selects, in no particular order."""
        rows = self.letters.latest().matching(wanted)
        found = Found(self, rows, self.states(rows))
        if wanted.is_open is None:
            return found
        return found.where(found.states.is_open == wanted.is_open)

    def states(self, rows: Rows) -> States:
        """What was done about some letters, according to the audits of their flows."""
        audits = [audit for flow in self.flows() if (audit := self._audits.get(flow.source)) is not None]
        if len(audits) == 1:
            return audits[0].resolutions.of(rows)
        states = Resolutions().of(rows)
        for audit in audits:
            found = audit.resolutions.of(rows)
            known = ~found.is_open
            for column in ("acts", "outcomes", "at_ms"):
                getattr(states, column)[known] = getattr(found, column)[known]
        return states

    def figures(self) -> Figures:
        """Counts for a dashboard."""
        rows = self.letters.latest()
        return figures(self.letters.topic, rows, self.states(rows))

    def close(self) -> None:
        """Close the connections."""
        self.tail.close()

    def _take(self, messages: list[Message]) -> None:
        partitions: list[Any] = list(map(Message.partition, messages))
        offsets: list[Any] = list(map(Message.offset, messages))
        timestamps = [timestamp for _, timestamp in map(Message.timestamp, messages)]
        headers, _ = read_headers(messages)
        envelopes = read_envelopes(
            headers, topic=self.topic, partitions=partitions, offsets=offsets, timestamps=timestamps
        )
        self.letters.add(partitions, offsets, timestamps, list(map(Message.key, messages)), envelopes)


class Inbox:
    """Dead-letter topics of this set's declared flows, or those named. One thread at a time; close it when done."""

    def __init__(self, settings: Settings, topics: Sequence[str] | None = None) -> None:
        """Connect.

        Raises:
            StreamsError: no broker answers, or a topic that was named is not there.

        """
        self.settings = settings
        self._client: AdminClient = wait_for_broker(settings)
        self._audits: dict[str, Audit] = {}
        self.flows = Flows.of(settings)
        counts = self.counts()
        names = dict.fromkeys(map(self.flows.dlq_named, topics) if topics else self.flows.dlqs)
        missing = [name for name in names if name not in counts]
        if missing and topics:
            raise StreamsError(f"there is no topic {missing[0]}: {self.flows.hint(missing[0])}")
        audits = [flow.audit for name in names if (flow := self.flows.by_dlq(name)) is not None]
        acls.require(self._client, (on_topic(name, Operation.READ) for name in (*names, *audits)))
        self.boxes = [Box(settings, name, self.flows, self._audits) for name in names]

    def counts(self) -> dict[str, int]:
        """Partitions of every topic of the cluster."""
        try:
            return partition_counts(self._client)
        except StreamsError:
            self._client = admin_client(self.settings)  # a client without answers may never get any again
            raise

    @property
    def client(self) -> AdminClient:
        """The administrative client."""
        return self._client

    def refresh(self, progress: Progress | None = None, *, since_ms: int | None = None) -> None:
        """Read what has arrived since the last call; topics that do not exist yet are empty.

        `since_ms`, given with the first call: older records are not read. Everything about a letter then refers to the
        attempts that were read.
        """
        counts = self.counts()
        for box in self.boxes:
            if box.topic in counts:
                if since_ms is not None:
                    box.begin_at(since_ms, counts)
                box.refresh(counts, progress)

    def pin(self) -> Pin:
        """The ends of the topics at the last read: with `Filter.pinned`, later letters are left out."""
        return Pin({box.topic: box.tail.ends() for box in self.boxes})

    def find(self, wanted: Filter) -> list[Found]:
        """Letters that a filter selects, by topic; topics without any are left out."""
        return [found for box in self.boxes if len(found := box.find(wanted))]

    def the_one(self, letter_id: str) -> Found:
        """The letter with this id, or id prefix.

        Raises:
            StreamsError: there is none, or more than one.

        """
        if not letter_id or len(letter_id) > 24 or set(letter_id) - set("0123456789abcdef"):
            raise UsageError(f"{letter_id!r} is not an id: ids are 24 hexadecimal digits, as `streams dlq list` shows")
        matches = self.find(Filter(ids=frozenset({letter_id})))
        count = sum(map(len, matches))
        if count == 1:
            return matches[0]
        where = ", ".join(box.topic for box in self.boxes)
        if count == 0:
            raise StreamsError(f"no dead letter {letter_id} in {where}: `streams dlq list` shows those that there are")
        raise StreamsError(f"{count} dead letters begin with {letter_id}: give more of the id")

    def close(self) -> None:
        """Close the connections."""
        for box in self.boxes:
            box.close()
        for audit in self._audits.values():
            audit.close()
