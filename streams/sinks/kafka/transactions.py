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
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streams.errors import FencedError
from streams.kafka.admin import described
from streams.kafka.bounded import BoundedCalls, ClientHangs
from streams.kafka.native_client import NativeClients, NativeProducer
from streams.limits import TRANSACTION_TIMEOUT_MS
from streams.resilience.retry import Backoff, Retrier
from streams.settings import Settings
from streams.sinks.base import Committed, CycleAborted, OutcomeUnknown, OutputRefused, TopicRecords
from streams.sinks.kafka.absent_topics import missing_topics, unwritable_topics
from streams.sinks.kafka.delivery_reports import DeliveryReports
from streams.sinks.kafka.fencing import Fencing
from streams.sinks.kafka.group_offsets import offsets_of
from streams.sinks.kafka.open_producer import opened_producer, producer_config
from streams.sinks.kafka.produce import QUEUE_FULL, GivesBatch, GivesEach, give_one
from streams.sinks.kafka.producer_errors import (
    FENCED,
    UNANSWERED,
    commit_may_be_asked_again,
    named,
    not_fenced,
    not_refused,
)
from streams.sinks.kafka.refusal import REFUSALS, RefusalSearch

log = structlog.get_logger(__name__)

_CALL_TIMEOUT_S: Final = TRANSACTION_TIMEOUT_MS / 1000
_HANGS_S: Final = 5.0
"""A call that exceeds its own timeout by this much is considered hung."""
_SETTLE_TIMEOUT_S: Final = 60.0
_REPORTS_S: Final = 0.1

