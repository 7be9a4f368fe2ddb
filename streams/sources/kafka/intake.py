"""Intake: the consumer. Micro-batches out; assignments, pauses and ends of partitions in.

Everything that touches the consumer runs in one thread, the one that calls `poll`; other threads leave commands.
Assigned partitions start paused: they are consumed only once their state is restored and the exact position is known.
What the consumer has to remember is elsewhere: partitions and offsets in `consumed`, commands of other threads in
`commands`, its place in the group in `joining`; what a call brings is made into columns by `arrivals`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from streams.batch.lanes import all_lanes, input_of, lane_of, partition_of_lane
from streams.batch.records import Records
from streams.clock import monotonic_ms
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.broker_watch import BrokerWatch
from streams.kafka.native_client import NativeClients, NativeReader
from streams.kafka.out_of_range import OUT_OF_RANGE, is_truncation
from streams.limits import BATCH_RECORDS_MAX, BATCH_SHARE, BATCH_WAIT_MS, BATCH_WAIT_MS_MIN, QUIET_WAIT_MS
from streams.settings import Settings
from streams.sources.base import Idle, Polled, RebalanceListener, Unreadable
from streams.sources.kafka.arrivals import Arrivals, FromMessages, FromReader, Notice, records_of_next
from streams.sources.kafka.assignment_check import AssignmentCheck
from streams.sources.kafka.commands import Commands
from streams.sources.kafka.consumed import Consumed
from streams.sources.kafka.consumer_calls import broken, leave_group, seek
from streams.sources.kafka.high_watermarks import HighWatermarks
from streams.sources.kafka.joining import Joining
from streams.sources.kafka.membership import REFUSALS, cause_of, consumer_config, is_static
from streams.sources.lost import LostRecords

log = structlog.get_logger(__name__)

_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_BOUNDS_TIMEOUT_S: Final = 5.0
_ASK_TIMEOUT_S: Final = 1.0


class Intake:
    """`sources.base.Source` over one consumer."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: str,
        group: str,
        member: str,
        ownership: RebalanceListener,
        on_lost_records: Callable[[int, int, int], None] = lambda _lane, _first, _end: None,
        native: NativeClients | None = None,
        further: Sequence[str] = (),
        address: str = "",
    ) -> None:
        """`on_lost_records` is told of records that were deleted unread: lane, first offset, and the one after.

        With `native`, records are taken without a message object for each; they are the same. `further` are topics that
        are read beside the source, of each the partitions that the group has given us of the source: the group divides
        those of the source only, so that equal numbers are never apart. Partitions of all are called by their lanes.
        `address`: where the web server of this worker answers (`membership.client_id_of`).
        """
        if native is not None and further:
            log.info("records of several topics are taken in Python", topics=[source, *further])
        self._native = None if further else native
        self._settings = settings
        self._source, self._group = source, group
        self._topics = (source, *further)
        self._first_lanes = {topic: lane_of(number, 0) for number, topic in enumerate(self._topics)}
        self._ownership = ownership
        self._lost = LostRecords(on_lost_records)
        self._commands = Commands()
        self._consumed = Consumed(settings.streams_idle_ms)
        self._joining = Joining(is_told_of_nothing=settings.streams_group_protocol == "classic")
        self._check = AssignmentCheck()
        self._generation = 0
        """As told by the last `stop`: what was polled under an earlier one is void."""
        self._high = HighWatermarks(settings, topics=self._topics, client_id="streams-idle")
        self.unreadable: dict[int, Unreadable] = {}
        """Partitions that have stood before an open transaction for longer than `OPEN_TRANSACTION_SAID_MS`. Replaced
        as a whole with each poll: any thread may read it."""
        self._must_give_up_place = settings.streams_group_leave and is_static(settings)
        self._config = consumer_config(settings, group=group, member=member, address=address)
        self._batch_records = BATCH_RECORDS_MAX
        self._wait_ms = QUIET_WAIT_MS
        self._gathering_ms = max(BATCH_WAIT_MS_MIN, min(BATCH_WAIT_MS, settings.streams_commit_interval_ms))
        self._batch_bytes_max = int((settings.streams_memory_mb_max << 20) * BATCH_SHARE)
        self.consumer = self._new_consumer()

    def subscribe(self) -> None:
        """Join the group."""
        self._joining.begin()
        self._subscribe()

    def _subscribe(self) -> None:
        self.consumer.subscribe(
            [self._source], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def is_spare(self, now_ms: int) -> bool:
        """Whether this is a member of the group to which no partition was left, for longer than a rebalance takes.

        `now_ms`: monotonic. Any thread may ask.
        """
        return self._joining.is_spare(now_ms)

    def positions(self) -> dict[int, int]:
        """By partition that is consumed: the offset up to which nothing is left to take, as far as we were told."""
        return self._consumed.positions()

    def taken(self) -> dict[int, int]:
        """By partition that is consumed: the offset after the last record that was handed over."""
        return self._consumed.taken()

    def take_suspicion(self) -> bool:
        """Whether something has come since the last call that a source gives which is not what it was."""
        return self._consumed.take_suspicion()

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found, since the last call, to end before the offset that is next."""
        return self._consumed.take_beyond_end()

    # --- from any thread --------------------------------------------------------------------------------------------

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Consume `partition` from `offset_next` on (-1: from its beginning).

        `bounds`: its first offset, and the offset after its last record. Void once the partition is stopped, started
        otherwise, or revoked.
        """
        self._commands.put("start", [partition], lambda: self._start(partition, offset_next, bounds))

    def start_again(self, partition: int, offset_next: int, generation: int) -> None:
        """Consume `partition`, which is consumed, from another offset; void once `stop` began another generation."""

        def start() -> None:
            if generation == self._generation:
                self._consume_from(partition, offset_next)

        self._commands.put("start", [partition], start)

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop consuming `partitions`, which remain assigned, and begin another generation of records.

        Of each partition of the source, and the partitions beside it.
        """
        wanted = all_lanes(partitions, len(self._topics))
        self._commands.put("stop", wanted, lambda: self._stop(wanted, generation))

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the started partitions."""
        self._commands.put("pause", [], lambda: self._pause_only(partitions))

    # --- the intake thread ------------------------------------------------------------------------------------------

    def poll(self) -> Polled:
        """Next records; serves rebalances. Returns within about `BATCH_WAIT_MS` when nothing comes.

        Raises:
            FencedError: another consumer has our group instance id.
            StreamsError: the consumer is of no more use.

        """
        if self._joining.is_refused and not self._joined_again():
            return Polled(None, {}, self._generation)
        if self._brokers.is_stranded:
            log.error("the Kafka client has lost every broker and does not look for them again; re-creating it")
            self._renew()
        self._leave_if_outdated()
        self._commands.obey()
        reader = self._reader
        try:
            arrived = self._consumed_in_python() if reader is None else self._consumed_natively(reader)
        except KafkaException as error:
            raise broken(error.args[0], self._source, self._group) from None
        self._note_membership()
        found = [part for part in map(self._received, arrived) if part is not None]
        records = Records.concat(found) if found else None
        if records is not None:
            self._batch_records = records_of_next(records, self._batch_bytes_max)
        self._wait_ms = QUIET_WAIT_MS if records is None else self._gathering_ms
        return Polled(records, self._idle_now(monotonic_ms()), self._generation)

    def _consumed_in_python(self) -> list[Arrivals]:
        messages = self.consumer.consume(self._batch_records, self._wait_ms / 1000)
        return [FromMessages(messages, self._first_lanes)] if messages else []

    def _consumed_natively(self, reader: NativeReader) -> list[Arrivals]:
        """Rebalances and what concerns the consumer as a whole come from it, records from the reader's queue."""
        message = self.consumer.poll(0)
        arrived: list[Arrivals] = [] if message is None else [FromMessages([message], self._first_lanes)]
        if self._reader is reader and (taken := reader.poll(self._batch_records, self._wait_ms)) is not None:
            arrived.append(FromReader(taken))
        return arrived

    def _received(self, arrived: Arrivals) -> Records | None:
        """The valid records of a call; also handles its notices."""
        keep, last = self._consumed.still_ours(arrived.partition, arrived.offset)
        epochs = {number: epoch for number, row in last.items() if (epoch := arrived.leader_epoch(row)) is not None}
        # After the records: a partition's end often comes in one call with its last records.
        for notice in arrived.notices:
            self._note(notice)
        return arrived.records(keep, epochs) if keep.any() else None

    def _idle_now(self, now_ms: int) -> dict[int, Idle]:
        """Idle partitions by the broker's answers so far; asks again when it is time."""
        for answer in self._high.answers():
            self._consumed.idle.told(*answer)
        if wanted := self._consumed.idle.due(now_ms):
            self._high.ask(wanted, now_ms)
        self.unreadable = self._consumed.unreadable(now_ms)
        return self._consumed.idle_now()

    def has_seen(self, partitions: int) -> bool:
        """Whether the client knows so many partitions of the source; if so, has the group divide them.

        In the thread that polls. By itself the client asks twice a minute, and only then looks whether the group has to
        divide partitions again. What it learns from a question of ours it compares when it subscribes again.
        """
        if (self._partitions_there() or 0) < partitions:
            return False
        if not self._joining.is_refused:  # else the next consumer subscribes, and knows all partitions
            self._subscribe()
        return True

    def _partitions_there(self) -> int | None:
        """How many partitions the source has; None: no answer, or there is no such topic."""
        try:
            found = self.consumer.list_topics(self._source, timeout=_ASK_TIMEOUT_S).topics.get(self._source)
        except KafkaException as error:
            log.debug("the source's partitions were not asked for", topic=self._source, error=described(error))
            return None
        return None if found is None or found.error is not None else len(found.partitions)

    def _leave_if_outdated(self) -> None:
        """Join again where the group has given us partitions that the source does not have."""
        now_s = time.monotonic()
        if not self._check.is_due(now_s):
            return
        mine = [partition_of_lane(lane) for lane in self._consumed.assigned if not input_of(lane)]
        if self._check.is_outdated(mine, self._partitions_there(), now_s):
            log.warning(
                "the group has assigned partitions that the source does not have: it was created again with fewer. "
                "Joining the group again",
                topic=self._source, partitions=sorted(mine),
            )  # fmt: skip
            leave_group(self.consumer, self._source)
            self._renew()

    def close(self) -> None:
        """Leave the assignment; calls `revoked`.

        A static member's place is kept for the length of its session, unless the settings say that it leaves: then the
        others of the group take its partitions over at once.
        """
        if self._must_give_up_place:  # any other member leaves when it is closed
            leave_group(self.consumer, self._source)
        self._close_consumer()
        self._high.close()

    def leave_when_closed(self) -> None:
        """Make `close` leave the group, whatever the settings say. Any thread."""
        self._must_give_up_place = is_static(self._settings)

    def _be_refused(self, error: KafkaError) -> None:
        """The group refuses us: this consumer is unusable, a new one will ask again."""
        if not self._joining.refused(error):
            raise broken(error, self._source, self._group)

    def _joined_again(self) -> bool:
        """Join with a new consumer once the pause is over."""
        left_s = self._joining.pause_left_s()
        if left_s is None:
            return True
        if left_s > 0:
            time.sleep(min(left_s, QUIET_WAIT_MS / 1000))
            return False
        self._joining.joins_again()
        self._renew()
        return True

    def _new_consumer(self) -> Consumer:
        self._brokers = BrokerWatch()
        config = {**self._config, **self._brokers.config()}
        self._reader: NativeReader | None = None
        if self._native is None:
            return clients.consumer(self._settings, config)
        consumer, self._reader = self._native.consumer(self._settings, config)
        return consumer

    def _close_consumer(self) -> None:
        """Close the consumer; its reader first, for which it would wait."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        self.consumer.close()

    def _renew(self) -> None:
        """Replace the consumer; partitions of the old one are revoked or lost."""
        self._close_consumer()
        if assigned := sorted(lane for lane in self._consumed.assigned if not input_of(lane)):
            self._lose(assigned)  # the old one did not report it
        self.consumer = self._new_consumer()
        self.subscribe()

    def _note_membership(self) -> None:
        try:
            self._ownership.noted(self.consumer.consumer_group_metadata())
        except RuntimeError:  # it is being closed
            self._ownership.noted(None)

    def _note(self, notice: Notice) -> None:
        partition, error = notice.partition, notice.error
        if error.code() == _EOF:
            self._consumed.reached_end(partition, notice.offset)
        elif is_truncation(error):
            self._consumed.ends_before(partition)
        elif error.code() in OUT_OF_RANGE:
            self._commands.put("start", [partition], lambda: self._start_after_gap(partition))
        elif cause_of(error) in REFUSALS:
            self._be_refused(error)
        elif error.fatal() or cause_of(error) == KafkaError._FATAL:  # noqa: SLF001
            raise broken(error, self._source, self._group)
        elif error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
            self._consumed.suspect()
            self._joining.source_is_gone()
            log.warning("the source topic is not there: create it with `streams topics apply`", topic=self._source)
        else:
            self._joining.doubted()
            log.warning("consumer", error=described(KafkaException(error)), code=error.name())

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        low, high = bounds
        offset = low if offset_next < 0 else offset_next
        if offset > high:
            self._consumed.ends_before(partition)
            return
        if offset < low:
            log.error(
                "records are gone: the group's offset is before the first one; going on from there",
                partition=f"{self._topics[input_of(partition)]}-{partition_of_lane(partition)}", offset=offset,
                first=low, last=high,
            )  # fmt: skip
            self._lost.note(partition, offset, low)
            offset = low
        self._consume_from(partition, offset)

    def _consume_from(self, partition: int, offset: int) -> None:
        if partition not in self._consumed.assigned:
            return  # revoked meanwhile
        seek(self.consumer, self._reader, self._place(partition, offset))
        self._consumed.start(partition, offset)
        self.consumer.resume([self._place(partition)])

    def _start_after_gap(self, partition: int) -> None:
        """Continue with a partition whose next offset is no longer in the log."""
        offset = self._consumed.started.get(partition)
        if offset is None:
            return  # it is not consumed now; where it starts is decided when it is
        here = self._place(partition)
        self._start(partition, offset, self.consumer.get_watermark_offsets(here, timeout=_BOUNDS_TIMEOUT_S))
        if partition in self._consumed.paused:
            self.consumer.pause([here])

    def _stop(self, partitions: list[int], generation: int) -> None:
        self._generation = generation
        self._consumed.stop(partitions)
        self.consumer.pause([self._place(lane) for lane in partitions if lane in self._consumed.assigned])

    def _pause_only(self, partitions: frozenset[int]) -> None:
        pause, resume = self._consumed.pause_only(partitions)
        if pause:
            self.consumer.pause([self._place(lane) for lane in pause])
        if resume:
            self.consumer.resume([self._place(lane) for lane in resume])
        self._consumed.note_paused(partitions)

    # --- rebalances -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joining.answered()
        if not partitions:
            self._note_whether_spare()
            return
        numbers = [one.partition for one in partitions]
        lanes = all_lanes(numbers, len(self._topics))
        if self._reader is not None:
            for number in numbers:
                self._reader.attach(self._source, number)
        # Offset 0 is a placeholder: paused at once, sought to the restored position before it is resumed.
        consumer.incremental_assign([self._place(lane, 0) for lane in lanes])
        consumer.pause([self._place(lane) for lane in lanes])
        self._consumed.assigned.update(lanes)
        self._note_whether_spare()
        self._note_membership()
        if is_static(self._settings):
            self._check.assigned(time.monotonic())
        log.info("assigned", topic=self._source, partitions=numbers)
        self._ownership.assigned(numbers)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        if numbers:
            self._note_membership()
            log.info("revoked", topic=self._source, partitions=numbers)
            self._forget(numbers)
            self._note_whether_spare()
            self._ownership.revoked(numbers)
        consumer.incremental_unassign(self._all_of(numbers))

    def _note_whether_spare(self) -> None:
        self._joining.taken_in(has_partitions=bool(self._consumed.assigned))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        self._lose(numbers)
        consumer.incremental_unassign(self._all_of(numbers))

    def _place(self, lane: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        """A lane as topic and partition, for the client."""
        return TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane), offset)

    def _all_of(self, partitions: Iterable[int]) -> list[TopicPartition]:
        """These partitions of all topics."""
        return [self._place(lane) for lane in all_lanes(partitions, len(self._topics))]

    def _lose(self, partitions: list[int]) -> None:
        log.warning("lost: the group has given our partitions to others", topic=self._source, partitions=partitions)
        self._forget(partitions)
        self._joining.begin()
        self._ownership.lost(partitions)

    def _forget(self, partitions: list[int]) -> None:
        lanes = all_lanes(partitions, len(self._topics))
        self._commands.void_starts(lanes)
        self._consumed.forget(lanes)
