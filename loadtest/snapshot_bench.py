"""Measure snapshots: an upload after a small change, and a restore from a snapshot beside one from the journal.

One partition of the flow of positions, with the engine, the commit cycle, RocksDB and the object store (a folder) as in
a worker. Kafka is the one in memory: what a restore from the journal takes to fetch records is left out, which favours
the journal. The table's topic is compacted before it is read.
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from loadtest.report import describe_machine
from logistics.flows.gps import GPS
from streams.avro.resolve import build_plan
from streams.batch.records import Records
from streams.engine.commit import Committer
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.restore import restore_partition
from streams.engine.task import PartitionTask
from streams.flow.decoding import decoders_of
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.memory import MemoryTransactions
from streams.snapshots.objects import ObjectStore
from streams.state.identity import Places
from streams.state.rocks import RocksMemory, RocksStore, open_compared, open_or_quarantine
from streams.testing.schemas import RegisteredSchemas
from streams.worker.configuration import config_of
from streams.worker.schemas import reader_schemas
from streams.worker.snapshot_restores import SnapshotRestores
from streams.worker.snapshots import SnapshotUploads

BATCH: Final = 20_000
FLUSH_EVERY: Final = 15
"""Micro-batches between two flushes of the store."""
FETCHED: Final = 2_000
"""Records that a restore gets at once, as from a broker."""
IDS_MAX: Final = 20_000_000
START_MS: Final = 1_700_000_000_000
CHANGED_SHARE: Final = 0.01
_NAME: Final = "bench"


class Bench:
    """The state of a partition, and how long things take."""

    def __init__(self, folder: Path, keys: int, events: int) -> None:
        self.folder, self.keys, self.events = folder, keys, events
        settings = Settings.model_validate({"kafka_bootstrap_servers": "none:0"})
        catalog = Catalog.load()
        registered = RegisteredSchemas(catalog, [GPS])
        self.schema = registered.source(GPS.inputs[0], None)
        (reader,) = reader_schemas(catalog, GPS)
        self.config = config_of(GPS, settings, 1, catalog=catalog)
        self.memory = RocksMemory(cache_bytes=64 << 20, memtable_bytes=64 << 20)
        self.places = Places(_NAME, {topic.name: topic.name for topic in GPS.topics()}, 1)
        self.kafka = MemoryKafka(1)
        self.kafka.give(0, _NAME)
        self.changelog = MemoryChangelog(self.kafka, FETCHED)
        self.engine = Engine(self.config, *decoders_of(GPS, settings))
        self.engine.learn({self.schema.id: build_plan(self.schema.id, self.schema.text, reader)})
        self.store = RocksStore(folder / "0", self.memory)
        self.engine.install(self._restored(self.store))
        self.committer = Committer(
            GPS, MemoryTransactions(self.kafka, _NAME), self.changelog,
            [RowEncoder(one.topic, *registered.newest(one.subject)) for one in GPS.row_outputs],
            lambda _: None, author=_NAME, session=_NAME,
        )  # fmt: skip
        self.offset = 0
        self.objects = ObjectStore(f"file://{folder}/bucket")
        self.uploads = SnapshotUploads(self.objects, GPS, self.memory, worker=_NAME, keep=3, failpoint=lambda _: None)

    def _restored(self, store: RocksStore) -> PartitionTask:
        return restore_partition(self.config, 0, store, self.changelog, ids_in_memory_max=IDS_MAX, places=self.places)

    def work(self, keys: Sequence[int]) -> None:
        """Process and commit an event of each of these keys, a millisecond apart."""
        for number, start in enumerate(range(0, len(keys), BATCH), 1):
            self._cycle(keys[start : start + BATCH])
            if not number % FLUSH_EVERY:
                self.store.flush()

    def _cycle(self, keys: Sequence[int]) -> None:
        first = self.offset
        self.offset += len(keys)
        offsets = np.arange(first, self.offset, dtype=np.int64)
        times = START_MS + offsets  # a millisecond apart: the horizon holds all
        values: list[bytes | None] = [
            self.schema.encode(
                {
                    "event_id": f"{offset:032x}", "device_id": f"device-{key:08d}", "sequence": offset,
                    "event_time": time_ms, "latitude": 52.0 + key % 1000 / 1000, "longitude": 13.0,
                    "speed_kmh": 50.0, "heading_deg": None, "altitude_m": None,
                }
            )
            for key, offset, time_ms in zip(keys, offsets.tolist(), times.tolist(), strict=True)
        ]  # fmt: skip
        records = Records(
            partition=np.zeros(len(keys), dtype=np.int64), offset=offsets, timestamp_ms=times,
            key=[*(f"device-{key:08d}".encode() for key in keys)], value=values, headers=None,
        )  # fmt: skip
        for _ in keys:
            self.kafka.append(GPS.source, 0, None, b"", 0)  # what a restore asks the source is where it ends
        now_ms = int(times[-1])
        self.committer.write(self.engine.process(MicroBatch(records, now_ms, {}, clock_ms=now_ms)))
        end = self.engine.close_cycle()
        if end is not None:
            self.committer.commit(end, self.engine.tasks, now_ms, lambda: self.kafka.membership_of(_NAME))

    def snapshot(self) -> dict[str, float]:
        """Take one: bytes, those of them that were written, seconds; milliseconds of the hard links."""
        folder = self.folder / "0.snapshot"
        shutil.rmtree(folder, ignore_errors=True)
        self.store.flush()
        started = time.perf_counter()
        self.store.checkpoint(folder)
        linked = time.perf_counter()
        _, done = self.uploads.upload(0, folder)
        ended = time.perf_counter()
        assert done is not None  # noqa: S101 - it has changed
        return {
            "bytes": done.manifest.size, "written_bytes": done.written_bytes, "seconds": round(ended - started, 3),
            "links_ms": round((linked - started) * 1000, 1),
        }  # fmt: skip

    def compact(self) -> None:
        """Leave the newest row of each key in the table's topic, as the broker's cleaner does."""
        for topic in GPS.table_topics:
            newest = {entry.key: entry.offset for entry in self.kafka.committed_rows(topic, 0)}
            for entry in self.kafka.log(topic, 0):
                entry.is_marker = entry.is_marker or newest.get(entry.key) != entry.offset

    def restore(self, name: str, *, from_snapshot: bool) -> tuple[float, float]:
        """Seconds, and processor time, until a partition without local state stands where the group has committed."""
        path = self.folder / name / "0"
        started, cpu = time.perf_counter(), time.process_time()
        store = open_or_quarantine(path, self.memory)
        if from_snapshot:
            store.close()
            if SnapshotRestores(self.objects, GPS).bring(0, path, self.places, lambda: None) is None:
                raise SystemExit("the snapshot was not usable")
            store = open_compared(path, self.memory)
        task = self._restored(store)
        seconds = time.perf_counter() - started, time.process_time() - cpu
        if task.offset_next != self.offset:
            raise SystemExit(f"restored up to {task.offset_next} of {self.offset}")
        store.close()
        shutil.rmtree(path.parent)
        return seconds


def bench(
    keys: Annotated[int, typer.Option(min=1_000, help="Keys with a row.")] = 2_000_000,
    events: Annotated[int, typer.Option(min=1_000, help="Events, each with an id that is remembered.")] = 5_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Restores of each kind, in turn; the median counts.")] = 3,
    to: Annotated[Path | None, typer.Option("--to", help="File for the figures, as JSON.")] = None,
) -> None:
    """Measure taking and restoring snapshots."""
    with tempfile.TemporaryDirectory(prefix="streams-bench-") as name:
        made = Bench(Path(name), keys, events)
        chance = np.random.default_rng(1)
        first = chance.permutation(keys).tolist()
        made.work([*first, *chance.integers(0, keys, max(0, events - keys)).tolist()])
        say("worked", events=made.offset)
        full = made.snapshot()
        say("full", **full)
        made.work(chance.choice(keys, int(keys * CHANGED_SHARE), replace=False).tolist())
        again = made.snapshot()
        say("incremental", **again)
        made.work(chance.choice(keys, int(keys * CHANGED_SHARE), replace=False).tolist())  # the journal's tail
        made.store.flush()
        made.compact()
        seconds: dict[str, list[tuple[float, float]]] = {"journal": [], "snapshot": []}
        for number in range(rounds):
            for kind, each in seconds.items():
                each.append(made.restore(f"{kind}-{number}", from_snapshot=kind == "snapshot"))
                say("restored", kind=kind, seconds=round(each[-1][0], 3), cpu_s=round(each[-1][1], 3))
        made.store.close()
    walls = {kind: round(statistics.median(wall for wall, _ in each), 3) for kind, each in seconds.items()}
    cpus = {kind: round(statistics.median(cpu for _, cpu in each), 3) for kind, each in seconds.items()}
    report = {
        "keys": keys, "events": events, "rounds": rounds, "full": full, "incremental": again,
        "restore_seconds": walls, "restore_cpu_seconds": cpus,
        "ratios": {
            "incremental_to_full": round(again["written_bytes"] / full["written_bytes"], 4),
            "restore_journal_to_snapshot": round(walls["journal"] / walls["snapshot"], 2),
            "restore_cpu_journal_to_snapshot": round(cpus["journal"] / cpus["snapshot"], 2),
        },
        "machine": describe_machine(),
    }  # fmt: skip
    text = json.dumps(report, indent=2, default=str)
    print(text)
    if to is not None:
        to.write_text(f"{text}\n", encoding="utf-8")


def say(what: str, **facts: Any) -> None:
    """Print a line of progress to standard error."""
    print(what, *(f"{name}={value}" for name, value in facts.items()), flush=True)


if __name__ == "__main__":
    typer.run(bench)