_REOPEN: Final = Backoff(first_s=1.0, pause_s_max=15.0)
_STEP: Final = Backoff(first_s=0.1, pause_s_max=1.0, give_up_s=_CALL_TIMEOUT_S)
_ASK_AGAIN: Final = Backoff(first_s=0.1, pause_s_max=1.0, give_up_s=_SETTLE_TIMEOUT_S)
_UNKNOWN_PARTITION: Final[int] = KafkaError._UNKNOWN_PARTITION  # noqa: SLF001 - a public constant of librdkafka
_LIST_TIMEOUT_S: Final = 2.0
_LEARN_TRIES: Final = 5
_LEARN_PAUSE_S: Final = 0.1
"""Brokers learn of a new partition one after the other, each soon."""
_NO_RIGHT: Final[int] = KafkaError.TOPIC_AUTHORIZATION_FAILED


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
        waits_for_rights: bool = True,
        native: NativeClients | None = None,
        further: Sequence[str] = (),
    ) -> None:
        """Configure; `reopen` connects. Stopping `retrier` ends every wait early.

        `timeout_ms`: how long a transaction may be open before the broker aborts it. `reopen_s_max`: how long `reopen`
        goes on trying (None: as long as it takes); without `waits_for_rights` it ends when the broker says that the
        principal may not use the transactional id. With `native`, records are given to the client a batch at a time;
        what comes of it is the same. `further` are topics whose positions are committed with those in the source.

        """
        self._settings, self._timeout_ms = settings, timeout_ms
        self._config = producer_config(settings, transactional_id, timeout_ms)
        self._inputs = (source, *further)
        self._retrier = retrier
        self._reopen = replace(_REOPEN, give_up_s=reopen_s_max)
        self._passing = not_fenced if waits_for_rights else not_refused
        self._settle_s = _SETTLE_TIMEOUT_S if reopen_s_max is None else min(_SETTLE_TIMEOUT_S, reopen_s_max)
        self._clients = native
        self._producer: Producer | None = None
        self._native: NativeProducer | None = None
        """Gives records to the present producer; None where Python does."""
        self._calls: BoundedCalls | None = None
        self._fatal: KafkaException | None = None
        """The error that ended the current producer for good. Its client reports it once, in a poll."""
        self._fencing = Fencing(transactional_id)
        self._search = RefusalSearch(batch_bytes=int(self._config["batch.size"]))
        self._reports = DeliveryReports(self._search)
        self._is_open = False
        self._begun_at = 0.0
        self._topics: set[str] = set()
        """Topics produced to in the open transaction."""

    def reopen(self) -> None:
        """Make a new producer; waits for the broker, logging it, as long as it takes or was said.

        Raises:
            CycleAborted: the worker stops while waiting, or the broker did not give a producer in time.
            FencedError: the broker refuses the transactional id, or another process was seen to have it.

        """
        self._drop()
        if self._fencing.error is not None:
            raise self._fencing.error
        try:
            self._retrier.call(
                "the broker does not give a producer yet",
                self._new_producer,
                passing=self._passing,
                backoff=self._reopen,
            )
        except (KafkaException, ClientHangs) as error:
            if isinstance(error, KafkaException) and error.args[0].code() in FENCED:
                raise self._fencing.fenced(error) from None
            if self._retrier.stopped:
                raise CycleAborted("stopping", "the worker stops") from None
            why = described(error) if isinstance(error, KafkaException) else str(error)
            name = self._config["transactional.id"]
            raise CycleAborted("no_producer", f"the broker does not give a producer for {name}: {why}") from None

    def _new_producer(self) -> None:
        config = {**self._config, "batch.size": self._search.batch_bytes}
        calls = BoundedCalls(f"{self._config['transactional.id']}-calls")
        try:
            opened = partial(opened_producer, self._settings, config, self._clients, self._settle_s)
            producer, native = calls.call(opened, self._settle_s + _HANGS_S)
        except (KafkaException, ClientHangs):
            self._fencing.was_unanswered = True
            calls.close()
            raise
        self._producer, self._native, self._calls, self._fatal = producer, native, calls, None
        self._reports.failed = None

    def _drop(self) -> None:
        """Close the producer; one that hangs is left to its thread."""
        self._producer, self._native, self._is_open = None, None, False
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def begin(self) -> None:
        """Open a transaction."""
        self._begun_at = time.monotonic()
        self._reports.begin()
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
            self._not_taken(records, done, error)
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
        report = None
        if self._search.is_on:
            self._search.make_room(topic, key, value, self._flush)
            report = self._reports.searched(topic, key, value, records.origin, on_delivered)
        elif on_delivered is not None:
            report = self._reports.delivered(on_delivered)
        self._topics.add(topic)
        while (error := give_one(self._require(), records, row, report)) is not None:
            self._not_taken(records, row, error)

    def _not_taken(self, records: TopicRecords, row: int, error: KafkaError) -> None:
        """A record was not taken: wait for room in the queue, or end the cycle."""
        if error.code() == QUEUE_FULL:
            self._drain()
        elif error.code() == _UNKNOWN_PARTITION and self._has_learned(records.topic, records.partition):
            return  # it was added since the client has last asked
        elif error.code() in REFUSALS:
            raise self._search.refused_at_once(
                records.topic, records.keys[row], records.values[row], records.origin, error
            )
        else:
            raise self._aborted(KafkaException(error))

    def _has_learned(self, topic: str, partition: int | None) -> bool:
        """Whether the client, asking again, finds that a topic has the partition that a record names."""
        if partition is None or self._outlived():
            return False
        for _ in range(_LEARN_TRIES):
            try:
                found = self._require().list_topics(topic, timeout=_LIST_TIMEOUT_S).topics[topic]
            except KafkaException:
                return False
            if partition in found.partitions:
                return True
            time.sleep(_LEARN_PAUSE_S)
        return False

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None:
        """Step 3, in the name of `membership`: refused once the group has gone on to another generation."""
        self.send_group_offsets(offsets_of(positions, self._inputs), membership)

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
                passing=commit_may_be_asked_again,
                backoff=_ASK_AGAIN,
            )
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if error.txn_requires_abort():
                raise self._aborted(raised) from None
            cause = self._cause(raised)
            if self._is_fenced(cause.args[0]):
                raise self._fencing.fenced(cause) from None
            raise OutcomeUnknown(described(raised)) from None
        except ClientHangs as hangs:
            raise OutcomeUnknown(str(hangs)) from None
        self._is_open = False

    def abort(self) -> None:
        """Abort the open transaction; a producer that cannot is re-created, which comes to the same.

        Raises:
            FencedError: another process has taken over; a new producer would only take it back from there.

        """
        if self._producer is None or not self._is_open:
            return  # re-creating the producer has settled it
        self._is_open = False
        try:
            self._bounded(self._producer.abort_transaction)
        except ClientHangs as hangs:
            log.warning("abort hangs; re-creating the producer settles it", error=str(hangs))
            self.reopen()
        except KafkaException as error:
            cause = self._cause(error)
            if self._is_fenced(cause.args[0]):
                raise self._fencing.fenced(cause) from None
            log.warning("abort failed; re-creating the producer settles it", error=described(error))
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
            raise CycleAborted("no_producer", "there is no producer; it is being re-created")
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
            log.warning("the Kafka client hangs in a step of the transaction; re-creating it", error=str(hangs))
            self.reopen()
            raise CycleAborted("client_hangs", str(hangs)) from None

    def _require(self) -> Producer:
        if self._producer is None:
            raise CycleAborted("no_producer", "there is no producer; it is being re-created")
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

    def _refusal(self, error: KafkaError) -> OutputRefused | None:
        """The end of a cycle of which an output refuses a record; None when it ends for another reason."""
        begun = self._search.is_on
        found = self._search.found(error, self._reports.failed)
        if found is not None or self._search.is_on > begun:
            # One that has failed so loses count of its sequence numbers: its next transaction would fail as well. And
            # it may have to make smaller batches.
            self.reopen()
        return found

    def _aborted(self, raised: KafkaException) -> CycleAborted | FencedError:
        """What an error before the commit comes to; nothing of the transaction is visible."""
        raised = named(self._cause(raised), self._config["transactional.id"])
        error: KafkaError = raised.args[0]
        if self._is_fenced(error):
            return self._fencing.fenced(raised)
        if error.fatal() or error.code() in FENCED:
            log.warning("the broker has given this producer up; re-creating it", error=described(raised))
            self.reopen()
            return CycleAborted("transaction_timeout", described(raised))
        if _NO_RIGHT in {error.code(), (self._reports.failed or error).code()}:
            unwritable = unwritable_topics(self._settings, self._topics)
            return CycleAborted("topic_authorization_failed", unwritable or described(raised))
        if missing := missing_topics(self._require(), self._topics):
            return CycleAborted(
                "missing_topic", f"topics are missing ({missing}): create them with `streams topics apply`"
            )
        if (refused := self._refusal(error)) is not None:
            return refused
        cause = self._reports.failed or error
        if error.code() in UNANSWERED or cause.code() in UNANSWERED:
            # It may never get an answer again (`kafka.broker_watch`); nothing has reached the broker, so it can abort.
            log.warning("the broker has not answered this producer; re-creating it", error=described(raised))
            self.reopen()
        return CycleAborted(str(cause.name()).strip("_").lower(), f"{described(raised)}; cause: {cause.str()}")

    def _cause(self, raised: KafkaException) -> KafkaException:
        """What put the producer into the state in which a call failed with `raised`; `raised` itself if nothing else.

        A client that has ended for good answers most calls with the word "fatal" alone, and with "conflict" where a
        commit was under way. The true reason is in what a poll raises, or in the report of a record.
        """
        if self._producer is not None:
            self._poll(self._producer, _REPORTS_S)
        if raised.args[0].code() in FENCED:
            return raised
        if self._fatal is not None:
            return self._fatal
        if self._reports.failed is not None and self._reports.failed.code() in FENCED:
            return KafkaException(self._reports.failed)
        return raised

    def _is_fenced(self, error: KafkaError) -> bool:
        return self._fencing.is_fenced(error, outlived=self._outlived())

    def _outlived(self) -> bool:
        """Whether the transaction has been open for longer than the broker allows (with a margin)."""
        return time.monotonic() - self._begun_at > 0.8 * self._timeout_ms / 1000
