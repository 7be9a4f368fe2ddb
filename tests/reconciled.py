"""A flow run in memory by the production engine, its topics as lists that a test may damage, and what reconcile finds.

The topics come from `FlowDriver`; judging and comparing are those of `streams reconcile`, without Kafka.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import fastavro

from streams import Flow
from streams.reconcile.compare.letters import digest_of
from streams.reconcile.compare.partition import compare_partition
from streams.reconcile.compare.seen import KeyOutputs, Scope, SeenEvent, SeenLateEvent, SeenLetter, SeenRow
from streams.reconcile.differences import Difference, Findings
from streams.reconcile.model.decode import decoder_of, plain_schema, row_reader
from streams.reconcile.model.events import Event, Record, Reject
from streams.reconcile.model.history import Cycle, History, SeenLate, Shown
from streams.reconcile.plan import plan_of
from streams.schemas.catalog import Catalog
from streams.state import journal
from streams.testing import FlowDriver
from streams.testing import Record as Written

T0: Final = datetime(2024, 3, 1, 12, tzinfo=UTC)
RECORD_BYTES_MAX: Final = 1 << 20
"""Of the driver's settings."""


@dataclass
class Topics:
    """What a flow has read and written, of one partition. `damage` what you like, then `judge`."""

    flow: Flow
    source: list[Written]
    outputs: dict[str, list[Written]]
    cycles: list[Cycle] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    """Schemas by id."""
    reached: int | None = None
    """Offset of the source that the group stood at first; None: its end."""
    since_ms: int | None = None
    """What of the source is read: from this time on."""

    def of(self, topic: str, key: str) -> list[Written]:
        """Records of a key."""
        return [each for each in self.outputs[topic] if each.key == key.encode()]

    def remove(self, record: Written) -> None:
        """Take a record out of its topic."""
        self.outputs[record.topic].remove(record)

    def put(self, record: Written, *, value: bytes | None = None, after: Written | None = None) -> None:
        """Write a record once more: at the end, or after another one; with another value."""
        log = self.outputs[record.topic]
        at = len(log) if after is None else log.index(after) + 1
        offset = max((each.offset for each in log), default=0) + 1 if after is None else after.offset
        log.insert(at, replace(record, value=record.value if value is None else value, offset=offset))

    def row_with(self, record: Written, **changed: Any) -> bytes:
        """The bytes of a row with other values."""
        assert record.value is not None
        schema = plain_schema(self.texts[int.from_bytes(record.value[1:5], "big")])
        row = {**row_reader(self.texts.get)(record.value), **changed}
        body = _Bytes()
        fastavro.schemaless_writer(body, schema, row)
        return record.value[:5] + bytes(body)

    def judge(self) -> Findings:
        """What reconcile finds."""
        plan = plan_of(self.flow.pipeline, Catalog.load().latest(self.flow.pipeline.subject).text, RECORD_BYTES_MAX)
        decoder = decoder_of(self.texts.get, plan.reader_schema, plan.rules.fields)

        def decode(raw: bytes) -> Event | Reject:
            found: Event | Reject = decoder.decode_one(Record(-1, 0, None, raw))
            return found

        keys = self._keys(plan.clean, plan.pipeline.late, [one.topic for one in plan.tables],
                          [one.topic for one in plan.windows])  # fmt: skip
        late: dict[Any, list[SeenLate]] = defaultdict(list)
        for outputs in keys.values():
            for seen in outputs.late:
                event = decode(seen.raw)
                if isinstance(event, Event):
                    late[event.identity].append(SeenLate(seen.reason, seen.by_ms))
        letters = self._letters(plan.pipeline.dlq)
        reasons = {offset: found[0].reason for offset, found in letters.items()}
        now_ms = max((each.timestamp_ms for each in self.source), default=0) + 3_600_000
        history = History(plan.rules, Shown(late, reasons, self.cycles), now_ms)
        since_ms = -1 if self.since_ms is None else self.since_ms
        first = next(number for number, each in enumerate(self.source) if each.timestamp_ms >= since_ms)
        read = self.source[first:]
        end = self.source[-1].offset + 1 if self.source else 0
        reached = end if self.reached is None else self.reached
        rows = [Record(each.offset, each.timestamp_ms, each.key, each.value or b"") for each in read]
        is_reached = False
        for read_row, judged in zip(rows, decoder.decode(rows), strict=True):
            if not is_reached and read_row.offset >= reached:
                history.reach(reached, None)
                is_reached = True
            history.take(judged)
        if not is_reached:
            history.reach(reached, max((each.number for each in self.cycles), default=0))
        history.end()
        scope = Scope(
            0, reached, plan.clean, plan.pipeline.late, plan.pipeline.dlq, watermark=history.reached_watermark
        )
        if self.since_ms is not None:
            after = self.since_ms + plan.rules.skew_ms_max
            scope = replace(scope, is_whole=False, clean_after_ms=after, late_after_ms=after)
            scope = replace(scope, windows_after_ms=after)
            letters = {offset: found for offset, found in letters.items() if rows and offset >= rows[0].offset}

        def versions(topic: str, wanted: Any) -> Mapping[bytes, Sequence[SeenRow]]:
            return {key: [_row(each) for each in self.outputs[topic] if each.key == key] for key in wanted}

        return compare_partition(plan, scope, history, keys, letters, decode, row_reader(self.texts.get), versions, {})

    def _keys(
        self, clean: str | None, late: str, tables: Sequence[str], windows: Sequence[str]
    ) -> dict[bytes, KeyOutputs]:
        found: dict[bytes, KeyOutputs] = defaultdict(KeyOutputs)
        for each in self.outputs[clean] if clean else ():
            found[each.key or b""].clean.append(SeenEvent(each.value or b"", 0, each.offset))
        for each in self.outputs[late]:
            reason, by_ms = (each.headers.get(name) or b"" for name in ("late.reason", "late.by_ms"))
            row = SeenLateEvent(each.value or b"", reason.decode(), int(by_ms or b"-1"), 0, each.offset)
            found[each.key or b""].late.append(row)
        for topic in tables:
            for each in self.outputs[topic]:
                outputs = found[each.key or b""]
                outputs.rows[topic] = _row(each)
                outputs.was_forgotten |= each.value is None
        for topic in windows:
            for each in self.outputs[topic]:
                found[each.key or b""].windows.setdefault(topic, []).append(_row(each))
        return found

    def _letters(self, topic: str) -> dict[int, list[SeenLetter]]:
        found: dict[int, list[SeenLetter]] = defaultdict(list)
        for each in self.outputs[topic]:
            offset = int(each.headers.get("__streams.errors.offset") or b"-1")
            reason = (each.headers.get("dlq.reason") or b"").decode()
            found[offset].append(SeenLetter(each.key, digest_of(each.value or b""), reason, 0, each.offset))
        return found


