"""Writes a flow's growth topic, one command at a time. `streams.kafka.growth_topic` reads it."""

import time
from typing import Final

from streams.growth.layout import Growth
from streams.growth.record import GrowthRecord, key_of
from streams.names import GROW_PREFIX
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import Outgoing
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.transactional import TransactionalSink

_OPEN_S: Final = 30.0


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
        """Write that the growth was never begun."""
        self._produce(key_of(growth), None)

    def close(self) -> None:
        """Close the connections."""
        self._sink.close()

    def _produce(self, key: bytes, value: bytes | None) -> None:
        self._sink.write([Outgoing(self._topic, [key], [value], time.time_ns() // 1_000_000)])
        self._sink.commit()
