"""Shows dead letters: a list, or one in detail. Showing masked values is first recorded in the audit topic."""

import time
import uuid
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
from confluent_kafka import KafkaException, Message

from streams.batch.columns import Headers
from streams.batch.rejects import Reason
from streams.deadletters.letter.audit import Act, Actor, Outcome, reveal_record
from streams.deadletters.letter.envelope import HISTORY
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.foreign import (
    NO_SCHEMA_ID,
    Kind,
    Origin,
    is_coordinate,
    origin_of,
    read_envelope,
    shown_header,
)
from streams.deadletters.letter.index import Place
from streams.deadletters.letter.inspect import (
    MASK,
    Schemas,
    View,
    inspect,
    masks_keys,
    personal_of,
    schema_id_of,
    shown_bytes,
)
from streams.deadletters.letter.letter import Letter, history_of
from streams.deadletters.review.inbox import Box, Found, Inbox
from streams.deadletters.review.letters import letter_of
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.headers import headers_of
from streams.schemas.catalog import Catalog

REVEAL_TIMEOUT_S: Final = 15.0
_OWN_REASONS: Final = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter in a list."""

    letter: Letter
    key: str
    """Masked where keys are personal."""
    act: Act | None
    outcome: Outcome | None
    resolved_at_ms: int

    @property
    def status(self) -> str:
        """`open`, `replayed` or `discarded`."""
        return "open" if self.act is None else self.act.value


@dataclass(frozen=True, slots=True)
class Listing:
    """Counts of the selected letters, and the newest of them."""

    total: int
    open: int
    groups: list[tuple[str, int, int]]
    """By group: value, letters, open ones; the largest first."""
    entries: list[Entry]


def listing(inbox: Inbox, wanted: Filter, *, group_by: str, limit: int, skip: int = 0) -> Listing:
    """Counts, and the newest letters of all topics after the first `skip`; refresh the inbox first."""
    found = inbox.find(wanted)
    total: dict[str, int] = {}
    still: dict[str, int] = {}
    for each in found:
        masks = group_by == "device" and any(_masks_keys(each.box, source) for source in set(each.rows.sources()))
        for counted, rows in ((total, each.rows), (still, each.rows.where(each.states.is_open))):
            for name, number in rows.counts(group_by).items():
                shown = MASK if masks else name
                counted[shown] = counted.get(shown, 0) + number
    groups = sorted(((name, number, still.get(name, 0)) for name, number in total.items()), key=_largest_first)
    newest = [_newest(each, skip + limit) for each in found]
    order = [(-at_ms, box, row) for box, each in enumerate(newest) for row, at_ms in enumerate(each.rows.timestamp_ms)]
    shown_rows: dict[int, list[int]] = {}
    for _, box, row in sorted(order)[skip : skip + limit]:
        shown_rows.setdefault(box, []).append(row)
    entries = [e for box, rows in shown_rows.items() for e in entries_of(newest[box].where(np.array(rows)))]
    entries.sort(key=lambda entry: entry.letter.timestamp_ms, reverse=True)
    return Listing(sum(map(len, found)), sum(still.values()), groups, entries)


def entries_of(found: Found) -> list[Entry]:
    """The letters of `found` as list entries, in its order."""
    box = found.box
    order = np.lexsort((found.rows.offset, found.rows.partition))
    messages: dict[tuple[int, int], Message] = {}
    for batch in box.tail.fetch(found.rows.where(order).places()):
        messages |= {(int(each.partition() or 0), int(each.offset() or 0)): each for each in batch}
    entries: list[Entry] = []
    for place, (act, outcome), at_ms in zip(
        found.rows.places(), found.states.named(), found.states.at_ms.tolist(), strict=True
    ):
        message = messages.get((place.partition, place.offset))
        if message is not None:  # the broker may have deleted it since
            letter = _masked(box, letter_of(box.topic, message), headers_of(message))
            key = MASK if _masks_keys(box, letter.source) else shown_bytes(letter.key)
            entries.append(Entry(letter, key, act, outcome, at_ms))
    return entries


def _newest(found: Found, limit: int) -> Found:
    order = np.lexsort((found.rows.offset, found.rows.partition, found.rows.timestamp_ms))[::-1][:limit]
    return found.where(order)


def _largest_first(group: tuple[str, int, int]) -> tuple[int, str]:
    return -group[1], group[0]


def _masked(box: Box, letter: Letter, headers: Headers) -> Letter:
    """The letter without texts of other programs, where these may quote personal data."""
    return replace(letter, message=MASK) if _masks_words(box, letter, headers) else letter


def _masks_words(box: Box, letter: Letter, headers: Headers) -> bool:
    """Whether texts in an envelope may quote personal data: those of this product never do."""
    if _kind(letter, headers) is Kind.STREAMS:
        return False
    return _is_personal(box, letter)


def _is_personal(box: Box, letter: Letter) -> bool:
    """Whether records of the letter's stream hold personal data, or its stream is not known."""
    flow = box.flow_of(letter.source)
    return flow is None or bool(personal_of(_reader_of(flow)))


