"""`sinks.base.Transactions` over librdkafka: one transactional, idempotent producer.

What librdkafka's errors mean here (KIP-98, KIP-447): `txn_requires_abort` - the cycle is aborted and runs again;
`retriable` - the same call is made again; fatal - the producer is of no more use. A fatal error of a transaction that
was open longer than the broker allows is our own slowness (the broker aborted it and bumped the epoch): the producer is
replaced. So it is when an attempt of our own to open a producer went unanswered: the broker may carry it out later,
and it fences the producer that was opened after it. Otherwise another process has taken our transactional id: we are
fenced and must stop.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.batch.lanes import input_of, partition_of_lane
from streams.errors import FencedError
from streams.flow.declaration import OUTPUT_BYTES_MAX
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.bounded import BoundedCalls, ClientHangs
from streams.kafka.native_client import NativeClients, NativeProducer
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.positions import metadata_of
from streams.limits import PRODUCER_QUEUE_KBYTES_MAX, PRODUCER_QUEUE_MESSAGES_MAX, TRANSACTION_TIMEOUT_MS
from streams.resilience.retry import Backoff, Retrier
from streams.settings import Settings
from streams.sinks.base import Committed, CycleAborted, OutcomeUnknown, OutputRefused, TopicRecords
from streams.sinks.kafka.produce import QUEUE_FULL, GivesBatch, GivesEach
from streams.sinks.kafka.refusal import REFUSALS, RefusalSearch

log = structlog.get_logger(__name__)

_CALL_TIMEOUT_S: Final = TRANSACTION_TIMEOUT_MS / 1000
_HANGS_S: Final = 5.0
"""So long after its own timeout a call is taken to hang."""
_SETTLE_TIMEOUT_S: Final = 60.0
_LIST_TIMEOUT_S: Final = 2.0
_REPORTS_S: Final = 0.1
_IDLE_MS_MAX: Final = 10_000

_REOPEN: Final = Backoff(first_s=1.0, pause_s_max=15.0)
_STEP: Final = Backoff(first_s=0.1, pause_s_max=1.0, give_up_s=_CALL_TIMEOUT_S)
_ASK_AGAIN: Final = Backoff(first_s=0.1, pause_s_max=1.0, give_up_s=_SETTLE_TIMEOUT_S)
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - public constants of librdkafka
"""Another producer has the transactional id, unless the broker gave this one up for being slow (docs/adr/0005)."""
_UNANSWERED: Final = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - public constants of librdkafka
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)


def _not_fenced(error: BaseException) -> bool:
    if isinstance(error, ClientHangs):
        return True
    return isinstance(error, KafkaException) and error.args[0].code() not in _FENCED


def _commit_may_be_asked_again(error: BaseException) -> bool:
    if not isinstance(error, KafkaException):
        return False
    inner: KafkaError = error.args[0]
    return inner.retriable() and not inner.txn_requires_abort() and not inner.fatal()


def _opened(
    settings: Settings, config: dict[str, Any], native: NativeClients | None, timeout_s: float
) -> tuple[Producer, NativeProducer | None]:
    """A producer that has its id, and what gives it records natively.

    One that does not get it is closed here, not whenever the error that refers to it is collected: as long as it lives
    it goes on asking, and would fence the producer that is made after it.
    """
    gives: NativeProducer | None = None
    if native is None:
        producer = clients.producer(settings, config)
    else:
        producer, gives = native.producer(settings, config)
    try:
        producer.init_transactions(timeout_s)
    except KafkaException:
        del producer, gives
        raise
    return producer, gives


class KafkaTransactions:
    """A transactional producer that commits a consumer group's positions with what it produces."""

    def __init__(
        self,
        settings: Settings,
        *,
        transactional_id: str,
        source: str,
        retrier: Retrier,
        timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        reopen_s_max: float | None = None,
        native: NativeClients | None = None,
        further: Sequence[str] = (),
    ) -> None:
        """Configure; `reopen` connects. Stopping `retrier` ends every wait early.

        `timeout_ms`: how long a transaction may be open before the broker aborts it. `reopen_s_max`: how long `reopen`
        goes on trying (None: as long as it takes). With `native`, records are given to the client a batch at a time;
        what comes of it is the same. `further` are topics whose positions are committed with those in the source.

        """
        self._settings, self._timeout_ms = settings, timeout_ms
        self._config: dict[str, Any] = {
            "client.id": transactional_id,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": timeout_ms,
            "message.timeout.ms": timeout_ms,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 10,
            "batch.size": 1_000_000,
            "batch.num.messages": 20_000,
            "queue.buffering.max.messages": PRODUCER_QUEUE_MESSAGES_MAX,
            "queue.buffering.max.kbytes": min(PRODUCER_QUEUE_KBYTES_MAX, settings.streams_memory_mb_max * 1024 // 16),
            "message.max.bytes": OUTPUT_BYTES_MAX,
            "topic.metadata.refresh.interval.ms": 30_000,
            # Sending offsets may wait for a coordinator that is gone, past its timeout, until the state of some
            # connection changes (librdkafka#5456, #5511): an idle one closes.
            "connections.max.idle.ms": _IDLE_MS_MAX,
        }
        self._topics = (source, *further)
        self._retrier = retrier
        self._reopen = replace(_REOPEN, give_up_s=reopen_s_max)
        self._settle_s = _SETTLE_TIMEOUT_S if reopen_s_max is None else min(_SETTLE_TIMEOUT_S, reopen_s_max)
        self._clients = native
        self._producer: Producer | None = None
        self._native: NativeProducer | None = None
        """Gives records to the present producer; None where Python does."""
        self._calls: BoundedCalls | None = None
        self._failed: KafkaError | None = None
        """Error of a record of the open transaction, by its delivery report."""
        self._fatal: KafkaException | None = None
        """Error with which the present producer has ended for good. Its client says it once, in a poll."""
        self._fencing: FencedError | None = None
        """Set once another process has the transactional id: nothing may take it back from there."""
        self._was_unanswered = False
        """Whether a producer of ours that was given up may still take the transactional id from the present one."""
        self._search = RefusalSearch(batch_bytes=int(self._config["batch.size"]))
        self._run = object()
        """The open transaction: a delivery report of an earlier one is void."""
        self._is_open = False
        self._begun_at = 0.0
        self._topics: set[str] = set()
        """Topics produced to in the open transaction."""

    def reopen(self) -> None:
        """Make the producer anew; waits for the broker, aloud, as long as it takes or was said.

        Raises:
            CycleAborted: the worker stops while waiting, or the broker did not give a producer in time.
            FencedError: the broker refuses the transactional id, or another process was seen to have it.

        """
        self._drop()
        if self._fencing is not None:
            raise self._fencing
        try:
            self._retrier.call(
                "the broker does not give a producer yet",
                self._new_producer,
                passing=_not_fenced,
                backoff=self._reopen,
            )
        except (KafkaException, ClientHangs) as error:
            if isinstance(error, KafkaException) and error.args[0].code() in _FENCED:
                raise self._fenced(error) from None
            if self._retrier.stopped:
                raise CycleAborted("stopping", "the worker stops") from None
            why = described(error) if isinstance(error, KafkaException) else str(error)
            name = self._config["transactional.id"]
            raise CycleAborted("no_producer", f"the broker does not give a producer for {name}: {why}") from None

    def _new_producer(self) -> None:
        config = {**self._config, "batch.size": self._search.batch_bytes}
        calls = BoundedCalls(f"{self._config['transactional.id']}-calls")
        try:
            opened = partial(_opened, self._settings, config, self._clients, self._settle_s)
            producer, native = calls.call(opened, self._settle_s + _HANGS_S)
        except (KafkaException, ClientHangs):
            self._was_unanswered = True
            calls.close()
            raise
        self._producer, self._native, self._calls, self._failed, self._fatal = producer, native, calls, None, None

    def _drop(self) -> None:
        """Let go of the producer; one that hangs stays behind with its thread."""
        self._producer, self._native, self._is_open = None, None, False
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def begin(self) -> None:
        """Open a transaction."""
        self._begun_at = time.monotonic()
        self._failed = None
        self._run = object()
        self._search.begin()
        self._topics.clear()
        self._do(lambda producer, _: producer.begin_transaction())
        self._is_open = True

    def produce(self, records: TopicRecords) -> None:
        """Produce records, in this order."""
        if records.on_last_delivered is not None or self._search.is_on:
            self._produce_each(records)
            return
        self._topics.add(records.topic)
        done = 0
        while True:
            taken, error = self._given(records, done)
            done += taken
            if error is None:
                break
            if error.code() == QUEUE_FULL:
                self._drain()
            elif error.code() in REFUSALS:
                raise self._search.refused_at_once(
                    records.topic, records.keys[done], records.values[done], records.origin, error
                )
            else:
                raise self._aborted(KafkaException(error))
        self._serve()

    def _given(self, records: TopicRecords, start: int) -> tuple[int, KafkaError | None]:
        """Give the producer the records from row `start` on, as `Gives` says."""
        producer = self._require()
        give = GivesEach(producer) if self._native is None else GivesBatch(self._native)
        return give(records, start)

    def _produce_each(self, records: TopicRecords) -> None:
        """As `produce`, with a delivery report for the last one; for each one while a refusal is searched for."""
        last = len(records) - 1
        if not self._search.is_on and last > 0:
            self.produce(records.rows(0, last))
        for row in range(0 if self._search.is_on else max(0, last), len(records)):
            self._produce_reported(records, row, records.on_last_delivered if row == last else None)
        self._serve()

    def _produce_reported(self, records: TopicRecords, row: int, on_delivered: Callable[[int], None] | None) -> None:
        topic, key, value = records.topic, records.keys[row], records.values[row]
        headers = None if records.headers is None else records.headers[row]
        report = None
        if self._search.is_on:
            self._search.make_room(topic, key, value, self._flush)
            report = self._searching(topic, key, value, records.origin, on_delivered)
        elif on_delivered is not None:
            report = self._reporting(on_delivered)
        self._topics.add(topic)
        while True:
            try:
                self._require().produce(
                    topic,
                    value,
                    key,
                    -1 if records.partition is None else records.partition,
                    timestamp=max(records.timestamps_ms[row], 0),
                    headers=list[tuple[str, str | bytes | None]](headers) if headers else None,
                    on_delivery=report,
                )
                return
            except BufferError:
                self._drain()
            except KafkaException as error:
                if error.args[0].code() in REFUSALS:
                    raise self._search.refused_at_once(topic, key, value, records.origin, error.args[0]) from None
                raise self._aborted(error) from None

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None:
        """Step 3, in the name of `membership`: refused once the group has gone on to another generation."""
        offsets = [
            TopicPartition(
                self._topics[input_of(lane)], partition_of_lane(lane), position.offset_next, metadata_of(position)
            )
            for lane, position in positions.items()
        ]
        self.send_group_offsets(offsets, membership)

    def send_group_offsets(self, offsets: list[TopicPartition], membership: object) -> None:
        """Add offsets with metadata of any text to the transaction, in the name of `membership`."""
        self._do(lambda producer, timeout_s: producer.send_offsets_to_transaction(offsets, membership, timeout_s))

    def commit(self) -> None:
        """Step 4. On return every delivery report was served."""
        producer = self._require()
        try:
            self._retrier.call(
                "commit is not answered yet",
                lambda: self._bounded(producer.commit_transaction),
                passing=_commit_may_be_asked_again,
                backoff=_ASK_AGAIN,
            )
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if error.txn_requires_abort():
                raise self._aborted(raised) from None
            cause = self._cause(raised)
            if self._is_fenced(cause.args[0]):
                raise self._fenced(cause) from None
            raise OutcomeUnknown(described(raised)) from None
        except ClientHangs as hangs:
            raise OutcomeUnknown(str(hangs)) from None
        self._is_open = False

    def abort(self) -> None:
        """Abort the open transaction; a producer that cannot is made anew, which comes to the same.

        Raises:
            FencedError: another process has taken over; a new producer would only take it back from there.

        """
        if self._producer is None or not self._is_open:
            return  # whatever made the producer anew has settled it
        self._is_open = False
        try:
            self._bounded(self._producer.abort_transaction)
        except ClientHangs as hangs:
            log.warning("abort hangs; making the producer anew settles it", error=str(hangs))
            self.reopen()
        except KafkaException as error:
            cause = self._cause(error)
            if self._is_fenced(cause.args[0]):
                raise self._fenced(cause) from None
            log.warning("abort failed; making the producer anew settles it", error=described(error))
            self.reopen()

    def close(self) -> None:
        """Drop the producer; what is open is aborted."""
        if self._producer is not None:
            try:
                self._bounded(self._producer.abort_transaction, 5.0)
            except KafkaException as error:
                log.debug("nothing to abort", error=described(error))
            except ClientHangs as hangs:
                log.warning("the transaction is left to its timeout", error=str(hangs))
            self._drop()

    # --- errors -----------------------------------------------------------------------------------------------------

    def _bounded(self, call: Callable[[float], object], timeout_s: float = _CALL_TIMEOUT_S) -> None:
        """Make a call that takes its own timeout, and may outlive it.

        Raises:
            ClientHangs: it does.

        """
        if self._calls is None:
            raise CycleAborted("no_producer", "there is no producer; it is being made anew")
        self._calls.call(lambda: call(timeout_s), timeout_s + _HANGS_S)

    def _do(self, call: Callable[[Producer, float], object]) -> None:
        """Make a call until it is answered; it must be one that may be repeated."""
        try:
            self._retrier.call(
                "the broker does not take a step of the transaction yet",
                lambda: self._bounded(partial(call, self._require())),
                passing=lambda error: isinstance(error, KafkaException) and error.args[0].retriable(),
                backoff=_STEP,
            )
        except KafkaException as error:
            raise self._aborted(error) from None
        except ClientHangs as hangs:
            log.warning("the Kafka client hangs in a step of the transaction; making it anew", error=str(hangs))
            self.reopen()
            raise CycleAborted("client_hangs", str(hangs)) from None

    def _require(self) -> Producer:
        if self._producer is None:
            raise CycleAborted("no_producer", "there is no producer; it is being made anew")
        return self._producer

    def _drain(self) -> None:
        """The producer's queue is full: wait for the broker to take some (backpressure).

        Raises:
            CycleAborted: it takes nothing for as long as a transaction may live.

        """
        self._serve(0.05)
        if self._outlived():
            raise CycleAborted("backpressure", "the broker takes no records")

    def _serve(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports.

        Raises:
            CycleAborted, FencedError, OutputRefused: the producer has ended for good.

        """
        self._poll(self._require(), timeout_s)
        if self._fatal is not None:
            raise self._aborted(self._fatal) from None

    def _flush(self, timeout_s: float) -> None:
        """Wait for all records to be answered; raises as `_serve`."""
        try:
            self._require().flush(timeout_s)
        except KafkaException as error:
            self._fatal = error
            raise self._aborted(error) from None

    def _poll(self, producer: Producer, timeout_s: float) -> None:
        try:
            producer.poll(timeout_s)
        except KafkaException as error:  # a poll raises nothing but the fatal error
            self._fatal = error

    def _reporting(self, on_delivered: Callable[[int], None]) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                on_delivered(int(message.offset() or 0))
            else:
                self._failed = error

        return report

    def _searching(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        origin: int | None,
        on_delivered: Callable[[int], None] | None,
    ) -> Callable[[KafkaError | None, Message], None]:
        run = self._run

        def report(error: KafkaError | None, message: Message) -> None:
            if run is not self._run:
                return
            if error is None:
                if on_delivered is not None:
                    on_delivered(int(message.offset() or 0))
                return
            self._search.failed(topic, key, value, origin, message.partition(), error)
            if self._failed is None or error.code() in REFUSALS:
                self._failed = error

        return report

    def _refusal(self, error: KafkaError) -> OutputRefused | None:
        """The end of a cycle of which an output refuses a record; None when it ends for another reason."""
        begun = self._search.is_on
        found = self._search.found(error, self._failed)
        if found is not None or self._search.is_on > begun:
            # One that has failed so loses count of its sequence numbers: its next transaction would fail as well. And
            # it may have to make smaller batches.
            self.reopen()
        return found

    def _aborted(self, raised: KafkaException) -> CycleAborted | FencedError:
        """What an error before the commit comes to; nothing of the transaction is visible."""
        raised = self._cause(raised)
        error: KafkaError = raised.args[0]
        if self._is_fenced(error):
            return self._fenced(raised)
        if error.fatal() or error.code() in _FENCED:
            log.warning("the broker has given this producer up; making it anew", error=described(raised))
            self.reopen()
            return CycleAborted("transaction_timeout", described(raised))
        if missing := self._missing_topics():
            return CycleAborted(
                "missing_topic", f"topics are missing ({missing}): create them with `streams topics apply`"
            )
        if (refused := self._refusal(error)) is not None:
            return refused
        cause = self._failed or error
        if error.code() in _UNANSWERED or cause.code() in _UNANSWERED:
            # It may never get an answer again (`kafka.broker_watch`); nothing has reached the broker, so it can abort.
            log.warning("the broker has not answered this producer; making it anew", error=described(raised))
            self.reopen()
        return CycleAborted(str(cause.name()).strip("_").lower(), f"{described(raised)}; cause: {cause.str()}")

    def _cause(self, raised: KafkaException) -> KafkaException:
        """What put the producer into the state in which a call failed with `raised`; `raised` itself if nothing else.

        A client that has ended for good answers most calls with the word "fatal" alone, and with "conflict" where a
        commit was under way. The true reason is in what a poll raises, or in the report of a record.
        """
        if self._producer is not None:
            self._poll(self._producer, _REPORTS_S)
        if raised.args[0].code() in _FENCED:
            return raised
        if self._fatal is not None:
            return self._fatal
        if self._failed is not None and self._failed.code() in _FENCED:
            return KafkaException(self._failed)
        return raised

    def _missing_topics(self) -> str:
        """Names of topics that were produced to and that the broker does not have; empty when it does not answer."""
        try:
            there = self._require().list_topics(timeout=_LIST_TIMEOUT_S).topics
        except KafkaException:
            return ""
        return ", ".join(sorted(self._topics - there.keys()))

    def _is_fenced(self, error: KafkaError) -> bool:
        """Whether another process has taken the transactional id.

        After an attempt that went unanswered it may as well be that attempt: this is believed once. A process that has
        taken the id is then fenced in its turn, and this one finally, if the other one comes again.
        """
        if self._fencing is not None:
            return True
        if error.code() not in _FENCED or self._outlived():
            return False
        own, self._was_unanswered = self._was_unanswered, False
        return not own

    def _outlived(self) -> bool:
        """Whether the transaction has been open for longer than the broker allows (with a margin)."""
        return time.monotonic() - self._begun_at > 0.8 * self._timeout_ms / 1000

    def _fenced(self, error: KafkaException) -> FencedError:
        self._fencing = FencedError(
            f"another process has taken over the transactional id {self._config['transactional.id']} "
            f"({described(error)}): is a second worker running on a copy of this data directory?"
        )
        return self._fencing
