"""What every fault test is made of: workers under load, blows counted and timed, the oracle's verdict, a result record.

The records are collected by `tests.faults.results`, which makes the table.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import psutil
import pytest
from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from prometheus_client.parser import text_string_to_metric_families

from loadtest.oracle.check import Limits
from loadtest.oracle.compare import Report
from logistics.flows.gps import GPS
from streams.kafka.clients import librdkafka_log
from streams.local.stack import Stack
from tests.integration.workers import (
    LIMITS,
    NEVER_IDLE,
    PARTITIONS,
    REJECTS_IN_TRAFFIC,
    Probe,
    Traffic,
    Worker,
    fresh_world,
    read,
    rough_shape,
    verdict,
    wait_drained,
    wait_until,
    workers,
)

SEED: Final = int(os.environ.get("SEED", "1"))
RECORDS_PER_S: Final = 1_000
REJECTS: Final = dict.fromkeys(REJECTS_IN_TRAFFIC, 0.0003)
"""Of every kind; each one costs as much as thousands of good records, and the machine may be busy."""
RECOVERY_S_MAX: Final = 180.0
READY_S_MAX: Final = 180.0
BOTH_FLOWS: Final = pytest.mark.parametrize(
    "make_scene",
    [pytest.param("gps", id=pytest.HIDDEN_PARAM), pytest.param("join", id="joined flow", marks=pytest.mark.slow)],
    indirect=True,
)
"""Once with the flow of positions, once with one that joins them with orders."""
FENCED: Final = 3
"""Exit status of a worker whose place another one has taken."""


@dataclass
class Result:
    """What a test found; the row is the fault table's."""

    row: int
    fault: str
    injected: int = 0
    recover_s: list[float] = field(default_factory=list)
    """From each blow, or its end if it lasts, until all that was in the log by then is committed."""
    report: dict[str, Any] | None = None
    """The oracle's; None: it never came to that."""
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Scene:
    """Workers, their traffic and what befalls them."""

    stack: Stack
    probe: Probe
    workers: list[Worker]
    result: Result
    environment: Mapping[str, str]
    limits: Limits = LIMITS
    flow: str = GPS.name
    _struck_at: float = 0.0

    @property
    def worker(self) -> Worker:
        return self.workers[0]

    def start(self, worker: Worker | None = None, **environment: str) -> Worker:
        """Start a worker as one that never idles."""
        return (worker or self.worker).start({**NEVER_IDLE, **self.environment, **environment})

    @contextmanager
    def load(self, *, records_per_s: int = RECORDS_PER_S, **shape: Any) -> Iterator[Traffic]:
        """Traffic for the length of a block."""
        made = rough_shape(self.stack, **{"rejects": REJECTS, **shape})
        with Traffic(self.stack, made, seed=SEED, records_per_s=records_per_s) as traffic:
            yield traffic

    # --- blows ------------------------------------------------------------------------------------------------------

    def struck(self) -> None:
        """Count a blow; the clock runs from here."""
        self.result.injected += 1
        self.lifted()

    def lifted(self) -> None:
        """What lasted is over; the clock runs from here."""
        self._struck_at = time.monotonic()

    def recovers(self, timeout_s: float = RECOVERY_S_MAX) -> None:
        """Wait until all that is in the log by now is committed; note how long it took since the last blow."""
        self.flows(timeout_s)
        self.result.recover_s.append(time.monotonic() - self._struck_at)

    def flows(self, timeout_s: float = RECOVERY_S_MAX) -> None:
        """Wait until all that is in the log by now is committed."""
        ends = wait_until(lambda: self.probe.log_ends(GPS.source), "the broker answers", timeout_s=timeout_s)
        wait_until(lambda: self.has_committed(ends), f"{ends} is committed", timeout_s=timeout_s)

    def has_committed(self, ends: Mapping[int, int]) -> bool:
        now = self.probe.committed() or {}
        return all(now.get(partition, 0) >= end for partition, end in ends.items())

    def committed(self) -> dict[int, int]:
        return wait_until(self.probe.committed, "the group's offsets are told")

    # --- the verdict ------------------------------------------------------------------------------------------------

    def exactly_once(self, worker: Worker | None = None) -> Report:
        """Let `worker` come to the end of its input and release everything; the oracle must find nothing wrong."""
        worker = worker or self.worker
        for other in self.workers:
            if other is not worker and other.is_running:
                assert other.terminate() == 0, other.printed()[-3000:]
        if worker.is_running:
            worker.wait_ready(READY_S_MAX)
        end_of_run_in(worker, self.environment)
        return self.judged(worker)

    def judged(self, worker: Worker) -> Report:
        wait_drained(self.probe, worker, timeout_s=RECOVERY_S_MAX)
        report = verdict(self.stack, self.limits)
        self.result.report = report.as_dict()
        assert report.ok, f"SEED={SEED} {self.result}\n{report}\n{worker.log} ends:\n{worker.printed()[-3000:]}"
        assert report.clean > 0
        return report

    def settle(self, worker: Worker) -> None:
        """Have the open transaction of a dead worker aborted, as its successor's first step would."""
        identity = (worker.data_dir / "worker.id").read_text()
        config = {
            "bootstrap.servers": self.stack.bootstrap_servers,
            "transactional.id": f"streams-{self.flow}-{identity}",
        }
        Producer(config, logger=librdkafka_log).init_transactions(60)

    def nothing_is_visible_too_early(self) -> None:
        """No visible output stems from a record that the group has not committed."""
        nothing_beyond_the_committed_offsets_is_visible(self)

    def stop(self) -> None:
        """End whichever worker runs, frozen or not."""
        for worker in self.workers:
            if worker.is_running:
                os.kill(worker.pid, signal.SIGCONT)
                try:
                    worker.terminate()
                except subprocess.TimeoutExpired:
                    worker.kill()

    def note(self, text: str) -> None:
        """Say something in the summary."""
        self.result.notes.append(text)


