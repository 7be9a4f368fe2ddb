"""Writes what is done about dead letters of one source, in transactions with one transactional id.

There is one transactional id per source, so that only one replay or discard works on it at a time: a new session aborts
the unfinished transaction of a crashed one and fences a running one. The audit topic is read only after that, so its
content is final; a resolution is written in the same transaction as the letter's record. So the audit topic is the
progress: running a killed command again does the rest.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from streams.deadletters.letter.index import Rows
from streams.deadletters.review.choice import Job
from streams.deadletters.review.inbox import Inbox
from streams.names import DLQ_PREFIX
from streams.resilience.retry import Backoff, Pause, Retrier
from streams.settings import Settings
from streams.sinks.base import Outgoing, WriteInterrupted
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.paced import PacedWriter
from streams.sinks.transactional import TransactionalSink

log = structlog.get_logger(__name__)

TRIES_MAX: Final = 5
"""Failed transactions in a row before giving up."""
OPEN_MS_MAX: Final = 2_000
OPEN_PACED_MS_MAX: Final = 500
"""How long a transaction may collect letters; with a rate, less long."""
_AGAIN: Final = Backoff(first_s=0.2, pause_s_max=2.0)


class Unfinished(Exception):
    """`TRIES_MAX` transactions in a row have failed; what was committed before is done."""


class ReplaySession:
    """Writes about open letters of one source. One thread; close it when done. Call `open` first.

    `open` first. Every method may raise FencedError: another session of this source was opened.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        still_open: Callable[[Rows], Rows],
        *,
        rate: int | None = None,
        on_commit: Callable[[int], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        """`still_open`: those of some letters that nothing was done about, by the audit topic as it is now.

        `rate`: letters a second at most. `on_commit` gets the number of letters that each commit has resolved.
        """
        self._still_open = still_open
        transactions = KafkaTransactions(
            settings,
            transactional_id=f"{DLQ_PREFIX}{source}",
            source=source,
            retrier=Retrier(stop, say=_say),
            waits_for_rights=False,
        )
        fenced = (
            f"another replay or discard of {source} has started, this one stops: "
            "what it has committed is done and recorded, the rest is unchanged"
        )
        self._writer = PacedWriter(
            TransactionalSink(transactions, fenced=fenced),
            open_ms_max=OPEN_MS_MAX if rate is None else OPEN_PACED_MS_MAX,
            rate=rate,
            on_commit=on_commit,
        )

    def open(self, letters: Rows) -> Rows:
        """Take over the source, and find out which of `letters` are still open.

        Raises:
            Unfinished: the broker does not give a producer.

        """
        try:
            self._writer.open()
        except WriteInterrupted as error:
            raise Unfinished(str(error)) from None
        return self._still_open(letters)

    def work_off(
        self, letters: Rows, write: Callable[[Rows], None], on_left: Callable[[Rows], None] = lambda _: None
    ) -> None:
        """Call `write` for all of `letters`, which `open` has found; failed transactions are written again.

        After a failure `on_left` and `write` get the letters that are still open according to the audit topic, also
        when the outcome of a commit is not known.

        Raises:
            Unfinished: the broker refuses again and again.

        """
        left, failures = letters, 0
        while True:
            done = self._writer.committed
            try:
                write(left)
                self._writer.commit()
                return
            except WriteInterrupted as error:
                failures = 1 if self._writer.committed > done else failures + 1
                if failures >= TRIES_MAX:
                    raise Unfinished(str(error)) from None
                time.sleep(_AGAIN.jittered_s(failures))
            left = self.open(letters)
            on_left(left)

    def portion(self, letters_max: int) -> int:
        """How many letters to write at once."""
        return self._writer.portion(letters_max)

    def wait(self) -> None:
        """Wait until the next portion is due."""
        self._writer.wait()

    def write(self, outgoing: Sequence[Outgoing], *, letters: int, bytes_used: int) -> None:
        """Write records about so many letters; see `PacedWriter.write`."""
        self._writer.write(outgoing, records=letters, bytes_used=bytes_used)

    def commit(self) -> None:
        """Commit what was written, all of it or nothing."""
        self._writer.commit()

    def close(self) -> None:
        """Abort the open transaction, and disconnect."""
        self._writer.close()


def still_open_of(inbox: Inbox, job: Job) -> Callable[[Rows], Rows]:
    """A function that returns the unresolved letters of a job: it reads their audit topic to its end."""

    def still_open(rows: Rows) -> Rows:
        audit = job.box.audit(job.flow)
        audit.refresh(inbox.counts())
        return rows.where(audit.resolutions.of(rows).is_open)

    return still_open


def _say(pause: Pause) -> None:
    log.warning(pause.what, error=str(pause.error), failures=pause.failures, retry_in_s=round(pause.pause_s, 2))
