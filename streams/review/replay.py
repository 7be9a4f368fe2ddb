"""Replay: open letters back into their source, each once, whenever it is killed and however often it is run.

1. Take the source's desk, which settles what a dead predecessor left open.
2. Read the audit topic to its end: a letter without a resolution of its latest attempt is open.
3. In one transaction each: some letters as records of the source, and a resolution of each in the audit topic.

Killed before a commit, nothing of it is visible and its letters are open; behind it they are resolved. If a commit's
outcome is not known, the audit topic is read again and tells.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from streams.ahead import built_ahead
from streams.deadletters.audit import Actor, Outcome
from streams.deadletters.index import Filter, Rows, replayable
from streams.deadletters.letter import Letter
from streams.errors import StreamsError, UsageError
from streams.kafka.topics import message_bytes_max
from streams.limits import DLQ_ATTEMPTS_MAX
from streams.pipelines import PIPELINES
from streams.review.desk import Desk, Undone
from streams.review.inbox import Box, Found, Inbox
from streams.review.letters import letter_of
from streams.review.records import Maker, Senseless, Slice
from streams.review.transform import Judge, Transform, load_repair

SLICE_LETTERS_MAX: Final = 5_000
"""Letters made into records at a time, in a thread of their own while those before are sent and committed."""
BATCH_LETTERS_MAX: Final = 50_000
BATCH_BYTES_MAX: Final = 48 * 1024 * 1024
BATCH_MS_MAX: Final = 2_000
BATCH_PACED_MS_MAX: Final = 500
"""Letters of one transaction, their bytes, and how long it may take to gather them; with a rate, less long."""
TRIES_MAX: Final = 5
"""Transactions that may fail in a row."""
REFUSED_SHOWN: Final = 20
_SLICES_A_SECOND: Final = 20


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is."""

    phase: str
    done: int
    total: int


Progress = Callable[[ReplayProgress], None]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay, and how."""

    wanted: Filter
    actor: Actor
    limit: int | None = None
    """The oldest ones only, so many."""
    rate: int | None = None
    """Records a second at most."""
    attempts_max: int = DLQ_ATTEMPTS_MAX
    """Letters that have been tried so often are left alone."""
    transform: str | None = None
    wait_s: float = 0.0
    """How long to wait for the worker, to tell what has become of them."""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A letter that cannot be replayed, and why."""

    id: str
    why: str


@dataclass(slots=True)
class ReplayResult:
    """What a run did. selected = replayed + capped + left_out + refused, unless it was a dry run."""

    selected: int = 0
    """Open letters that the filter means."""
    replayed: int = 0
    capped: int = 0
    """Left alone, for they were tried too often."""
    left_out: int = 0
    """The transform returned None."""
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    """The first of them."""
    would_be_rejected: Counter[str] = field(default_factory=Counter)
    """Dry run: letters that decoding and validation would reject again as things stand now, by reason."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What became of the replayed ones, as far as the worker has said within the time waited."""
    seconds: float = 0.0
    """From the first letter read to the last commit."""
    cpu_seconds: float = 0.0
    """Of this process, all its threads, in that time."""

    @property
    def records_per_second(self) -> float:
        """Letters replayed a second."""
        return self.replayed / self.seconds if self.seconds else 0.0

    @property
    def records_per_cpu_second(self) -> float:
        """Letters replayed in a second of CPU time: what a busy machine cannot blur."""
        return self.replayed / self.cpu_seconds if self.cpu_seconds else 0.0

    def refuse(self, letter_id: str, why: str) -> None:
        """Count a letter that cannot be replayed."""
        self.refused += 1
        if len(self.refusals) < REFUSED_SHOWN:
            self.refusals.append(Refusal(letter_id, why))


def replay(inbox: Inbox, options: ReplayOptions, progress: Progress = lambda _: None) -> ReplayResult:
    """Send the open letters that are meant back to the topics from which they came.

    Key, bytes and headers are the original ones; `dlq.attempt` is one more. The timestamp is that of the replay.

    Raises:
        UsageError: the transform cannot be loaded.
        StreamsError: a source or audit topic is missing, the transform fails, or the broker does: what was committed
            is done and recorded, nothing else has happened.
        FencedError: another replay or discard of the same source has started.

    """
    result = ReplayResult()
    repairing = load_repair(options.transform) if options.transform else None
    inbox.refresh(lambda topic, read: progress(ReplayProgress(f"reading {topic}", read, 0)))
    chosen = _chosen(inbox.find(_open(options.wanted)), options, result)
    jobs = [(found, source) for found in chosen for source in sorted(set(found.rows.sources()))]
    for _, source in jobs:
        _check_topics(inbox, source)
    transforms: dict[str, Transform] = {}
    if repairing is not None and options.transform:
        for _, source in jobs:
            transforms[source] = Transform(options.transform, repairing, _judge(inbox, source))
        for found, source in jobs:  # every letter is repaired and judged before the first one is sent
            for letters in _letters(found.box, found.rows.of_source(source)):
                transforms[source].apply(letters)
    if options.dry_run:
        for found, source in jobs:
            _foretell(inbox, found, source, transforms.get(source), result)
        return result
    for found, source in jobs:
        _Run(inbox, found.box, source, options, transforms.get(source), result, progress).go(
            found.rows.of_source(source)
        )
    if options.wait_s > 0:
        await_outcomes(inbox, chosen, options, result, progress)
    return result


