"""`engine.log.Changelog` over librdkafka: committed positions and changelogs, read_committed."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.batch.lanes import all_lanes, input_of, lane_of, partition_of_lane
from streams.engine.journal_chain import RestoreFailed
from streams.engine.log import LogRow
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import admin_client, described
from streams.kafka.group_refusal import refusal_of_group
from streams.kafka.headers import read_headers
from streams.kafka.out_of_range import OUT_OF_RANGE, is_truncation
from streams.kafka.positions import position_of
from streams.limits import RESTORE_PATIENCE_MS, RESTORE_WAIT_MS_MAX, RESTORES_MAX
from streams.resilience.retry import Backoff, Retrier
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.text import counted

log = structlog.get_logger(__name__)

_REQUEST_TIMEOUT_S: Final = 30.0
_ANSWER_TIMEOUT_S: Final = 10.0
"""After this time without an answer the next attempt uses a new client."""
_READ_RECORDS_MAX: Final = 10_000
_READ_WAIT_S: Final = 0.02
_SETTLED: Final = Backoff(first_s=0.25, pause_s_max=5.0, give_up_s=RESTORE_WAIT_MS_MAX / 1000)
_PATIENT: Final = Backoff(first_s=0.05, pause_s_max=0.25, give_up_s=RESTORE_PATIENCE_MS / 1000)
_WAIT_S: Final = 1.0
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_PENDING: Final = frozenset({KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError._TIMED_OUT})  # noqa: SLF001 - as above
"""The error for an offset while a transaction on it is open: the client repeats the request until then."""


class Unsettled(StreamsError):
    """A transaction on a partition is still open: worth trying again soon."""

    retry_in_s: float | None = _WAIT_S
    """Seconds until the next attempt (`streams.resilience.retry`); None: pauses that grow."""


class KafkaChangelog:
    """Reads one flow's changelogs. It never joins the group whose positions it reads.

    `committed` is for any thread; the rest is for one at a time. A client that got no answer is not asked again: it may
    never get one (`kafka.broker_watch`).
    """

    def __init__(
        self, settings: Settings, *, group: str, source: str, retrier: Retrier, further: Sequence[str] = ()
    ) -> None:
        """`further` are topics that the group reads beside the source; partitions of all are identified by lane."""
        self._source = source
        self._topics = (source, *further)
        self._retrier = retrier
        self._settings = settings
        self.wanted: Callable[[], bool] = lambda: True
        """Whether the result is still wanted; a read ends with an error soon after it is not."""
        self._admin: AdminClient = admin_client(settings)
        self._config: dict[str, Any] = {
            "client.id": "streams-restore",
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 10,
            "queued.min.messages": 200_000,
            "queued.max.messages.kbytes": clients.queue_kbytes_max(settings) // RESTORES_MAX,
        }
        self._asking = self._new_consumer()
        self._asking_lock = threading.Lock()
        self._reader: Consumer | None = None
        """The consumer of the last read, if that reached its end."""
        self._introduced: set[str] = set()
        """Topics of whose partitions the client knows the leaders."""

    def committed(self, partitions: Sequence[int]) -> dict[int, Committed | None]:
        """The group's positions; the broker holds the answer back while a transaction on them is pending.

        Raises:
            StreamsError: no answer; waiting longer may help.

        """
        wanted = [self._place(lane) for lane in partitions]

        def ask() -> list[TopicPartition]:
            return self._ask(wanted, _ANSWER_TIMEOUT_S)

        what = f"waiting for the group's offsets of {self._source} to be settled"
        try:
            found = self._retrier.call(what, ask, passing=_may_pass, backoff=_SETTLED)
        except KafkaException as error:
            raise StreamsError(f"reading the group's offsets of {self._source}: {described(error)}") from None
        lanes = (lane_of(self._topics.index(one.topic), one.partition) for one in found)
        return {lane: _committed(position) for lane, position in zip(lanes, found, strict=True)}

    def _place(self, lane: int) -> TopicPartition:
        return TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane))

    def _ask(self, wanted: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        with self._asking_lock:
            try:
                found = self._asking.committed(wanted, timeout_s)
            except KafkaException:
                why = refusal_of_group(self._asking, self._config["group.id"])
                self._asking.close()
                self._asking = self._new_consumer()
                if why:
                    raise StreamsError(f"reading the group's offsets of {self._source}: {why}") from None
                raise
        _raise_for_errors(found)
        return found

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:
        """First offset, and the one after the last record, open transactions included; or the last stable offset."""
        level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
        where = TopicPartition(topic, partition)
        try:
            earliest, latest = OffsetSpec.earliest(), OffsetSpec.latest()
            first, last = (
                self._admin.list_offsets(
                    {where: spec},
                    isolation_level=level,
                    request_timeout=_ANSWER_TIMEOUT_S,
                )[where]
                .result(_REQUEST_TIMEOUT_S)
                .offset
                for spec in (earliest, latest)
            )
        except KafkaException as error:
            # After a restart of the broker the client uses the partition's former leader epoch, and never asks again.
            self._admin = admin_client(self._settings)
            raise StreamsError(f"reading the bounds of {topic}-{partition}: {described(error)}") from None
        return int(first), int(last)

    def require_settled(self, topics: Sequence[str], partition: int) -> None:
        """Return once no transaction is open on `partition` of the source's positions and of `topics`; waits briefly.

        A restore that calls this first seldom has to wait in `read`, where it occupies a place that others could use.

        Raises:
            Unsettled: one is open; the message names it.
            StreamsError: no answer.

        """
        wanted = [TopicPartition(topic, partition) for topic in topics]

        def ask() -> None:
            self._require_wanted()
            stable, last = (
                self._ends(wanted, level) for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
            )
            held = [
                f"{topic}-{partition} ({counted(last[topic] - stable[topic], 'record')})"
                for topic in topics
                if stable[topic] < last[topic]
            ]
            if held:
                raise Unsettled(f"waiting for another worker's transaction that is open on {', '.join(held)}")
            try:
                lanes = all_lanes([partition], len(self._topics))
                self._ask([self._place(lane) for lane in lanes], RESTORE_PATIENCE_MS / 1000)
            except KafkaException as error:
                if error.args[0].code() not in _PENDING:
                    raise
                raise Unsettled(
                    f"waiting for the group's offset of {self._source}-{partition}: another worker's transaction is "
                    f"open on it, or the broker does not answer ({described(error)})"
                ) from None

        try:
            self._retrier.call("waiting for open transactions", ask, passing=Unsettled, backoff=_PATIENT)
        except KafkaException as error:
            self._admin = admin_client(self._settings)
            raise StreamsError(f"asking for open transactions on {', '.join(topics)}: {described(error)}") from None

    def _ends(self, wanted: list[TopicPartition], level: IsolationLevel) -> dict[str, int]:
        """End offset of one partition of several topics, by topic."""
        latest = OffsetSpec.latest()
        found = self._admin.list_offsets(
            dict.fromkeys(wanted, latest), isolation_level=level, request_timeout=_ANSWER_TIMEOUT_S
        )
        return {one.topic: int(future.result(_REQUEST_TIMEOUT_S).offset) for one, future in found.items()}

    def _require_wanted(self) -> None:
        """Raise StreamsError when the result is no longer wanted."""
        if self._retrier.stopped:
            raise StreamsError("the worker stops while it restores state")
        if not self.wanted():
            raise StreamsError("the partition belongs to another worker now")

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        """Committed records from `start` up to, and without, `end`.

        Raises:
            RestoreFailed: another worker's transaction keeps the end from being reached.

        """
        if start >= end:
            return
        with self._assigned(TopicPartition(topic, partition, start)) as consumer:
            yield from self._read_assigned(consumer, f"{topic}-{partition}", end)

    def has_diverged(self, topic: str, partition: int, offset: int, leader_epoch: int) -> bool:
        """Whether records before `offset`, the newest of them of `leader_epoch`, were truncated, and perhaps replaced.

        The client asks the broker where that epoch ends before it fetches (OffsetForLeaderEpoch, KIP-320).

        Raises:
            StreamsError: no answer.

        """
        since = time.monotonic()
        with self._assigned(TopicPartition(topic, partition, offset, leader_epoch=leader_epoch)) as consumer:
            while time.monotonic() - since < _ANSWER_TIMEOUT_S:
                self._require_wanted()
                for message in consumer.consume(1, _READ_WAIT_S):
                    error = message.error()
                    if error is None or error.code() == _EOF:
                        return False
                    if is_truncation(error):
                        return True
                    if error.code() in OUT_OF_RANGE:
                        raise StreamsError(f"{topic}-{partition}: {error.str()}")
        raise StreamsError(f"reading {topic}-{partition}: no answer within {_ANSWER_TIMEOUT_S:g} s")

    @contextmanager
    def _assigned(self, where: TopicPartition) -> Iterator[Consumer]:
        """A consumer that reads one partition; kept for the next read if this one reached its end.

        A client that is told to read an unknown topic looks for its leader only at its next one-second tick.
        """
        if self._reader is None:
            self._introduced.clear()
        consumer, self._reader = self._reader or self._new_consumer(), None
        try:
            if where.topic not in self._introduced:
                self._introduce(consumer, where.topic)
            consumer.assign([where])
            yield consumer
            consumer.unassign()
        except BaseException:
            consumer.close()
            raise
        self._reader = consumer

    def _introduce(self, consumer: Consumer, topic: str) -> None:
        """Look up the leader of a topic now.

        Raises:
            StreamsError: no answer.

        """
        try:
            consumer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise StreamsError(f"asking where {topic} is: {described(error)}") from None
        self._introduced.add(topic)

    def truncate(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete records before an offset, by partition. A failure is logged; a later call tries again."""
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        try:
            for future in self._admin.delete_records(wanted, request_timeout=_REQUEST_TIMEOUT_S).values():
                future.result(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            self._admin = admin_client(self._settings)
            log.warning("the journal was not truncated", topic=topic, error=described(error))

    def close(self) -> None:
        """Release the connections."""
        with self._asking_lock:
            self._asking.close()
        if self._reader is not None:
            self._reader.close()

    def _new_consumer(self) -> Consumer:
        return clients.consumer(self._settings, self._config)

    def _read_assigned(self, consumer: Consumer, where: str, end: int) -> Iterator[list[LogRow]]:
        waiting_since = time.monotonic()
        position, is_at_end = -1, False
        while position < end:
            self._require_wanted()
            messages: list[Message] = []
            for message in consumer.consume(_READ_RECORDS_MAX, _READ_WAIT_S):
                error = message.error()
                if error is None:
                    position = int(message.offset() or 0) + 1
                    if position <= end:  # the log may go on meanwhile
                        messages.append(message)
                elif error.code() == _EOF:
                    position = max(position, int(message.offset() or 0))
                    is_at_end = True
                elif error.code() in OUT_OF_RANGE or (not error.retriable() and error.fatal()):
                    raise StreamsError(f"reading {where}: {error.str()}")
            if messages:
                yield _rows(messages)
                waiting_since = time.monotonic()
                continue
            waited_s = time.monotonic() - waiting_since
            if not is_at_end and waited_s > _ANSWER_TIMEOUT_S:
                raise StreamsError(f"reading {where}: no answer within {_ANSWER_TIMEOUT_S:g} s")
            if waited_s * 1000 > RESTORE_WAIT_MS_MAX:  # at an end, but not the requested one: a transaction is open
                raise RestoreFailed(
                    f"{where} can be read up to offset {position} of {end} only: another worker's transaction has been "
                    f"open for {RESTORE_WAIT_MS_MAX // 1000} s, or the broker does not answer"
                )


class ChangelogReaders:
    """Readers for restores that run in parallel: each has one to itself while it runs. Any thread.

    Readers are made when they are needed, and kept from one restore to the next until `close_idle`.
    """

    def __init__(
        self, settings: Settings, *, group: str, source: str, retrier: Retrier, further: Sequence[str] = ()
    ) -> None:
        """Create readers; the arguments are those of `KafkaChangelog`."""
        self._new: Callable[[], KafkaChangelog] = lambda: KafkaChangelog(
            settings, group=group, source=source, retrier=retrier, further=further
        )
        self._lock = threading.Lock()
        self._idle: list[KafkaChangelog] = []

    @contextmanager
    def reader(self, wanted: Callable[[], bool]) -> Iterator[KafkaChangelog]:
        """A reader for the length of a block; its reads end when it is no longer `wanted`."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = self._new()
        reader.wanted = wanted
        try:
            yield reader
        finally:
            with self._lock:
                self._idle.append(reader)

    def close_idle(self) -> None:
        """Close the readers that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()


def _rows(messages: list[Message]) -> list[LogRow]:
    headers, _ = read_headers(messages)
    offsets: list[Any] = list(map(Message.offset, messages))
    keys: list[Any] = list(map(Message.key, messages))
    values: list[Any] = list(map(Message.value, messages))
    return list(map(LogRow, offsets, keys, values, headers))


def _raise_for_errors(positions: list[TopicPartition]) -> None:
    for position in positions:
        if position.error is not None:
            raise KafkaException(position.error)


def _committed(position: TopicPartition) -> Committed | None:
    return None if position.offset < 0 else position_of(position.offset, position.metadata)


def _may_pass(error: BaseException) -> bool:
    """Whether waiting may help: the broker is away, or a transaction is pending."""
    if not isinstance(error, KafkaException):
        return False
    inner: KafkaError = error.args[0]
    return bool(inner.retriable()) or inner.code() in {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - public constants of librdkafka
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
