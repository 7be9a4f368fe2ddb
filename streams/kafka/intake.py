"""Intake: the consumer. Micro-batches out; assignments, pauses and ends of partitions in.

Everything that touches the consumer runs in one thread, the one that calls `poll`; other threads leave commands.
Assigned partitions start paused: they are consumed only once their state is restored and the exact position is known.
"""

import operator
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import FencedError, StreamsError
from streams.kafka.admin import described, librdkafka_log
from streams.kafka.membership import REFUSALS, cause_of, group_config
from streams.kafka.stranding import BrokerWatch
from streams.limits import BATCH_RECORDS_MAX, BATCH_SHARE, BATCH_WAIT_MS, UNRELEASED_WAIT_MS_MAX
from streams.operators.columns import Records
from streams.retry import Backoff
from streams.settings import Settings

log = structlog.get_logger(__name__)

_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_SEEK_TIMEOUT_S: Final = 5.0
_SAMPLE: Final = 256
_FENCES_MAX: Final = 10
"""Within two minutes: each restart of a broker may bring one, by a join of our own that it carries out late."""
_REFUSED: Final = Backoff(first_s=1.0, pause_s_max=5.0)
_TIMESTAMP_MS: Final = operator.itemgetter(1)


class Ownership(Protocol):
    """Told of rebalances, in the intake thread, from within `poll`."""

    def assigned(self, partitions: list[int]) -> None:
        """These partitions are ours now; restore them, then call `start`."""

    def revoked(self, partitions: list[int]) -> None:
        """Finish or abort, and release these partitions before returning, within a bounded time."""

    def lost(self, partitions: list[int]) -> None:
        """These partitions are already somebody else's; nothing can be committed."""


