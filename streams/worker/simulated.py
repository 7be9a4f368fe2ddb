"""For load tests, off by default: a downstream system that takes its time, and a defect that an oracle must find."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streams.engine.effects import Effects, PartitionEffects
from streams.errors import UsageError
from streams.worker.metrics import WorkerMetrics

DEFECT_VARIABLE: Final = "STREAMS_DEFECT"


@dataclass(frozen=True, slots=True)
class Downstream:
    """Calls to another system for every released event, before anything is committed.

    One call takes `call_ms` and up to `records_max` events of one partition. Calls of a partition follow each other,
    those of different partitions run at the same time.
    """

    call_ms: int
    records_max: int
    metrics: WorkerMetrics

    async def take(self, effects: Effects) -> None:
        """Wait as long as the partition with the most calls makes it last."""
        if not self.call_ms:
            return
        events = max((len(part.clean) for part in effects.partitions if part.clean is not None), default=0)
        calls = -(-events // self.records_max)
        if calls:
            with self.metrics.stopwatch("downstream"):
                await asyncio.sleep(calls * self.call_ms / 1000)


@dataclass(slots=True)
class DropDefect:
    """Loses one clean event in `every`, as a faulty operator would: folded, and never written."""

    every: int
    _seen: int = 0

    def spoil(self, effects: Effects) -> Effects:
        """The effects without every `every`-th clean event."""
        return replace(effects, partitions=[self._spoiled(part) for part in effects.partitions])

    def _spoiled(self, part: PartitionEffects) -> PartitionEffects:
        if part.clean is None:
            return part
        first = self.every - 1 - self._seen % self.every
        count = len(part.clean)
        self._seen += count
        if first >= count:
            return part
        kept = (np.arange(count) - first) % self.every != 0
        spoiled = [records.take(kept) if records.events is part.clean else records for records in part.records]
        return replace(part, records=spoiled)


def parse_defect(spec: str) -> DropDefect | None:
    """Defect of the variable's value: `drop:N`, or none.

    Raises:
        UsageError: it is something else.

    """
    if not spec:
        return None
    deed, _, number = spec.partition(":")
    if deed != "drop" or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise UsageError(f"{DEFECT_VARIABLE} must be drop:N, one clean event in N is lost; got {spec!r}")
    return DropDefect(int(number))
