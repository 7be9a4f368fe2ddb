"""The desk of one source: what is done about its dead letters, in transactions under one name.

One transactional id a source, so that at any time one replay or discard is at work on it: whoever comes later settles
what a dead predecessor left open and stops a living one. Only after that is the audit topic read, so what it says is
final; a resolution is written in the transaction of what it speaks of. So the audit topic is the progress, and running
the same thing again, whenever it was killed, does what is left.
"""

import threading
from collections.abc import Sequence
from typing import Final

import structlog

from streams.batch.columns import Headers
from streams.errors import FencedError
from streams.resilience.retry import Pause, Retrier
from streams.settings import Settings
from streams.sinks.base import CycleAborted, OutcomeUnknown
from streams.sinks.kafka.transactions import KafkaTransactions

log = structlog.get_logger(__name__)

NAME_PREFIX: Final = "streams.dlq."


class Undone(Exception):
    """The transaction did not happen, or it is not known whether it did: read the audit topic again."""


class Desk:
    """Transactions over the dead letters of one source. One thread; close it when done."""

    def __init__(self, settings: Settings, source: str, *, stop: threading.Event | None = None) -> None:
        self.source = source
        self._transactions = KafkaTransactions(
            settings,
            transactional_id=f"{NAME_PREFIX}{source}",
            source=source,
            retrier=Retrier(stop, say=_say),
        )
        self._open = False

    def sit_down(self) -> None:
        """Take the name over: what a predecessor left open is settled now, and a living one can write no more."""
        self._open = False
        self._transactions.reopen()

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers | None] | None,
        *,
        at_ms: int,
        partitions: Sequence[int | None] | None = None,
    ) -> None:
        """Add records to the open transaction; `partitions` are those of records without a key.

        Raises:
            Undone: the transaction is void.
            FencedError: somebody else has sat down.

        """
        try:
            self._begin()
            if partitions is None or None not in keys:
                self._transactions.produce_many(topic, keys, values, [at_ms] * len(keys), headers)
                return
            for row, (key, value) in enumerate(zip(keys, values, strict=True)):
                self._transactions.produce(
                    topic, key=key, value=value, timestamp_ms=at_ms,
                    partition=partitions[row] if key is None else None,
                    headers=None if headers is None else headers[row],
                )  # fmt: skip
        except CycleAborted as error:
            raise self._undone(error) from None
        except FencedError:
            raise self._displaced() from None

    def commit(self) -> None:
        """Make what was sent visible, all of it or nothing.

        Raises:
            Undone: nothing of it is, or it is not known.
            FencedError: somebody else has sat down; nothing of it is.

        """
        if not self._open:
            return
        try:
            self._transactions.commit()
        except (CycleAborted, OutcomeUnknown) as error:
            raise self._undone(error) from None
        except FencedError:
            raise self._displaced() from None
        self._open = False

    def close(self) -> None:
        """Drop what is open, and disconnect."""
        self._transactions.close()

    def _begin(self) -> None:
        if not self._open:
            self._transactions.begin()
            self._open = True

    def _undone(self, error: Exception) -> Undone:
        self._open = False
        return Undone(str(error))

    def _displaced(self) -> FencedError:
        self._open = False
        return FencedError(
            f"another replay or discard of {self.source} has started, this one stops: "
            "what it has committed is done and recorded, the rest is as it was"
        )


def _say(pause: Pause) -> None:
    log.warning(pause.what, error=str(pause.error), failures=pause.failures, retry_in_s=round(pause.pause_s, 2))
