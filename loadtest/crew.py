"""The workers of one point: started together, watched, stopped; one that dies is noted, the others go on."""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtest.sampler import Role, Sampler
from loadtest.subject import Subject
from loadtest.worker import free_port, operator_seconds, worker
from streams.errors import StreamsError
from streams.settings import Settings


class Crew:
    """Workers by number; only processes that run are asked."""

    def __init__(self) -> None:
        self.incidents: list[str] = []
        """Workers that ended by themselves, in words."""
        self._workers: dict[str, tuple[Subject, int]] = {}

    def add(self, name: str, subject: Subject, web_port: int) -> None:
        """Add a worker process to those that are watched."""
        self._workers[name] = (subject, web_port)

    def look(self) -> None:
        """Record which workers have ended since the last call.

        Raises:
            StreamsError: all have.

        """
        for name, (subject, _) in list(self._workers.items()):
            if subject.status is not None:
                self.incidents.append(f"in mid-run {name} {subject.end}; its last words: {subject.last_words()}")
                del self._workers[name]
        if not self._workers:
            raise StreamsError(self.incidents[-1] if self.incidents else "there is no worker")

    def all_ready(self) -> bool:
        """Whether every worker that lives says that it processes.

        Raises:
            StreamsError: none lives any more.

        """
        self.look()
        return all(subject.is_ready() for subject, _ in self._workers.values())

    def operator_seconds(self) -> dict[str, float]:
        """Seconds in each operator so far, over all workers that answer."""
        total: dict[str, float] = {}
        for _, port in self._workers.values():
            try:
                found = operator_seconds(port)
            except (OSError, urllib.error.URLError):
                continue
            for name, seconds in found.items():
                total[name] = total.get(name, 0.0) + seconds
        return total

    def total(self, counter: str) -> float:
        """A counter of the workers' metrics, over all that answer and all its labels."""
        total = 0.0
        for _, port in self._workers.values():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                    lines = response.read().decode().splitlines()
            except (OSError, urllib.error.URLError):
                continue
            total += sum(
                float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{counter}{{", f"{counter} "))
            )
        return total

    def __len__(self) -> int:
        return len(self._workers)


@contextmanager
def crew(
    settings: Settings,
    pipeline: str,
    count: int,
    environment: Mapping[str, str],
    additions: Sequence[str] = (),
    *,
    data: Path,
    logs: Path,
    sampler: Sampler,
) -> Iterator[Crew]:
    """Start `count` workers; all are stopped when the block is left. `additions`: see `loadtest.worker.worker`."""
    with ExitStack() as cleanup:
        found = Crew()
        for number in range(1, count + 1):
            name, port = f"worker {number}", free_port()
            variables = {"STREAMS_TOPIC_PREFIX": settings.streams_topic_prefix, **environment}
            subject = worker(settings, pipeline, data / name, port, logs / f"{name}.log", variables, additions)
            cleanup.enter_context(subject)
            sampler.watch(name, Role.WORKER, subject.pid)
            found.add(name, subject, port)
        yield found
