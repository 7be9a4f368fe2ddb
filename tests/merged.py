"""A flow of two sources, random logs of them, and what must come of these: by a model of plain loops."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streams import (
    Events,
    Flow,
    Operator,
    OperatorContext,
    OperatorSpec,
    Output,
    OutputTopic,
    RowRecords,
    merge,
    source,
)
from streams.batch.columns import Objects
from streams.batch.refs import byte_objects
from streams.batch.rows import Rows, empty_rows
from streams.kafka.partitioner import partition_of
from streams.operators.changes import Changes
from streams.operators.keyed import ChangedKeys
from streams.operators.merge.section import INPUT
from streams.operators.trace import WatermarkTrace
from streams.testing import Crash, FlowDriver

SEEN = "seen.v1"
LATENESS_MS = 3_000
_DTYPE = np.dtype([("input", "<i8"), ("time", "<i8"), ("sequence", "<i8"), ("watermark", "<i8")])
NAMES = ("left", "right")

Seen = tuple[str, str, int, int]
"""Input, key, event time and sequence."""


@dataclass(frozen=True)
class Fed:
    """An event of an input."""

    of: str
    key: str
    time: int
    sequence: int

    def event(self) -> dict[str, Any]:
        """As it is fed."""
        number = NAMES.index(self.of)
        return {
            "event_id": f"{self.of}-{self.key}-{self.time}-{self.sequence}",
            "key": self.key,
            "event_time": self.time,
            "sequence": self.sequence,
            "value": float(self.sequence + number),
            "note": None,
        }

    @property
    def id(self) -> str:
        return f"{self.of}-{self.key}-{self.time}-{self.sequence}"


@dataclass(frozen=True)
class _Placed(Fed):
    place: int

    @property
    def id(self) -> str:
        return f"{self.place:020d}"


@dataclass(frozen=True)
class Notes(OperatorSpec):
    """Writes a row for each event that it gets, with the watermark before it."""

    topic: str = SEEN

    @property
    def name(self) -> str:
        return f"notes.{self.topic}"

    def build(self, context: OperatorContext) -> "NotesOperator":
        return NotesOperator(self)

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        return (OutputTopic(self.topic, _columns, empty_rows(_DTYPE, 1)),)


class NotesOperator(Operator):
    """Of one partition."""

    def __init__(self, spec: Notes) -> None:
        self._spec = spec
        self._rows: list[tuple[Objects, Rows]] = []

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        if len(events):
            rows = np.zeros(len(events), _DTYPE)
            rows["input"], rows["time"] = events.number(INPUT), events.event_time
            rows["sequence"], rows["watermark"] = events.sequence, trace.prior
            self._rows.append((byte_objects(events.key), rows))
        return Output(events, trace)

    @property
    def is_settled(self) -> bool:
        return not self._rows

    def changes(self, changed: ChangedKeys) -> Changes:
        found = Changes(rows=[RowRecords(self._spec.topic, keys, rows, _columns) for keys, rows in self._rows])
        self._rows = []
        return found


def _columns(keys: Objects, rows: Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array(keys, pa.binary()).cast(pa.string()),
            **{name: pa.array(np.ascontiguousarray(rows[name])) for name in _DTYPE.names or ()},
        }
    )


def merged_flow() -> Flow:
    """Two sources, merged and noted."""
    streams = {
        name: source(
            f"{name}.v1", key="key", fields=("value",), texts=("note",), out_of_orderness=f"{LATENESS_MS}ms",
            idle="1m", skew="1h",
        ).deduplicate("24h").reorder()
        for name in NAMES
    }  # fmt: skip
    return Flow("pair", merge(**streams).process(Notes()))


def schemas_of(directory: Path) -> Path:
    """Schemas of the sources and of the notes, below a directory."""
    fields = [("event_id", "string"), ("key", "string"), ("sequence", "long")]
    event: list[dict[str, Any]] = [{"name": name, "type": kind} for name, kind in fields]
    event += [
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": ["null", "double"], "default": None},
        {"name": "note", "type": ["null", "string"], "default": None},
    ]
    note = [{"name": "key", "type": "string"}] + [{"name": name, "type": "long"} for name in _DTYPE.names or ()]
    for topic, of in (("left.v1", event), ("right.v1", event), (SEEN, note)):
        name = topic.partition(".")[0].capitalize()
        place = directory / f"{topic}-value"
        place.mkdir(parents=True)
        schema = {"type": "record", "name": name, "namespace": "test", "doc": name, "fields": of}
        (place / "1.avsc").write_text(json.dumps(schema))
    return directory


def random_logs(
    rng: random.Random, *, events: int, begins: Sequence[int] = (10_000, 30_000), silence: float = 0.0
) -> dict[str, list[Fed]]:
    """A log of each input: out of order, some of it much too late; the clocks of the inputs are apart.

    `silence`: how likely an hour without events is, at each of them.
    """
    found: dict[str, list[Fed]] = {}
    for name in NAMES:
        now = rng.choice(begins)
        log: list[Fed] = []
        for number in range(events):
            now += rng.choice((0, 0, 100, 700, 2_500))
            now += 3_600_000 if silence and rng.random() < silence else 0
            back = rng.choice((0, 0, 300, 2_000, 3_000, 9_000))
            log.append(Fed(name, rng.choice("abcd"), now - back, number % 7))
        found[name] = log
    return found


def feed(
    driver: FlowDriver,
    logs: Mapping[str, Sequence[Fed]],
    rng: random.Random,
    *,
    crash: Crash | None = None,
    lose_disk: bool = False,
    spill: bool = False,
    expire: bool = False,
) -> None:
    """Feed the logs, each in its order, in pieces that come in any order."""
    left = {name: list(log) for name, log in logs.items()}
    while any(left.values()):
        name = rng.choice([name for name, log in left.items() if log])
        count = rng.randint(1, 7)
        driver.feed(*(each.event() for each in left[name][:count]), of=name)
        del left[name][:count]
        if spill and rng.random() < 0.5:
            for task in driver._engine.tasks.values():
                task.maintenance.spill(below=task.watermark, rows_keep=rng.choice((0, 1, 3)), keep_keys=False)
            if rng.random() < 0.3:
                driver.crash()
        if expire:
            for task in driver._engine.tasks.values():
                task.maintenance.expire()
        if crash is not None and rng.random() < 0.3:
            driver.crash(crash)
        elif lose_disk and rng.random() < 0.1:
            driver.lose_disk()


def seen(driver: FlowDriver) -> list[tuple[int, Seen]]:
    """What was noted: watermark and event, partition after partition."""
    return [(_watermark(record.fields), _seen(record.fields)) for record in driver.read(SEEN)]


def _watermark(fields: Mapping[str, Any]) -> int:
    return int(fields["watermark"])


def _seen(fields: Mapping[str, Any]) -> Seen:
    return NAMES[int(fields["input"])], str(fields["key"]), int(fields["time"]), int(fields["sequence"])


def expected(logs: Mapping[str, Sequence[Fed]], partitions: int = 2) -> list[tuple[int, Seen]]:
    """What must be noted, by one event at a time; without idle time."""
    return [each for partition in range(partitions) for each in of_partition(logs, partition, partitions)[0]]


def of_partition(
    logs: Mapping[str, Sequence[Fed]], partition: int, partitions: int, tables: Sequence[str] = ()
) -> tuple[list[tuple[int, Seen]], int]:
    """What must be noted of a partition, and up to when everything that is due in it has been passed.

    Events of `tables` are known by their places in the log.
    """
    due: list[tuple[int, int, int, str, int, Fed]] = []
    ends: list[int] = []
    for number, name in enumerate(NAMES):
        mine = [one for one in logs[name] if partition_of(one.key.encode(), partitions) == partition]
        end = -(1 << 63)
        unique: set[str] = set()
        held: list[Fed] = []
        last: dict[str, tuple[int, int, str]] = {}
        if name in tables:
            mine = [_Placed(one.of, one.key, one.time, one.sequence, place) for place, one in enumerate(mine)]
        for one in mine:
            before = end
            end = max(end, one.time - LATENESS_MS)
            if one.id in unique:
                fresh = None
            else:
                unique.add(one.id)
                fresh = one
            if fresh is not None and fresh.time > end:
                held.append(fresh)
            ripe = sorted(
                (each for each in held if each.time <= end), key=lambda each: (each.time, each.sequence, each.id)
            )
            held = [each for each in held if each.time > end]
            for each in ripe:
                last[each.key] = (each.time, each.sequence, each.id)
                due.append((each.time, each.time, each.sequence, each.id, number, each))
            if fresh is not None and fresh.time <= end:
                key = (fresh.time, fresh.sequence, fresh.id)
                if key > last.get(fresh.key, (-(1 << 63), 0, "")):
                    last[fresh.key] = key
                    due.append((max(fresh.time, before), *key, number, fresh))
        ends.append(end)
    passed = [row for row in sorted(due, key=lambda row: row[:5]) if row[0] < min(ends)]
    found = [(at - 1, (NAMES[number], one.key, one.time, one.sequence)) for at, _, _, _, number, one in passed]
    return found, min(ends) - 1
