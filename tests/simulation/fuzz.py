"""Random logs, each processed twice: in batches of one, and with everything that must not matter.

What must not matter (I8): where the log is cut into batches and cycles, crashes at any step that keep the store, lose
it or bring an old copy back, lost answers, clean stops, spilling, expiry, compaction of table topics, and truncation of
the journal. All that comes out and all that is remembered is compared. One partition, time and randomness by the seed:

    make fuzz SEED=17 ARGS='--logs 1'
"""

import argparse
import copy
import random
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import structlog

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.decoded import Decoded, Known
from streams.avro.resolve import Plan, build_plan
from streams.batch.clock import Clock
from streams.batch.events import Events, Fields
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.engine.commit import Committer
from streams.engine.config import TaskConfig
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.log import LogRow
from streams.engine.restore import restore_partition
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.operators.fold.operator import fold_name
from streams.operators.quarantine.operator import QuarantineOperator
from streams.operators.reorder.held import held_in_store, without_repeats
from streams.operators.reorder.operator import ReorderOperator
from streams.operators.window.operator import window_name
from streams.schemas.catalog import Catalog
from streams.sinks.base import CycleAborted
from streams.sinks.memory import MemoryTransactions
from streams.sources.base import Idle
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.space import StoreSpace
from streams.state.store import StoreCorrupted
from tests.simulation.traffic import NOW_MS, SCHEMA_ID, START_MS, encode, gps_schema

UNKNOWN_SCHEMA_ID = 0x63
TABLE = GPS.tables[0].topic
_CATALOG = Catalog.load()
_TABLE_SCHEMA = _CATALOG.latest("vehicles.state.v1-value").text
_WINDOW_SCHEMA = _CATALOG.latest("vehicles.minutes.v1-value").text
_PLAN = build_plan(SCHEMA_ID, gps_schema(), gps_schema())
_UNKNOWN = Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", UNKNOWN_SCHEMA_ID)
_KNOWN: dict[int | str, Plan | Reject] = {SCHEMA_ID: _PLAN, UNKNOWN_SCHEMA_ID: _UNKNOWN}


@dataclass(frozen=True)
class Shape:
    """What one log and its pipeline are like."""

    events: int
    devices: int
    steps_ms: Sequence[int]
    poison: float
    lateness_ms: int
    horizon_ms: int
    window_ms: int
    grace_ms: int
    rejects_max: int
    cooldown_ms: int
    keys_max: int
    """Breakers that are remembered."""
    index_records: int
    """Journal records of one group: what is truncated together."""

    @staticmethod
    def of(rng: random.Random) -> "Shape":
        lateness_ms = rng.choice((0, 20, 500, 5_000))
        return Shape(
            events=rng.choice((20, 40, 70)),
            devices=rng.choice((1, 3, 6)),
            steps_ms=rng.choice(((0, 1, 7, 50), (0, 100, 1_000, 30_000), (0, 5_000, 60_000, 200_000))),
            poison=rng.choice((0.05, 0.25, 0.5)),
            lateness_ms=lateness_ms,
            horizon_ms=rng.choice((lateness_ms + 1, lateness_ms + 2_000, 120_000, 10**9)),
            window_ms=rng.choice((500, 60_000)),
            grace_ms=rng.choice((0, 200, 30_000)),
            rejects_max=rng.choice((0, 1, 2, 4)),
            cooldown_ms=rng.choice((1_000, 300_000, 10**8)),
            keys_max=rng.choice((2, 10_000)),
            index_records=rng.choice((1, 2, 5)),
        )


class Died(BaseException):
    """The process ends here."""


