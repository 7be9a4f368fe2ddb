"""A flow's growth topic: read to its end by anybody, written by one command at a time."""

import time
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import StreamsError
from streams.growth.layout import Growth
from streams.growth.record import GrowthLogError, GrowthRecord, key_of, newest_records
from streams.kafka.admin import REQUEST_TIMEOUT_S, settled
from streams.kafka.log_reader import LogReader, Span
from streams.names import GROW_GROUP, GROW_PREFIX
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import Outgoing
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.transactional import TransactionalSink

RECORDS_MAX: Final = 100_000
"""Records of a growth topic that are read: each growth writes three, and they are compacted."""
_OPEN_S: Final = 30.0
_READ_TIMEOUT_S: Final = 10.0


def read_growths(settings: Settings, client: AdminClient, topic: str) -> list[GrowthRecord]:
    """The growths of a flow by its growth topic, by epoch; the topic is there.

    Raises:
        StreamsError: no answer, or the topic holds something else.

    """
    first, end = (_bound(client, topic, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
    span = Span(topic, 0, first, end, RECORDS_MAX)
    with LogReader(settings, client=GROW_GROUP) as reader:
        read = reader.read([span], timeout_s=_READ_TIMEOUT_S)[span]
    if not read.complete:
        raise StreamsError(f"reading {topic}: no end of it within {_READ_TIMEOUT_S:g} s")
    try:
        return newest_records((_bytes(one.key()), _bytes(one.value()), one.timestamp()[1]) for one in read.records)
    except GrowthLogError as error:
        raise StreamsError(f"{topic}: {error}") from None


class GrowthWriter:
    """Writes the growth topic of one flow, in transactions under one name. One thread; `close` when done.

    `open` first: from then on no other command writes to the topic, so what is read after it is final.
    Every method raises FencedError when another command has opened, and WriteInterrupted when the broker does not do
    it: then `open` again, and read.
    """

    def __init__(self, settings: Settings, *, source: str, topic: str) -> None:
        self._topic = topic
        transactions = KafkaTransactions(
            settings,
            transactional_id=f"{GROW_PREFIX}{source}",
            source=source,
            retrier=Retrier(say=quietly),
            reopen_s_max=_OPEN_S,
        )
        fenced = (
            f"another `streams topics grow {source}` has started, this one stops: what it has done stays, and the "
            "other one goes on from there"
        )
        self._sink = TransactionalSink(transactions, fenced=fenced)

    def open(self) -> None:
        """Take over from any other command."""
        self._sink.open()

    def write(self, record: GrowthRecord) -> None:
        """Make the record visible."""
        self._produce(record.key, record.value)

    def give_up(self, growth: Growth) -> None:
        """Have it that the growth was never begun."""
        self._produce(key_of(growth), None)

    def close(self) -> None:
        """Disconnect."""
        self._sink.close()

    def _produce(self, key: bytes, value: bytes | None) -> None:
        self._sink.write([Outgoing(self._topic, [key], [value], time.time_ns() // 1_000_000)])
        self._sink.commit()


def _bound(client: AdminClient, topic: str, spec: OffsetSpec) -> int:
    where = TopicPartition(topic, 0)
    try:
        asked = client.list_offsets(
            {where: spec}, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=REQUEST_TIMEOUT_S
        )
    except KafkaException as error:
        raise StreamsError(f"reading {topic}: {error}") from None
    return int(settled(f"reading the bounds of {topic}", asked[where]).offset)


def _bytes(found: Any) -> bytes | None:
    """Key or value of a record that has no serializer."""
    return found if found is None else bytes(found)
