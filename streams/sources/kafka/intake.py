"""Intake: the consumer. Micro-batches out; assignments, pauses and ends of partitions in.

Everything that touches the consumer runs in one thread, the one that calls `poll`; other threads leave commands.
Assigned partitions start paused: they are consumed only once their state is restored and the exact position is known.
"""

import operator
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import structlog
from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streams.batch.columns import Headers, Int64
from streams.batch.lanes import all_lanes, input_of, lane_of, partition_of_lane
from streams.batch.records import Records
from streams.clock import monotonic_ms
from streams.errors import FencedError, StreamsError
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.broker_watch import BrokerWatch
from streams.kafka.headers import read_headers
from streams.kafka.native_client import NativeClients, NativeReader, NativeRecords
from streams.kafka.out_of_range import OUT_OF_RANGE, is_truncation
from streams.limits import (
    BATCH_RECORDS_MAX,
    BATCH_SHARE,
    BATCH_WAIT_MS,
    OPEN_TRANSACTION_SAID_MS,
    SPARE_AFTER_MS,
    UNRELEASED_WAIT_MS_MAX,
)
from streams.resilience.retry import Backoff
from streams.settings import Settings
from streams.sources.base import Idle, Polled, RebalanceListener, Unreadable
from streams.sources.idle import IdleClock
from streams.sources.kafka.high_watermarks import HighWatermarks
from streams.sources.kafka.membership import REFUSALS, cause_of, group_config, is_static
from streams.sources.lost import LostRecords

log = structlog.get_logger(__name__)

_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_SAMPLE: Final = 256
_FENCES_MAX: Final = 10
"""Within two minutes: each restart of a broker may bring one, by a join of our own that it carries out late."""
_REFUSED: Final = Backoff(first_s=1.0, pause_s_max=5.0)
_UNANSWERED: Final = Backoff(first_s=0.1, pause_s_max=2.0)
_BOUNDS_TIMEOUT_S: Final = 5.0
_LEAVE_TIMEOUT_S: Final = 5.0
_TIMESTAMP_MS: Final = operator.itemgetter(1)


