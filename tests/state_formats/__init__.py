"""State as each version of its format was written: a store, its journal and tables, and what a restore must find.

`python -m tests.state_formats` writes those of the format of today, when the `FORMAT` of the checkpoint has changed.
Those of earlier formats are never written again: a test restores each of them with the code of today.
"""

import base64
import hashlib
import json
import random
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from logistics.flows.gps import GPS
from streams.engine.config import TaskConfig
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.memory import MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.operators.base import ALL
from streams.operators.dedup.operator import DedupOperator
from streams.sinks.base import Committed
from streams.state.memory import MemoryStore
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch
from tests.simulation.traffic import fill
from tests.simulation.worker import COOLDOWN_MS, PIPELINE, REJECTS_MAX, SimulatedWorker

FOLDER: Final = Path(__file__).parent
LATENESS_MS, HORIZON_MS, SEED = 300, 20_000, 26
STATE: Final = "state.json"


def config() -> TaskConfig:
    """Of the flow whose state it is."""
    bounds = Bounds(
        LATENESS_MS, HORIZON_MS, idle_ms=1_000, quarantine_rejects=REJECTS_MAX, quarantine_cooldown_ms=COOLDOWN_MS
    )
    return TaskConfig(replace(PIPELINE, bounds=bounds), lambda _: nullcontext(), partial(partitions_of, partitions=1))


@dataclass(frozen=True)
class Written:
    """What a version has written."""

    kafka: MemoryKafka
    """Journal, tables and the group's offset."""
    store: Path
    expected: dict[str, Any]


def summary(task: PartitionTask) -> dict[str, Any]:
    """What a task knows, however it came to it; moves all of it to the store."""
    task.maintenance.spill(below=ALL, rows_keep=0, keep_keys=True)
    ids = task.operator(DedupOperator).spilled.all()
    words = np.sort(ids.hi ^ ids.lo ^ ids.word).tobytes()
    keyed = {state.name: sum(1 for _ in StoreSpace(task.store, state.part).scan()) for state in task.config.keyed}
    return {
        "cycle": task.checkpoint.cycle,
        "offset_next": task.offset_next,
        "watermark": task.watermark,
        "ids": len(ids),
        "ids_sha256": hashlib.sha256(words).hexdigest(),
        "rows": keyed,
    }


def write(folder: Path) -> None:
    """Work through some traffic; write the store as of half of it, and the logs as of its end."""
    kafka = MemoryKafka(1)
    fill(kafka, GPS.source, random.Random(SEED), events=400, devices=6, lateness_ms=LATENESS_MS)
    worker = SimulatedWorker(
        "writer", kafka, random.Random(SEED), lateness_ms=LATENESS_MS, horizon_ms=HORIZON_MS, batch_records_max=30,
        faults=False,
    )  # fmt: skip
    worker.assign(0)
    rows: dict[bytes, bytes] = {}
    while not worker.is_caught_up:
        worker.work_and_commit()
        if not rows and worker.position.get(0, 0) > 200:
            worker.stores.flush()
            rows = dict(worker.disk[0])
    worker.catch_up()
    topics = [GPS.journal, *(table.topic for table in GPS.tables)]
    committed = kafka.group[0]
    document = {
        "source_end": len(kafka.log(GPS.source, 0)),
        "committed": [committed.offset_next, committed.cycle],
        "topics": {
            topic: [
                [entry.offset, _text(entry.key), _text(entry.value), [[n, _text(v)] for n, v in entry.headers or ()]]
                for entry in kafka.committed_rows(topic, 0)
            ]
            for topic in topics
        },
        "ends": {topic: len(kafka.log(topic, 0)) for topic in topics},
        "expected": summary(worker.engine.tasks[0]),
    }
    folder.mkdir()
    (folder / STATE).write_text(json.dumps(document))
    store = RocksStore(folder / "open", RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))
    store.write(WriteBatch(puts=sorted(rows.items())))
    store.checkpoint(folder / "store")
    store.close()
    shutil.rmtree(folder / "open")


def read(folder: Path) -> Written:
    """What `write` has written."""
    document = json.loads((folder / STATE).read_text())
    kafka = MemoryKafka(1)
    for _ in range(document["source_end"]):
        kafka.append(GPS.source, 0, b"", b"", 0)
    for topic, rows in document["topics"].items():
        by_offset = {row[0]: row for row in rows}
        for offset in range(document["ends"][topic]):
            row = by_offset.get(offset)
            if row is None:  # the end of a transaction
                kafka.append(topic, 0, None, None, 0)
                kafka.log(topic, 0)[offset].is_marker = True
                continue
            headers = [(name, _bytes(value)) for name, value in row[3]]
            kafka.append(topic, 0, _bytes(row[1]), _bytes(row[2]), 0, headers)
    kafka.group[0] = Committed(*document["committed"])
    return Written(kafka, folder / "store", document["expected"])


def nothing() -> MemoryStore:
    """A store without state."""
    return MemoryStore()


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
