"""Reads what a flow has written for some keys of a partition."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from confluent_kafka import Message

from streams.deadletters.letter.envelope import REASON
from streams.kafka.headers import headers_of
from streams.kafka.partitioner import partition_of
from streams.reconcile.chosen import Chosen
from streams.reconcile.compare.letters import digest_of
from streams.reconcile.compare.seen import KeyOutputs, SeenEvent, SeenLateEvent, SeenLetter, SeenRow
from streams.reconcile.plan import CheckPlan
from streams.reconcile.point import Point
from streams.reconcile.reading import PartitionReader

_TOPIC: Final = "__streams.errors.topic"
_PARTITION: Final = "__streams.errors.partition"
_OFFSET: Final = "__streams.errors.offset"
_LATE_REASON: Final = "late.reason"
_LATE_BY_MS: Final = "late.by_ms"
FIRST_RECORDS: Final = 1_000
"""Records at the beginning of a topic whose newest timestamp stands for those that are gone."""

Letters = Mapping[int, Mapping[int, list[SeenLetter]]]
"""By partition and offset of the record in the source."""


@dataclass(slots=True)
class Outputs:
    """What is there for some keys of a partition of the source."""

    keys: defaultdict[bytes, KeyOutputs] = field(default_factory=lambda: defaultdict(KeyOutputs))
    newest_first_ms: dict[str, int] = field(default_factory=dict)
    """By topic: the newest timestamp of its first records, in the partitions that were read."""
    records: int = 0


class OutputReader:
    """Reads the outputs of one flow up to one point."""

    def __init__(
        self, plan: CheckPlan, point: Point, reader: PartitionReader, tell: Callable[[str, int], None]
    ) -> None:
        """`tell` gets a topic and how many of its records are read."""
        self._plan, self._point, self._reader, self._tell = plan, point, reader, tell

    def read(self, partition: int, chosen: Chosen, starts: Mapping[tuple[str, int], int]) -> Outputs:
        """Everything of the keys of a partition; `starts`: where to begin, where that is not at the beginning."""
        found = Outputs()
        plan = self._plan
        if plan.clean is not None:
            for message in self._records(plan.clean, partition, chosen, starts, found):
                seen = SeenEvent(message.value() or b"", *_place(message))
                found.keys[message.key() or b""].clean.append(seen)
        for message in self._records(plan.pipeline.late, partition, chosen, starts, found):
            headers = _texts(message)
            reason, by_ms = headers.get(_LATE_REASON, ""), _whole(headers.get(_LATE_BY_MS))
            seen_late = SeenLateEvent(message.value() or b"", reason, by_ms, *_place(message))
            found.keys[message.key() or b""].late.append(seen_late)
        for table in plan.tables:
            for message in self._records(table.topic, partition, chosen, starts, found):
                outputs = found.keys[message.key() or b""]
                outputs.rows[table.topic] = SeenRow(message.value(), *_place(message))
                outputs.was_forgotten |= message.value() is None
        for window in plan.windows:
            for message in self._records(window.topic, partition, chosen, starts, found):
                rows = found.keys[message.key() or b""].windows.setdefault(window.topic, [])
                rows.append(SeenRow(message.value(), *_place(message)))
        return found

    def versions(self, topic: str, partition: int, keys: Iterable[bytes]) -> dict[bytes, list[SeenRow]]:
        """All rows of some keys that a table's topic still has, in their order."""
        wanted = Chosen(frozenset(keys))
        found: dict[bytes, list[SeenRow]] = defaultdict(list)
        for message in self._records(topic, partition, wanted, {}, Outputs()):
            found[message.key() or b""].append(SeenRow(message.value(), *_place(message)))
        return found

    def letters(self, chosen: Chosen) -> tuple[dict[int, dict[int, list[SeenLetter]]], int]:
        """Dead letters of records of the source, and the number of those that name none."""
        plan, point = self._plan, self._point
        source, topic = plan.pipeline.source, plan.pipeline.dlq
        found: dict[int, dict[int, list[SeenLetter]]] = defaultdict(lambda: defaultdict(list))
        elsewhere, read = 0, 0
        for number in range(point.counts[topic]):
            for batch in self._reader.batches(topic, number, point.low[topic, number], point.end[topic, number]):
                for message in batch:
                    headers = _texts(message)
                    partition, offset = _whole(headers.get(_PARTITION)), _whole(headers.get(_OFFSET))
                    if headers.get(_TOPIC) != source or not 0 <= partition < point.partitions or offset < 0:
                        elsewhere += 1
                    elif chosen.has(message.key()):
                        letter = SeenLetter(
                            message.key(), digest_of(message.value() or b""), headers.get(REASON, ""), *_place(message)
                        )
                        found[partition][offset].append(letter)
                read += len(batch)
                self._tell(topic, read)
        return found, elsewhere

    def _records(
        self, topic: str, partition: int, chosen: Chosen, starts: Mapping[tuple[str, int], int], into: Outputs
    ) -> Iterator[Message]:
        point, read = self._point, 0
        is_same = point.counts[topic] == point.partitions
        for number in [partition] if is_same else range(point.counts[topic]):
            start = max(starts.get((topic, number), 0), point.low[topic, number])
            first = 0
            for batch in self._reader.batches(topic, number, start, point.end[topic, number]):
                for message in batch:
                    key = message.key()
                    if first < FIRST_RECORDS:
                        first += 1
                        newest = into.newest_first_ms.get(topic, 0)
                        into.newest_first_ms[topic] = max(newest, message.timestamp()[1])
                    if chosen.has(key) and (is_same or partition_of(key or b"", point.partitions) == partition):
                        yield message
                read += len(batch)
                into.records += len(batch)
                self._tell(topic, read)


def _place(message: Message) -> tuple[int, int]:
    return cast("int", message.partition()), cast("int", message.offset())


def _texts(message: Any) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers_of(message)}


def _whole(text: str | None) -> int:
    """A header's number; -1 for one that is missing or none."""
    try:
        return int(text or "")
    except ValueError:
        return -1