def end_of_run_in(worker: Worker, environment: Mapping[str, str]) -> None:
    """Have it run as one that releases at the end of its log."""
    if worker.is_running:
        assert worker.terminate() == 0, worker.printed()[-4000:]
    worker.start(environment).wait_ready(READY_S_MAX)


@contextmanager
def scene_of(
    stack: Stack,
    directory: Path,
    result: Result,
    *members: str,
    environment: Mapping[str, str] | None = None,
    limits: Limits = LIMITS,
) -> Iterator[Scene]:
    """Fresh topics, and workers that are not started yet."""
    probe = fresh_world(stack)
    with workers(stack, directory, *(members or ("a",))) as made:
        scene = Scene(stack, probe, made, result, environment or {}, limits)
        try:
            yield scene
        finally:
            for worker in made:
                if worker.is_running:
                    os.kill(worker.pid, signal.SIGCONT)


# --- looking at a worker ----------------------------------------------------------------------------------------------


def metric(worker: Worker, name: str, **labels: str) -> float:
    """Sum of the samples of a metric that have these labels; 0 when there are none."""
    with urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def lines(worker: Worker, event: str, *, all_runs: bool = False) -> list[dict[str, Any]]:
    """Log lines with this event, of the latest run or of all."""
    text = worker.log.read_text(errors="replace") if all_runs else worker.printed()
    found = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [line for line in found if line.get("event") == event]


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP for the length of a block, SIGCONT behind it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def for_seconds(seconds: float, holds: Callable[[], bool], what: str) -> None:
    """Assert that something holds for as long as that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), f"no longer: {what}"
        time.sleep(0.2)


# --- looking at topics ------------------------------------------------------------------------------------------------


def open_transactions(stack: Stack) -> dict[str, int]:
    """Records behind the last stable offset of each output partition that has some: a transaction is open on it."""
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    outputs = (GPS.clean, GPS.late, GPS.dlq, GPS.journal, GPS.tables[0].topic)
    where = [TopicPartition(topic, partition) for topic in outputs for partition in range(PARTITIONS)]
    stable, last = (
        {one: future.result(30).offset for one, future in admin.list_offsets(wanted, isolation_level=level).items()}
        for wanted, level in (
            (dict.fromkeys(where, OffsetSpec.latest()), IsolationLevel.READ_COMMITTED),
            (dict.fromkeys(where, OffsetSpec.latest()), IsolationLevel.READ_UNCOMMITTED),
        )
    )
    behind = {f"{one.topic}-{one.partition}": last[one] - stable[one] for one in where}
    return {name: count for name, count in behind.items() if count}


def nothing_beyond_the_committed_offsets_is_visible(scene: Scene) -> None:
    """No visible output stems from a record that the group has not committed (first copies apart that it has)."""
    committed = scene.committed()
    beyond: set[bytes] = set()
    before: set[bytes] = set()
    for record in read(scene.stack, GPS.source):
        is_beyond = (record.offset() or 0) >= committed.get(record.partition() or 0, 0)
        (beyond if is_beyond else before).add(record.value() or b"")
    only_beyond = beyond - before
    assert only_beyond, "every record was committed: nothing could have been seen too early"
    for topic in (GPS.clean, GPS.late, GPS.dlq):
        too_early = only_beyond & {record.value() or b"" for record in read(scene.stack, topic)}
        assert not too_early, f"{len(too_early)} of {topic} are visible, their offsets are not committed"
