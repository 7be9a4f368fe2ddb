"""Changes of a table as its topic has them: committed records, decoded, with where reading goes on after them.

The topic of a table is read as any consumer reads it (`read_committed`), so that a change is seen exactly when its
transaction is committed, whichever worker has written it, and whatever becomes of the workers.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streams.batch.moved import is_moved
from streams.batch.records import Records
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import admin_client, described
from streams.kafka.headers import read_headers
from streams.limits import CHANGES_RECORDS_MAX
from streams.schemas.client import Registry
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings
from streams.sink.decoding import RowDecoder
from streams.tables.portion import KEY, with_keys
from streams.tables.rendering import body_of, dicts_of, key_text
from streams.tables.shape import TableShape
from streams.tables.where import Condition, matching

Positions = Mapping[int, int]
"""By partition: offset of the next record."""
_PLACE: Final = "streams_place"
_WAIT_S: Final = 0.1
_TIMEOUT_S: Final = 10.0
_QUEUE_KBYTES: Final = 8_192
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka


@dataclass(frozen=True, slots=True)
class View:
    """What one reader sees of changes. Readers with equal views are sent the same bytes."""

    where: tuple[Condition, ...] = ()
    columns: tuple[str, ...] | None = None
    masked: frozenset[str] = frozenset()
    masks_keys: bool = False


@dataclass(frozen=True)
class Chunk:
    """Changes that were read in one go, in the order in which they were read."""

    places: Sequence[tuple[int, int]]
    """Partition and offset of each."""
    keys: Sequence[bytes]
    deleted: frozenset[int]
    """Which of them say that the key has no row any more."""
    unreadable: Mapping[int, str]
    """Which of them are no rows, and why."""
    rows: pa.RecordBatch
    """Rows of all other changes: `KEY` and the columns of the table."""
    row: Sequence[int]
    """Which change each row is."""
    after: Positions
    """Positions at which reading continues."""
    _events: dict[View, bytes] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def event(self, view: View) -> bytes:
        """A server-sent event of the changes in a view; empty where it sees none of them."""
        with self._making:
            if view not in self._events:
                self._events[view] = self._event(view)
            return self._events[view]

    def _event(self, view: View) -> bytes:
        numbered = self.rows.append_column(_PLACE, pa.array(self.row, pa.int64()))
        seen = matching(numbered, view.where)
        names = [name for name in view.columns or self.rows.schema.names if name != KEY]
        found: dict[int, dict[str, Any]] = {
            place: {"row": row}
            for place, row in zip(
                seen.column(_PLACE).to_pylist(), dicts_of(seen.select(names), masked=view.masked), strict=True
            )
        }
        found |= {place: {"row": None, "deleted": True} for place in self.deleted}
        found |= {place: {"row": None, "unreadable": why} for place, why in self.unreadable.items()}
        if not found:
            return b""
        changes = [{**self._where_of(place, view), **found[place]} for place in sorted(found)]
        return sse("changes", {"changes": changes}, self.after)

    def _where_of(self, place: int, view: View) -> dict[str, Any]:
        partition, offset = self.places[place]
        key = None if view.masks_keys else key_text(self.keys[place])
        return {"key": key, "partition": partition, "offset": offset}


class ChangeLog:
    """Reads one table's topic. One thread; `close` when done."""

    def __init__(self, settings: Settings, table: TableShape) -> None:
        self._settings, self._table = settings, table
        registry = Registry(settings)
        self._decoder = RowDecoder(
            table.columns, partial(plan_or_reject, registry, reader=table.schema_text), has_tombstones=True
        )
        self._consumer: Consumer | None = None
        self._after: dict[int, int] = {}
        self._until: Positions | None = None
        self._left: set[int] = set()
        """Partitions that were not read up to there."""

    @property
    def is_done(self) -> bool:
        """Whether all up to the positions was read that `start` was told."""
        return self._until is not None and not self._left

    def start(self, positions: Positions, until: Positions | None = None) -> None:
        """Read from these positions on, up to the others; None: without end."""
        self.close()
        self._after, self._until = dict(positions), until
        self._left = {number for number, end in (until or {}).items() if positions.get(number, 0) < end}
        self._consumer = clients.consumer(
            self._settings,
            {
                "client.id": "streams-changes",
                "group.id": self._table.group,  # required by the client; it neither joins nor commits
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": min(_QUEUE_KBYTES, clients.queue_kbytes_max(self._settings)),
            },
        )
        topic = self._table.topic
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])

    def poll(self) -> Chunk | None:
        """What has come, at most `CHANGES_RECORDS_MAX` changes; None: nothing, for a moment.

        Raises:
            StreamsError: the topic is gone, or may not be read.
            RegistryUnavailable: a schema is not known yet, and the registry does not answer. What was read is lost:
                `start` again.

        """
        if self._consumer is None:
            raise RuntimeError("it is not started")
        messages: list[Message] = []
        for message in self._consumer.consume(CHANGES_RECORDS_MAX, _WAIT_S):
            error = message.error()
            if error is None and self._is_wanted(message):
                messages.append(message)
            elif error is not None and error.code() == _EOF:
                self._is_wanted(message)
            elif error is not None and not _passes(error):
                raise StreamsError(f"reading {self._table.topic}: {described(KafkaException(error))}")
        return self._chunk(messages) if messages else None

    def _is_wanted(self, message: Message) -> bool:
        """Whether a record, or the end of a partition, is before where reading ends."""
        partition, offset = message.partition(), message.offset()
        if self._until is None or partition is None or offset is None or offset < self._until.get(partition, 0):
            return True
        self._left.discard(partition)
        self._after[partition] = max(self._after.get(partition, 0), self._until.get(partition, 0))
        return False

    def close(self) -> None:
        """Read no more."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _chunk(self, messages: Sequence[Message]) -> Chunk:
        headers, lost = read_headers(messages)
        places = [(int(one.partition() or 0), int(one.offset() or 0)) for one in messages]
        keys: list[Any] = [one.key() for one in messages]
        values: list[Any] = [one.value() for one in messages]
        records = Records(
            np.array([partition for partition, _ in places]),
            np.array([offset for _, offset in places]),
            np.array([one.timestamp()[1] for one in messages]),
            keys,
            values,
            headers,
            lost,
        )
        decoded = self._decoder.decode(records)
        for partition, offset in places:
            self._after[partition] = offset + 1
        deleted = frozenset(place for place in decoded.tombstones.tolist() if not is_moved(headers[place]))
        row = decoded.row.tolist()
        return Chunk(
            places,
            [key or b"" for key in keys],
            deleted,
            {reject.row: f"{reject.reason.value}: {reject.message}" for reject in decoded.rejects},
            with_keys([keys[place] or b"" for place in row], decoded.rows),
            row,
            dict(self._after),
        )


def ends_of(settings: Settings, topic: str) -> tuple[Positions, Positions]:
    """The first offset of each partition of a topic, and the one after what is committed and may be read.

    Raises:
        StreamsError: no answer, or there is no such topic.

    """
    client = admin_client(settings)
    try:
        told = client.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        if told.error is not None:
            raise StreamsError(f"reading {topic}: {told.error.str()}")
        bounds = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            asked = client.list_offsets(
                {TopicPartition(topic, number): spec for number in told.partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_TIMEOUT_S,
            )
            bounds.append({at.partition: int(future.result(_TIMEOUT_S).offset) for at, future in asked.items()})
    except (KafkaException, TimeoutError) as error:
        raise StreamsError(f"reading the ends of {topic}: {error}") from None
    return bounds[0], bounds[1]


@contextmanager
def closing(log: ChangeLog) -> Iterator[ChangeLog]:
    """Closes it at the end of a block."""
    try:
        yield log
    finally:
        log.close()


def sse(name: str, document: Any, positions: Positions | None) -> bytes:
    """A server-sent event whose id is where reading goes on after it; None: where the one before says."""
    if positions is None:
        return b"event: %s\ndata: %s\n\n" % (name.encode(), body_of(document))
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id_of(positions).encode(), name.encode(), body_of(document))


def id_of(positions: Positions) -> str:
    """Positions as the id of an event: `0-118,1-97`."""
    return ",".join(f"{partition}-{offset}" for partition, offset in sorted(positions.items()))


def positions_of(text: str) -> Positions | None:
    """Inverse of `id_of`; None: it is none."""
    found: dict[int, int] = {}
    for part in text.split(","):
        partition, dash, offset = part.strip().partition("-")
        if not (dash and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            return None
        found[int(partition[:9])] = int(offset[:18])
    return found


def _passes(error: KafkaError) -> bool:
    """Whether waiting may help."""
    return bool(error.retriable()) or error.code() in {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - public constants of librdkafka
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