def _open(wanted: Filter) -> Filter:
    return Filter(
        wanted.ids, wanted.reasons, wanted.keys, wanted.schema_ids, wanted.since_ms, wanted.until_ms, is_open=True
    )


def _chosen(found: Sequence[Found], options: ReplayOptions, result: ReplayResult) -> list[Found]:
    """What is to be sent, in log order, by topic; the rest is counted."""
    chosen: list[Found] = []
    left = options.limit
    for each in found:
        rows = each.rows
        whole = replayable(rows)
        for letter_id in rows.where(~whole).ids.tolist():
            result.refuse(letter_id.decode(), "its envelope is incomplete: nothing says what it was; discard it")
        tired = whole & (rows.attempt >= options.attempts_max)
        result.capped += int(np.count_nonzero(tired))
        result.selected += len(rows)
        fit = rows.where(whole & ~tired).oldest_first()
        if left is not None:
            result.selected -= max(0, len(fit) - left)
            fit = fit.where(np.arange(min(left, len(fit))))
            left -= len(fit)
        rows = fit.in_log_order()
        if len(rows):
            chosen.append(Found(each.box, rows, each.box.states(rows)))
    return chosen


def _check_topics(inbox: Inbox, source: str) -> None:
    counts = inbox.counts()
    if source not in counts:
        raise StreamsError(f"there is no source topic {source} to replay into: nothing was sent; {_create(source)}")
    audit = f"{source}.dlq.audit"
    if audit not in counts:
        raise StreamsError(f"there is no audit topic {audit} to record it in: nothing was sent; {_create(audit)}")


def _create(topic: str) -> str:
    declared = {each.name for pipeline in PIPELINES.values() for each in pipeline.topics()}
    return "run `streams topics apply`" if topic in declared else "create it (an audit topic: cleanup.policy=compact)"


def _judge(inbox: Inbox, source: str) -> Judge:
    pipeline = next((each for each in PIPELINES.values() if each.source == source), None)
    if pipeline is None:
        raise UsageError(f"--transform: no pipeline reads {source}, so what a transform makes of it cannot be judged")
    return Judge(inbox.settings, pipeline)


def _letters(box: Box, rows: Rows) -> Iterator[list[Letter]]:
    for messages in box.tail.fetch(rows.places()):
        yield [letter_of(box.topic, message) for message in messages]


