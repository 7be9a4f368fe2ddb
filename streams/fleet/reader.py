"""Reads the feeds of a fleet map into a picture, in a thread of its own: read_committed, as any consumer, in no group.

Tables are read from their beginnings, the others from some hours back; an outage is waited out, and the picture says
so. Of a table's records only the newest of each key in a batch are decoded, of positions one every few seconds of the
past.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from streams.errors import StreamsError
from streams.fleet.bounds import BACK_RECORDS_MAX, HISTORY_MS, SAMPLE_MS
from streams.fleet.feeds import BoundFeed, BoundMap, FeedDecoder
from streams.fleet.picture import Picture
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.broker_watch import BrokerWatch
from streams.names import MONITOR_GROUP
from streams.resilience.retry import Backoff, Retrier
from streams.settings import Settings

log = structlog.get_logger(__name__)

BATCH_RECORDS: Final = 10_000
WAIT_S: Final = 0.1
REQUEST_S: Final = 10.0
LOOK_S: Final = 15.0
"""Interval of checks for topics and partitions."""
QUEUE_KBYTES_MAX: Final = 16_384
HOURS: Final = {"minutes": 1, "trips": 24, "orders": 24, "deliveries": 24, "late_promises": 24}
"""How far back each is read; positions as far as the history goes, tables of vehicles from the beginning."""
_HOUR_MS: Final = 3_600_000
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_BACKOFF: Final = Backoff(first_s=0.5, pause_s_max=10.0)
KAFKA: Final = "Kafka"
"""What problems of no single topic are called."""


class FleetReader:
    """Follows the topics of a map until it is closed."""

    def __init__(self, settings: Settings, bound: BoundMap, picture: Picture) -> None:
        self._settings = settings
        self._picture = picture
        self._feeds = {one.topic: one for one in bound.feeds}
        self._decoders: dict[str, FeedDecoder] = {}
        self._next: dict[tuple[str, int], int] = {}
        """Next offset by partition: after an outage nothing is read again."""
        self._behind: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet reader", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the feeds. Call it once."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop reading; waits for the thread for a limited time."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        retrier = Retrier(self._stop, on_pause=lambda pause: self._problem(KAFKA, str(pause.error)))
        try:
            while not self._stop.is_set():
                passing = (StreamsError, KafkaException)
                retrier.call("the fleet page reads no news", self._follow, passing=passing, backoff=_BACKOFF)
        except (StreamsError, KafkaException) as error:  # the last one before a stop
            log.info("the fleet page reads no more", error=str(error))
        except Exception as error:
            log.exception("the fleet page reads no more after an unexpected error")
            self._problem(KAFKA, f"reading has ended: {error!r}")

    def _follow(self) -> None:
        """Read until there is nothing to read for: a stop, or a client that has lost every broker."""
        watch = BrokerWatch()
        consumer = clients.consumer(
            self._settings,
            {
                "client.id": "streams-fleet",
                "group.id": MONITOR_GROUP,  # required by the client; it neither joins nor commits
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": QUEUE_KBYTES_MAX,
                "fetch.wait.max.ms": 50,
                **watch.config(),
            },
        )
        try:
            assigned: set[tuple[str, int]] = set()
            look_s = 0.0
            while not self._stop.is_set() and not watch.is_stranded:
                if time.monotonic() >= look_s:
                    self._assign_found(consumer, assigned)
                    look_s = time.monotonic() + LOOK_S
                    self._solved(KAFKA)
                if assigned:
                    self._take(consumer.consume(BATCH_RECORDS, WAIT_S))
                else:
                    self._stop.wait(WAIT_S)
        except KafkaException as error:
            raise StreamsError(f"reading for the fleet page: {described(error)}") from None
        finally:
            consumer.close()

    # --- where to read ----------------------------------------------------------------------------------------------

    def _assign_found(self, consumer: clients.Consumer, assigned: set[tuple[str, int]]) -> None:
        """Start reading partitions that are new."""
        topics = consumer.list_topics(timeout=REQUEST_S).topics
        found: list[TopicPartition] = []
        for topic, feed in self._feeds.items():
            there = topics.get(topic)
            if there is None or there.error is not None:
                self._problem(topic, f"{topic} does not exist, or may not be read")
                continue
            self._solved(topic)
            new = [number for number in sorted(there.partitions) if (topic, number) not in assigned]
            found += self._starts(consumer, feed, new)
        if found:
            consumer.incremental_assign(found)
            assigned.update((one.topic, one.partition) for one in found)
            with self._picture.lock:
                self._picture.reading.partitions = len(assigned)

    def _starts(self, consumer: clients.Consumer, feed: BoundFeed, numbers: Sequence[int]) -> list[TopicPartition]:
        """Offsets at which partitions are read first."""
        known = [one for one in numbers if (feed.topic, one) in self._next]
        starts = [TopicPartition(feed.topic, one, self._next[feed.topic, one]) for one in known]
        new = [one for one in numbers if (feed.topic, one) not in self._next]
        if not new:
            return starts
        since_ms = self._since_ms(feed)
        asked = [TopicPartition(feed.topic, one, since_ms) for one in new]
        at = {one.partition: one.offset for one in consumer.offsets_for_times(asked, REQUEST_S)} if since_ms else {}
        for one in new:
            low, end = consumer.get_watermark_offsets(TopicPartition(feed.topic, one), REQUEST_S)
            first = at.get(one, low)
            first = max(low, end if first < 0 else first, end - BACK_RECORDS_MAX)
            starts.append(TopicPartition(feed.topic, one, first))
            if first < end:
                self._behind.add((feed.topic, one))
        with self._picture.lock:
            self._picture.reading.behind = len(self._behind)
        return starts

    def _since_ms(self, feed: BoundFeed) -> int:
        """Time from which a feed is read; 0: from the beginning."""
        if feed.name == "vehicles":
            return 0
        back_ms = HISTORY_MS if feed.name == "positions" else HOURS[feed.name] * _HOUR_MS
        return time.time_ns() // 1_000_000 - back_ms

    # --- what was read ----------------------------------------------------------------------------------------------

    def _take(self, messages: Sequence[Message]) -> None:
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is None:
                by_topic.setdefault(str(message.topic()), []).append(message)
            elif error.code() == _EOF:
                self._behind.discard((str(message.topic()), int(message.partition() or 0)))
            elif not error.retriable():
                self._problem(str(message.topic() or KAFKA), error.str())
        for topic, read in by_topic.items():
            feed = self._feeds[topic]
            decoder = self._decoder(feed)
            rows = decoder.decode(_wanted(feed, read))
            self._picture.take(feed.name, rows)
            for message in read:
                self._next[topic, int(message.partition() or 0)] = int(message.offset() or 0) + 1
            self._count(topic, len(read), decoder.rejects)
        with self._picture.lock:
            self._picture.reading.behind = len(self._behind)

    def _decoder(self, feed: BoundFeed) -> FeedDecoder:
        found = self._decoders.get(feed.topic)
        if found is None:
            found = self._decoders[feed.topic] = FeedDecoder(feed, self._settings)
        return found

    def _count(self, topic: str, records: int, rejects: int) -> None:
        with self._picture.lock:
            reading = self._picture.reading
            reading.records[topic] = reading.records.get(topic, 0) + records
            reading.rejects[topic] = rejects

    def _problem(self, where: str, what: str) -> None:
        with self._picture.lock:
            self._picture.reading.problems[where] = what

    def _solved(self, where: str) -> None:
        with self._picture.lock:
            self._picture.reading.problems.pop(where, None)


def _wanted(feed: BoundFeed, messages: Sequence[Message]) -> list[Message]:
    """The records of one batch that matter, in order of their offsets within each partition."""
    if feed.name == "positions":
        # The first of each few seconds for the past, and the newest for now.
        spaced = {(message.key(), message.timestamp()[1] // SAMPLE_MS): message for message in reversed(messages)}
        newest = {message.key(): message for message in messages}
        kept: Mapping[int, Message] = {id(one): one for one in (*spaced.values(), *newest.values())}
    elif feed.is_table:
        kept = {id(one): one for one in {message.key(): message for message in messages}.values()}
    else:
        return list(messages)
    return [message for message in messages if id(message) in kept]
