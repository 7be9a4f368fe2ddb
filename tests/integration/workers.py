"""`streams worker` as a process of its own: started, asked, killed, started again; traffic for it; the verdict on it.

Topic names are fixed, so a test begins with fresh ones. The identities of workers are fixed too: the group keeps the
place of one that is gone for ten seconds, and every stranger would have to wait that long for its partitions.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from confluent_kafka import KafkaException, Message, TopicPartition

from loadtest import clients
from loadtest.fleet import Fleet, FleetShape, Kind
from loadtest.fleet.fill import Filler
from loadtest.oracle.check import Limits, Topics, check
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.read import TopicReader
from logistics.flows.gps import GPS
from streams.local import ports
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from tests.integration.forked import ForkedProcess
from tests.integration.kafka_helpers import fresh_topics, settings_of

T = TypeVar("T")

PARTITIONS: Final = 3
LATENESS_MS: Final = 1_000
RECORD_BYTES_MAX: Final = 4_096
IDLE_MS: Final = 500
FROM_NOTHING: Final = [sys.executable, "-m", "streams"]
"""As `Worker.program`: where the memory of the process is measured."""
SETTINGS: Final = {
    "STREAMS_LATENESS_MS": str(LATENESS_MS),
    "STREAMS_RECORD_BYTES_MAX": str(RECORD_BYTES_MAX),
    "STREAMS_IDLE_MS": str(IDLE_MS),
    "STREAMS_LOG_FORMAT": "json",
}
NEVER_IDLE: Final = {"STREAMS_IDLE_MS": "3600000"}
"""While input is still to come: an idle release changes, rightly, which of the events after it are late."""
LIMITS: Final = Limits(LATENESS_MS, 86_400_000, 60_000, RECORD_BYTES_MAX)
FOREIGN_SUBJECT: Final = "tests.foreign-value"
FOREIGN_SCHEMA: Final = json.dumps(
    {"type": "record", "name": "Foreign", "fields": [{"name": "something_else", "type": "string"}]}
)
_QUIET_S: Final = (LATENESS_MS + IDLE_MS) / 1000 + 2.0
"""Outputs that have not grown for this long, with all input committed, have nothing left to let go of."""


def wait_until(condition: Callable[[], T | None], what: str, *, timeout_s: float = 60.0) -> T:
    """Value of the condition as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


# --- the worker -------------------------------------------------------------------------------------------------------


class Worker:
    """One worker with a data directory of its own, run as often as one likes. `log` holds what all its runs printed."""

    def __init__(self, stack: Stack, directory: Path, member: str = "a") -> None:
        self.data_dir = directory / f"data-{member}"
        self.log = directory / f"worker-{member}.log"
        self.port = ports.free_port()
        self.program: list[str] | None = None
        """What is started from nothing, with the same arguments; None: `streams`, forked off a process that has it."""
        self._stack = stack
        self._member = f"tests-{member}"
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._log_start = 0

    def start(self, environment: Mapping[str, str] | None = None, *, options: Sequence[str] = ()) -> "Worker":
        """Start it with further environment and options; it is not ready yet on return."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True)
            (self.data_dir / "worker.id").write_text(self._member)
        command = ["worker", "--pipeline", "gps", "--data-dir", str(self.data_dir), "--web-port", str(self.port)]
        command += options
        values = {**os.environ, **self._stack.environment(), **SETTINGS, **(environment or {})}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            if self.program is None:
                self._process = ForkedProcess(command, values, stdout=self.log)
            else:
                self._process = subprocess.Popen(
                    [*self.program, *command], env=values, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        return self

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def printed(self) -> str:
        """What the latest run has printed so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def said(self, text: str) -> list[str]:
        """Lines of the latest run that contain `text`."""
        return [line for line in self.printed().splitlines() if text in line]

    def partitions(self) -> set[int]:
        """Partitions of the positions that the latest run has and has restored, by its log."""
        owned: set[int] = set()
        for line in self.printed().splitlines():
            said = json.loads(line) if line.startswith('{"topic": "' + GPS.source) else {}
            if said.get("event") == "restored":
                owned.add(said["partition"])
            elif isinstance(said.get("partitions"), list):  # assigned, revoked or lost; of a growth it is a number
                owned.difference_update(said["partitions"])
        return owned

    def readiness(self) -> tuple[int, str]:
        """Status and text of /readyz; (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, timeout_s: float = 60.0) -> "Worker":
        """Wait until it processes."""

        def ready() -> bool:
            assert self.is_running, f"the worker ended while it started:\n{self.printed()[-4000:]}"
            return self.readiness()[0] == 200

        try:
            wait_until(ready, "the worker is ready", timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; /readyz: {self.readiness()}\n{self.printed()[-4000:]}") from None
        return self

    def kill(self) -> None:
        """SIGKILL, at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)

    def metric(self, name: str) -> float:
        """Value of a metric of the run that goes on, as /metrics shows it; 0 if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def wait_metric(self, name: str, value: float, *, timeout_s: float = 10.0) -> None:
        """Wait until a metric has this value."""
        wait_until(lambda: self.metric(name) == value, f"{name} {value:g}", timeout_s=timeout_s)

    def wait_ended(self, timeout_s: float = 60.0) -> int:
        """Exit status of a worker that ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def copy_data(self, to: Path) -> None:
        """Copy the data directory; the worker must not run."""
        assert not self.is_running
        shutil.copytree(self.data_dir, to)

    def put_back(self, copy: Path) -> None:
        """Replace the data directory by an earlier copy."""
        assert not self.is_running
        shutil.rmtree(self.data_dir)
        shutil.copytree(copy, self.data_dir)

    def delete_data(self) -> None:
        """Delete the data directory, and with it the worker's identity: it comes back as a stranger."""
        assert not self.is_running
        shutil.rmtree(self.data_dir)
        self._member = f"{self._member}-anew"


