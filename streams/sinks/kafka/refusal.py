"""Which records an output topic refuses: found by running the cycle again in ever smaller pieces (ADR 17).

A broker answers per batch of records, rarely per record. librdkafka can report on each record, but that costs too much
to be on all the time. So the first refusal only begins the search. From then on every record has a delivery report, and
those that failed are suspects. In the next run at most `PIECES` pieces of the suspects are sent, each by itself, until
a suspect has failed that stood alone. A few runs are enough for any number of records.
"""

import time
from collections.abc import Callable
from typing import Final

import structlog
from confluent_kafka import KafkaError

from streams.limits import REFUSAL_SEARCH_MS, TRANSACTION_TIMEOUT_MS
from streams.sinks.base import OutputRefused, Refused

log = structlog.get_logger(__name__)

REFUSALS: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - public constants of librdkafka
        KafkaError._BAD_MSG,  # noqa: SLF001
    }
)
"""What is wrong with a record, and stays wrong however often it is sent. Everything else is an outage, a missing topic
or a missing right, and passes or is corrected without the record."""

_BY_CLIENT: Final = frozenset({KafkaError._UNKNOWN_PARTITION, KafkaError._BAD_MSG})  # noqa: SLF001
"""Errors that the client itself finds, per record."""
_ANOTHER_ONE: Final = KafkaError._INVALID_DIFFERENT_RECORD  # noqa: SLF001 - of the same batch (KIP-467)
_SOME_FAILED: Final = frozenset({KafkaError._INCONSISTENT, KafkaError._STATE})  # noqa: SLF001
"""A step failed because records failed, or because the transaction failed before; only delivery reports tell why."""
_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
PIECES: Final = 64
_BATCH_BYTES_MIN: Final = 1_024

_Suspect = tuple[str, bytes | None, bytes | None]
"""Topic, key, value."""


class RefusalSearch:
    """The search of one producer. `begin` starts a run; the producer tells of records that failed, and asks why."""

    def __init__(self, *, batch_bytes: int) -> None:
        self.batch_bytes = batch_bytes
        """Largest batch of several records: a batch that was too large for its topic makes it smaller for good."""
        self._until_s = 0.0
        self._suspects: set[_Suspect] = set()
        self._failed: list[tuple[Refused, int | None, KafkaError]] = []
        """Records that failed in this run, the partition of the output, and why."""
        self._told_apart: set[tuple[str, int | None]] = set()
        """Partitions of outputs for which the broker has named the refused records of a batch."""
        self._piece_left = 0
        """Suspects that the piece has room for."""
        self._alone = False
        """Whether a suspect was sent in a batch of its own."""

    @property
    def is_on(self) -> bool:
        """Whether each record needs a delivery report: a refusal was met lately."""
        return time.monotonic() < self._until_s

    def begin(self) -> None:
        """Begin a run: a transaction is begun."""
        self._failed = []
        self._told_apart.clear()
        self._piece_left, self._alone = 0, False
        if not self.is_on:
            self._suspects.clear()

    def make_room(self, topic: str, key: bytes | None, value: bytes | None, flush: Callable[[float], object]) -> None:
        """Call before a record is produced: sends what is queued where a piece of the suspects begins or ends."""
        if not self._suspects:
            return
        piece = max(1, len(self._suspects) // PIECES)
        is_suspect = (topic, key, value) in self._suspects
        if self._alone or (is_suspect and self._piece_left <= 0):
            flush(TRANSACTION_TIMEOUT_MS / 1000)
            self._piece_left = piece
        self._alone = is_suspect and piece == 1
        if is_suspect:
            self._piece_left -= 1

    def failed(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        origin: int | None,
        partition: int | None,
        error: KafkaError,
    ) -> None:
        """Note a record of which the delivery report is an error."""
        if error.code() == _ANOTHER_ONE:
            self._told_apart.add((topic, partition))
        elif error.code() in REFUSALS:
            self._failed.append((Refused(topic, key, value, origin, error.str()), partition, error))

    def refused_at_once(
        self, topic: str, key: bytes | None, value: bytes | None, origin: int | None, error: KafkaError
    ) -> OutputRefused:
        """The end of a run in which the client itself has refused a record: it is the one."""
        self._go_on()
        return OutputRefused(
            f"{topic} refuses a record: {error.str()}", [Refused(topic, key, value, origin, error.str())]
        )

    def found(self, error: KafkaError, report: KafkaError | None) -> OutputRefused | None:
        """The end of a run that failed with `error`; None when no output has refused a record.

        `report` is the error of a delivery report, if there was one.
        """
        codes = {error.code()} | ({report.code()} if report is not None else set())
        if not self._failed and not codes & REFUSALS:
            if error.code() in _SOME_FAILED and report is None:
                self._go_on()  # the next run tells which, and why
            return None
        self._go_on()
        words = error.str() if report is None else report.str()
        alone = self._standing_alone()
        if alone:
            self._suspects -= {(each.topic, each.key, each.value) for each in alone}
            return OutputRefused(f"{alone[0].topic} refuses a record: {alone[0].why}", alone)
        self._narrow()
        which = f": at least one of {len(self._suspects)}" if self._suspects else ""
        return OutputRefused(f"an output refuses records ({words}){which}")

    def _standing_alone(self) -> list[Refused]:
        """Records of this run that failed by themselves, with nothing else in their partition of the output."""
        places: dict[tuple[str, int | None], list[Refused]] = {}
        found: list[Refused] = []
        for refused, partition, error in self._failed:
            if error.code() in _BY_CLIENT or (refused.topic, partition) in self._told_apart:
                found.append(refused)
            else:
                places.setdefault((refused.topic, partition), []).append(refused)
        return found + [each[0] for each in places.values() if len(each) == 1]

    def _narrow(self) -> None:
        """Choose the suspects of the next run; of batches that are too large, first make smaller ones."""
        if not self._failed:
            return
        if all(error.code() in _TOO_LARGE for _, _, error in self._failed) and self.batch_bytes > _BATCH_BYTES_MIN:
            self.batch_bytes = max(_BATCH_BYTES_MIN, self.batch_bytes // 4)
            log.warning("a batch is too large for its topic; making smaller ones", bytes_max=self.batch_bytes)
            return
        failed = {(refused.topic, refused.key, refused.value) for refused, _, _ in self._failed}
        self._suspects = (failed & self._suspects) or failed

    def _go_on(self) -> None:
        self._until_s = time.monotonic() + REFUSAL_SEARCH_MS / 1000