class _Bytes(bytearray):
    def write(self, data: bytes) -> None:
        self.extend(data)


def _row(record: Written) -> SeenRow:
    return SeenRow(record.value, 0, record.offset)


def position(number: int, *, at_s: float = 0, device: str = "truck-1", **more: Any) -> dict[str, Any]:
    """A position of a vehicle."""
    event = {
        "event_id": f"{device}-{number}",
        "device_id": device,
        "sequence": number,
        "event_time": T0 + timedelta(seconds=at_s),
        "latitude": 48.1 + number / 1_000,
        "longitude": 11.5,
        "speed_kmh": 50.0 + number,
        "heading_deg": None,
    }
    return {**event, **more}


def run(flow: Flow, feed: Callable[[FlowDriver], None]) -> Topics:
    """What the engine writes for what `feed` feeds it, in one partition."""
    driver = FlowDriver(flow)
    feed(driver)
    pipeline = flow.pipeline
    outputs = {topic.name: driver.read(topic.name) for topic in pipeline.topics() if topic.name != pipeline.source}
    cycles = []
    for each in outputs[pipeline.journal]:
        entry = journal.unpack(each.value or b"")
        cycles += [Cycle(entry.cycle, at.offset_next, at.watermark) for at in entry.positions.values()]
    return Topics(flow, driver.read(pipeline.source), outputs, cycles, _texts(driver))


def _texts(driver: FlowDriver) -> dict[int, str]:
    """Schemas by the ids that the driver has given them."""
    found = {}
    for schema_id in range(1, 100):
        text = driver._registered.text_of(schema_id)
        if text is not None:
            found[schema_id] = text if isinstance(text, str) else json.dumps(text)
    return found


def the_only(findings: Findings) -> Difference:
    """The one difference that there is."""
    assert findings.total == 1, [f"{each.kind}: {each.text}" for each in findings.differences]
    return findings.differences[0]
