"""Generator processes of a load test: started together, watched, and asked for what they have sent."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtest.sampler import Role, Sampler
from loadtest.subject import Subject
from loadtest.visible import Skewed
from streams.errors import StreamsError

_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sent:
    """What generators have sent, together, and what must become of it."""

    records: int
    records_per_s: float
    behind_ms_max: float
    rejects: int
    duplicates: int
    first_ms: int
    last_ms: int
    rejects_exact: bool
    """Unless a device was quarantined, and good records of it rejected as well."""
    due: int = 0
    """Records of the measured stretch that must become visible."""
    publish_delays: tuple[str, ...] = ()
    """Histograms of the measured stretch, one of each process, as text (`loadtest.histograms`)."""

    def with_due_of(self, other: "Sent") -> "Sent":
        """This, with what another one's measured records must become: they are counted together."""
        return replace(self, due=self.due + other.due, publish_delays=self.publish_delays + other.publish_delays)

    @staticmethod
    def of(results: Sequence[Mapping[str, Any]]) -> "Sent":
        """The sum of what each process has said at its end."""
        return Sent(
            records=sum(int(each["records"]) for each in results),
            records_per_s=sum(float(each["records_per_s"]) for each in results),
            behind_ms_max=max(float(each["behind_ms_max"]) for each in results),
            rejects=sum(sum(each["rejects"].values()) for each in results),
            duplicates=sum(int(each["duplicates"]) for each in results),
            first_ms=min((int(each["first_timestamp_ms"]) for each in results if each["records"]), default=0),
            last_ms=max((int(each["last_timestamp_ms"]) for each in results if each["records"]), default=0),
            rejects_exact=all(each["rejects_exact"] for each in results),
            due=sum(int(each.get("due", 0)) for each in results),
            publish_delays=tuple(str(each["publish_delays"]) for each in results if "publish_delays" in each),
        )


class Generators:
    """Some processes of `loadtest.generator` with the same task, each with its share of the devices."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = subjects

    @property
    def sent(self) -> int:
        """Records sent so far, as far as they have said."""
        return sum(int(_last_line(subject).get("sent", 0)) for subject in self._subjects)

    @property
    def due(self) -> int:
        """Records of the measured stretch sent so far that must become visible, as far as they have said."""
        return sum(int(_last_line(subject).get("due", 0)) for subject in self._subjects)

    @property
    def is_due_final(self) -> bool:
        """Whether everything of the measured stretch was sent, so that `due` does not change any more."""
        return all(bool(_last_line(subject).get("due_final")) for subject in self._subjects)

    def skewed(self, prefix: str) -> Skewed | None:
        """Devices with wrong clocks, whose keys begin with `prefix`; None until every process has said which."""
        said = [_line_with("skewed_devices", subject) for subject in self._subjects]
        if not all(said):
            return None
        numbers = frozenset(number for each in said for number in each["skewed_devices"])
        return Skewed(prefix.encode(), int(said[0]["devices"]), numbers)

    def are_ready(self) -> bool:
        """Whether every process waits to be told when to begin."""
        return all("ready" in _first_line(subject) for subject in self._subjects)

    def begin(self, *, start_ms: int, count_from_ms: int, count_until_ms: int) -> None:
        """Tell all when their first record is due, and which records are measured."""
        told = {"start_ms": start_ms, "count_from_ms": count_from_ms, "count_until_ms": count_until_ms}
        for subject in self._subjects:
            subject.tell(json.dumps(told))

    def stop(self) -> None:
        """Tell all processes to stop; each then prints what it has sent."""
        for subject in self._subjects:
            subject.tell_to_end()

    def running(self) -> bool:
        """Whether any of them still sends.

        Raises:
            StreamsError: one has failed; the message has its last words.

        """
        running = [subject.is_running() for subject in self._subjects]  # all are asked, not the first that runs
        return any(running)

    def wait(self, *, on_progress: Any = None) -> Sent:
        """Wait until all have sent everything.

        Raises:
            StreamsError: one has failed.

        """
        while self.running():
            if on_progress is not None:
                on_progress(self.sent)
            time.sleep(_POLL_S)
        return self.result()

    def result(self) -> Sent:
        """What they have sent, once they have ended.

        Raises:
            StreamsError: one has not said so.

        """
        results = [_last_line(subject) for subject in self._subjects]
        for subject, result in zip(self._subjects, results, strict=True):
            if not result.get("done"):
                raise StreamsError(f"{subject.name} ended without a result: {subject.last_words()}")
        return Sent.of(results)


@contextmanager
def generators(
    count: int,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    logs: Path,
    sampler: Sampler | None = None,
) -> Iterator[Generators]:
    """Start `count` processes with the same arguments; none is left when the block is."""
    with ExitStack() as cleanup:
        subjects = []
        for index in range(count):
            share = ["--index", str(index), "--of", str(count)]
            name = f"generator {index + 1}"
            subject = Subject(
                name,
                ["-m", "loadtest.generator", *arguments, *share],
                logs / f"generator-{time.monotonic_ns()}-{index}.log",
                environment=environment,
            )
            subjects.append(cleanup.enter_context(subject))
            if sampler is not None:
                sampler.watch(f"{name} of {count}", Role.GENERATOR, subject.pid)
        yield Generators(subjects)


def _last_line(subject: Subject) -> dict[str, Any]:
    """The newest complete line of JSON that a process has printed; empty when there is none."""
    return _first_document(reversed(subject.output().splitlines()))


def _first_line(subject: Subject) -> dict[str, Any]:
    """The first complete line of JSON that a process has printed; empty when there is none."""
    return _first_document(subject.output().splitlines())


def _line_with(name: str, subject: Subject) -> dict[str, Any]:
    """The first line of JSON that has a field of that name; empty when there is none."""
    lines = [line for line in subject.output().splitlines() if f'"{name}"' in line]
    return _first_document(lines)


def _first_document(lines: Iterable[str]) -> dict[str, Any]:
    for line in lines:
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}