class OnceDecoder:
    """The decoder, asked once for each record: a log is processed twice here, and decoding is not what is looked at."""

    def __init__(self) -> None:
        self._decoder = Decoder(GPS, record_bytes_max=1 << 20, skew_ms_max=60_000)
        self._decoded: dict[int, Decoded] = {}
        self.skew_ms_max = self._decoder.skew_ms_max

    def decode(self, records: Records, known: Known, skip: frozenset[int], clock: Clock) -> Decoded:
        events: list[Events] = [Events.none(Fields(GPS.payload_fields, GPS.text_fields))]
        rejects: list[Reject] = []
        for row, offset in enumerate(records.offset.tolist()):
            if row in skip:
                continue
            if offset not in self._decoded:
                self._decoded[offset] = self._decoder.decode(records.take(np.array([row])), known, clock=clock)
            one = self._decoded[offset]
            events.append(one.events.with_rows(np.full(len(one.events), row)))
            rejects += [replace(reject, row=row) for reject in one.rejects]
        return Decoded(Events.concat(events), rejects, {}, [])


class CompactedChangelog(MemoryChangelog):
    """Of each key of a table topic only the last row is left."""

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        rows = [row for part in super().read(topic, partition, start, end) for row in part]
        if topic == TABLE:
            rows = list({row.key: row for row in rows}.values())
        yield from ([row] for row in rows)


def fill(kafka: MemoryKafka, rng: random.Random, shape: Shape) -> None:
    """A log: disorder, history, copies, ties, and rejects in bursts."""
    sent: list[tuple[bytes, bytes]] = []
    now, sequence = START_MS, 0
    sick = rng.randrange(shape.devices)
    for _ in range(shape.events):
        now += rng.choice(shape.steps_ms)
        if rng.random() < 0.05:
            sick = rng.randrange(shape.devices)
        number = sick if rng.random() < 0.3 else rng.randrange(shape.devices)
        key = b"device-%d" % number
        if sent and rng.random() < 0.15:
            key, raw = rng.choice(sent)
        elif rng.random() < shape.poison and (number == sick or rng.random() < 0.3):
            raw = rng.choice((b"\7junk", b"\0\0\0\0\x63" + rng.randbytes(9), b"\0\0\0\0\7cut"))
        else:
            sequence += rng.choice((0, 1))
            back = rng.random()
            time = now - rng.choice((0, 0, 1, shape.lateness_ms, shape.lateness_ms + 1))
            if back < 0.1:
                time = now - rng.randint(0, max(shape.steps_ms) * 20)
            elif back < 0.15:
                time = now + rng.randint(0, 60_000)
            raw = encode(
                {
                    "event_id": str(uuid.UUID(int=rng.getrandbits(128))) if rng.random() < 0.7 else rng.choice("abé"),
                    "device_id": key.decode(),
                    "sequence": sequence,
                    "event_time": time - time % rng.choice((1, 1, 25)),
                    "latitude": rng.uniform(-90, 90),
                    "longitude": rng.uniform(-180, 180),
                    "speed_kmh": rng.choice((None, 0.0, 2.999, 3.0, 55.123)),
                    "heading_deg": None,
                    "altitude_m": None,
                }
            )
            sent.append((key, raw))
        kafka.append(GPS.source, 0, key, raw, now + rng.choice((0, 0, 3, 2_000, -1_000)))