class Intake:
    """Consumer of one source topic. `poll` and `close` from one thread; the rest from any."""

    def __init__(self, settings: Settings, *, source: str, group: str, member: str, ownership: Ownership) -> None:
        self._source = source
        self._ownership = ownership
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._pending: deque[Callable[[], None]] = deque()
        self._started: dict[int, int] = {}
        """Consumed partitions and the least offset that is new to them."""
        self._paused: frozenset[int] = frozenset()
        self._generation = 0
        """As told by the last `stop`: what was polled under an earlier one is void."""
        self._at_end_since_ms: dict[int, int] = {}
        self._end_offset: dict[int, int] = {}
        """Where the broker has last told the end of a partition."""
        self._refused = 0
        """How often in a row the group has refused us because of our own former self."""
        self._refused_since_s = self._join_after_s = 0.0
        self._fenced_at_s: list[float] = []
        self._config: dict[str, Any] = {
            **settings.kafka_client_config(),
            "client.id": member,
            **group_config(settings, group=group, member=member),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.min.messages": 100_000,
            "queued.max.messages.kbytes": min(65_536, settings.streams_memory_mb_max * 1024 // 16),
            # The broker gathers too: unasked, it would answer a live stream with a few records at a time.
            "fetch.wait.max.ms": BATCH_WAIT_MS // 2,
            "fetch.min.bytes": 65_536,
            "fetch.queue.backoff.ms": 5,
            "fetch.message.max.bytes": 2 * 1_048_576,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        self._batch_records = BATCH_RECORDS_MAX
        self._batch_bytes_max = int((settings.streams_memory_mb_max << 20) * BATCH_SHARE)
        self.consumer = self._new_consumer()
        self.membership: object | None = None
        """Our place in the group as of the last poll: who commits for the group has to show it.

        Only the intake thread asks for it: the client makes other threads wait while a rebalance is served, which waits
        for their commit.
        """

    def subscribe(self) -> None:
        """Join the group."""
        self.consumer.subscribe(
            [self._source], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def positions(self) -> dict[int, int]:
        """By partition that is consumed: the offset up to which nothing is left to take, as far as we were told."""
        return {p: max(taken, self._end_offset.get(p, 0)) for p, taken in dict(self._started).items()}

    def taken(self) -> dict[int, int]:
        """By partition that is consumed: the offset behind the last record that was handed over."""
        return dict(self._started)

    # --- from any thread --------------------------------------------------------------------------------------------

    def start(self, partition: int, offset_next: int) -> None:
        """Consume `partition` from `offset_next` on (-1: from its beginning)."""
        self._commands.put(lambda: self._start(partition, offset_next))

    def start_again(self, partition: int, offset_next: int, generation: int) -> None:
        """As `start`, but void once `stop` has begun another generation."""
        self._commands.put(lambda: self._start(partition, offset_next) if generation == self._generation else None)

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop consuming `partitions`, which remain assigned, and begin another generation of records."""
        wanted = list(partitions)
        self._commands.put(lambda: self._stop(wanted, generation))

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the started partitions."""
        self._commands.put(lambda: self._pause_only(partitions))

    # --- the intake thread ------------------------------------------------------------------------------------------

    def poll(self) -> tuple[Records | None, dict[int, int], int]:
        """Next records (None when there are none), since when partitions are at their end (ms), and the generation.

        Serves rebalances. Returns within about `BATCH_WAIT_MS` when nothing comes.

        Raises:
            FencedError: another consumer has our group instance id.
            StreamsError: the consumer is of no more use.

        """
        if self._refused and not self._joined_again():
            return None, {}, self._generation
        if self._brokers.is_stranded:
            log.error("the Kafka client has lost every broker and does not look for them again; making it anew")
            self._renew()
        self._obey()
        try:
            messages = self.consumer.consume(self._batch_records, BATCH_WAIT_MS / 1000)
        except KafkaException as error:
            raise self._broken(error.args[0]) from None
        self._note_membership()
        records = self._records(messages) if messages else None
        if records is not None:
            self._batch_records = _records_of_next(records, self._batch_bytes_max)
        at_end = {p: since for p, since in self._at_end_since_ms.items() if p in self._started}
        return records, at_end, self._generation

    def _obey(self) -> None:
        """Carry out what other threads asked for, in order; what the broker does not answer now is tried again."""
        while not self._commands.empty():
            self._pending.append(self._commands.get())
        while self._pending:
            try:
                self._pending[0]()
            except KafkaException as error:
                log.warning("the broker does not answer the consumer; trying again", error=described(error))
                return
            self._pending.popleft()

    def close(self) -> None:
        """Leave the assignment (a static member's place is kept for the length of its session); calls `revoked`."""
        self.consumer.close()

    def _be_refused(self, error: KafkaError) -> None:
        """The group does not take us as we are: this consumer is void, a new one will ask again.

        Mostly it is our former self: one that was killed and is still counted on (UNRELEASED_INSTANCE_ID), or our own
        join of before a broker stood still, which it carries out behind a newer one (FENCED_INSTANCE_ID). A living
        double takes our transactional id as well, and comes again and again. GROUP_ID_NOT_FOUND: the group was deleted,
        or members of the other protocol are still in it, such as workers that were stopped to change over.
        """
        now = time.monotonic()
        if cause_of(error) == KafkaError.FENCED_INSTANCE_ID:
            recent = [at for at in self._fenced_at_s if (now - at) * 1000 < UNRELEASED_WAIT_MS_MAX]
            self._fenced_at_s = [*recent, now]
            if len(self._fenced_at_s) > _FENCES_MAX:
                raise self._broken(error)
        elif not self._refused:
            self._refused_since_s = now
        elif (now - self._refused_since_s) * 1000 > UNRELEASED_WAIT_MS_MAX:
            raise self._broken(error)
        self._refused += 1
        pause_s = _REFUSED.jittered_s(self._refused)
        self._join_after_s = now + pause_s
        log.warning(
            "the group does not take this worker yet (its name is taken, as by itself before it was killed, or members "
            "of the other protocol are in it); joining anew",
            error=error.str(), failures=self._refused, retry_in_s=round(pause_s, 1),
        )  # fmt: skip

    def _joined_again(self) -> bool:
        """Join with a new consumer once the pause is over."""
        if self._join_after_s:
            left_s = self._join_after_s - time.monotonic()
            if left_s > 0:
                time.sleep(min(left_s, BATCH_WAIT_MS / 1000))
                return False
            self._join_after_s = 0.0
            self._renew()
        return True

    def _new_consumer(self) -> Consumer:
        self._brokers = BrokerWatch()
        return Consumer({**self._config, **self._brokers.config()}, logger=librdkafka_log)

    def _renew(self) -> None:
        """Go on with a new consumer; partitions of the old one are revoked or lost."""
        self.consumer.close()
        self.consumer = self._new_consumer()
        self.subscribe()

    def _note_membership(self) -> None:
        try:
            self.membership = self.consumer.consumer_group_metadata()
        except RuntimeError:  # it is being closed
            self.membership = None

    def _records(self, messages: list[Message]) -> Records | None:
        # `map` over unbound methods: a third less than a comprehension, and this runs for every record.
        errors = list(map(Message.error, messages))
        notices = [(m, e) for m, e in zip(messages, errors, strict=True) if e is not None] if any(errors) else []
        if notices:
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        partition = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        offset = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        keep = self._still_ours(partition, offset)
        # Behind the records: a partition's end often comes in one call with its last records.
        for message, error in notices:
            self._note(message, error)
        if not keep.all():
            messages = [message for message, kept in zip(messages, keep.tolist(), strict=True) if kept]
            partition, offset = partition[keep], offset[keep]
        if not messages:
            return None
        headers: list[Any] = list(map(Message.headers, messages))
        return Records(
            partition,
            offset,
            np.fromiter(map(_TIMESTAMP_MS, map(Message.timestamp, messages)), np.int64, len(messages)),
            list(map(Message.key, messages)),
            list(map(Message.value, messages)),
            headers if any(headers) else None,
        )

    def _still_ours(self, partition: Any, offset: Any) -> Any:
        """Records fetched before a seek or a stop are void."""
        keep = np.zeros(len(partition), dtype=np.bool_)
        for number in np.unique(partition).tolist():
            least = self._started.get(number)
            if least is None:
                continue
            mine = (partition == number) & (offset >= least)
            keep |= mine
            if mine.any():
                self._started[number] = int(offset[mine][-1]) + 1
                at_end = self._at_end_since_ms.get(number)
                if at_end is not None:
                    del self._at_end_since_ms[number]
        return keep

    def _note(self, message: Message, error: KafkaError) -> None:
        if error.code() == _EOF:
            partition, end = int(message.partition() or 0), int(message.offset() or 0)
            self._end_offset[partition] = end
            if partition in self._started and end >= self._started[partition]:
                self._at_end_since_ms.setdefault(partition, int(time.time() * 1000))
        elif cause_of(error) in REFUSALS:
            self._be_refused(error)
        elif error.fatal() or cause_of(error) == KafkaError._FATAL:  # noqa: SLF001
            raise self._broken(error)
        elif error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
            log.warning("the source topic is not there: create it with `streams topics apply`", topic=self._source)
        else:
            log.warning("consumer", error=error.str(), code=error.name())

    def _broken(self, error: KafkaError) -> StreamsError:
        if cause_of(error) in {KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.FENCED_INSTANCE_ID}:
            return FencedError(
                f"another worker has joined as this one ({error.str()}): "
                "is it running on a copy of this data directory?"
            )
        return StreamsError(f"the consumer failed: {error.str()} ({error.name()})")

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, partition: int, offset_next: int) -> None:
        here = TopicPartition(self._source, partition)
        if all(assigned.partition != partition for assigned in self.consumer.assignment()):
            return  # revoked meanwhile
        low, high = self.consumer.get_watermark_offsets(here, timeout=_SEEK_TIMEOUT_S)
        offset = low if offset_next < 0 else offset_next
        if offset < low or offset > high:
            log.error(
                "records are gone: the group's offset is outside the topic; going on from its beginning",
                partition=f"{self._source}-{partition}", offset=offset, first=low, last=high,
            )  # fmt: skip
            offset = low
        self.consumer.seek(TopicPartition(self._source, partition, offset))
        self._started[partition] = offset
        self._at_end_since_ms.pop(partition, None)
        self._end_offset.pop(partition, None)
        self.consumer.resume([here])

    def _stop(self, partitions: list[int], generation: int) -> None:
        self._generation = generation
        for partition in partitions:
            self._started.pop(partition, None)
            self._at_end_since_ms.pop(partition, None)
            self._end_offset.pop(partition, None)
        assigned = {one.partition for one in self.consumer.assignment()}
        self.consumer.pause([TopicPartition(self._source, p) for p in partitions if p in assigned])

    def _pause_only(self, partitions: frozenset[int]) -> None:
        wanted = partitions & self._started.keys()
        pause, resume = wanted - self._paused, (self._paused - wanted) & self._started.keys()
        self.consumer.pause([TopicPartition(self._source, p) for p in pause])
        self.consumer.resume([TopicPartition(self._source, p) for p in resume])
        self._paused = wanted

    # --- rebalances -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._refused = 0
        if not partitions:
            return
        numbers = [one.partition for one in partitions]
        # Offset 0 is a placeholder: paused at once, sought to the restored position before it is resumed.
        consumer.incremental_assign([TopicPartition(self._source, number, 0) for number in numbers])
        consumer.pause([TopicPartition(self._source, number) for number in numbers])
        self._note_membership()
        log.info("assigned", topic=self._source, partitions=numbers)
        self._ownership.assigned(numbers)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        if numbers:
            self._note_membership()
            log.info("revoked", topic=self._source, partitions=numbers)
            self._forget(numbers)
            self._ownership.revoked(numbers)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        log.warning("lost: the group has given our partitions to others", topic=self._source, partitions=numbers)
        self._forget(numbers)
        self._ownership.lost(numbers)
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[int]) -> None:
        for partition in partitions:
            self._started.pop(partition, None)
            self._at_end_since_ms.pop(partition, None)
            self._end_offset.pop(partition, None)
        self._paused -= frozenset(partitions)


def _records_of_next(records: Records, bytes_max: int) -> int:
    """How many records the next micro-batch may have, if they are as large as these (a sample of them is looked at)."""
    step = max(1, len(records) // _SAMPLE)
    values, keys = records.value[::step], records.key[::step]
    size = sum(len(value or b"") for value in values) + sum(len(key or b"") for key in keys)
    return max(1, min(BATCH_RECORDS_MAX, bytes_max * len(values) // max(1, size)))