@dataclass(slots=True)
class _Command:
    """What another thread asked for."""

    kind: Literal["start", "stop", "pause"]
    partitions: frozenset[int]
    run: Callable[[], None]
    failures: int = 0
    not_before_s: float = 0.0

    def voids(self, earlier: "_Command") -> bool:
        """Whether `earlier`, if it still waits, is not to be carried out any more."""
        if self.kind == "pause":
            return earlier.kind == "pause"
        return earlier.kind == "start" and earlier.partitions <= self.partitions


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
    ) -> None:
        """`on_lost_records` is told of records that were deleted unread: lane, first offset, and the one after.

        With `native`, records are taken without a message object for each; they are the same. `further` are topics that
        are read beside the source, of each the partitions that the group has given us of the source: the group divides
        those of the source only, so that equal numbers are never apart. Partitions of all are called by their lanes.
        """
        if native is not None and further:
            log.info("records of several topics are taken in Python", topics=[source, *further])
        self._native = None if further else native
        self._source = source
        self._topics = (source, *further)
        self._ownership = ownership
        self._lost = LostRecords(on_lost_records)
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._pending: list[_Command] = []
        """Not carried out yet: the client refused, and is asked again."""
        self._assigned: set[int] = set()
        """Lanes; a partition's are assigned together."""
        self._without_since_ms: int | None = None
        """Since when the group, having taken us in, gives us no partition; monotonic. None: it has not, or it does."""
        self._is_told_of_nothing = settings.streams_group_protocol == "classic"
        """Whether the client says that we were taken in and given no partition; else it says nothing then."""
        self._started: dict[int, int] = {}
        """Consumed partitions and the least offset that is new to them."""
        self._paused: frozenset[int] = frozenset()
        self._generation = 0
        """As told by the last `stop`: what was polled under an earlier one is void."""
        self._settings = settings
        self._idle = IdleClock(settings.streams_idle_ms)
        self._high = HighWatermarks(settings, topics=self._topics, client_id="streams-idle")
        self.unreadable: dict[int, Unreadable] = {}
        """Partitions that have stood before an open transaction for longer than `OPEN_TRANSACTION_SAID_MS`. Replaced
        as a whole with each poll: any thread may read it."""
        self._end_offset: dict[int, int] = {}
        """Where the broker has last told the end of a partition."""
        self._refused = 0
        """How often in a row the group has refused this worker because of its own earlier session."""
        self._refused_since_s = self._join_after_s = 0.0
        self._fenced_at_s: list[float] = []
        self._is_suspect = False
        """Whether the source may have been deleted, or deleted and created again."""
        self._beyond_end: frozenset[int] = frozenset()
        self._must_give_up_place = settings.streams_group_leave and is_static(settings)
        self._config: dict[str, Any] = {
            "client.id": member,
            **group_config(settings, group=group, member=member),
            "enable.auto.commit": False,
            # Tell, do not jump: `_start` decides where to go on, and says what is lost.
            "auto.offset.reset": "error",
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

    def subscribe(self) -> None:
        """Join the group."""
        self._begin_to_join()
        self.consumer.subscribe(
            [self._source], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def is_spare(self, now_ms: int) -> bool:
        """Whether this is a member of the group to which no partition was left, for longer than a rebalance takes.

        `now_ms`: monotonic. Any thread may ask.
        """
        since_ms = self._without_since_ms
        return since_ms is not None and now_ms - since_ms >= SPARE_AFTER_MS

    def positions(self) -> dict[int, int]:
        """By partition that is consumed: the offset up to which nothing is left to take, as far as we were told."""
        return {p: max(taken, self._end_offset.get(p, 0)) for p, taken in dict(self._started).items()}

    def taken(self) -> dict[int, int]:
        """By partition that is consumed: the offset after the last record that was handed over."""
        return dict(self._started)

    def take_suspicion(self) -> bool:
        """Whether something has come since the last call that a source gives which is not what it was."""
        found, self._is_suspect = self._is_suspect, False
        return found

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found, since the last call, to end before the offset that is next."""
        found, self._beyond_end = self._beyond_end, frozenset()
        return found

    # --- from any thread --------------------------------------------------------------------------------------------

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Consume `partition` from `offset_next` on (-1: from its beginning).

        `bounds`: its first offset, and the offset after its last record. Void once the partition is stopped, started
        otherwise, or revoked.
        """
        self._put("start", [partition], lambda: self._start(partition, offset_next, bounds))

    def start_again(self, partition: int, offset_next: int, generation: int) -> None:
        """Consume `partition`, which is consumed, from another offset; void once `stop` began another generation."""

        def start() -> None:
            if generation == self._generation:
                self._consume_from(partition, offset_next)

        self._put("start", [partition], start)

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop consuming `partitions`, which remain assigned, and begin another generation of records.

        Of each partition of the source, and the partitions beside it.
        """
        wanted = all_lanes(partitions, len(self._topics))
        self._put("stop", wanted, lambda: self._stop(wanted, generation))

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the started partitions."""
        self._put("pause", [], lambda: self._pause_only(partitions))

    def _put(self, kind: Literal["start", "stop", "pause"], partitions: Iterable[int], run: Callable[[], None]) -> None:
        self._commands.put(_Command(kind, frozenset(partitions), run))

    # --- the intake thread ------------------------------------------------------------------------------------------

    def poll(self) -> Polled:
        """Next records; serves rebalances. Returns within about `BATCH_WAIT_MS` when nothing comes.

        Raises:
            FencedError: another consumer has our group instance id.
            StreamsError: the consumer is of no more use.

        """
        if self._refused and not self._joined_again():
            return Polled(None, {}, self._generation)
        if self._brokers.is_stranded:
            log.error("the Kafka client has lost every broker and does not look for them again; making it anew")
            self._renew()
        self._obey()
        reader = self._reader
        try:
            if reader is None:
                messages, taken = self.consumer.consume(self._batch_records, BATCH_WAIT_MS / 1000), None
            else:
                # Rebalances and what concerns the consumer as a whole come here, records in the reader's queue.
                message = self.consumer.poll(0)
                messages = [] if message is None else [message]
                taken = reader.poll(self._batch_records, BATCH_WAIT_MS) if self._reader is reader else None
        except KafkaException as error:
            raise self._broken(error.args[0]) from None
        self._note_membership()
        parts = [self._records(messages) if messages else None, self._natively(taken) if taken is not None else None]
        found = [part for part in parts if part is not None]
        records = Records.concat(found) if found else None
        if records is not None:
            self._batch_records = _records_of_next(records, self._batch_bytes_max)
        return Polled(records, self._idle_now(monotonic_ms()), self._generation)

    def _idle_now(self, now_ms: int) -> dict[int, Idle]:
        """Idle partitions, by what the broker has answered so far; asks it again when it is time."""
        for answer in self._high.answers():
            self._idle.told(*answer)
        if wanted := self._idle.due(now_ms):
            self._high.ask(wanted, now_ms)
        self.unreadable = self._idle.unreadable(self._started, now_ms, after_ms=OPEN_TRANSACTION_SAID_MS)
        return self._idle.idle(self._started)

    def _obey(self) -> None:
        """Carry out what other threads asked for, of each partition in order.

        What the client refuses now is tried again later, and holds up only commands for the same partitions.
        """
        self._gather()
        now_s = time.monotonic()
        waiting: list[_Command] = []
        held: set[int] = set()
        for command in self._pending:
            if command.not_before_s > now_s or not held.isdisjoint(command.partitions):
                waiting.append(command)
                held |= command.partitions
                continue
            try:
                command.run()
            except KafkaException as error:
                command.failures += 1
                command.not_before_s = now_s + _UNANSWERED.jittered_s(command.failures)
                waiting.append(command)
                held |= command.partitions
                log.warning(
                    "the consumer refuses a command; trying again", command=command.kind,
                    partitions=sorted(command.partitions), error=described(error), failures=command.failures,
                )  # fmt: skip
        self._pending = waiting

    def _gather(self) -> None:
        """Take the commands of other threads; each voids what it replaces."""
        while not self._commands.empty():
            command = self._commands.get()
            self._pending = [earlier for earlier in self._pending if not command.voids(earlier)]
            self._pending.append(command)

    def close(self) -> None:
        """Leave the assignment; calls `revoked`.

        A static member's place is kept for the length of its session, unless the settings say that it leaves: then the
        others of the group take its partitions over at once.
        """
        if self._must_give_up_place:  # any other member leaves when it is closed
            self._leave()
        self._close_consumer()
        self._high.close()

    def _leave(self) -> None:
        """Give up a static place in the group: it is kept when the consumer is closed, not when it unsubscribes.

        The member id is gone once the request is under way, and closing waits for its answer.
        """
        deadline_s = time.monotonic() + _LEAVE_TIMEOUT_S
        try:
            self.consumer.unsubscribe()
            while self.consumer.memberid() and time.monotonic() < deadline_s:
                self.consumer.poll(BATCH_WAIT_MS / 1000)  # serves the revocation; nothing is consumed any more
        except (KafkaException, RuntimeError) as error:
            log.warning("the group could not be left: it keeps this worker's place for a session", error=str(error))
            return
        log.info("left the group", topic=self._source)

    def _be_refused(self, error: KafkaError) -> None:
        """The group does not take us as we are: this consumer is void, a new one will ask again.

        Usually a stale session of this instance: one that was killed and has not expired yet (UNRELEASED_INSTANCE_ID),
        or an earlier join of ours that a broker which stood still carries out after a newer one (FENCED_INSTANCE_ID). A
        second running instance takes our transactional id as well, and is refused again and again. GROUP_ID_NOT_FOUND:
        the group was deleted, or members of the other protocol are still in it, such as workers that were stopped to
        change over.
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
        self._without_since_ms = None
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
        """Go on with a new consumer; partitions of the old one are revoked or lost."""
        self._close_consumer()
        if self._assigned:  # the old one has not said so: what follows is said of the new one's membership
            self._lose(sorted(lane for lane in self._assigned if not input_of(lane)))
        self.consumer = self._new_consumer()
        self.subscribe()

    def _note_membership(self) -> None:
        try:
            self._ownership.noted(self.consumer.consumer_group_metadata())
        except RuntimeError:  # it is being closed
            self._ownership.noted(None)

    def _records(self, messages: list[Message]) -> Records | None:
        # `map` over unbound methods: a third less than a comprehension, and this runs for every record.
        errors = list(map(Message.error, messages))
        notices = [(m, e) for m, e in zip(messages, errors, strict=True) if e is not None] if any(errors) else []
        if notices:
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        partition = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        if len(self._topics) > 1:
            partition += np.fromiter(map(self._first_lane_of, messages), np.int64, len(messages))
        offset = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        keep, last = self._still_ours(partition, offset)
        epochs = {number: epoch for number, row in last.items() if (epoch := messages[row].leader_epoch()) is not None}
        # After the records: a partition's end often comes in one call with its last records.
        for message, error in notices:
            lane = self._first_lane_of(message) + int(message.partition() or 0)
            self._note(lane, int(message.offset() or 0), error)
        if not keep.all():
            messages = [message for message, kept in zip(messages, keep.tolist(), strict=True) if kept]
            partition, offset = partition[keep], offset[keep]
        if not messages:
            return None
        headers, headers_lost = read_headers(messages)
        stamps: list[Any] = list(map(Message.timestamp, messages))
        timestamp_ms = np.fromiter(map(_TIMESTAMP_MS, stamps), np.int64, len(messages))
        return Records(
            partition,
            offset,
            timestamp_ms,
            list(map(Message.key, messages)),
            list(map(Message.value, messages)),
            headers if any(headers) else None,
            headers_lost,
            _broker_ms(stamps, timestamp_ms),
            epochs,
        )

    def _first_lane_of(self, message: Message) -> int:
        """The lane of partition 0 of a message's topic; of the source's where it has none."""
        topic = message.topic()
        return lane_of(self._topics.index(topic), 0) if topic in self._topics else 0

    def _place(self, lane: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        """A lane as the client calls it."""
        return TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane), offset)

    def _natively(self, taken: NativeRecords) -> Records | None:
        """As `_records`, of what the reader has taken."""
        partition, offset = taken.partition, taken.offset
        keep, last = self._still_ours(partition, offset)
        for number, at, code, words in taken.notices:
            self._note(number, at, KafkaError(code, words))
        count = len(offset)
        if not keep.any():
            return None
        headers: list[Headers | None] | None = None
        lost: dict[int, int] = {}
        if taken.headers:
            headers = [None] * count
            for row, pairs, missing in taken.headers:
                headers[row] = list(pairs)
                if missing:
                    lost[row] = missing
        epochs = {number: int(taken.leader_epoch[row]) for number, row in last.items() if taken.leader_epoch[row] >= 0}
        records = Records(
            partition,
            offset,
            taken.timestamp_ms,
            taken.key,
            taken.value,
            headers,
            lost or None,
            _newest_of_broker(taken.timestamp_ms, taken.timestamp_kind),
            epochs,
        )
        return records if keep.all() else records.take(np.flatnonzero(keep))

    def _still_ours(self, partition: Any, offset: Any) -> tuple[Any, dict[int, int]]:
        """Which records are not void, as those fetched before a seek or a stop are, and each partition's last row."""
        keep = np.zeros(len(partition), dtype=np.bool_)
        last: dict[int, int] = {}
        for number in np.unique(partition).tolist():
            least = self._started.get(number)
            if least is None:
                continue
            mine = partition == number
            if (offset[mine] < least).any():  # the client has begun again at the start of the log
                self._is_suspect = True
            mine &= offset >= least
            keep |= mine
            if mine.any():
                last[number] = int(np.flatnonzero(mine)[-1])
                self._started[number] = int(offset[last[number]]) + 1
                self._idle.moved(number)
        return keep, last

    def _note(self, partition: int, end: int, error: KafkaError) -> None:
        if error.code() == _EOF:
            self._end_offset[partition] = end
            if partition in self._started and end >= self._started[partition]:
                self._idle.reached(partition, end, monotonic_ms())
        elif is_truncation(error):
            self._is_suspect = True
            self._beyond_end |= {partition}
        elif error.code() in OUT_OF_RANGE:
            self._put("start", [partition], lambda: self._start_after_gap(partition))
        elif cause_of(error) in REFUSALS:
            self._be_refused(error)
        elif error.fatal() or cause_of(error) == KafkaError._FATAL:  # noqa: SLF001
            raise self._broken(error)
        elif error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
            self._is_suspect = True
            self._without_since_ms = None
            log.warning("the source topic is not there: create it with `streams topics apply`", topic=self._source)
        else:
            if self._without_since_ms is not None:  # as when the group may not be read: that is no spare
                self._without_since_ms = monotonic_ms()
            log.warning("consumer", error=described(KafkaException(error)), code=error.name())

    def _broken(self, error: KafkaError) -> StreamsError:
        if cause_of(error) in {KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.FENCED_INSTANCE_ID}:
            return FencedError(
                f"another worker has joined as this one ({error.str()}): "
                "is it running on a copy of this data directory?"
            )
        return StreamsError(
            f"the consumer of {self._source} in the group {self._config['group.id']} failed: "
            f"{described(KafkaException(error))}"
        )

    # --- commands ---------------------------------------------------------------------------------------------------

    def _start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        low, high = bounds
        offset = low if offset_next < 0 else offset_next
        if offset > high:
            self._is_suspect = True
            self._beyond_end |= {partition}
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
        if partition not in self._assigned:
            return  # revoked meanwhile
        here = self._place(partition)
        self._seek(partition, offset)
        self._started[partition] = offset
        self._idle.moved(partition)
        self._end_offset.pop(partition, None)
        self.consumer.resume([here])

    def _start_after_gap(self, partition: int) -> None:
        """Go on with a partition of which the next offset is not in the log any more."""
        offset = self._started.get(partition)
        if offset is None:
            return  # it is not consumed now; where it starts is decided when it is
        here = self._place(partition)
        self._start(partition, offset, self.consumer.get_watermark_offsets(here, timeout=_BOUNDS_TIMEOUT_S))
        if partition in self._paused:
            self.consumer.pause([here])

    def _seek(self, partition: int, offset: int) -> None:
        here = self._place(partition, offset)
        try:
            self.consumer.seek(here)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - a public constant of librdkafka
                raise
            # It has stopped fetching this partition, since an offset was out of range: only assigning it begins again.
            self.consumer.incremental_unassign([here])
            self.consumer.incremental_assign([here])

    def _stop(self, partitions: list[int], generation: int) -> None:
        self._generation = generation
        for partition in partitions:
            self._started.pop(partition, None)
            self._idle.moved(partition)
            self._end_offset.pop(partition, None)
        self.consumer.pause([self._place(lane) for lane in partitions if lane in self._assigned])

    def _pause_only(self, partitions: frozenset[int]) -> None:
        wanted = partitions & self._started.keys()
        pause, resume = wanted - self._paused, (self._paused - wanted) & self._started.keys()
        self.consumer.pause([self._place(lane) for lane in pause])
        self.consumer.resume([self._place(lane) for lane in resume])
        self._paused = wanted
        self._idle.pause(wanted, monotonic_ms())

    # --- rebalances -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._refused = 0
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
        self._assigned.update(lanes)
        self._note_whether_spare()
        self._note_membership()
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
        self._without_since_ms = None if self._assigned else monotonic_ms()

    def _begin_to_join(self) -> None:
        self._without_since_ms = None if self._is_told_of_nothing else monotonic_ms()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        self._lose(numbers)
        consumer.incremental_unassign(self._all_of(numbers))

    def _all_of(self, partitions: Iterable[int]) -> list[TopicPartition]:
        """These partitions of all topics."""
        return [self._place(lane) for lane in all_lanes(partitions, len(self._topics))]

    def _lose(self, partitions: list[int]) -> None:
        log.warning("lost: the group has given our partitions to others", topic=self._source, partitions=partitions)
        self._forget(partitions)
        self._begin_to_join()
        self._ownership.lost(partitions)

    def _forget(self, numbers: list[int]) -> None:
        partitions = all_lanes(numbers, len(self._topics))
        self._assigned.difference_update(partitions)
        self._gather()
        self._pending = [one for one in self._pending if one.kind != "start" or one.partitions.isdisjoint(partitions)]
        for partition in partitions:
            self._started.pop(partition, None)
            self._idle.moved(partition)
            self._end_offset.pop(partition, None)
        self._paused -= frozenset(partitions)
        self._idle.pause(self._paused, monotonic_ms())


def _broker_ms(stamps: list[tuple[int, int]], timestamp_ms: Any) -> int:
    """Newest timestamp by the broker's clock; looked for only where our own clock is not ahead of them all anyway."""
    if timestamp_ms.max() <= time.time() * 1000:
        return 0
    return max((at for kind, at in stamps if kind == TIMESTAMP_LOG_APPEND_TIME), default=0)


def _newest_of_broker(timestamp_ms: Int64, kind: Any) -> int:
    """As `_broker_ms`, of columns."""
    if timestamp_ms.max() <= time.time() * 1000:
        return 0
    return int(timestamp_ms.max(initial=0, where=kind == TIMESTAMP_LOG_APPEND_TIME))


def _records_of_next(records: Records, bytes_max: int) -> int:
    """How many records the next micro-batch may have, if they are as large as these (a sample of them is looked at)."""
    step = max(1, len(records) // _SAMPLE)
    values, keys = records.value[::step], records.key[::step]
    size = sum(len(value or b"") for value in values) + sum(len(key or b"") for key in keys)
    return max(1, min(BATCH_RECORDS_MAX, bytes_max * len(values) // max(1, size)))
