"""Writes one micro-batch into the target: decodes it, sends its rejects to the dead-letter topic, writes its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.batch.records import Records
from streams.batch.rejects import DeadLetter, Reject
from streams.sink.batches import Place, prepared
from streams.sink.decoding import RowDecoder
from streams.sinks.target import RowsRefused, Target


class Letters(Protocol):
    """Receives records that are not rows."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Return once all of them are in the dead-letter topic.

        Raises:
            TargetUnavailable: that is not known.

        """

    def close(self) -> None:
        """Disconnect; never raises."""


@dataclass(frozen=True, slots=True)
class Written:
    """Result of a write: the next offsets, and records by outcome."""

    offsets: Mapping[int, int]
    rows: int
    deleted: int
    rejected: int
    records: int


class Writer:
    """Writes micro-batches, one after the other. One thread.

    A record that is no row is in the dead-letter topic before the offset passes it. If the process dies in between,
    the letter comes again, with the same id.
    """

    def __init__(self, target: Target, decoder: RowDecoder, letters: Letters, *, key: Sequence[str]) -> None:
        self._target, self._decoder, self._letters = target, decoder, letters
        self._key = tuple(key)
        self._refused: dict[Place, str] = {}
        """Rows of the batch at hand that the target refuses."""
        self._sent: set[Place] = set()
        """Letters of the batch at hand that are in their topic."""

    def write(self, records: Records) -> Written:
        """Write them, or nothing.

        Raises:
            TakenOver, TargetUnavailable, TargetMismatch: as the target does.
            RegistryUnavailable: a schema is not known, and the registry does not answer.
            BreakerOpen: the target is left alone for a while.

        """
        decoded = self._decoder.decode(records)
        while True:
            made = prepared(records, decoded, self._key, without=self._refused)
            rejects = [*decoded.rejects, *made.rejects]
            self._send(records, rejects)
            try:
                self._target.write(made.batch)
            except RowsRefused as refused:
                self._refused |= refused.rows
                continue
            self.forget()
            batch = made.batch
            return Written(batch.offsets, batch.rows.num_rows, len(batch.deleted), len(rejects), len(records))

    def forget(self) -> None:
        """The next batch is a different one."""
        self._refused, self._sent = {}, set()

    def _send(self, records: Records, rejects: Sequence[Reject]) -> None:
        letters = [_letter(records, reject) for reject in rejects]
        fresh = [one for one in letters if (one.partition, one.offset) not in self._sent]
        if fresh:
            self._letters.send(fresh)
            self._sent |= {(one.partition, one.offset) for one in fresh}


def _letter(records: Records, reject: Reject) -> DeadLetter:
    row = reject.row
    return DeadLetter(
        reject,
        int(records.partition[row]),
        int(records.offset[row]),
        int(records.timestamp_ms[row]),
        records.key[row],
        records.value[row],
        None if records.headers is None else records.headers[row],
    )
