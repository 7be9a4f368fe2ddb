"""Goes through the partitions of a flow, in slices of keys that fit into memory, and puts together what was found.

For each slice: what the outputs hold of its keys, then what the records of the source demand, then the comparison. A
slice is forgotten before the next one. Every record of the source is decoded for each slice of its partition, since
each moves the watermark.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Final

from confluent_kafka.admin import AdminClient

from streams.batch.replayed import REPLAYED
from streams.kafka.headers import read_headers
from streams.kafka.partitioner import partition_of
from streams.reconcile.chosen import Chosen
from streams.reconcile.compare.partition import compare_partition
from streams.reconcile.compare.seen import Scope, SeenLetter
from streams.reconcile.differences import Findings, Unchecked
from streams.reconcile.model.decode import SchemaById, bad_header, decoder_of, row_reader, too_large
from streams.reconcile.model.events import Event, Record, Reject
from streams.reconcile.model.history import Cycle, History, SeenLate, Shown
from streams.reconcile.outputs import OutputReader, Outputs
from streams.reconcile.plan import CheckPlan
from streams.reconcile.point import FlowPosition, Point
from streams.reconcile.reading import Pace, PartitionReader
from streams.schemas.client import Registry, UnknownSchema
from streams.settings import Settings
from streams.state.identity import Identity

RECORD_BYTES: Final = 2_500
"""Memory for a record of the source that is compared: as it must come out, as it did, and its rows."""
_OWN_MB: Final = 200
"""Memory of the process that compares nothing yet."""
_SINCE_MARGIN_MS: Final = 60_000
"""How much earlier than what is checked reading begins, beyond the skew: timestamps are not in perfect order."""
_PROGRESS_S: Final = 0.2
_CLOSED_AT_ONCE: Final = 1_000
"""Keys whose windows are closed in the cycle in which they are due; of more, the others are closed in later cycles."""
_CYCLES: Final = 50
"""Cycles by which, beside these, closing may be behind."""
_FIRST: Final = 1_000
"""Records whose newest timestamp stands for those before them."""
_FIRST_LETTERS: Final = 1_000
"""The same for dead letters."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is compared, and what it may cost."""

    chosen: Chosen = field(default_factory=Chosen)
    since_ms: int | None = None
    """Events of this time or before are left out; None: none are."""
    share: float = 1.0
    """Share of the time in which it works; it pauses for the rest."""
    memory_mb: int = 1_024


@dataclass(slots=True)
class Result:
    """What a run has found, and at which point."""

    flow: str
    at_ms: int
    point: Point
    plan: CheckPlan
    options: Options
    findings: Findings
    records: int = 0
    """Number of records of the source that were judged."""
    keys: int = 0
    took_s: float = 0.0
    recorded_bounds: bool = False
    """Whether the bounds are those recorded with the flow's state."""


Progress = Callable[[str], None]


