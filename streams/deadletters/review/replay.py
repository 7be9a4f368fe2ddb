"""Replays open letters into their source: each once, even when the command is killed and run again.

1. Open the source's session, which aborts the unfinished transaction of a crashed one.
2. Read the audit topic to its end: a letter without a resolution of its latest attempt is open.
3. In one transaction each: some letters as records of the source, and a resolution of each in the audit topic.

Killed before a commit, nothing of it is visible and its letters are open; after it they are resolved. If a commit's
outcome is not known, the audit topic is read again to find out.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from streams.deadletters.letter.audit import Actor, Outcome
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.index import Rows
from streams.deadletters.letter.letter import Letter
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.choice import (
    Job,
    Refusal,
    Refusals,
    check_pin,
    check_reasons,
    require_audits,
    require_sources,
    to_replay,
)
from streams.deadletters.review.inbox import Inbox
from streams.deadletters.review.letters import letter_of
from streams.deadletters.review.records import Maker, Senseless, Slice
from streams.deadletters.review.session import ReplaySession, Unfinished, still_open_of
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.topics import message_bytes_max
from streams.limits import DLQ_ATTEMPTS_MAX
from streams.resilience.prefetch import built_ahead
from streams.settings import Settings
from streams.sinks.base import Outgoing

if TYPE_CHECKING:
    from streams.deadletters.review.transform import Transform

SLICE_LETTERS_MAX: Final = 5_000
"""Letters prepared at a time, in a thread of their own, while the previous ones are sent and committed."""


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay."""

    phase: str
    done: int
    total: int


Progress = Callable[[ReplayProgress], None]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay."""

    wanted: Filter
    actor: Actor
    limit: int | None = None
    """Number of letters to replay, the oldest first; None: all."""
    rate: int | None = None
    """Records that are replayed per second at most."""
    attempts_max: int = DLQ_ATTEMPTS_MAX
    """Letters that have been tried this often are left alone."""
    transform: str | None = None
    wait_s: float = 0.0
    """How long to wait for the worker to record the outcomes."""
    dry_run: bool = False


@dataclass(slots=True)
class ReplayResult:
    """Result of a run. selected = replayed + capped + left_out + refused, unless it was a dry run."""

    selected: int = 0
    """Open letters that the filter selects."""
    replayed: int = 0
    capped: int = 0
    """Left alone: they were tried too often."""
    left_out: int = 0
    """Number of letters for which the transform returned None."""
    refusing: Refusals = field(default_factory=Refusals)
    into: Counter[str] = field(default_factory=Counter)
    """Replayed letters by the topic into which they went; of a dry run, those that would go."""
    pin: Pin | None = None
    """Where the topics ended when the letters were chosen."""
    would_be_rejected: Counter[str] = field(default_factory=Counter)
    """For a dry run: letters that decoding and validation would reject again now, by reason."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Outcomes of the replayed letters, as far as the worker has recorded them in the time waited."""
    seconds: float = 0.0
    """From the first letter read to the last commit."""
    cpu_seconds: float = 0.0
    """CPU time of this process, all its threads, in that time."""

    @property
    def records_per_second(self) -> float:
        """Letters replayed a second."""
        return self.replayed / self.seconds if self.seconds else 0.0

    @property
    def records_per_cpu_second(self) -> float:
        """Letters replayed in a second of CPU time: a figure that other load on the machine does not distort."""
        return self.replayed / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def refused(self) -> int:
        """Letters that cannot be replayed: they stay open."""
        return self.refusing.count

    @property
    def refusals(self) -> list[Refusal]:
        """The first letters that cannot be replayed, with the reason."""
        return self.refusing.shown