def _kind(letter: Letter, headers: Headers) -> Kind:
    return read_envelope(
        headers, topic=letter.topic, partition=letter.partition, offset=letter.offset, timestamp_ms=letter.timestamp_ms
    ).kind


def _masks_keys(box: Box, source: str) -> bool:
    flow = box.flow_of(source)
    return masks_keys(_reader_of(flow), flow)


@dataclass(frozen=True, slots=True)
class EarlierAttempt:
    """An attempt before the latest one, from its own dead letter or from the history in the latest one."""

    attempt: int
    reason: str
    message: str
    source_place: str
    replayed: dict[str, Any] = field(default_factory=dict)
    """By whom, when, why, in which run, with which transform, as far as known."""


@dataclass(frozen=True, slots=True)
class Details:
    """One letter with all details."""

    entry: Entry
    view: View
    kind: Kind
    origin: Origin
    envelope: list[tuple[str, str]]
    """Headers of the envelope, as text."""
    schema_id: int | None
    schema_text: str | None
    schema_problem: str | None
    """Why there is no writer schema to show."""
    earlier: list[EarlierAttempt]
    resolution: dict[str, Any] | None
    """The audit record of the latest attempt."""


def details(inbox: Inbox, found: Found, *, reveal: bool) -> Details:
    """All details of the one letter in `found`.

    Raises:
        StreamsError: the broker does not answer, or has deleted the record meanwhile.

    """
    (entry,) = entries_of(found) or (None,)
    if entry is None:
        raise StreamsError("the broker has deleted this dead letter meanwhile")
    box, letter = found.box, entry.letter
    (message,) = next(iter(box.tail.fetch([Place(letter.partition, letter.offset)])))
    headers = headers_of(message)
    masks_words = not reveal and _masks_words(box, letter, headers)
    if reveal:
        letter = letter_of(box.topic, message)
        entry = replace(entry, letter=letter)
    schema_id = schema_id_of(letter)
    schema_text, problem = _schema(inbox, schema_id)
    flow = box.flow_of(letter.source)
    view = inspect(letter, replace(_reader_of(flow), writer=schema_text), flow, reveal=reveal)
    own = {name for name, _ in letter.headers}
    return Details(
        entry=replace(entry, key=view.key),
        view=view if not masks_words else replace(view, is_masked=True),
        kind=_kind(letter, headers),
        origin=origin_of(headers),
        envelope=[
            (name, MASK if masks_words and not is_coordinate(name) else shown_header(name, value))
            for name, value in headers
            if name not in own
        ],
        schema_id=None if schema_id == NO_SCHEMA_ID else schema_id,
        schema_text=schema_text,
        schema_problem=problem,
        earlier=_earlier(box, letter, headers, reveal=reveal),
        resolution=_resolution(box, letter) if entry.act is not None else None,
    )


