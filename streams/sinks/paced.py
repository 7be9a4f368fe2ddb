"""Records into a sink at most at a given rate, in transactions of bounded size, each with a checkpoint.

For writers that have many records and no hurry to have each visible at once: files (`streams.ingest`), dead letters
that are replayed or discarded. A worker's commit cycle has an order of its own (`streams.engine.commit`).
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from streams.limits import WRITER_BYTES_MAX, WRITER_RECORDS_MAX
from streams.sinks.base import Checkpoint, Outgoing, Sink

_PORTIONS_A_SECOND: Final = 20
"""With a rate, records go out in this many portions a second."""
_CATCH_UP_S: Final = 1.0
"""With a rate, at most this much lost time (a slow broker, a slow reader) is made up for."""


class PacedWriter:
    """Writes portions of records and commits when enough are open. One thread; close it when done.

    Before each portion call `wait`, unless there is no rate. Errors are the sink's: after WriteInterrupted `open`
    again, and write what the checkpoint does not cover.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        open_ms_max: int,
        rate: int | None = None,
        on_commit: Callable[[int], None] = lambda _: None,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`open_ms_max`: how long a transaction may gather records. `rate`: records a second at most.

        `on_commit` is called after each commit with the number of records that became visible by it.
        """
        self._sink, self._rate, self._on_commit = sink, rate, on_commit
        self._open_s_max = open_ms_max / 1000
        self._monotonic_s, self._sleep = monotonic_s, sleep
        self._due_s: float | None = None
        """When the next record may go out; None before the first."""
        self._open_records = self._open_bytes = 0
        self._open_since_s = 0.0
        self._checkpoint: Checkpoint | None = None
        self.committed = 0
        """Records that are visible."""

    def portion(self, records_max: int) -> int:
        """How many records to write at once: at most `records_max` (at least 1), and no more than the rate allows."""
        return records_max if self._rate is None else min(records_max, max(1, self._rate // _PORTIONS_A_SECOND))

    def open(self) -> Checkpoint | None:
        """Take over the sink, and return its last checkpoint; what was written and not committed is void."""
        self._open_records = self._open_bytes = 0
        self._checkpoint = None
        return self._sink.open()

    def wait(self) -> None:
        """Wait until the next portion is due; commits before a wait in which it would have to."""
        if self._rate is None:
            return
        now_s = self._monotonic_s()
        self._due_s = now_s if self._due_s is None else max(self._due_s, now_s - _CATCH_UP_S)
        ahead_s = self._due_s - now_s
        if ahead_s > 0:
            if self._open_records and now_s + ahead_s - self._open_since_s >= self._open_s_max:
                self.commit()
            self._sleep(ahead_s)

    def write(
        self, outgoing: Sequence[Outgoing], *, records: int, bytes_used: int, checkpoint: Checkpoint | None = None
    ) -> None:
        """Write a portion, and commit if enough is open.

        `records` is what counts for the rate and the bounds (a record and what is noted about it may count as one),
        `bytes_used` what they take; `checkpoint` covers them and is committed with them.
        """
        if not self._open_records:
            self._open_since_s = self._monotonic_s()
        self._sink.write(outgoing)
        self._checkpoint = checkpoint
        self._open_records += records
        self._open_bytes += bytes_used
        if self._rate is not None and self._due_s is not None:
            self._due_s += records / self._rate
        is_full = self._open_records >= WRITER_RECORDS_MAX or self._open_bytes >= WRITER_BYTES_MAX
        if is_full or self._monotonic_s() - self._open_since_s >= self._open_s_max:
            self.commit()

    def commit(self) -> None:
        """Make everything written so far visible; nothing to do when all of it is."""
        if self._open_records:
            self._sink.commit(self._checkpoint)
            done, self._open_records, self._open_bytes = self._open_records, 0, 0
            self.committed += done
            self._on_commit(done)

    def close(self) -> None:
        """Drop what is not committed, and disconnect."""
        self._sink.close()