def _foretell(inbox: Inbox, found: Found, source: str, transform: Transform | None, result: ReplayResult) -> None:
    """Count what would be rejected again: only what decoding and validation see, and only for declared sources."""
    if all(each.source != source for each in PIPELINES.values()):
        return
    judge = _judge(inbox, source)
    for letters in _letters(found.box, found.rows.of_source(source)):
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
        box: Box,
        source: str,
        options: ReplayOptions,
        transform: Transform | None,
        result: ReplayResult,
        progress: Progress,
    ) -> None:
        self._inbox, self._box, self._source, self._options = inbox, box, source, options
        self._result, self._progress = result, progress
        self._audit = f"{source}.dlq.audit"
        self._desk = Desk(inbox.settings, source)
        self._maker = Maker(
            box.topic, source, message_bytes_max(inbox.client, source), inbox.counts()[source], options.actor, transform
        )
        self._refused: set[bytes] = set()
        self._total = self._in_hand = 0
        self._started = 0.0

    def go(self, rows: Rows) -> None:
        """Replay them; what fails is tried again, with what the audit topic says by then."""
        before = self._result.replayed
        failures = 0
        started, cpu_before = time.monotonic(), time.process_time()
        try:
            self._desk.sit_down()
            chosen = left = self._still_open(rows)
            started = self._started = time.monotonic()
            cpu_before = time.process_time()
            self._result.selected -= len(rows) - len(chosen)  # somebody else has resolved them meanwhile
            self._total = before + len(chosen)
            while True:
                done = self._result.replayed
                try:
                    self._send(left)
                    break
                except Undone as error:
                    failures = 1 if self._result.replayed > done else failures + 1
                    if failures >= TRIES_MAX:
                        raise StreamsError(
                            f"replaying into {self._source} fails: {error}; what was committed is done and recorded: "
                            "run the same command again for the rest"
                        ) from None
                    time.sleep(min(2.0**failures / 10, 2.0))
                except Senseless as error:
                    raise StreamsError(
                        f"{error}; it had made sense of the same letters before: what was committed until then is done "
                        f"and recorded ({self._result.replayed} letters), nothing else was sent"
                    ) from None
                self._desk.sit_down()
                left = self._still_open(chosen)
                # The audit topic knows, also of a transaction whose outcome was not told.
                self._result.replayed = before + len(chosen) - len(left) - len(self._refused)
        finally:
            self._result.seconds += time.monotonic() - started
            self._result.cpu_seconds += time.process_time() - cpu_before
            self._desk.close()

    def _still_open(self, rows: Rows) -> Rows:
        """Those that nothing was done about; their audit is read to its end."""
        audit = self._box.audit(self._source)
        if audit is None:  # the box reads the audit of every source that its letters name
            raise StreamsError(f"the audit topic {self._audit} is not known")
        audit.refresh(self._inbox.counts())
        left = rows.where(audit.resolutions.of(rows).is_open)
        return left if not self._refused else left.where(~np.isin(left.ids, np.array(sorted(self._refused))))

    def _send(self, rows: Rows) -> None:
        is_paced = self._options.rate is not None
        batch_ms_max = BATCH_PACED_MS_MAX if is_paced else BATCH_MS_MAX
        begun, open_bytes, self._in_hand = time.monotonic(), 0, 0
        made = self._made(rows)
        # What is paced is made when it is due: it carries the time at which it is sent.
        with closing(made if is_paced else built_ahead(made)) as slices:
            for each in slices:
                if not self._in_hand:
                    begun = time.monotonic()
                self._send_slice(each)
                self._in_hand, open_bytes = self._in_hand + len(each.ids), open_bytes + each.bytes_used
                is_due = (time.monotonic() - begun) * 1000 >= batch_ms_max
                if self._in_hand >= BATCH_LETTERS_MAX or open_bytes >= BATCH_BYTES_MAX or is_due:
                    self._commit()
                    open_bytes = 0
        self._commit()

    def _made(self, rows: Rows) -> Generator[Slice]:
        """The letters as records, slice by slice, in log order."""
        rate = self._options.rate
        size = SLICE_LETTERS_MAX if rate is None else max(1, rate // _SLICES_A_SECOND)
        for messages in self._box.tail.fetch(rows.places()):
            for first in range(0, len(messages), size):
                self._pace()
                yield self._maker.make(rows, messages[first : first + size])

    def _send_slice(self, each: Slice) -> None:
        self._refused.update(each.left_out, (letter_id for letter_id, _ in each.refused))
        self._result.left_out += len(each.left_out)
        for letter_id, why in each.refused:
            self._result.refuse(letter_id.decode(), why)
        if each.ids:
            desk, at_ms = self._desk, each.at_ms
            desk.send(self._source, each.keys, each.values, each.headers, at_ms=at_ms, partitions=each.partitions)
            desk.send(self._audit, each.ids, each.marks, None, at_ms=at_ms)

    def _commit(self) -> None:
        self._desk.commit()
        self._result.replayed += self._in_hand
        self._in_hand = 0
        self._progress(ReplayProgress("replaying", self._result.replayed, self._total))

    def _pace(self) -> None:
        rate = self._options.rate
        if rate is not None:
            ahead = self._started + (self._result.replayed + self._in_hand) / rate - time.monotonic()
            if ahead > 0:
                time.sleep(min(ahead, 5.0))


def await_outcomes(
    inbox: Inbox, chosen: Sequence[Found], options: ReplayOptions, result: ReplayResult, progress: Progress
) -> None:
    """Count what became of the letters, as soon as the worker has said so of all, or `wait_s` is over."""
    deadline = time.monotonic() + options.wait_s
    while True:
        counts = inbox.counts()
        outcomes: Counter[str] = Counter()
        for found in chosen:
            for source in sorted(set(found.rows.sources())):
                audit = found.box.audit(source)
                if audit is not None:
                    audit.refresh(counts)
                    states = audit.resolutions.of(found.rows.of_source(source))
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
        Outcome.LATE: "went through, behind its device's last released event: in the late topic",
        Outcome.DUPLICATE: "dropped: the same event had gone through meanwhile",
        Outcome.REJECTED: "rejected once more: open again, as its next attempt",
    }[outcome]