def replay(inbox: Inbox, options: ReplayOptions, progress: Progress = lambda _: None) -> ReplayResult:
    """Send the selected open letters back to the topics that they came from.

    Key, bytes and headers are the original ones; `dlq.attempt` is one more. The timestamp is that of the replay.

    Raises:
        UsageError: the transform cannot be loaded, or a reason or pin that is asked for does not exist.
        StreamsError: a source or audit topic is missing, the transform fails, or the broker does: what was committed
            is done and recorded, nothing else has happened.
        FencedError: another replay or discard of the same source has started.

    """
    repairing = None if options.transform is None else _repair(options.transform)
    inbox.refresh(lambda topic, read: progress(ReplayProgress(f"reading {topic}", read, 0)))
    check_reasons(inbox, options.wanted)
    check_pin(inbox, options.wanted)
    choice = to_replay(inbox, options.wanted, limit=options.limit, attempts_max=options.attempts_max)
    result = ReplayResult(
        choice.selected, capped=choice.capped, refusing=choice.refusals, pin=options.wanted.pin or inbox.pin()
    )
    require_sources(inbox, choice, "nothing was sent")
    require_audits(inbox, choice, "nothing was sent")
    transforms: dict[str, Transform] = {}
    if repairing is not None:
        transforms = {job.flow.source: repairing(inbox.settings, job.flow) for job in choice.jobs}
        for job in choice.jobs:  # every letter is repaired and judged before the first one is sent
            for letters in _letters(job):
                transforms[job.flow.source].apply(letters)
    if options.dry_run:
        result.into.update(choice.by_source)
        for job in choice.jobs:
            _foretell(inbox, job, transforms.get(job.flow.source), result)
        return result
    for job in choice.jobs:
        before = result.replayed
        try:
            _Run(inbox, job, options, transforms.get(job.flow.source), result, progress).go()
        finally:
            result.into[job.flow.source] += result.replayed - before
    if options.wait_s > 0:
        await_outcomes(inbox, choice.jobs, options, result, progress)
    return result


def _repair(name: str) -> "Callable[[Settings, Pipeline], Transform]":
    """What makes the transform of a flow."""
    from streams.deadletters.review.transform import Judge, Transform, load_repair

    repairing = load_repair(name)
    return lambda settings, flow: Transform(name, repairing, Judge(settings, flow))


def _letters(job: Job) -> Iterator[list[Letter]]:
    for messages in job.box.tail.fetch(job.rows.places()):
        yield [letter_of(job.box.topic, message) for message in messages]


def _foretell(inbox: Inbox, job: Job, transform: "Transform | None", result: ReplayResult) -> None:
    """Count letters that decoding and validation would reject again."""
    from streams.deadletters.review.transform import Judge

    judge = Judge(inbox.settings, job.flow)
    for letters in _letters(job):
        keys, values = [letter.key for letter in letters], [letter.value for letter in letters]
        if transform is not None:
            repairs = transform.apply(letters)
            result.left_out += repairs.count(None)
            continue  # what it returns was judged
        rejects = judge.rejects(keys, values, [letter.headers or None for letter in letters])
        result.would_be_rejected.update(reject.reason.value for reject in rejects.values())


