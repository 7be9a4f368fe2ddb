"""A program under measurement: a process of ours, what it uses, and how far its consumer group has come."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from loadtest import clients
from streams.errors import StreamsError
from streams.kafka.admin import partition_counts, settled

CHECKOUT: Final = Path(__file__).resolve().parent.parent
"""This package is not installed: it is found in the checkout."""
SAMPLE_S: Final = 0.1
STOP_S_MAX: Final = 20.0
LEADER_S_MAX: Final = 15.0
_FRAME: Final = " \t─│╭╮╰╯"
"""What command lines draw around an error."""


class Subject:
    """A process that is stopped however the block ends: SIGTERM first, SIGKILL when that does not help."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        ready_line: str | None = None,
        ready_url: str | None = None,
        python: Path | None = None,
    ) -> None:
        """Describe it; it starts with the block. `python` None: the interpreter that runs this, with this package."""
        self.name = name
        self._arguments = [sys.executable, "-P", *arguments] if python is None else [str(python), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        if python is None:
            places = [str(CHECKOUT), self._environment.get("PYTHONPATH", "")]
            self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        self._log = log
        self._ready_line = ready_line
        self._ready_url = ready_url

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the benchmark alone, which then stops everything in order.
            self._popen = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = psutil.Process(self._popen.pid)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End the process; returns its exit status."""
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError):
                self._popen.stdin.close()  # or it would go on waiting for what nobody says
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._popen.wait()

    def tell(self, line: str) -> None:
        """Write a line to its standard input; one that has ended is not told."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            with suppress(BrokenPipeError):
                self._popen.stdin.write(f"{line}\n".encode())
                self._popen.stdin.flush()

    def tell_to_end(self) -> None:
        """Send SIGTERM, if it lives, and do not wait."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)

    def is_ready(self) -> bool:
        """Whether it says that it processes."""
        if self._ready_url is not None:
            try:
                with urllib.request.urlopen(self._ready_url, timeout=0.5):  # noqa: S310 - our own http address
                    return True
            except (urllib.error.URLError, OSError):
                return False
        return self._ready_line is not None and self._ready_line in self.output()

    @property
    def pid(self) -> int:
        """Return the process id of the worker."""
        return self._popen.pid

    def is_running(self) -> bool:
        """Whether it still runs.

        Raises:
            StreamsError: it has failed; the message has its last words.

        """
        status = self._popen.poll()
        if status:
            raise self._failure()
        return status is None

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def last_words(self) -> str:
        """The last line with words that it has printed."""
        lines = (line.strip(_FRAME) for line in reversed(self.output().splitlines()))
        return next((line for line in lines if line), "it printed nothing")

    @property
    def end(self) -> str:
        """Return in words how the process ended."""
        status = self._popen.poll()
        if status is None:
            return "still runs"
        return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"

    def _failure(self) -> StreamsError:
        return StreamsError(f"{self.name} {self.end}: {self.last_words()} (log: {self._log})")

    def usage(self) -> tuple[float, float]:
        """CPU seconds so far (user and system, all threads) and resident memory in MB (10^6 bytes) now.

        Raises:
            StreamsError: the process has ended by itself; the message has its last words.

        """
        if self._popen.poll() is not None:
            raise self._failure()
        times = self._process.cpu_times()
        return times.user + times.system, self._process.memory_info().rss / 1e6


def wait_until_ready(subject: Subject, timeout_s: float) -> None:
    """Return when the subject says that it processes.

    Raises:
        StreamsError: it ended, or did not say so in time.

    """
    deadline = time.monotonic() + timeout_s
    while not subject.is_ready():
        subject.usage()
        if time.monotonic() > deadline:
            raise StreamsError(f"{subject.name} was not ready within {timeout_s:.0f} s")
        time.sleep(SAMPLE_S)


class Offsets:
    """Ends of topics and progress of groups, over one administrative client."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._asking: dict[str, Consumer] = {}
        self._counts: dict[str, int] = {}
        self._client = clients.admin(bootstrap)

    def create(self, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """Create a topic of the benchmark's own, and wait until the broker lists it."""
        new = NewTopic(topic, partitions, 1, config=config or {})
        settled(f"creating topic {topic}", self._client.create_topics([new])[topic])
        while topic not in partition_counts(self._client):
            time.sleep(SAMPLE_S)

    def end(self, *topics: str) -> int:
        """Sum of the last stable offsets of all partitions of some topics."""
        counts = partition_counts(self._client)
        asked = {
            TopicPartition(topic, partition): OffsetSpec.latest()
            for topic in topics
            for partition in range(counts.get(topic, 0))
        }
        deadline = time.monotonic() + LEADER_S_MAX
        while asked:
            found = self._client.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=10)
            try:
                return sum(future.result().offset for future in found.values())
            except KafkaException as error:
                # A topic just created is listed a moment before its leaders answer.
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                    raise StreamsError(f"reading the ends of {', '.join(topics)}: {error}") from None
                time.sleep(SAMPLE_S)
        return 0

    def committed(self, group: str, topic: str) -> int:
        """Sum of a group's committed offsets in a topic; 0 while its coordinator has nothing to say yet.

        Asked through a consumer that never joins the group, not by the administrative request for the same, during
        which librdkafka 2.16 once crashed while a worker was joining.
        """
        asking = self._asking.get(group)
        if asking is None:
            asking = self._asking[group] = clients.consumer(self._bootstrap, {"group.id": group})
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = partition_counts(self._client)[topic]
        try:
            found = asking.committed([TopicPartition(topic, partition) for partition in range(count)], timeout=5)
        except KafkaException:
            return 0
        return sum(each.offset for each in found if each.error is None and each.offset > 0)

    def close(self) -> None:
        """Close the connections."""
        for consumer in self._asking.values():
            consumer.close()


@dataclass(frozen=True, slots=True)
class Drain:
    """What it took to empty a topic."""

    events: int
    events_per_second: float
    """Between the first and the last committed progress."""
    events_per_cpu_second: float
    """By the CPU time of the process, user and system, all threads, from its readiness to the last commit."""
    rss_mb_max: float


def watch_drain(
    subject: Subject,
    progress: Callable[[], int],
    events: int,
    *,
    stall_s_max: float,
    on_progress: Callable[[int], None] | None = None,
) -> Drain:
    """Watch a subject until its group has committed `events` records.

    CPU time is counted from the moment it says that it is ready, before its first event: interpreter start and imports
    are left out, the first batches are not. A subject that never says so is counted from its first commit.

    Raises:
        StreamsError: it ended, or made no progress for `stall_s_max` seconds; the message says how far it came.

    """
    started_s = moved_s = time.monotonic()
    done = 0
    ready: tuple[int, float] | None = None
    first: tuple[int, float] | None = None
    rss_mb_max = 0.0
    while True:
        time.sleep(SAMPLE_S if ready else SAMPLE_S / 5)
        cpu_s, rss_mb = subject.usage()
        rss_mb_max = max(rss_mb_max, rss_mb)
        is_ready = ready is not None or subject.is_ready()
        now_s = time.monotonic()
        before, done = done, max(done, progress())
        if done != before:
            moved_s = now_s
        if ready is None and (is_ready or done):
            # As of before the question: a busy program may take a while to answer it.
            ready = before, cpu_s
        if first is None and done:
            first = done, now_s
        if on_progress is not None:
            on_progress(done)
        if done >= events:
            break
        if now_s - moved_s > stall_s_max:
            raise StreamsError(f"{subject.name} stands still at {done:,} of {events:,} events")
    cpu_s = subject.usage()[0]
    done_ready, cpu_ready_s = ready or (0, 0.0)
    done_first, first_s = first or (0, started_s)
    cpu_used_s = max(cpu_s - cpu_ready_s, 0.01)
    return Drain(
        events=events,
        events_per_second=(events - done_first) / max(now_s - first_s, SAMPLE_S),
        events_per_cpu_second=(events - done_ready) / cpu_used_s,
        rss_mb_max=rss_mb_max,
    )


def wait_until_quiet(measure: Callable[[], int], quiet_s: float, timeout_s: float) -> None:
    """Return when a number has not changed for `quiet_s` seconds.

    Raises:
        StreamsError: it still changes after `timeout_s`.

    """
    deadline = time.monotonic() + timeout_s
    last, since_s = measure(), time.monotonic()
    while time.monotonic() - since_s < quiet_s:
        time.sleep(SAMPLE_S * 2)
        now = measure()
        if now != last:
            last, since_s = now, time.monotonic()
        if time.monotonic() > deadline:
            raise StreamsError(f"the output still grows after {timeout_s:.0f} s")
