"""Traffic of producers that learn late of new partitions, and an independent count of what came of it.

The count knows nothing of partitions: for each key all that was sent, once, in its order, and one row.
"""

import io
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import fastavro
from confluent_kafka import Message, Producer

from loadtest.oracle.decode import plain_schema
from loadtest.oracle.read import TopicReader
from logistics.flows.gps import GPS
from streams.grow.admin import GrowthAdmin
from streams.grow.found import Found
from streams.grow.run import Event, GrowthRun
from streams.kafka.admin import partition_counts
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from tests.integration.kafka_helpers import admin_of, settings_of
from tests.integration.test_rejects import Encoder

TABLE = GPS.tables[0].topic


class Growth:
    """`streams topics grow`, in a thread of its own; `steps` are what it has said."""

    def __init__(self, stack: Stack, partitions: int) -> None:
        self.steps: list[str] = []
        self.failure: Exception | None = None
        self._settings, self._partitions = settings_of(stack), partitions
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"grow-{partitions}", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def wait(self, timeout_s: float) -> None:
        """Wait until it is over."""
        self._thread.join(timeout_s)
        assert self.failure is None, f"{self.failure!r} after {self.steps}"
        assert not self._thread.is_alive(), f"not over: {self.steps}"

    def has_come_to(self, text: str) -> bool:
        assert self.failure is None, f"{self.failure!r} after {self.steps}"
        return any(text in step for step in self.steps)

    def _tell(self, event: Event, _: Found | None) -> None:
        self.steps.append(f"{time.strftime('%H:%M:%S')} {event!r}")

    def _run(self) -> None:
        try:
            with GrowthAdmin(self._settings, GPS) as admin:
                GrowthRun(admin, self._partitions, self._tell, time.sleep, time.monotonic).run()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread, by `wait`
            self.failure = error


@dataclass(slots=True)
class _Sender:
    """A producer that hashes by the number of partitions that it knows."""

    keys: Sequence[str]
    partitions: int
    refresh_s: float
    """After so long it looks how many there are; infinite: when it is told."""
    looked_s: float = 0.0


@dataclass(slots=True)
class Sent:
    """Everything that was sent, of each key in order."""

    values: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    @property
    def count(self) -> int:
        return sum(map(len, self.values.values()))


class GrowingTraffic:
    """Positions of now, in the partitions that producers choose which learn of new ones at different times."""

    def __init__(
        self, stack: Stack, *, devices: int = 24, records_per_s: int = 300, slow: int = 4, copies: float = 0.02
    ) -> None:
        """`slow`: so many devices have a producer that keeps the number that it knows until `release_slow`."""
        self.sent = Sent()
        self._stack, self._records_per_s, self._copies = stack, records_per_s, copies
        self._encoder = Encoder(stack)
        self._producer = Producer({
            "bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5,
            "topic.metadata.refresh.interval.ms": 500,
        })  # fmt: skip
        names = [f"car-{number}" for number in range(devices)]
        count = self._count()
        self._slow = _Sender(names[:slow], count, float("inf"))
        self._senders = [self._slow] if slow else []
        self._senders += [_Sender(names[slow::2], count, 0.5), _Sender(names[slow + 1 :: 2], count, 3.0)]
        self._random = random.Random(7)
        self._recent: list[tuple[str, bytes]] = []
        self._ends = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="growing-traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def release_slow(self) -> None:
        """The slow producer learns of the new partitions."""
        self._slow.refresh_s = 0.5

    def send(self, count: int) -> None:
        """Send so many at once: a backlog. Not while the thread runs."""
        for _ in range(count):
            self._send()
        assert self._producer.flush(60) == 0

    def _run(self) -> None:
        try:
            began, number = time.monotonic(), 0
            while not self._ends.wait(max(0.0, began + number / self._records_per_s - time.monotonic())):
                for _ in range(5):
                    self._send()
                number += 5
            assert self._producer.flush(60) == 0
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            self._failure = error

    def _count(self) -> int:
        """By the producer's own view, which has to know a partition that a record names."""
        return len(self._producer.list_topics(GPS.source, timeout=30).topics[GPS.source].partitions)

    def _send(self) -> None:
        sender = self._random.choice(self._senders)
        now_s = time.monotonic()
        if now_s - sender.looked_s > sender.refresh_s:
            sender.looked_s, sender.partitions = now_s, self._count()
        if self._recent and self._random.random() < self._copies:
            device, value = self._random.choice(self._recent)
            sender = next(one for one in self._senders if device in one.keys)
        else:
            device = self._random.choice(sender.keys)
            value = self._encoder.framed(device_id=device, event_time=int(time.time() * 1000))
            self.sent.values[device].append(value)
            self._recent = [*self._recent[-50:], (device, value)]
        self._producer.poll(0)
        self._producer.produce(GPS.source, value, device.encode(), partition_of(device.encode(), sender.partitions))


