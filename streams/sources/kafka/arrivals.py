"""The result of one call of the consumer, as columns: records and notices."""

import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from streams.batch.columns import Bools, Headers, Int64
from streams.batch.records import Records
from streams.kafka.headers import read_headers
from streams.kafka.native_client import NativeRecords
from streams.limits import BATCH_RECORDS_MAX

_TIMESTAMP_MS: Final = operator.itemgetter(1)
_SAMPLE: Final = 256


@dataclass(frozen=True, slots=True)
class Notice:
    """Something other than a record: the end of a partition, or an error."""

    partition: int
    """The partition's lane."""
    offset: int
    error: KafkaError


class Arrivals(Protocol):
    """Results in order of arrival."""

    @property
    def partition(self) -> Int64:
        """The lane of each record."""

    @property
    def offset(self) -> Int64:
        """The offset of each record."""

    @property
    def notices(self) -> list[Notice]:
        """Notices among the records."""

    def leader_epoch(self, row: int) -> int | None:
        """The leader epoch under which the record at `row` was appended; None: not known."""

    def records(self, keep: Bools, epochs: Mapping[int, int]) -> Records:
        """The records to keep, at least one; `epochs` are their partitions' leader epochs."""


class FromMessages:
    """`Arrivals` of message objects."""

    def __init__(self, messages: list[Message], first_lanes: Mapping[str, int]) -> None:
        """`first_lanes`: by topic, the lane of its partition 0; that of the source is 0."""
        # `map` over unbound methods: a third less than a comprehension, and this runs for every record.
        errors = list(map(Message.error, messages))
        self.notices: list[Notice] = []
        if any(errors):
            self.notices = [
                Notice(
                    first_lanes.get(message.topic() or "", 0) + int(message.partition() or 0),
                    int(message.offset() or 0),
                    error,
                )
                for message, error in zip(messages, errors, strict=True)
                if error is not None
            ]
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        self._messages = messages
        self.partition: Int64 = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        if len(first_lanes) > 1:
            self.partition += np.fromiter((first_lanes[m.topic() or ""] for m in messages), np.int64, len(messages))
        self.offset: Int64 = np.fromiter(map(Message.offset, messages), np.int64, len(messages))

    def leader_epoch(self, row: int) -> int | None:
        """The leader epoch of a record, as in `Arrivals`."""
        return self._messages[row].leader_epoch()

    def records(self, keep: Bools, epochs: Mapping[int, int]) -> Records:
        """The records to keep, as in `Arrivals`."""
        messages, partition, offset = self._messages, self.partition, self.offset
        if not keep.all():
            messages = [message for message, kept in zip(messages, keep.tolist(), strict=True) if kept]
            partition, offset = partition[keep], offset[keep]
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


class FromReader:
    """`Arrivals` from the native reader."""

    def __init__(self, taken: NativeRecords) -> None:
        self._taken = taken
        self.partition: Int64 = taken.partition
        self.offset: Int64 = taken.offset
        self.notices = [
            Notice(partition, offset, KafkaError(code, words)) for partition, offset, code, words in taken.notices
        ]

    def leader_epoch(self, row: int) -> int | None:
        """The leader epoch of a record, as in `Arrivals`."""
        epoch = int(self._taken.leader_epoch[row])
        return epoch if epoch >= 0 else None

    def records(self, keep: Bools, epochs: Mapping[int, int]) -> Records:
        """The records to keep, as in `Arrivals`."""
        taken = self._taken
        headers: list[Headers | None] | None = None
        lost: dict[int, int] = {}
        if taken.headers:
            headers = [None] * len(self.offset)
            for row, pairs, missing in taken.headers:
                headers[row] = list(pairs)
                if missing:
                    lost[row] = missing
        records = Records(
            self.partition,
            self.offset,
            taken.timestamp_ms,
            taken.key,
            taken.value,
            headers,
            lost or None,
            _newest_of_broker(taken.timestamp_ms, taken.timestamp_kind),
            epochs,
        )
        return records if keep.all() else records.take(np.flatnonzero(keep))


def _broker_ms(stamps: list[tuple[int, int]], timestamp_ms: Int64) -> int:
    """Newest timestamp by the broker's clock; searched only if some record may be later than our own clock."""
    if timestamp_ms.max() <= time.time() * 1000:
        return 0
    return max((at for kind, at in stamps if kind == TIMESTAMP_LOG_APPEND_TIME), default=0)


def _newest_of_broker(timestamp_ms: Int64, kind: Any) -> int:
    """Return `_broker_ms` of columns instead of pairs."""
    if timestamp_ms.max() <= time.time() * 1000:
        return 0
    return int(timestamp_ms.max(initial=0, where=kind == TIMESTAMP_LOG_APPEND_TIME))


def records_of_next(records: Records, bytes_max: int) -> int:
    """How many records the next micro-batch may have, if they are as large as these (a sample of them is looked at)."""
    step = max(1, len(records) // _SAMPLE)
    values, keys = records.value[::step], records.key[::step]
    size = sum(len(value or b"") for value in values) + sum(len(key or b"") for key in keys)
    return max(1, min(BATCH_RECORDS_MAX, bytes_max * len(values) // max(1, size)))