@contextmanager
def workers(stack: Stack, directory: Path, *members: str) -> Iterator[list[Worker]]:
    """Workers that are not started yet; whichever runs at the end is stopped, so that it leaves nothing open."""
    made = [Worker(stack, directory, member) for member in members]
    try:
        yield made
    finally:
        for worker in made:
            if worker.is_running:
                try:
                    worker.terminate()
                except subprocess.TimeoutExpired:
                    worker.kill()


# --- topics and traffic -----------------------------------------------------------------------------------------------


class Probe:
    """Positions of the pipeline's group and of its topics, asked of the broker.

    Not by `AdminClient.list_consumer_group_offsets`: librdkafka 2.16 dies of it (SIGSEGV in `rd_kafka_cgrp_op`) while
    the coordinator is still loading.
    """

    def __init__(self, stack: Stack, partitions: int = PARTITIONS, *, group: str = GPS.group) -> None:
        self.partitions = partitions
        self._where = stack.bootstrap_servers
        self._config: dict[str, Any] = {
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",  # what is committed, also while a transaction is pending
        }
        self._group = clients.consumer(self._where, self._config)

    def committed(self) -> dict[int, int] | None:
        """Committed offsets by partition, without those that there are none of; None while nobody answers."""
        try:
            found = self._group.committed([TopicPartition(GPS.source, one) for one in range(self.partitions)], 10)
        except KafkaException:
            self._unanswered()
            return None
        return {one.partition: one.offset for one in found if one.offset >= 0}

    def log_ends(self, topic: str) -> dict[int, int] | None:
        """Offset behind the last record of each partition; None while nobody answers."""
        try:
            return {
                partition: self._group.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
                for partition in range(self.partitions)
            }
        except KafkaException:
            self._unanswered()
            return None

    def _unanswered(self) -> None:
        """Ask with another client from now on: this one may have lost its broker for good (`kafka.broker_watch`)."""
        self._group = clients.consumer(self._where, self._config)

    def all_is_committed(self) -> bool:
        """Whether the group has committed every record of the source."""
        ends = self.log_ends(GPS.source)
        return ends is not None and self.committed() == {partition: end for partition, end in ends.items() if end}


def fresh_world(stack: Stack, partitions: int = PARTITIONS) -> Probe:
    """Empty topics, registered schemas, and no committed offset left of the topics that were there before."""
    fresh_topics(stack, partitions, flows=[GPS.name])
    probe = Probe(stack, partitions)
    wait_until(lambda: probe.committed() == {}, "the offsets of the deleted topics are gone")
    return probe


def foreign_schema_id(stack: Stack) -> int:
    """Id of a registered schema that cannot be read as a position."""
    return Registry(settings_of(stack)).register(FOREIGN_SUBJECT, FOREIGN_SCHEMA)


def position_schema(stack: Stack, version: int) -> tuple[str, int]:
    """Text and id of a version of the positions' schema."""
    text = Catalog.load().versions(GPS.subject)[version - 1].text
    return text, Registry(settings_of(stack)).lookup(GPS.subject, text)


REJECTS_IN_TRAFFIC: Final = dict.fromkeys(
    (
        Kind.NOT_FRAMED,
        Kind.UNKNOWN_SCHEMA,
        Kind.MALFORMED,
        Kind.INCOMPATIBLE_SCHEMA,
        Kind.INVALID,
        Kind.KEY_MISMATCH,
        Kind.FUTURE_TIMESTAMP,
        Kind.TOO_LARGE,
    ),
    0.001,
)


