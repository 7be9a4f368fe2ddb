"""Evaluates lag: reads a round of offsets, looks up the records that the tracker asks for, gives verdicts."""

import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

import structlog

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.log_reader import READ_TIMEOUT_S, LogReader, Span
from streams.kafka.offsets_process import OffsetProbe
from streams.kafka.round import Round
from streams.monitor.group_lag import GroupLag
from streams.monitor.kept_versions import KeptVersions
from streams.monitor.lookups import Answer, Question
from streams.monitor.policies import GroupPolicies
from streams.monitor.tracker import LagTracker
from streams.names import MONITOR_GROUP
from streams.settings import Settings

log = structlog.get_logger(__name__)

QUESTIONS_MAX: Final = 500
"""Bound on look-ups in one round: further times are interpolated, or looked up in the next round."""


class LagEvaluator:
    """Gives verdicts, a round at a time. One thread; `close` when done."""

    def __init__(
        self,
        settings: Settings,
        *,
        window_s: float,
        interval_s: float,
        policies: GroupPolicies | None = None,
        flows: Sequence[Pipeline] = (),
    ) -> None:
        """`policies`: None: those of the settings. `flows`: the flows that are declared; more is known of them.

        Raises:
            UsageError: the settings say no usable policies.

        """
        tracker = LagTracker(
            policies or GroupPolicies.of(settings), window_s=window_s, interval_s=interval_s, flows=flows
        )
        self.probe = OffsetProbe(settings)
        self.log_reader = LogReader(settings, client=MONITOR_GROUP, group=MONITOR_GROUP)
        self._kept = KeptVersions(settings, flows)
        self._settings = settings
        self._uncommitted: LogReader | None = None
        """Reads the first records of open transactions; made when there is one to read."""
        self._tracker = tracker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.probe.close()
        self._kept.close()
        self.log_reader.close()
        if self._uncommitted is not None:
            self._uncommitted.close()

    def look(self, only: Iterable[str] | None = None) -> tuple[Round, dict[str, GroupLag]]:
        """Read a round of offsets and judge it.

        Raises:
            RoundFailed: the broker does not answer.

        """
        found = self.probe.take(only, newest=self._tracker.is_new)
        self._tracker.note(found)
        self._tracker.keep(self._kept.look(found))
        try:
            self._tracker.learn(self._answers(self._tracker.questions(QUESTIONS_MAX), self.log_reader))
            if questions := self._tracker.open_questions(QUESTIONS_MAX):
                if self._uncommitted is None:
                    self._uncommitted = LogReader(
                        self._settings, client=MONITOR_GROUP, group=MONITOR_GROUP, isolation="read_uncommitted"
                    )
                self._tracker.learn_open(self._answers(questions, self._uncommitted))
            self._read_journals()
        except StreamsError as error:  # verdicts are good without: times are coarser
            log.warning("records could not be looked up", error=str(error))
        return found, self._tracker.judge()

    def _read_journals(self) -> None:
        """Read where the state of partitions stands whose offset was set by something else, as far as time allows."""
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        while (left_s := deadline_s - time.monotonic()) > 0 and (asked := self._tracker.states.questions()):
            tails = {Span(one.topic, one.partition, one.first, one.end, one.end - one.first): one for one in asked}
            for span, read in self.log_reader.read(list(tails), timeout_s=left_s).items():
                if read.complete:
                    self._tracker.states.learn(tails[span], [record.value() or b"" for record in read.records])

    @staticmethod
    def _answers(questions: list[Question], log_reader: LogReader) -> list[Answer]:
        spans = {Span(one.topic, one.partition, one.offset, one.end): one for one in questions}
        answers = []
        for span, read in log_reader.read(list(spans)).items() if spans else ():
            if read.records:
                first = read.records[0]
                answers.append(Answer(spans[span], first.offset(), first.timestamp()[1]))
            elif read.complete:
                answers.append(Answer(spans[span], None, None))
        return answers
