"""Offsets to verdicts: one round of the probe, the look-ups that it asks for, and what the book makes of them."""

import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

import structlog

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.offsets_process import OffsetProbe
from streams.kafka.peek import READ_TIMEOUT_S, Peeker, Span
from streams.kafka.round import Round
from streams.monitor.book import Answer, GroupLag, LagBook, Question
from streams.monitor.policies import GroupPolicies
from streams.names import MONITOR_GROUP
from streams.settings import Settings

log = structlog.get_logger(__name__)

QUESTIONS_MAX: Final = 500
"""Records looked up in one round: what is not, is interpolated, or asked for in the next."""


class Lookout:
    """Verdicts, a round at a time. One thread; `close` when done."""

    def __init__(
        self,
        settings: Settings,
        *,
        window_s: float,
        interval_s: float,
        policies: GroupPolicies | None = None,
        pipelines: Sequence[Pipeline] = (),
    ) -> None:
        """`policies`: None: those of the settings. `pipelines`: the flows that are declared; more is known of them.

        Raises:
            UsageError: the settings say no usable policies.

        """
        book = LagBook(
            policies or GroupPolicies.of(settings), window_s=window_s, interval_s=interval_s, pipelines=pipelines
        )
        self.probe = OffsetProbe(settings)
        self.peeker = Peeker(settings, client=MONITOR_GROUP)
        self._settings = settings
        self._uncommitted: Peeker | None = None
        """Reads the first records of open transactions; made when there is one to read."""
        self._book = book

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what it holds."""
        self.probe.close()
        self.peeker.close()
        if self._uncommitted is not None:
            self._uncommitted.close()

    def look(self, only: Iterable[str] | None = None) -> tuple[Round, dict[str, GroupLag]]:
        """Take a round and judge.

        Raises:
            RoundFailed: the broker does not answer.

        """
        found = self.probe.take(only, newest=self._book.is_new)
        self._book.note(found)
        try:
            self._book.learn(self._answers(self._book.questions(QUESTIONS_MAX), self.peeker))
            if questions := self._book.open_questions(QUESTIONS_MAX):
                if self._uncommitted is None:
                    self._uncommitted = Peeker(self._settings, client=MONITOR_GROUP, isolation="read_uncommitted")
                self._book.learn_open(self._answers(questions, self._uncommitted))
            self._read_journals()
        except StreamsError as error:  # verdicts are good without: times are coarser
            log.warning("records could not be looked up", error=str(error))
        return found, self._book.judge()

    def _read_journals(self) -> None:
        """Where states stand whose offset was set by something else. What there is no time for is read next time."""
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while (left_s := deadline_s - time.monotonic()) > 0 and (asked := self._book.states.questions()):
            tails = {Span(one.topic, one.partition, one.first, one.end, one.end - one.first): one for one in asked}
            for span, read in self.peeker.read(list(tails), timeout_s=left_s).items():
                if read.complete:
                    self._book.states.learn(tails[span], [record.value() or b"" for record in read.records])

    @staticmethod
    def _answers(questions: list[Question], peeker: Peeker) -> list[Answer]:
        spans = {Span(one.topic, one.partition, one.offset, one.end): one for one in questions}
        answers = []
        for span, read in peeker.read(list(spans)).items() if spans else ():
            if read.records:
                first = read.records[0]
                answers.append(Answer(spans[span], first.offset(), first.timestamp()[1]))
            elif read.complete:
                answers.append(Answer(spans[span], None, None))
        return answers