def rough_shape(stack: Stack, **changed: Any) -> FleetShape:
    """Traffic with every fault that a log may have: copies near and far, disorder, late events, all rejects."""
    schema, schema_id = position_schema(stack, 1)
    values: dict[str, Any] = {
        "devices": 300,
        "start_ms": (int(time.time()) - 7_200) * 1_000,
        "schema": schema,
        "schema_id": schema_id,
        "tick_ms": 200,
        "delay_ms_max": 50,
        "lateness_ms": LATENESS_MS,
        "duplicate_immediate": 0.03,
        "duplicate_delayed": 0.03,
        "disordered": 0.05,
        "late": 0.01,
        "rejects": REJECTS_IN_TRAFFIC,
        "record_bytes_max": RECORD_BYTES_MAX,
        "incompatible_schema_id": foreign_schema_id(stack),
    }
    return FleetShape(**{**values, **changed})


class Traffic:
    """Traffic that keeps coming for the length of a block, whatever becomes of its consumers and its broker."""

    def __init__(self, stack: Stack, shape: FleetShape, *, seed: int, records_per_s: int) -> None:
        self.sent = 0
        self.timestamp_ms = 0
        """Of the newest record: behind the clock where the machine is busy."""
        self._bootstrap = stack.bootstrap_servers
        self._fleet = Fleet(seed, shape)
        self._records_per_s = records_per_s
        self._ends = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.sent or self._failure, "traffic flows")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def wait_for(self, records: int, *, timeout_s: float = 60.0) -> None:
        """Wait until as many records more were sent."""
        wanted = self.sent + records
        wait_until(lambda: self.sent >= wanted, "traffic goes on", timeout_s=timeout_s)

    def _run(self) -> None:
        try:
            filler = self._new_filler()
            step = max(1, self._records_per_s // 50)
            began = time.monotonic()
            for batch in self._fleet.batches(1 << 40):
                for first in range(0, len(batch), step):
                    piece = batch.slice(first, first + step)
                    filler.send(GPS.source, piece)
                    self.sent += len(piece)
                    self.timestamp_ms = piece.timestamps_ms[-1]
                    if filler.is_stranded:
                        self.sent -= filler.undelivered  # nobody was told that they had been taken
                        filler = self._new_filler()
                    due_s = began + self.sent / self._records_per_s - time.monotonic()
                    if self._ends.wait(max(0.0, due_s)):
                        filler.flush()
                        return
        except Exception as error:  # noqa: BLE001 - raised again in the test's own thread
            self._failure = error

    def _new_filler(self) -> Filler:
        return Filler(self._bootstrap, {"linger.ms": 5, "topic.metadata.refresh.interval.ms": 1_000})


def read(stack: Stack, topic: str) -> list[Message]:
    """Every record of a topic that a read_committed consumer sees."""
    reader = TopicReader(stack.bootstrap_servers)
    try:
        return list(reader.records(topic))
    finally:
        reader.close()


# --- the verdict ------------------------------------------------------------------------------------------------------


def wait_drained(probe: Probe, worker: Worker, timeout_s: float = 90.0) -> None:
    """Wait until the worker has everything, all input is committed and the outputs are still: idle releases are done.

    Partitions of others that have just left are kept for them for a session, and nothing moves meanwhile.
    """
    since = [time.monotonic()]
    last: list[object] = [None]

    def still() -> bool:
        assert worker.is_running, f"the worker ended:\n{worker.printed()[-4000:]}"
        ends = [probe.log_ends(topic) for topic in (GPS.clean, GPS.late, GPS.dlq, GPS.journal)]
        has_all = len(worker.partitions()) == probe.partitions
        if ends != last[0] or None in ends or not has_all or not probe.all_is_committed():
            last[0], since[0] = ends, time.monotonic()
        return time.monotonic() - since[0] > _QUIET_S

    try:
        wait_until(still, "all is processed and released", timeout_s=timeout_s)
    except AssertionError as error:
        state = f"committed {probe.committed()} of {probe.log_ends(GPS.source)}; /readyz {worker.readiness()}"
        raise AssertionError(f"{error}; {state}\n{worker.printed()[-4000:]}") from None


def verdict(stack: Stack, limits: Limits = LIMITS) -> Report:
    """What the oracle says of everything that is in the topics."""
    return check(stack.bootstrap_servers, registry_schemas(stack.registry_url), Topics.of_pipeline("gps"), limits)


def assert_exactly_once(stack: Stack, probe: Probe, worker: Worker, *, seed: int, about: object = "") -> Report:
    """Let `worker` come to the end of its input and release everything; the oracle must find nothing wrong."""
    wait_drained(probe, worker)
    report = verdict(stack)
    assert report.ok, f"SEED={seed} {about}\n{report}\n{worker.log} ends:\n{worker.printed()[-3000:]}"
    assert report.clean > 0
    return report


def end_of_run(
    worker: Worker, how: signal.Signals = signal.SIGTERM, *, environment: Mapping[str, str] | None = None
) -> Worker:
    """Stop a worker that never idles and start it again as one that releases at the end of its log."""
    if worker.is_running:
        if how is signal.SIGTERM:
            assert worker.terminate() == 0, worker.printed()[-4000:]
        else:
            worker.kill()
    return worker.start(environment).wait_ready()
