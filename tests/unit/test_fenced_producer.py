"""A producer whose place another one has taken, when librdkafka does not say so in the call that fails."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.errors import FencedError
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sinks.base import CycleAborted, one_record
from streams.sinks.kafka.transactions import KafkaTransactions


class Committing:
    """A client that has failed for good in a commit: whatever else it is asked, it says that this is under way.

    As librdkafka does, it says why once, in a poll: in the report of a record, or as the fatal error.
    """

    def __init__(self, fatal: int | None = None, report: Callable[[], None] | None = None) -> None:
        self._fatal, self._report = fatal, report

    def poll(self, _timeout_s: float) -> int:
        if self._report is not None:
            report, self._report = self._report, None
            report()
        if self._fatal is not None:
            fatal, self._fatal = self._fatal, None
            raise KafkaException(KafkaError(fatal, "by another one", fatal=True))
        return 0

    def produce(self, *_: object) -> None:
        pass

    def commit_transaction(self, _timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError._CONFLICT))

    def abort_transaction(self, _timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError._CONFLICT))


class Direct:
    """Calls are made in the thread of the caller."""

    def call(self, call: Callable[[], object], _timeout_s: float) -> object:
        return call()

    def close(self) -> None:
        pass


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> KafkaTransactions:
    def never(_: KafkaTransactions) -> None:
        pytest.fail("it would take the transactional id back")

    monkeypatch.setattr("streams.sinks.kafka.transactions.missing_topics", lambda *_: "")
    monkeypatch.setattr(KafkaTransactions, "_new_producer", never)
    made = KafkaTransactions(Settings(), transactional_id="t", source="s", retrier=Retrier())
    made._calls = Direct()  # type: ignore[assignment]
    made._is_open = True
    made._begun_at = 2.0**62  # just now, not longer ago than the broker allows
    return made


def abort(transactions: KafkaTransactions) -> None:
    transactions.abort()


def commit(transactions: KafkaTransactions) -> None:
    transactions.commit()


def produce(transactions: KafkaTransactions) -> None:
    transactions.produce(one_record("t", b"k", b"v", 1, partition=0))


@pytest.mark.parametrize("code", [KafkaError.INVALID_PRODUCER_EPOCH, KafkaError._FENCED])
@pytest.mark.parametrize("call", [abort, commit])
def test_the_reports_of_its_records_tell_that_it_is_fenced(
    transactions: KafkaTransactions, call: Callable[[KafkaTransactions], None], code: int
) -> None:
    def report() -> None:
        transactions._reports.failed = KafkaError(code)

    transactions._producer = Committing(report=report)  # type: ignore[assignment]
    with pytest.raises(FencedError):
        call(transactions)


@pytest.mark.parametrize("call", [abort, commit, produce])
def test_its_fatal_error_tells_that_it_is_fenced(
    transactions: KafkaTransactions, call: Callable[[KafkaTransactions], None]
) -> None:
    transactions._producer = Committing(fatal=KafkaError._FENCED)  # type: ignore[assignment]
    with pytest.raises(FencedError, match="by another one"):
        call(transactions)


def test_one_that_was_seen_to_be_fenced_never_takes_the_id_back(transactions: KafkaTransactions) -> None:
    transactions._producer = Committing(fatal=KafkaError._FENCED)  # type: ignore[assignment]
    with pytest.raises(FencedError):
        transactions.commit()

    # As when the worker that is about to end gives its partitions back: the next call of its client fails as well.
    for call in (abort, commit, KafkaTransactions.reopen):
        transactions._producer, transactions._calls = Committing(), Direct()  # type: ignore[assignment]
        transactions._is_open = True
        with pytest.raises(FencedError):
            call(transactions)


def test_another_failure_of_a_record_is_none(transactions: KafkaTransactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KafkaTransactions, "_refusal", lambda *_: None)
    monkeypatch.setattr(KafkaTransactions, "reopen", lambda _: None)
    transactions._producer = Committing()  # type: ignore[assignment]
    transactions._reports.failed = KafkaError(KafkaError._MSG_TIMED_OUT)

    found = transactions._aborted(KafkaException(KafkaError(KafkaError._CONFLICT)))
    assert isinstance(found, CycleAborted)
    assert "msg_timed_out" == found.reason