class Reconciliation:
    """One comparison of one flow. Close it when done."""

    def __init__(
        self, settings: Settings, client: AdminClient, plan: CheckPlan, options: Options, say: Progress
    ) -> None:
        self._plan, self._options, self._say = plan, options, say
        self._position = FlowPosition(settings, client, plan.pipeline)
        self._reader = PartitionReader(settings, plan.pipeline.group, Pace(options.share))
        self._schema_by_id = _schemas(Registry(settings))
        self._read_row = row_reader(self._schema_by_id)
        self._decoder = decoder_of(self._schema_by_id, plan.reader_schema, plan.rules.fields)
        self._misrouted: set[bytes] = set()
        self._told_s = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        self._position.close()

    def run(self) -> Result:
        """Compare everything.

        Raises:
            StreamsError: Kafka or the registry does not answer, a topic is missing, the flow was grown.

        """
        began_s = time.monotonic()
        pipeline = self._plan.pipeline
        self._say("fixing the point at which everything is compared")
        point = self._position.fix(self._plan.keyed_outputs, self._say)
        identities = self._position.identities(point)
        for identity in identities.values():
            self._plan = self._plan.under(identity.bounds)
            self._decoder = decoder_of(self._schema_by_id, self._plan.reader_schema, self._plan.rules.fields)
        result = Result(
            pipeline.name,
            point.at_ms,
            point,
            self._plan,
            self._options,
            Findings(),
            recorded_bounds=bool(identities),
        )
        outputs = OutputReader(self._plan, point, self._reader, self._tell)
        chosen = self._options.chosen
        letters, elsewhere = outputs.letters(chosen)
        if elsewhere and chosen.is_all:
            result.findings.unchecked[Unchecked.LETTERS_ELSEWHERE] += elsewhere
        for partition in self._partitions(point):
            part = _Partition(self, result, outputs, partition, letters.get(partition, {}), identities.get(partition))
            part.run()
        self._without_misrouted(result.findings)
        result.took_s = time.monotonic() - began_s
        return result

    def _partitions(self, point: Point) -> list[int]:
        keys = self._options.chosen.keys
        if keys:
            return sorted({partition_of(key, point.partitions) for key in keys})
        return list(range(point.partitions))

    def _without_misrouted(self, findings: Findings) -> None:
        """Leave out what was found of keys that have records in a partition that is not theirs."""
        if not self._misrouted:
            return
        findings.unchecked[Unchecked.MISROUTED] += len(self._misrouted)
        kept = [each for each in findings.differences if each.key not in self._misrouted]
        for each in findings.differences:
            if each.key in self._misrouted:
                findings.counts[each.kind] -= 1
        findings.counts = +findings.counts
        findings.differences = kept

    def _tell(self, topic: str, records: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_S:
            self._told_s = now_s
            self._say(f"{topic}: {records:,} records")


class _Partition:
    """One partition of the source."""

    def __init__(
        self,
        of: Reconciliation,
        result: Result,
        outputs: OutputReader,
        partition: int,
        letters: Mapping[int, list[SeenLetter]],
        identity: Identity | None,
    ) -> None:
        self._of, self._result, self._outputs = of, result, outputs
        self._partition, self._letters = partition, letters
        self._plan: CheckPlan = of._plan  # noqa: SLF001 - of this module
        self._point = result.point
        self._findings = result.findings
        self._added_at = {} if identity is None else dict(identity.tables)
        """Tables by the offset from which on their rows count; above 0 they were added later."""
        reached, settled = self._point.reached[partition], self._point.settled[partition]
        self._reached = 0 if reached is None else reached.offset_next
        self._cycle = None if reached is None else reached.cycle
        self._settled = 0 if settled is None else settled.offset_next
        self._starts: dict[tuple[str, int], int] = {}

    def run(self) -> None:
        """Compare it, slice by slice."""
        options, source = self._result.options, self._plan.pipeline.source
        low = self._point.low[source, self._partition]
        start = low
        if options.since_ms is not None:
            start = max(low, self._starts_since(options.since_ms))
        cycles: list[Cycle] = list(self._of._position.cycles(self._point, self._partition))  # noqa: SLF001
        room = max(1, int((options.memory_mb - _OWN_MB) * 1e6 / RECORD_BYTES))
        wanted = (self._settled - start) * (1 if options.chosen.keys else options.chosen.sample)
        slices = 1 if options.chosen.keys else max(1, math.ceil(wanted / room))
        for number in range(slices):
            chosen = replace(options.chosen, slice=number, slices=slices)
            self._compare(chosen, start, low, cycles, is_first=number == 0)

    def _starts_since(self, since_ms: int) -> int:
        """Where the source is read from; and, for the outputs, `self._starts`."""
        plan, point = self._plan, self._point
        at_ms = since_ms - plan.rules.skew_ms_max - _SINCE_MARGIN_MS
        for topic in (plan.clean, plan.pipeline.late):
            if topic is not None:
                numbers = range(point.counts[topic])
                for number, offset in self._of._position.offsets_at(topic, numbers, at_ms).items():  # noqa: SLF001
                    self._starts[topic, number] = point.end[topic, number] if offset is None else offset
        source = plan.pipeline.source
        found = self._of._position.offsets_at(source, [self._partition], at_ms)[self._partition]  # noqa: SLF001
        return self._settled if found is None else min(found, self._settled)

    def _compare(self, chosen: Chosen, start: int, low: int, cycles: Sequence[Cycle], *, is_first: bool) -> None:
        outputs = self._outputs.read(self._partition, chosen, self._starts)
        history, first_ms = self._judged(chosen, start, outputs, cycles)
        scope = self._scope(start, low, first_ms, outputs, history, cycles, chosen)
        letters = {
            offset: found
            for offset, found in self._letters.items()
            if start <= offset < self._settled and any(chosen.has(each.key) for each in found)
        }
        findings = compare_partition(
            self._plan, scope, history, outputs.keys, letters, self._decode, self._of._read_row,  # noqa: SLF001
            lambda topic, keys: self._outputs.versions(topic, self._partition, keys), self._added_at,
        )  # fmt: skip
        if is_first and (before := sum(len(found) for offset, found in self._letters.items() if offset < start)):
            findings.unchecked[Unchecked.LETTERS_BEFORE] += before
        self._findings.add(findings)
        self._result.records += history.records
        self._result.keys += len(history.keys)

    def _decode(self, raw: bytes) -> Event | Reject:
        found: Event | Reject = self._of._decoder.decode_one(Record(-1, 0, None, raw))  # noqa: SLF001
        return found

    def _judged(
        self, chosen: Chosen, start: int, outputs: Outputs, cycles: Sequence[Cycle]
    ) -> tuple[History, int | None]:
        """What must become of the records; and the newest timestamp of the first of them."""
        plan, point = self._plan, self._point
        late: dict[tuple[str, int], list[SeenLate]] = defaultdict(list)
        for seen in outputs.keys.values():
            for row in seen.late:
                event = self._decode(row.raw)
                if not isinstance(event, Reject):
                    late[event.identity].append(SeenLate(row.reason, row.by_ms))
        reasons = {offset: found[0].reason for offset, found in self._letters.items() if found}
        mine = [each for each in cycles if each.offset_next >= start]
        history = History(plan.rules, Shown(late, reasons, mine), point.at_ms)
        first_ms: int | None = None
        is_reached = False
        for record, is_replayed in self._records(start):
            if not is_reached and record.offset >= self._reached:
                history.reach(self._reached, self._cycle)
                is_reached = True
            if history.records < _FIRST:
                first_ms = max(first_ms or 0, record.timestamp_ms)
            if not isinstance(record, Reject) and record.key == record.entity.encode():
                self._note_misrouted(record.key)
            history.take(record, is_replayed=is_replayed, is_wanted=chosen.has(record.key))
        if not is_reached:
            history.reach(self._reached, self._cycle)
        history.end()
        return history, first_ms

    def _note_misrouted(self, key: bytes) -> None:
        if _partition_of(key, self._point.partitions) != self._partition:
            self._of._misrouted.add(key)  # noqa: SLF001

    def _records(self, start: int) -> Iterator[tuple[Event | Reject, bool]]:
        """The decoded records of the source, and whether each is a replayed dead letter."""
        of, plan = self._of, self._plan
        source, bytes_max = plan.pipeline.source, plan.rules.record_bytes_max
        read = 0
        for batch in of._reader.batches(source, self._partition, start, self._settled):  # noqa: SLF001
            rows = [Record(each.offset() or 0, each.timestamp()[1], each.key(), each.value() or b"") for each in batch]
            headers, lost = read_headers(batch)
            for number, (row, found) in enumerate(zip(rows, of._decoder.decode(rows), strict=True)):  # noqa: SLF001
                its = headers[number] or []
                judged = found
                if lost is not None and number in lost:
                    judged = bad_header(row)
                if sum(len(name) + len(value or b"") for name, value in its) > bytes_max:
                    judged = too_large(row)
                yield judged, bool(its) and its[-1][0] == REPLAYED
            read += len(batch)
            of._tell(f"{source}-{self._partition}", read)  # noqa: SLF001

    def _scope(
        self,
        start: int,
        low: int,
        first_ms: int | None,
        outputs: Outputs,
        history: History,
        cycles: Sequence[Cycle],
        chosen: Chosen,
    ) -> Scope:
        """What can be compared: everything, unless history is gone or left out."""
        plan, since_ms = self._plan, self._result.options.since_ms
        skew_ms = plan.rules.skew_ms_max
        is_whole = start == 0 and since_ms is None
        after_ms = -math.inf if since_ms is None else float(since_ms)
        if start == low > 0:  # what was before is gone
            after_ms = max(after_ms, math.inf if first_ms is None else first_ms + skew_ms)
        clean_ms = max(after_ms, self._gone_ms(plan.clean, outputs, skew_ms))
        late_ms = max(after_ms, self._gone_ms(plan.pipeline.late, outputs, skew_ms))
        windows_ms = max([after_ms, *(self._gone_ms(one.topic, outputs, skew_ms) for one in plan.windows)])
        return Scope(
            self._partition, self._reached, plan.clean, plan.pipeline.late, plan.pipeline.dlq, is_whole,
            clean_ms, late_ms, windows_ms, self._letters_from(), self._closed_up_to(history, cycles, chosen),
        )  # fmt: skip

    def _closed_up_to(self, history: History, cycles: Sequence[Cycle], chosen: Chosen) -> float:
        """The watermark up to which windows are closed for certain: of many keys, each cycle closes some."""
        keys = len(history.keys) * chosen.slices / chosen.sample
        if keys <= _CLOSED_AT_ONCE and not chosen.keys:
            return history.reached_watermark
        if self._cycle is None:
            return -math.inf
        known = [each.watermark for each in cycles if each.number <= self._cycle - _CYCLES - keys / _CLOSED_AT_ONCE]
        return known[-1] if known else -math.inf

    def _gone_ms(self, topic: str | None, outputs: Outputs, skew_ms: int) -> float:
        """The event time up to which a topic may lack records, because its beginning is gone."""
        point = self._point
        if topic is None:
            return -math.inf
        numbers = [self._partition] if point.counts[topic] == point.partitions else list(range(point.counts[topic]))
        if not point.is_truncated(topic, numbers):
            return -math.inf
        newest = outputs.newest_first_ms.get(topic)
        return math.inf if newest is None else newest + skew_ms

    def _letters_from(self) -> int:
        """The first record of which a dead letter must be there: older letters may be gone."""
        point, topic = self._point, self._plan.pipeline.dlq
        if not point.is_truncated(topic, list(range(point.counts[topic]))):
            return 0
        firsts = [offset for offset, found in self._letters.items() for each in found if each.offset < _FIRST_LETTERS
                  + point.low[topic, each.partition]]  # fmt: skip
        return max(firsts, default=self._settled)


@lru_cache(maxsize=65_536)
def _partition_of(key: bytes, partitions: int) -> int:
    return partition_of(key, partitions)


def _schemas(registry: Registry) -> SchemaById:
    """Schemas by id, asked for once each; None for an id that the registry does not have."""

    @cache
    def schema_by_id(schema_id: int) -> str | None:
        try:
            return registry.schema_by_id(schema_id)
        except UnknownSchema:
            return None

    return schema_by_id


def reconcile(settings: Settings, client: AdminClient, plan: CheckPlan, options: Options, say: Progress) -> Result:
    """Compare what a flow has written with what it should have written, at one point.

    Raises:
        StreamsError: as `Reconciliation.run`.

    """
    with closing(Reconciliation(settings, client, plan, options, say)) as run:
        return run.run()
