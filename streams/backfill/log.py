"""Writes a flow's versions topic, one command at a time. `streams.kafka.versions_topic` reads it."""

import time
from typing import Final

from streams.errors import StreamsError
from streams.names import BACKFILL_PREFIX
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import Outgoing, WriteInterrupted
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.transactional import TransactionalSink
from streams.versions.record import CurrentRecord, VersionRecord

_OPEN_S: Final = 30.0


class VersionsWriter:
    """Writes the versions topic of one flow, in transactions under one name. One thread; `close` when done.

    `open` first: from then on no other command writes to the topic, so what is read after it is final. Every method
    raises FencedError when another command has opened, and StreamsError when the broker does not do it.
    """

    def __init__(self, settings: Settings, *, flow: str, source: str, topic: str) -> None:
        self._topic = topic
        transactions = KafkaTransactions(
            settings,
            transactional_id=f"{BACKFILL_PREFIX}{source}",
            source=source,
            retrier=Retrier(say=quietly),
            reopen_s_max=_OPEN_S,
        )
        fenced = f"another `streams backfill --flow {flow}` has started, this one stops; what it has done stays"
        self._sink = TransactionalSink(transactions, fenced=fenced)

    def open(self) -> None:
        """Take over from any other command."""
        try:
            self._sink.open()
        except WriteInterrupted as error:
            raise StreamsError(str(error)) from None

    def write(self, record: VersionRecord | CurrentRecord) -> None:
        """Make the record visible."""
        self._produce(record.key, record.value)

    def remove(self, record: VersionRecord) -> None:
        """Have it that the version was never made."""
        self._produce(record.key, None)

    def close(self) -> None:
        """Close the connections."""
        self._sink.close()

    def _produce(self, key: bytes, value: bytes | None) -> None:
        try:
            self._sink.write([Outgoing(self._topic, [key], [value], time.time_ns() // 1_000_000)])
            self._sink.commit()
        except WriteInterrupted as error:
            raise StreamsError(f"writing {self._topic}: {error}; run the same command again") from None