class _Run:
    """The replay of some letters of one topic into one source."""

    def __init__(
        self,
        inbox: Inbox,
        job: Job,
        options: ReplayOptions,
        transform: "Transform | None",
        result: ReplayResult,
        progress: Progress,
    ) -> None:
        self._inbox, self._job, self._options = inbox, job, options
        self._result, self._progress = result, progress
        self._source, self._audit = job.flow.source, job.flow.audit
        self._open_by_audit = still_open_of(inbox, job)
        self._session = ReplaySession(
            inbox.settings, self._source, self._still_open, rate=options.rate, on_commit=self._committed
        )
        self._maker = Maker(
            job.box.topic, self._source, message_bytes_max(inbox.client, self._source),
            inbox.counts()[self._source], options.actor, transform,
        )  # fmt: skip
        self._refused: set[bytes] = set()
        self._total = 0

    def go(self) -> None:
        """Replay them; after a failure, try the letters that the audit topic says are left."""
        rows = self._job.rows
        before = self._result.replayed
        started, cpu_before = time.monotonic(), time.process_time()
        try:
            chosen = self._session.open(rows)
            started, cpu_before = time.monotonic(), time.process_time()
            self._result.selected -= len(rows) - len(chosen)  # another run has resolved them meanwhile
            self._total = before + len(chosen)

            def count(left: Rows) -> None:
                # The audit topic knows the outcome even if the commit was not acknowledged.
                self._result.replayed = before + len(chosen) - len(left) - len(self._refused)

            self._session.work_off(chosen, self._send, count)
        except Unfinished as error:
            raise StreamsError(
                f"replaying into {self._source} fails: {error}; what was committed is done and recorded: "
                "run the same command again for the rest"
            ) from None
        except Senseless as error:
            raise StreamsError(
                f"{error}; the transform had accepted the same letters before: what was committed until then is done "
                f"and recorded ({self._result.replayed} letters), nothing else was sent"
            ) from None
        finally:
            self._result.seconds += time.monotonic() - started
            self._result.cpu_seconds += time.process_time() - cpu_before
            self._session.close()

    def _still_open(self, rows: Rows) -> Rows:
        """Letters that are not resolved and were not refused before."""
        left = self._open_by_audit(rows)
        return left if not self._refused else left.where(~np.isin(left.ids, np.array(sorted(self._refused))))

    def _send(self, rows: Rows) -> None:
        made = self._made(rows)
        # With a rate, records are made when they are due: they carry the time at which they are sent.
        with closing(made if self._options.rate is not None else built_ahead(made)) as slices:
            for each in slices:
                self._send_slice(each)

    def _made(self, rows: Rows) -> Generator[Slice]:
        """The letters as records, slice by slice, in log order."""
        size = self._session.portion(SLICE_LETTERS_MAX)
        for messages in self._job.box.tail.fetch(rows.places()):
            for first in range(0, len(messages), size):
                self._session.wait()
                yield self._maker.make(rows, messages[first : first + size])

    def _send_slice(self, each: Slice) -> None:
        self._refused.update(each.left_out, (letter_id for letter_id, _ in each.refused))
        self._result.left_out += len(each.left_out)
        for letter_id, why in each.refused:
            self._result.refusing.add([letter_id], why)
        if each.ids:
            letters = Outgoing(self._source, each.keys, each.values, each.at_ms, each.headers, each.partitions)
            marks = Outgoing(self._audit, each.ids, each.marks, each.at_ms)
            self._session.write([letters, marks], letters=len(each.ids), bytes_used=each.bytes_used)

    def _committed(self, letters: int) -> None:
        self._result.replayed += letters
        self._progress(ReplayProgress("replaying", self._result.replayed, self._total))


def await_outcomes(
    inbox: Inbox, jobs: Sequence[Job], options: ReplayOptions, result: ReplayResult, progress: Progress
) -> None:
    """Count the outcomes, until the worker has recorded all of them or `wait_s` is over."""
    deadline = time.monotonic() + options.wait_s
    while True:
        counts = inbox.counts()
        outcomes: Counter[str] = Counter()
        for job in jobs:
            audit = job.box.audit(job.flow)
            audit.refresh(counts)
            states = audit.resolutions.of(job.rows)
            outcomes.update(outcome.value for _, outcome in states.named() if outcome is not None)
        result.outcomes = outcomes
        progress(ReplayProgress("waiting for the worker", outcomes.total(), result.replayed))
        if outcomes.total() >= result.replayed or time.monotonic() > deadline:
            return
        time.sleep(0.25)


def explained(outcome: Outcome) -> str:
    """An outcome in words."""
    return {
        Outcome.CLEAN: "went through, in order",
        Outcome.LATE: "went through, after its device's last released event: in the late topic",
        Outcome.DUPLICATE: "dropped: the same event had gone through meanwhile",
        Outcome.REJECTED: "rejected again: open, as its next attempt",
    }[outcome]
