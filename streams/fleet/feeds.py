"""The feeds of an app's fleet map: their topics and schemas as they are declared, and decoders of their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from confluent_kafka import Message

from streams.batch.records import Records
from streams.errors import UsageError
from streams.fleet.picture import FeedRows
from streams.flow.declaration import Pipeline
from streams.flow.fleet_map import Feed, FleetMap
from streams.flow.topics import Cleanup
from streams.kafka.headers import read_headers
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.personal import personal_of
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings
from streams.sink.decoding import RowDecoder
from streams.sink.shape import columns_of, subset

PLACES: Final = frozenset({"latitude", "longitude"})


@dataclass(frozen=True, slots=True)
class BoundFeed:
    """A feed with the declaration of its topic."""

    name: str
    feed: Feed
    subject: str
    schema: str
    """Text of the newest committed schema: what rows are read with."""
    is_table: bool
    personal: frozenset[str]
    """Names of its fields that hold personal data."""

    @property
    def topic(self) -> str:
        """Topic of the feed."""
        return self.feed.topic


@dataclass(frozen=True, slots=True)
class BoundMap:
    """The fleet map of an app, with its feeds."""

    declared: FleetMap
    feeds: tuple[BoundFeed, ...]

    @property
    def hides_places(self) -> bool:
        """Whether positions are personal data."""
        return any(one.feed.columns().get(name) in one.personal for one in self.feeds for name in PLACES)

    @property
    def hides_ids(self) -> bool:
        """Whether ids of vehicles are personal data."""
        return any(one.feed.columns()["vehicle"] in one.personal for one in self.feeds)


def bound_map(declared: FleetMap, flows: Sequence[Pipeline], catalog: Catalog) -> BoundMap:
    """The map with subjects and schemas of its topics, as `flows` write them.

    Raises:
        UsageError: a topic is no output of these flows, or a field is not in its schema.

    """
    topics = {each.name: (each, flow) for flow in flows for each in flow.topics()}
    feeds = []
    for name, feed in declared.feeds():
        if feed.topic not in topics:
            raise UsageError(f"the fleet map names {feed.topic}, which no flow of the app reads or writes")
        topic, flow = topics[feed.topic]
        subject = topic.subject or flow.subject
        schema = catalog.latest(subject).text
        subset(columns_of(schema), list(feed.columns().values()), of=f"the fleet map's {name} ({subject})")
        is_table = topic.cleanup is Cleanup.COMPACT
        feeds.append(BoundFeed(name, feed, subject, schema, is_table, personal_of(catalog, subject)))
    return BoundMap(declared, tuple(feeds))


class FeedDecoder:
    """Decodes records of a feed. One thread."""

    def __init__(self, bound: BoundFeed, settings: Settings) -> None:
        self.rejects = 0
        """Number of records that could not be decoded."""
        self._names = bound.feed.columns()
        columns = subset(columns_of(bound.schema), list(self._names.values()), of=bound.subject)
        resolve = partial(plan_or_reject, Registry(settings), reader=bound.schema)
        self._decoder = RowDecoder(columns, resolve, has_tombstones=bound.is_table)

    def decode(self, messages: Sequence[Message]) -> FeedRows:
        """Rows of the messages.

        Raises:
            RegistryUnavailable: a schema is not known yet, and the registry does not answer.

        """
        records = _records(messages)
        found = self._decoder.decode(records)
        self.rejects += len(found.rejects)
        keys: list[Any] = [records.key[row] for row in found.tombstones.tolist()]
        deleted = [key.decode(errors="replace") for key in keys if key is not None]
        columns = {name: found.rows.column(field) for name, field in self._names.items()}
        return FeedRows(columns, records.partition[found.row], records.offset[found.row], deleted)


def _records(messages: Sequence[Message]) -> Records:
    headers, _ = read_headers(messages)
    return Records(
        np.array([message.partition() for message in messages], dtype=np.int64),
        np.array([message.offset() for message in messages], dtype=np.int64),
        np.array([message.timestamp()[1] for message in messages], dtype=np.int64),
        [message.key() for message in messages],
        [message.value() for message in messages],
        headers if any(headers) else None,
    )