def read(stack: Stack, topic: str) -> list[Message]:
    """All committed records of a topic, partition by partition."""
    reader = TopicReader(stack.bootstrap_servers)
    try:
        found: list[Message] = []
        for partition in range(reader.partitions(topic)):
            for batch in reader.batches(topic, [partition]):
                found += batch
        return found
    finally:
        reader.close()


def clean_count(stack: Stack) -> int:
    """Records in clean and late."""
    return len(read(stack, GPS.clean)) + len(read(stack, GPS.late))


@dataclass(slots=True)
class Count:
    """What came of what was sent. All but `clean` are 0 where all is right."""

    clean: int = 0
    lost: int = 0
    doubled: int = 0
    late: int = 0
    dead: int = 0
    out_of_order: int = 0
    rows_wrong: int = 0
    rows_not_at_home: int = 0
    keys_with_two_rows: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self == Count(clean=self.clean)


def counted(stack: Stack, sent: Sent) -> Count:
    """Count it."""
    clean: dict[str, list[bytes]] = defaultdict(list)
    for message in read(stack, GPS.clean):  # partitions in order: a later home of a key has a higher number
        clean[_text(message.key())].append(_bytes(message.value()))
    late = [_bytes(message.value()) for message in read(stack, GPS.late)]
    found = Count(clean=sum(map(len, clean.values())), late=len(late), dead=len(read(stack, GPS.dlq)))
    came = Counter([value for values in clean.values() for value in values] + late)
    for device, values in sent.values.items():
        lost = [value for value in values if not came[value]]
        found.lost += len(lost)
        if lost:
            found.details.append(
                f"lost of {device}: {len(lost)} of {len(values)}, first number {values.index(lost[0])}"
            )
        if not lost and clean[device] != values:
            found.out_of_order += clean[device] != sorted(clean[device], key=values.index)
    found.doubled = sum(count - 1 for count in came.values()) + len(came.keys() - _all(sent))
    _count_rows(stack, sent, found)
    return found


def _count_rows(stack: Stack, sent: Sent, found: Count) -> None:
    newest: dict[tuple[int, str], Message] = {}
    messages = read(stack, TABLE)
    for message in messages:
        newest[int(message.partition() or 0), _text(message.key())] = message
    partitions = partition_counts(admin_of(stack))[TABLE]
    rows: dict[str, list[Message]] = defaultdict(list)
    for (_, key), message in newest.items():
        if message.value() is not None:
            rows[key].append(message)
    for key in {*rows, *sent.values}:
        found.keys_with_two_rows += len(rows[key]) > 1
        for message in rows[key]:
            found.rows_not_at_home += message.partition() != partition_of(key.encode(), partitions)
        events = [_row(_bytes(message.value()))["events"] for message in rows[key]]
        if events != [len(sent.values[key])]:
            found.rows_wrong += 1
            found.details.append(f"row of {key}: events {events}, sent {len(sent.values[key])}")


def _row(value: bytes) -> dict[str, Any]:
    schema = plain_schema(Catalog.load().latest(GPS.tables[0].subject).text)
    found: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    return dict(found)


def _all(sent: Sent) -> set[bytes]:
    return {value for values in sent.values.values() for value in values}


def _text(key: Any) -> str:
    return bytes(key or b"").decode()


def _bytes(value: Any) -> bytes:
    return bytes(value or b"")


def still(
    stack: Stack, what: Callable[[], int], expected: int, *, quiet_s: float = 2.0, timeout_s: float = 60.0
) -> None:
    """Wait until a number is what is expected, and a little longer: more would be wrong too."""
    deadline = time.monotonic() + timeout_s
    while what() < expected:
        assert time.monotonic() < deadline, f"{what()} of {expected} after {timeout_s:g} s"
        time.sleep(0.5)
    time.sleep(quiet_s)
