"""How the records of a transaction are given to its producer: one by one in Python, or a batch in one native call."""

from itertools import islice
from typing import Any, Final, Protocol

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer

from streams.kafka.native_client import NativeProducer
from streams.sinks.base import TopicRecords
from streams.sinks.kafka.delivery_reports import Report

QUEUE_FULL: Final[int] = KafkaError._QUEUE_FULL  # noqa: SLF001 - a public constant of librdkafka


class Gives(Protocol):
    """Gives records to a producer, in order, without delivery reports."""

    def __call__(self, records: TopicRecords, start: int) -> tuple[int, KafkaError | None]:
        """Give those from row `start` on: how many were taken, and why the next one was not (None: all were).

        `QUEUE_FULL`: it may be given again once the broker has taken some of those before.
        """


class GivesEach:
    """In Python: the loop that runs for every event."""

    def __init__(self, producer: Producer) -> None:
        self._produce: Any = producer.produce

    def __call__(self, records: TopicRecords, start: int) -> tuple[int, KafkaError | None]:
        """Produce the records one by one, as `Gives`."""
        produce, topic, taken = self._produce, records.topic, 0
        to = -1 if records.partition is None else records.partition
        rows: Any = zip(records.keys, records.values, records.times(), strict=True)
        try:
            if records.headers is None:
                for key, value, timestamp in islice(rows, start, None):
                    produce(topic, value, key, to, None, None, timestamp)
                    taken += 1
            else:
                with_headers = zip(rows, records.headers, strict=True)
                for (key, value, timestamp), headers in islice(with_headers, start, None):
                    produce(topic, value, key, to, None, None, timestamp, headers)
                    taken += 1
        except BufferError:
            return taken, KafkaError(QUEUE_FULL)
        except KafkaException as error:
            return taken, error.args[0]
        return taken, None


def give_one(producer: Producer, records: TopicRecords, row: int, report: Report | None) -> KafkaError | None:
    """Give the record of one row, with a delivery report; why it was not taken (None: it was), as `Gives` says."""
    headers = None if records.headers is None else records.headers[row]
    try:
        producer.produce(
            records.topic,
            records.values[row],
            records.keys[row],
            -1 if records.partition is None else records.partition,
            timestamp=max(int(records.timestamps_ms[row]), 0),
            headers=list[tuple[str, str | bytes | None]](headers) if headers else None,
            on_delivery=report,
        )
    except BufferError:
        return KafkaError(QUEUE_FULL)
    except KafkaException as error:
        found: KafkaError = error.args[0]
        return found
    return None


class GivesBatch:
    """By the native library: one call, without the interpreter lock."""

    def __init__(self, native: NativeProducer) -> None:
        self._native = native

    def __call__(self, records: TopicRecords, start: int) -> tuple[int, KafkaError | None]:
        """Produce the records with one native call, as `Gives`."""
        taken, code = self._native.produce(
            records.topic,
            -1 if records.partition is None else records.partition,
            _column(records.keys),
            _column(records.values),
            np.asarray(records.timestamps_ms, dtype=np.int64),
            None if records.headers is None else _listed(records.headers),
            start,
        )
        # In the words of the Python client.
        return taken, KafkaError(code, f"Unable to produce message: {KafkaError(code).str()}") if code else None


def _listed(column: Any) -> list[Any]:
    return column if isinstance(column, list) else list(column)


def _column(column: Any) -> Any:
    """What the library takes: a list, or a column by reference."""
    return column if hasattr(column, "pack") else _listed(column)
