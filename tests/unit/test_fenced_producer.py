"""A producer whose place another one has taken, when librdkafka does not say so itself."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.errors import FencedError
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sinks.base import CycleAborted
from streams.sinks.kafka.transactions import KafkaTransactions


class Committing:
    """A client that has failed for good in a commit: whatever else it is asked, it says that this is under way."""

    def abort_transaction(self, _timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError._CONFLICT))


@pytest.mark.parametrize("code", [KafkaError.INVALID_PRODUCER_EPOCH, KafkaError._FENCED])
def test_the_reports_of_its_records_tell_that_it_is_fenced(code: int) -> None:
    transactions = KafkaTransactions(Settings(), transactional_id="t", source="s", retrier=Retrier())
    transactions._producer = Committing()  # type: ignore[assignment]
    transactions._begun_at = 2.0**62  # just now, not longer ago than the broker allows
    transactions._failed = KafkaError(code)

    assert isinstance(transactions._aborted(KafkaException(KafkaError(KafkaError._FATAL))), FencedError)


def test_another_failure_of_a_record_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KafkaTransactions, "_missing_topics", lambda _: "")
    monkeypatch.setattr(KafkaTransactions, "_refusal", lambda *_: None)
    monkeypatch.setattr(KafkaTransactions, "reopen", lambda _: None)
    transactions = KafkaTransactions(Settings(), transactional_id="t", source="s", retrier=Retrier())
    transactions._producer = Committing()  # type: ignore[assignment]
    transactions._begun_at = 2.0**62
    transactions._failed = KafkaError(KafkaError._MSG_TIMED_OUT)

    found = transactions._aborted(KafkaException(KafkaError(KafkaError._CONFLICT)))
    assert isinstance(found, CycleAborted)
    assert "msg_timed_out" == found.reason