def _earlier(box: Box, letter: Letter, headers: Headers, *, reveal: bool) -> list[EarlierAttempt]:
    """Earlier attempts, from the history in the letter and from its earlier records in the topic."""
    found: dict[int, EarlierAttempt] = {}
    rows = box.letters.attempts_of(letter.id.encode())
    places = rows.where(rows.attempt < letter.attempt).in_log_order().places()
    for batch in box.tail.fetch(places):
        for message in batch:
            earlier = letter_of(box.topic, message)
            earlier = earlier if reveal else _masked(box, earlier, headers_of(message))
            origin = origin_of(headers_of(message))
            place = f"{origin.topic}-{origin.partition}@{origin.offset}"
            found[earlier.attempt] = EarlierAttempt(earlier.attempt, earlier.reason, earlier.message, place)
    history = next((value for name, value in headers if name == HISTORY), None)
    for each in history_of(history):
        number = each.get("attempt")
        if not isinstance(number, int):
            continue
        place = f"{letter.source}-{each.get('partition', '?')}@{each.get('offset', '?')}"
        replayed: dict[str, Any] = {
            name: each[name] for name in ("by", "replayed_at", "why", "run", "original_sha256") if name in each
        }
        reason, words = str(each.get("reason")), str(each.get("message"))
        if not reveal and reason not in _OWN_REASONS and _is_personal(box, letter):
            words = MASK
        found[number] = EarlierAttempt(number, reason, words, place, replayed)
    return [found[number] for number in sorted(found)]


def _resolution(box: Box, letter: Letter) -> dict[str, Any] | None:
    """The audit record of a letter."""
    flow = box.flow_of(letter.source)
    return None if flow is None else box.audit(flow).record_of(letter.id.encode())


def _schema(inbox: Inbox, schema_id: int | None) -> tuple[str | None, str | None]:
    """Text of a schema, or why there is none."""
    if schema_id is None:
        return None, "the record carries no schema id"
    from streams.schemas.client import (
        Registry,
        RegistryUnavailable,
        UnknownSchema,
        UnusableSchema,
    )

    try:
        return Registry(inbox.settings).schema_by_id(schema_id), None
    except (UnknownSchema, UnusableSchema, RegistryUnavailable) as error:
        return None, str(error)


def _reader_of(flow: Pipeline | None) -> Schemas:
    """The reader schema of a flow's events, without the writer's schema."""
    return Schemas(None, None) if flow is None else _newest_schema(flow.subject)


@lru_cache(maxsize=64)
def _newest_schema(subject: str) -> Schemas:
    catalog = Catalog.load()
    text = catalog.latest(subject).text if subject in catalog.subjects() else None
    return Schemas(None, text, catalog.settings(subject).personal)


def reveal(inbox: Inbox, found: Found, actor: Actor) -> Details:
    """All details of a letter, unmasked; who looked at it and why is recorded in the audit topic first.

    Raises:
        StreamsError: it cannot be written down, so nothing is shown.

    """
    box = found.box
    (letter_id,) = found.rows.ids.tolist()
    source = found.rows.sources()[0]
    flow = box.flow_of(source)
    if flow is None:
        raise StreamsError(
            f"{source!r} is the source of no declared flow, so no audit topic takes down the reveal: nothing is shown"
        )
    topic = flow.audit
    if topic not in inbox.counts():
        raise StreamsError(f"there is no audit topic {topic} to write the reveal down in: nothing is shown")
    key, value = reveal_record(letter_id.decode(), actor, at_ms=time.time_ns() // 1_000_000, reveal_id=uuid.uuid4().hex)
    failed: list[str] = []
    config: dict[str, Any] = {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.timeout.ms": int(REVEAL_TIMEOUT_S * 1000),
    }
    producer = clients.producer(inbox.settings, config)
    try:
        producer.produce(topic, value, key, on_delivery=lambda error, _: failed.append(str(error)) if error else None)
        left = producer.flush(REVEAL_TIMEOUT_S)
    except KafkaException as error:
        raise StreamsError(f"writing the reveal down in {topic}: {described(error)}; nothing is shown") from None
    if left or failed:
        cause = failed[0] if failed else "no answer"
        raise StreamsError(f"writing the reveal down in {topic}: {cause}; nothing is shown")
    return details(inbox, found, reveal=True)
