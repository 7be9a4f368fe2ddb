"""`make dlq-ordeal`: rejects of all reasons among good events, repaired and replayed while the replay is being killed.

1. Fill the source: a tenth of the records are rejects of every kind; one device sends garbage until it is quarantined.
2. A worker drains it. Everything is replayed once although nothing was repaired, which gives the rate of a replay, and
   nearly all of it comes back as the second attempt of the same letters.
3. The causes go: the missing schema is registered, the quarantined device is released, a transform repairs what can be.
   The replays of it are killed (SIGKILL) at random moments and run again.
4. What cannot be repaired is discarded with a reason.
5. The oracles: every event is where the model wants it, once; every letter is resolved once, and its outcome is true.

Exit status: 0 all is right, 1 it could not be told, 100 an oracle found something wrong.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from confluent_kafka import TopicPartition
from rich.console import Console

from loadtest import clients
from loadtest.fleet import Fleet, FleetShape, Kind, TrafficBatch, fill_topic
from loadtest.fleet.traffic import CODES, REJECTS
from loadtest.oracle.check import Limits, Topics, check, print_report
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.letters import LetterReport, check_letters
from loadtest.prepare import prepare_pipeline
from loadtest.program import run
from loadtest.repairs import SCHEMA_ID_VARIABLE
from loadtest.report import RESULTS, ResultName, ResultsFolder, named
from loadtest.subject import Subject, wait_until_quiet, wait_until_ready
from loadtest.worker import free_port, worker
from logistics.flows.gps import GPS
from streams.errors import FoundSomething, StreamsError
from streams.local.stack import running_stack
from streams.schemas.client import Registry
from streams.settings import Settings, load_settings

PARTITIONS: Final = 3
REJECT_SHARE: Final = 0.1
RECORD_BYTES_MAX: Final = 4_096
LATENESS_MS: Final = 1_000
NEVER_MS: Final = 3_600_000
IDLE_MS: Final = 500
QUIET_S: Final = 4.0
QUIET_S_MAX: Final = 900.0
READY_S_MAX: Final = 120.0
KILL_S: Final = 3.0
"""A replay that is to be killed is slowed down to take about so long."""
GARBAGE_RECORDS: Final = 150
KEPT_OUT_SHARE: Final = 0.002
DEVICE: Final = b"truck-garbage"


@dataclass(slots=True)
class Ordeal:
    """What a run found."""

    events: int = 0
    rejects: int = 0
    kills: int = 0
    list_s: float = 0.0
    """Wall time of `streams dlq list` over all letters."""
    list_letters: int = 0
    replay_per_s: float = 0.0
    """Letters per second of the replay of all letters that was not killed."""
    replay_per_cpu_s: float = 0.0
    """The same by the CPU time of the command, which other work on the machine does not blur as much."""
    replay_letters: int = 0
    oracle: dict[str, Any] = field(default_factory=dict)
    letters: dict[str, Any] = field(default_factory=dict)


class Run:
    """One ordeal on one stack."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        seed: int,
        say: Callable[[str], None],
        quiet_s: float = QUIET_S,
        kill_s: float = KILL_S,
    ) -> None:
        """`quiet_s`: what has not changed for so long is done. `kill_s`: how long a replay takes that is killed."""
        self.settings = settings
        self.found = Ordeal()
        self._directory = directory
        self._random = random.Random(seed)
        self._seed = seed
        self._say = say
        self._quiet_s, self._kill_s = quiet_s, kill_s
        self._port = free_port()
        self._schema, self._schema_id = prepare_pipeline(settings, GPS.name, PARTITIONS)
        self._registry = Registry(settings)
        self._foreign_id = self._registry.register(
            "ordeal.foreign-value",
            json.dumps({"type": "record", "name": "Foreign", "fields": [{"name": "other", "type": "string"}]}),
        )
        self._coming_id = self._registry.register("ordeal.fix-value", self._variant(0)) + 1
        self._asking = clients.consumer(settings, {"group.id": GPS.group, "enable.auto.commit": False})

    def go(self, events: int, kills: int) -> tuple[Report, LetterReport]:
        """Run all of it; the verdicts of both oracles."""
        self._fill(events)
        with self._worker(NEVER_MS) as subject:
            self._drained(subject, "a worker drains it")
            self._list()
            first = self._dlq("replay", "--all", "--wait", "0", "--why", "nothing was repaired")
            self.found.replay_per_s, self.found.replay_letters = first["records_per_second"], first["replayed"]
            self.found.replay_per_cpu_s = first["records_per_cpu_second"]
            rates = f"{first['records_per_second']:,} a second, {first['records_per_cpu_second']:,} a CPU-second"
            self._say(f"replayed {first['replayed']:,} at {rates}")
            self._drained(subject, "the worker judges them again")
        unknown_until = {self._coming_id: self._ends(GPS.source)}
        self._register_the_schema()
        with self._worker(NEVER_MS) as subject:  # what it knows of unknown schemas is forgotten with it
            first_kills = (kills + 1) // 2
            self._replay_killed(first_kills, "--reason", "unknown_schema", "--why", "the schema is registered")
            repair = ("--all", "--transform", "loadtest.repairs:repair_position", "--why", "repaired by a transform")
            self._replay_killed(kills - first_kills, *repair)
            self._drained(subject, "the worker judges the repaired ones")
        with self._worker(IDLE_MS) as subject:
            self._dlq("discard", "--all", "--why", "cannot be repaired")
            self._drained(subject, "the worker lets go of what it holds")
        return self._judge(unknown_until)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _fill(self, events: int) -> None:
        span_ms = events // 2
        shape = FleetShape(
            devices=min(1_000, max(50, events // 200)),
            start_ms=int(time.time() * 1000) - 4 * 3_600_000 - span_ms,
            schema=self._schema,
            schema_id=self._schema_id,
            tick_ms=500,
            delay_ms_max=50,
            duplicate_immediate=0.02,
            duplicate_delayed=0.02,
            disordered=0.03,
            late=0.005,
            rejects=dict.fromkeys(REJECTS, REJECT_SHARE / len(REJECTS)),
            lateness_ms=LATENESS_MS,
            record_bytes_max=RECORD_BYTES_MAX,
            incompatible_schema_id=self._foreign_id,
            unknown_schema_id=self._coming_id,
        )
        self._say(f"filling the topic with {events:,} events")

        def batches() -> Iterator[TrafficBatch]:
            for batch in Fleet(self._seed, shape).batches(events):
                counts = batch.counts()
                self.found.rejects += sum(counts[kind] for kind in REJECTS)
                yield batch
            yield self._quarantined(shape, max(50, round(events * KEPT_OUT_SHARE)))

        self.found.events = fill_topic(self.settings.kafka_bootstrap_servers, GPS.source, batches())

    def _quarantined(self, shape: FleetShape, kept_out: int) -> TrafficBatch:
        """A device that sends garbage until it is quarantined, and then good positions."""
        one = Fleet(
            self._seed + 1,
            FleetShape(
                devices=1, start_ms=shape.start_ms, schema=self._schema, schema_id=self._schema_id, tick_ms=2,
                delay_ms_max=0, device_prefix=DEVICE.decode(),
            ),
        )  # fmt: skip
        (good,) = list(one.batches(kept_out))[:1]
        self.found.rejects += GARBAGE_RECORDS + len(good)
        at_ms = good.timestamps_ms[0]
        kinds = [CODES[Kind.MALFORMED]] * GARBAGE_RECORDS + good.kinds.tolist()
        values = [good.values[0][:25]] * GARBAGE_RECORDS + good.values
        keys = [good.keys[0]] * GARBAGE_RECORDS + good.keys
        return TrafficBatch(
            keys, values, [at_ms] * GARBAGE_RECORDS + good.timestamps_ms, np.array(kinds, dtype=np.int8)
        )

    def _list(self) -> None:
        started_s = time.monotonic()
        found = self._dlq("list", "--limit", "20")
        self.found.list_s, self.found.list_letters = time.monotonic() - started_s, found["total"]
        counts = {group["reason"]: group["count"] for group in found["groups"]}
        self._say(f"listed {found['total']:,} letters in {self.found.list_s:.1f} s: {counts}")
        if found["total"] != self.found.rejects:
            raise FoundSomething(f"{self.found.rejects} rejects were sent, {found['total']} letters are listed")

    def _register_the_schema(self) -> None:
        """Give the registry the schema that the unknown id stands for: it counts its ids up."""
        for number in range(1, 50):
            found = self._registry.register(f"ordeal.fix-{number}-value", self._variant(number))
            if found == self._coming_id:
                self._say(f"registered schema {found}, which was unknown")
                return
        raise StreamsError(f"the registry never gave the id {self._coming_id}")

    def _variant(self, number: int) -> str:
        """The positions' schema with another documentation: another schema to the registry, the same to readers."""
        return json.dumps({**json.loads(self._schema), "doc": f"variant {number}"})

    def _replay_killed(self, kills: int, *arguments: str) -> None:
        """Run a replay until it comes to its end by itself; the first runs are killed."""
        selected = self._dlq("replay", "--dry-run", *arguments)["selected"]
        rate = max(1, round(selected / self._kill_s))
        for number in range(kills):
            before = sum(self._ends(GPS.audit).values())
            process = self._start("replay", "--wait", "0", "--rate", str(rate), *arguments)
            # Every other one as soon as it has committed something, the others whenever it happens to be.
            while number % 2 == 0 and process.poll() is None and sum(self._ends(GPS.audit).values()) == before:
                time.sleep(0.02)
            time.sleep(self._random.random() * self._kill_s)
            if process.poll() is None:
                process.kill()
                self.found.kills += 1
            process.communicate()
        done = self._dlq("replay", "--wait", "0", *arguments)
        self._say(f"killed {kills} times, the last run sent {done['replayed']:,} of {selected:,}")

    def _judge(self, unknown_until: Mapping[int, Mapping[int, int]]) -> tuple[Report, LetterReport]:
        self._say("the oracles judge")
        topics = Topics.of_pipeline(GPS.name)
        bootstrap = self.settings.kafka_bootstrap_servers
        report = check(
            bootstrap,
            registry_schemas(self.settings.schema_registry_url),
            topics,
            Limits.of_settings(self.settings),
            unknown_until=unknown_until,
        )
        letters = check_letters(bootstrap, topics, repaired=True)
        self.found.oracle, self.found.letters = report.as_dict(), letters.as_dict()
        return report, letters

    # --- tools ------------------------------------------------------------------------------------------------------

    def _worker(self, idle_ms: int) -> Subject:
        environment = {
            "STREAMS_IDLE_MS": str(idle_ms),
            "STREAMS_LATENESS_MS": str(LATENESS_MS),
            "STREAMS_RECORD_BYTES_MAX": str(RECORD_BYTES_MAX),
            "STREAMS_GROUP_STATIC": "false",
        }
        log = self._directory / "worker.log"
        return worker(self.settings, GPS.name, self._directory / "data", self._port, log, environment)

    def _drained(self, subject: Subject, what: str) -> None:
        """Wait until the worker has nothing left to do: its group stands still at the end, and so do its outputs."""
        self._say(what)
        wait_until_ready(subject, READY_S_MAX)

        def state() -> int:
            subject.usage()
            outputs = (GPS.clean, GPS.late, GPS.dlq, GPS.audit)
            return sum(self._committed().values()) + sum(sum(self._ends(topic).values()) for topic in outputs)

        deadline = time.monotonic() + QUIET_S_MAX
        while True:
            wait_until_quiet(state, self._quiet_s, QUIET_S_MAX)
            committed, ends = self._committed(), self._ends(GPS.source)
            # After the last record there may be markers of transactions, whose offsets nobody commits.
            if all(committed.get(partition, 0) >= end - 200 for partition, end in ends.items()):
                return
            if time.monotonic() > deadline:
                raise StreamsError(f"{subject.name} stands still at {committed} of {ends}")

    def _committed(self) -> dict[int, int]:
        found = self._asking.committed([TopicPartition(GPS.source, each) for each in range(PARTITIONS)], 10)
        return {each.partition: max(each.offset, 0) for each in found}

    def _ends(self, topic: str) -> dict[int, int]:
        asked = [TopicPartition(topic, each) for each in range(PARTITIONS)]
        return {each.partition: self._asking.get_watermark_offsets(each, 10)[1] for each in asked}

    def _dlq(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run a command to its end; its result."""
        process = self._start(command, *arguments)
        out, err = process.communicate()
        if process.returncode:
            raise StreamsError(f"streams dlq {command} ended with {process.returncode}: {err.strip()[-500:]}")
        return dict(json.loads(out))

    def _start(self, command: str, *arguments: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            **self.settings.connection_environment(),
            "STREAMS_RECORD_BYTES_MAX": str(RECORD_BYTES_MAX),
            SCHEMA_ID_VARIABLE: str(self._schema_id),
        }
        by = () if command == "list" else ("--by", "ordeal")
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "streams", "dlq", command, "--format", "json", *by, *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._asking.close()


def ordeal_settings(bootstrap: str, registry_url: str) -> Settings:
    """Settings of an ordeal's worker, which its outcome depends on."""
    return load_settings(
        kafka_bootstrap_servers=bootstrap,
        schema_registry_url=registry_url,
        streams_lateness_ms=LATENESS_MS,
        streams_record_bytes_max=RECORD_BYTES_MAX,
    )


def command(
    *,
    events: Annotated[int, typer.Option(min=5_000, help="Records of the source; a tenth are rejects.")] = 1_000_000,
    kills: Annotated[int, typer.Option(min=0, help="How often replays are killed.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of traffic and kills.")] = 1,
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Run the ordeal on a stack of its own, which is removed afterwards; print and store what was found."""
    folder = root / named(name, "dlq")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="streams-dlq-", ignore_cleanup_errors=True) as scratch:
        console.print("starting the stack")
        with running_stack(Path(scratch) / "stack") as stack:
            settings = ordeal_settings(stack.bootstrap_servers, stack.registry_url)
            started_s = time.monotonic()

            def say(text: str) -> None:
                console.print(f"{time.monotonic() - started_s:7.1f} s  {text}", highlight=False, markup=False)

            run = Run(settings, Path(scratch), seed=seed, say=say)
            try:
                report, letters = run.go(events, kills)
            finally:
                run.close()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(asdict(run.found), indent=2), encoding="utf-8")
    print_report(console, report)
    console.print(letters.as_dict())
    console.print(f"stored in {os.path.relpath(folder)}")
    if not (report.ok and letters.ok):
        raise FoundSomething("the ordeal found something wrong")


if __name__ == "__main__":
    run("dlq-ordeal", command)
