"""Remembers what outputs have refused: which events become dead letters, and which partitions stand still.

Kept in memory only. A process that does not know a refusal meets it again: the cycle is aborted, nothing of it is
visible, and the record is found again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from streams.batch.columns import Int64
from streams.batch.events import Events
from streams.flow.declaration import Pipeline
from streams.limits import REFUSALS_KEPT_MAX
from streams.sinks.base import Refused

log = structlog.get_logger(__name__)

K = TypeVar("K")

_DIGEST_BYTES: Final = 16


class Refusals:
    """Refusals of one flow in one worker. Only the engine's thread uses it."""

    def __init__(self, pipeline: Pipeline, partitions_of: Callable[[Sequence[bytes]], Int64]) -> None:
        self._pipeline = pipeline
        self._partitions_of = partitions_of
        self._events: OrderedDict[tuple[bytes, bytes], str] = OrderedDict()
        """Message by key and digest of the value: one event."""
        self._keys: OrderedDict[bytes, str] = OrderedDict()
        """Message by key of which a row is refused: its events have no effect that could be written."""
        self._event_keys: set[bytes] = set()
        self.stopped: dict[int, str] = {}
        """Why a partition of the source stands still, by partition: a record is refused for which nothing stands in."""

    def __bool__(self) -> bool:
        return bool(self._events or self._keys)

    def note(self, refused: Sequence[Refused]) -> None:
        """Take note of records that an output has refused; the next run of the cycle goes by it."""
        pipeline = self._pipeline
        rows = {output.topic for output in pipeline.row_outputs}
        for each in refused:
            message = f"{each.topic} refuses it: {each.why}"
            if each.topic in pipeline.event_outputs and each.key is not None:
                self._remember(self._events, (each.key, _digest(each.value)), message)
                self._event_keys = {key for key, _ in self._events}
            elif each.topic in rows and each.key is not None and each.key not in self._keys:
                self._remember(self._keys, each.key, f"the row of its key: {message}")
            else:
                self._stop(each)

    def messages(self, events: Events) -> dict[int, str]:
        """Those of `events` that become dead letters: position and why."""
        found: dict[int, str] = {}
        for position, key in enumerate(events.key.tolist()):
            message = self._keys.get(key)
            if message is None and key in self._event_keys:
                message = self._events.get((key, _digest(events.value[position])))
            if message is not None:
                found[position] = message
        return found

    def start_again(self, partitions: Sequence[int]) -> None:
        """Let partitions that stand still be tried again: they are assigned again."""
        for partition in partitions:
            self.stopped.pop(partition, None)

    def _remember(self, kept: "OrderedDict[K, str]", what: K, message: str) -> None:
        log.error("an output refuses a record; its event becomes a dead letter", why=message)
        kept[what] = message
        while len(kept) > REFUSALS_KEPT_MAX:
            kept.popitem(last=False)

    def _stop(self, refused: Refused) -> None:
        partition = refused.partition
        if partition is None:
            partition = int(self._partitions_of([refused.key or b""])[0])
        source = self._pipeline.source
        self.stopped[partition] = (
            f"{source}-{partition} stands still: {refused.topic} refuses a record ({refused.why}); "
            f"change the configuration of {refused.topic} so that it is accepted, then restart the worker"
        )
        log.error("a partition stands still: an output refuses what must be written", why=self.stopped[partition])


def _digest(value: bytes | None) -> bytes:
    return hashlib.blake2b(value or b"", digest_size=_DIGEST_BYTES).digest()
