"""Reads the forwarded topics of a flow, one for each input: those partitions of which the worker has the state.

See docs/adr/0070. It is no member of the group: who has a partition of the source reads those of the same number here.
Nothing connects before the first partition is to be read, so that a flow that was never grown pays nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from streams.batch.lanes import all_lanes, input_of, lane_of, partition_of_lane
from streams.batch.records import Records
from streams.clock import monotonic_ms
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import RECONNECT_MS_MAX, described
from streams.kafka.broker_watch import BrokerWatch
from streams.kafka.out_of_range import OUT_OF_RANGE
from streams.limits import BATCH_RECORDS_MAX, BATCH_SHARE, BATCH_WAIT_MS
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
"""Share of the memory setting for forwarded records, in addition to a micro-batch of the source."""


class ForwardedReader:
    """`poll` and `close` from one thread, that of the source; the rest, which is `ForwardedCommands`, from any."""

    def __init__(self, settings: Settings, *, topics: Sequence[str], group: str) -> None:
        """Connects with the first `start`.

        `topics`: of each input by its number; their partitions are called by their lanes (`streams.batch.lanes`).
        `group`: the flow's.
        """
        self._settings, self._topics = settings, tuple(topics)
        self._first_lanes = {topic: lane_of(number, 0) for number, topic in enumerate(self._topics)}
        self._config: dict[str, Any] = {
            "client.id": "streams-forwarded",
            "group.id": group,  # required by the client; it neither joins nor commits
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            # Raise instead of skipping: the missing records were needed.
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
        self._high = HighWatermarks(settings, topics=self._topics, client_id="streams-forwarded-idle")
        self._consumer: Consumer | None = None
        self._brokers = BrokerWatch()
        self._batch_records = BATCH_RECORDS_MAX
        self._batch_bytes_max = int((settings.streams_memory_mb_max << 20) * _BATCH_SHARE)

    # --- from any thread --------------------------------------------------------------------------------------------

    def start(self, lane: int, offset_next: int) -> None:
        """Read what is forwarded to a lane from `offset_next` on."""
        self._commands.put("start", [lane], lambda: self._start(lane, offset_next))

    def stop(self, partitions: Iterable[int]) -> None:
        """Read these no more, of all inputs; what was read of them and is not processed is void."""
        wanted = all_lanes(sorted(partitions), len(self._topics))
        self._commands.put("stop", wanted, lambda: self._stop(wanted))

    def pause_only(self, lanes: frozenset[int]) -> None:
        """Pause exactly these of the lanes that are read."""
        self._commands.put("pause", [], lambda: self._pause_only(lanes))

    # --- the thread of the source -----------------------------------------------------------------------------------

    def poll(self) -> tuple[Records | None, dict[int, Idle]]:
        """Next records, without waiting for any, and the lanes that are known to be at their ends.

        Raises:
            StreamsError: records are gone that were not read.

        """
        self._commands.obey()
        if self._consumer is None:
            return None, {}
        if self._brokers.is_stranded:
            log.error("the reader of forwarded topics has lost every broker; re-creating it", topics=self._topics)
            self._renew()
        try:
            messages = self._consumer.consume(self._batch_records, _WAIT_S)
        except KafkaException as error:
            raise StreamsError(f"reading {', '.join(self._topics)}: {described(error)}") from None
        records = self._received(FromMessages(messages, self._first_lanes)) if messages else None
        if records is not None:
            self._batch_records = records_of_next(records, self._batch_bytes_max)
        return records, self._idle_now(monotonic_ms())

    def close(self) -> None:
        """Close the connections."""
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
        lane, error = notice.partition, notice.error
        if error.code() == _EOF:
            self._consumed.reached_end(lane, notice.offset)
        elif error.code() in OUT_OF_RANGE:
            if lane in self._consumed.started:
                place = self._place(lane)
                raise StreamsError(
                    f"{place.topic}-{place.partition}: records from offset {self._consumed.started[lane]} on are not "
                    f"there ({error.str()}): the topic was emptied or truncated by something else"
                )
        else:
            log.warning("reader of forwarded topics", topics=self._topics, error=described(KafkaException(error)))

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, lane: int, offset_next: int) -> None:
        if self._consumer is None:
            self._consumer = self._new_consumer()
        if lane in self._consumed.started:
            self._consumer.incremental_unassign([self._place(lane)])
        self._consumer.incremental_assign([self._place(lane, offset_next)])
        self._consumed.start(lane, offset_next)
        self._note_resumed([lane])

    def _stop(self, lanes: list[int]) -> None:
        mine = [lane for lane in lanes if lane in self._consumed.started]
        self._consumed.stop(mine)
        if mine and self._consumer is not None:
            self._consumer.incremental_unassign([self._place(one) for one in mine])

    def _pause_only(self, lanes: frozenset[int]) -> None:
        pause, resume = self._consumed.pause_only(lanes)
        if self._consumer is not None:
            self._consumer.pause([self._place(one) for one in pause])
            self._consumer.resume([self._place(one) for one in resume])
        self._consumed.note_paused(lanes)

    def _note_resumed(self, lanes: list[int]) -> None:
        """These are read again, so they are not paused: the next command pauses them again."""
        self._consumed.note_paused(self._consumed.paused - frozenset(lanes))

    def _renew(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = self._new_consumer()
        for lane, offset_next in dict(self._consumed.started).items():
            self._consumer.incremental_assign([self._place(lane, offset_next)])
        self._note_resumed(list(self._consumed.started))

    def _place(self, lane: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane), offset)

    def _new_consumer(self) -> Consumer:
        self._brokers = BrokerWatch()
        return clients.consumer(self._settings, {**self._config, **self._brokers.config()})
