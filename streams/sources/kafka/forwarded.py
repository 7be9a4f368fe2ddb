"""Reads the forwarded topic of a flow: those partitions of which the worker has the state (docs/adr/0070).

It is no member of the group: who has a partition of the source reads the partition of the same number here. Nothing
connects before the first partition is to be read, so that a flow that was never grown pays nothing.
"""

from collections.abc import Iterable
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.batch.records import Records
from streams.clock import monotonic_ms
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import RECONNECT_MS_MAX, described
from streams.kafka.broker_watch import BrokerWatch
from streams.kafka.out_of_range import OUT_OF_RANGE
from streams.limits import BATCH_RECORDS_MAX, BATCH_SHARE, BATCH_WAIT_MS
from streams.names import FORWARDED_GROUP
from streams.settings import Settings
from streams.sources.base import Idle
from streams.sources.kafka.arrivals import FromMessages, Notice, records_of_next
from streams.sources.kafka.commands import Commands
from streams.sources.kafka.consumed import Consumed
from streams.sources.kafka.high_watermarks import HighWatermarks

log = structlog.get_logger(__name__)

_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_WAIT_S: Final = 0.005
_BATCH_SHARE: Final = BATCH_SHARE / 2
"""Of the memory setting: beside a micro-batch of the source."""


class ForwardedReader:
    """`poll` and `close` from one thread, that of the source; the rest, which is `ForwardedCommands`, from any."""

    def __init__(self, settings: Settings, *, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._config: dict[str, Any] = {
            "client.id": "streams-forwarded",
            "group.id": FORWARDED_GROUP,  # required by the client; it neither joins nor commits
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Tell, do not jump: what is not there any more was needed.
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": min(16_384, settings.streams_memory_mb_max * 1024 // 64),
            "fetch.wait.max.ms": BATCH_WAIT_MS // 2,
            "fetch.queue.backoff.ms": 5,
            "fetch.message.max.bytes": 2 * 1_048_576,
            "topic.metadata.refresh.interval.ms": 30_000,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        }
        self._commands = Commands()
        self._consumed = Consumed(settings.streams_idle_ms)
        self._high = HighWatermarks(settings, topics=(topic,), client_id="streams-forwarded-idle")
        self._consumer: Consumer | None = None
        self._brokers = BrokerWatch()
        self._batch_records = BATCH_RECORDS_MAX
        self._batch_bytes_max = int((settings.streams_memory_mb_max << 20) * _BATCH_SHARE)

    # --- from any thread --------------------------------------------------------------------------------------------

    def start(self, partition: int, offset_next: int) -> None:
        """Read `partition` from `offset_next` on."""
        self._commands.put("start", [partition], lambda: self._start(partition, offset_next))

    def stop(self, partitions: Iterable[int]) -> None:
        """Read these no more; what was read of them and is not processed is void."""
        wanted = sorted(partitions)
        self._commands.put("stop", wanted, lambda: self._stop(wanted))

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the partitions that are read."""
        self._commands.put("pause", [], lambda: self._pause_only(partitions))

    # --- the thread of the source -----------------------------------------------------------------------------------

    def poll(self) -> tuple[Records | None, dict[int, Idle]]:
        """Next records, without waiting for any, and the partitions that are known to be at their ends.

        Raises:
            StreamsError: records are gone that were not read.

        """
        self._commands.obey()
        if self._consumer is None:
            return None, {}
        if self._brokers.is_stranded:
            log.error("the reader of the forwarded topic has lost every broker; making it anew", topic=self._topic)
            self._renew()
        try:
            messages = self._consumer.consume(self._batch_records, _WAIT_S)
        except KafkaException as error:
            raise StreamsError(f"reading {self._topic}: {described(error)}") from None
        records = self._received(FromMessages(messages, {self._topic: 0})) if messages else None
        if records is not None:
            self._batch_records = records_of_next(records, self._batch_bytes_max)
        return records, self._idle_now(monotonic_ms())

    def close(self) -> None:
        """Let go of the connections."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._high.close()

    def _received(self, arrived: FromMessages) -> Records | None:
        keep, _ = self._consumed.still_ours(arrived.partition, arrived.offset)
        for notice in arrived.notices:
            self._note(notice)
        return arrived.records(keep, {}) if keep.any() else None

    def _idle_now(self, now_ms: int) -> dict[int, Idle]:
        for answer in self._high.answers():
            self._consumed.idle.told(*answer)
        if wanted := self._consumed.idle.due(now_ms):
            self._high.ask(wanted, now_ms)
        return self._consumed.idle_now()

    def _note(self, notice: Notice) -> None:
        partition, error = notice.partition, notice.error
        if error.code() == _EOF:
            self._consumed.reached_end(partition, notice.offset)
        elif error.code() in OUT_OF_RANGE:
            if partition in self._consumed.started:
                raise StreamsError(
                    f"{self._topic}-{partition}: records from offset {self._consumed.started[partition]} on are not "
                    f"there ({error.str()}): the topic was emptied or truncated by something else"
                )
        else:
            log.warning("reader of the forwarded topic", topic=self._topic, error=described(KafkaException(error)))

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, partition: int, offset_next: int) -> None:
        if self._consumer is None:
            self._consumer = self._new_consumer()
        place = TopicPartition(self._topic, partition, offset_next)
        if partition in self._consumed.started:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        self._consumer.incremental_assign([place])
        self._consumed.start(partition, offset_next)
        self._note_resumed([partition])

    def _stop(self, partitions: list[int]) -> None:
        mine = [partition for partition in partitions if partition in self._consumed.started]
        self._consumed.stop(mine)
        if mine and self._consumer is not None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, one) for one in mine])

    def _pause_only(self, partitions: frozenset[int]) -> None:
        pause, resume = self._consumed.pause_only(partitions)
        if self._consumer is not None:
            self._consumer.pause([TopicPartition(self._topic, one) for one in pause])
            self._consumer.resume([TopicPartition(self._topic, one) for one in resume])
        self._consumed.note_paused(partitions)

    def _note_resumed(self, partitions: list[int]) -> None:
        """These are read again, so that they are not paused: the next command pauses them again."""
        self._consumed.note_paused(self._consumed.paused - frozenset(partitions))

    def _renew(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = self._new_consumer()
        for partition, offset_next in dict(self._consumed.started).items():
            self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset_next)])
        self._note_resumed(list(self._consumed.started))

    def _new_consumer(self) -> Consumer:
        self._brokers = BrokerWatch()
        return clients.consumer(self._settings, {**self._config, **self._brokers.config()})