@dataclass
class Done:
    """How often each thing was done that must not matter."""

    counts: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class Machine:
    """One worker over one partition; `rng` None: batches of one, and nothing else happens."""

    def __init__(
        self,
        kafka: MemoryKafka,
        decoder: OnceDecoder,
        shape: Shape,
        rng: random.Random | None,
        done: Done,
        *,
        truncate: bool,
    ) -> None:
        self.kafka, self.decoder, self.shape, self.rng, self.done = kafka, decoder, shape, rng, done
        self.truncate = truncate
        window = replace(GPS.windows[0], size_ms=shape.window_ms, grace_ms=shape.grace_ms)
        self.pipeline = replace(GPS, windows=(window,))
        self.config = TaskConfig(
            replace(
                self.pipeline,
                bounds=Bounds(
                    shape.lateness_ms,
                    shape.horizon_ms,
                    idle_ms=1_000,
                    quarantine_rejects=shape.rejects_max,
                    quarantine_cooldown_ms=shape.cooldown_ms,
                ),
            ),
            lambda _: nullcontext(),
            partial(partitions_of, partitions=1),
        )
        self.disk: dict[bytes, bytes] = {}
        self.old_disks: list[dict[bytes, bytes]] = []
        kafka.owners[0] = "w"
        self.start()

    def start(self) -> None:
        self.engine = Engine(self.config, self.decoder)  # type: ignore[arg-type]
        self.engine.learn(_KNOWN)
        compacted = self.rng is not None and self.rng.random() < 0.5
        self.changelog = CompactedChangelog(self.kafka) if compacted else MemoryChangelog(self.kafka)
        self.transactions = MemoryTransactions(self.kafka, "w", self._verdict)
        self.committer = Committer(
            self.pipeline,
            self.transactions,
            self.changelog,
            [RowEncoder(TABLE, _TABLE_SCHEMA, 3), RowEncoder(self.pipeline.windows[0].topic, _WINDOW_SCHEMA, 4)],
            self._failpoint,
            author="w",
            session="s",
        )
        self.restore()

    def restore(self) -> None:
        few = self.rng.choice((2, 20, 10**6)) if self.rng else 10**6
        for _ in range(2):
            store = MemoryStore(self.disk)
            try:
                task = restore_partition(
                    self.config, 0, store, self.changelog, ids_in_memory_max=few, held_bytes_max=400 * few
                )
                break
            except StoreCorrupted:
                self.disk.clear()
        self.engine.install(task)
        self.position = max(task.offset_next, 0)

    @property
    def task(self) -> PartitionTask:
        return self.engine.tasks[0]

    def feed(self, count: int) -> None:
        entries = self.kafka.log(GPS.source, 0)[self.position : self.position + count]
        numbers = [(0, entry.offset, entry.timestamp_ms) for entry in entries]
        columns = np.array(numbers, dtype=np.int64).reshape(-1, 3).T.copy()
        keys, values = [entry.key for entry in entries], [entry.value for entry in entries]
        self.position += len(entries)
        self._process(MicroBatch(Records(columns[0], columns[1], columns[2], keys, values), 0, clock_ms=NOW_MS))

    def idle(self) -> None:
        """Let time go on until nothing waits for it any more."""
        self._process(MicroBatch(None, 0, {0: Idle(0, 0)}, clock_ms=NOW_MS))
        for _ in range(self.shape.devices):
            self._process(MicroBatch(None, 0, {0: Idle(0, 10**14)}, clock_ms=NOW_MS))
            self.commit()

    def catch_up(self) -> None:
        """Close what was too much for one cycle."""
        for _ in range(self.shape.devices):
            self._process(MicroBatch(None, 0, clock_ms=NOW_MS))
            self.commit()

    def _process(self, batch: MicroBatch) -> None:
        self.committer.write(self.engine.process(batch))

    def commit(self) -> None:
        end = self.engine.close_cycle()
        if end is not None:
            self.done.note("cycles")
            self.committer.commit(end, self.engine.tasks, 0, lambda: self.kafka.membership_of("w"))

    # --- what must not matter ---------------------------------------------------------------------------------------

    def disturbed(self) -> None:
        """Process the log to its end, in any way."""
        rng = self.rng
        assert rng is not None
        while not self.is_done:
            try:
                action = rng.random()
                if action < 0.5:
                    self.feed(rng.choice((1, 1, 2, 5, 20)))
                    self.done.note("batches")
                elif action < 0.75:
                    self.commit()
                elif action < 0.9:
                    self.maintain(rng)
                elif action < 0.93:
                    self.task.store.flush()
                elif action < 0.95:
                    self.stop()
                else:
                    self.crash(rng)
            except CycleAborted:
                self.abort()
            except Died:
                self.crash(rng)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do that does not wait for time to go on."""
        at_end = self.position >= len(self.kafka.log(GPS.source, 0))
        return at_end and self.task.is_settled

    def maintain(self, rng: random.Random) -> None:
        self.commit()
        if rng.random() < 0.3:
            self.engine.expire()
            self.done.note("expiries")
        if rng.random() < 0.5:
            self.task.maintenance.spill(
                below=self.task.watermark - rng.choice((-(10**9), 0, 500, 50_000)),
                rows_keep=rng.choice((0, 1, 5, 10**6)),
                keep_keys=rng.random() < 0.5,
            )
            self.done.note("spills")
        if self.truncate:
            cut = self.task.maintenance.truncate_journal_before()
            if cut is not None:
                self.kafka.begin_offset[GPS.journal, 0] = cut
                self.done.note("truncations")

    def stop(self) -> None:
        """A clean stop and a start."""
        self.done.note("stops")
        self.commit()
        task = self.engine.drop(0)
        assert task is not None
        task.maintenance.park()
        self.start()

    def abort(self) -> None:
        self.done.note("aborts")
        self.committer.abort()
        task = self.engine.drop(0)
        assert task is not None
        task.store.flush()
        self.restore()

    def crash(self, rng: random.Random) -> None:
        left = self.kafka.open.get("w")
        if left is not None and rng.random() < 0.5:
            self.kafka.end(left, "aborted")
        self.old_disks.append(copy.copy(self.disk))
        fate = rng.choice(("kept", "kept", "lost", "old"))
        self.done.note(f"crashes, store {fate}")
        if fate == "lost":
            self.disk = {}
        elif fate == "old":
            self.disk = copy.copy(rng.choice(self.old_disks))
        self.start()

    def _failpoint(self, _: str) -> None:
        if self.rng is not None and self.rng.random() < 0.02:
            raise Died

    def _verdict(self) -> str:
        if self.rng is None:
            return "committed"
        return self.rng.choices(("committed", "aborted", "unknown-happened", "unknown-not-happened"), (90, 4, 3, 3))[0]


def remembered(machine: Machine) -> dict[str, Any]:
    """State that decides what becomes of records to come."""
    task, shape = machine.task, machine.shape
    oldest = task.watermark - shape.horizon_ms
    rows: dict[str, dict[bytes, bytes]] = {}
    prefixes = {
        "last due": operator_prefix("reorder.last"),
        "folds": operator_prefix(fold_name(TABLE)),
        "newest windows": operator_prefix(window_name(GPS.windows[0].topic)),
    }
    for name, prefix in prefixes.items():
        rows[name] = {key[len(prefix) :]: row for key, row in task.store.scan(prefix)}
    # What is older than the horizon judges nobody: whatever could come before it is late for its age.
    rows["last due"] = {
        key: row for key, row in rows["last due"].items() if int.from_bytes(row[:8], "little", signed=True) >= oldest
    }
    in_store = held_in_store(StoreSpace(task.store, "reorder.held"), machine.config.fields, task.watermark)
    waiting = without_repeats([*task.operator(ReorderOperator).held.all(), *([] if in_store is None else [in_store])])
    held = [] if waiting is None else list(zip(waiting.key, waiting.value, strict=True))
    known = task.operator(QuarantineOperator).breakers
    breakers = [(key, one.opened_at, one.rejects) for key, one in known._breakers.items()]
    return {
        **rows,
        "watermark": task.watermark,
        "offset": task.offset_next,
        "held": sorted(held),
        "breakers, the least recently changed first": breakers,
        "kept out": sorted(known.open_keys),
    }


def outputs(kafka: MemoryKafka) -> dict[str, Any]:
    """What readers of the topics see."""
    clean: dict[bytes | None, list[bytes | None]] = {}
    for entry in kafka.topic_rows(GPS.clean):
        clean.setdefault(entry.key, []).append(entry.value)
    late = [
        (entry.key, entry.value, *sorted((name, value or b"") for name, value in entry.headers or []))
        for entry in kafka.topic_rows(GPS.late)
    ]
    dead = []
    for entry in kafka.topic_rows(GPS.dlq):
        headers = dict(entry.headers or [])
        dead.append((headers["__streams.errors.offset"], headers["dlq.reason"], entry.key, entry.value))
    windows: dict[bytes | None, list[bytes | None]] = {}
    for entry in kafka.topic_rows(GPS.windows[0].topic):
        windows.setdefault(entry.key, []).append(entry.value)
    placed = sum(map(len, clean.values())) + len(late) + len(dead)
    return {
        "clean": clean,
        "late": sorted(late),
        "dead letters": sorted(dead),
        "duplicates and held": len(kafka.log(GPS.source, 0)) - placed,
        "table": {entry.key: entry.value for entry in kafka.topic_rows(TABLE)},
        "windows": windows,
    }


@contextmanager
def _bounds_of(shape: Shape) -> Iterator[None]:
    """Bounds so small that short logs reach them."""
    with (
        mock.patch("streams.operators.quarantine.breakers.KEYS_MAX", shape.keys_max),
        mock.patch("streams.engine.journal_index.JOURNAL_INDEX_RECORDS", shape.index_records),
        mock.patch("streams.engine.restore_journal._PUTS_MAX", 3),
        mock.patch("streams.operators.reorder.operator._PUTS_MAX", 3),
        mock.patch("streams.operators.quarantine.operator._REPLAYED_MAX", 3),
        mock.patch("streams.operators.timed._SCAN_ROWS", 2),
        mock.patch("streams.operators.timed._LOADED_MAX", 2),
        mock.patch("streams.operators.timed._TOGETHER_MAX", 2),
    ):
        yield


def fuzz(seed: int, done: Done | None = None, *, truncate: bool = True) -> None:
    """Process the log of a seed in both ways and compare; AssertionError says what differs and how to see it again."""
    done = done or Done()
    rng = random.Random(seed)
    shape = Shape.of(rng)
    plain, broken = MemoryKafka(1), MemoryKafka(1)
    fill(plain, rng, shape)
    broken.logs = {(GPS.source, 0): plain.log(GPS.source, 0)}
    decoder = OnceDecoder()
    with _bounds_of(shape):
        straight = Machine(plain, decoder, shape, None, done, truncate=False)
        while straight.position < len(plain.log(GPS.source, 0)):
            straight.feed(1)
        straight.commit()
        disturbed = Machine(broken, decoder, shape, rng, done, truncate=truncate)
        disturbed.disturbed()
        disturbed.rng = None
        disturbed.catch_up()
        disturbed.rng = rng
        _compare(seed, shape, outputs(plain), outputs(broken), "at the end of the log")
        _compare(seed, shape, remembered(straight), remembered(disturbed), "at the end of the log")
        if rng.random() < 0.5:
            disturbed.crash(rng)
        disturbed.rng = None
        for machine in (straight, disturbed):
            machine.idle()
            machine.commit()
        _compare(seed, shape, outputs(plain), outputs(broken), "after idle time")
        _compare(seed, shape, remembered(straight), remembered(disturbed), "after idle time")


def _compare(seed: int, shape: Shape, expected: dict[str, Any], found: dict[str, Any], when: str) -> None:
    for what, value in expected.items():
        assert found[what] == value, (
            f"{what} {when} are not those of batches of one: make fuzz SEED={seed} ARGS='--logs 1'\n{shape}\n"
            f"expected {value}\nfound    {found[what]}"
        )


def quiet() -> None:
    """Let the restores of a fuzz not fill the terminal."""

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])


def main() -> int:
    parser = argparse.ArgumentParser(description="Process random logs in two ways and compare everything.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--logs", type=int, default=1_000, help="how many, one after the other")
    parser.add_argument("--keep-journal", action="store_true", help="do not truncate it")
    options = parser.parse_args()
    quiet()
    done, failed = Done(), 0
    for seed in range(options.seed, options.seed + options.logs):
        try:
            fuzz(seed, done, truncate=not options.keep_journal)
        except AssertionError as error:
            failed += 1
            sys.stdout.write(f"{error}\n\n" if options.logs == 1 else f"{str(error).splitlines()[0]}\n")
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(done.counts.items()))
    sys.stdout.write(f"{options.logs} logs from seed {options.seed}, {failed} differ; {counts}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
