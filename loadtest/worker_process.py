"""A worker with an addition of the load test: calls to another system, and a defect that the oracle must find.

    python -m loadtest.worker_process --pipeline gps --data-dir DIR --web-port 0 --downstream-ms 100

It is the product's worker; a hook of its own gets what each micro-batch has brought about before it is written.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from loadtest.program import run
from streams.batch.events import Events
from streams.deadletters.letter.audit import Outcome
from streams.engine.effects import Effects, PartitionEffects
from streams.errors import UsageError
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.settings import load_settings
from streams.unknown_variables import warn_of_unknown_variables
from streams.worker.cycle import EffectsHook
from streams.worker.metrics import WorkerMetrics
from streams.worker.process import WorkerProcess

DOWNSTREAM: Final = "downstream"
"""Name under which the worker's metrics have the time that it waited for calls."""
DOWNSTREAM_RECORDS: Final = 250


@dataclass(frozen=True, slots=True)
class Downstream:
    """Calls to another system for every released event, before anything is committed.

    One call takes `call_ms` and up to `records_max` events of one partition. Calls of a partition follow each other,
    those of different partitions run at the same time.
    """

    call_ms: int
    records_max: int
    stopwatch: Callable[[str], AbstractContextManager[None]]
    sleep: Callable[[float], object] = time.sleep

    def take(self, effects: Effects) -> Effects:
        """Wait as long as the partition with the most calls makes it last; the effects are as they were."""
        events = max((len(clean) for part in effects.partitions if (clean := _clean_of(part)) is not None), default=0)
        calls = -(-events // self.records_max)
        if calls:
            with self.stopwatch(DOWNSTREAM):
                self.sleep(calls * self.call_ms / 1000)
        return effects


@dataclass(slots=True)
class DropDefect:
    """Loses one clean event in `every`, as a faulty operator would: folded, and never written."""

    every: int
    _seen: int = 0

    def spoil(self, effects: Effects) -> Effects:
        """The effects without every `every`-th clean event."""
        return replace(effects, partitions=[self._spoiled(part) for part in effects.partitions])

    def _spoiled(self, part: PartitionEffects) -> PartitionEffects:
        clean = _clean_of(part)
        if clean is None:
            return part
        first = self.every - 1 - self._seen % self.every
        count = len(clean)
        self._seen += count
        if first >= count:
            return part
        kept = (np.arange(count) - first) % self.every != 0
        spoiled = [records.take(kept) if records.events is clean else records for records in part.records]
        return replace(part, records=spoiled)


def _clean_of(part: PartitionEffects) -> Events | None:
    return next((records.events for records in part.of(Outcome.CLEAN)), None)


def parse_defect(spec: str) -> DropDefect | None:
    """Defect of the option's value: `drop:N`, or none.

    Raises:
        UsageError: it is something else.

    """
    if not spec:
        return None
    deed, _, number = spec.partition(":")
    if deed != "drop" or not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise UsageError(f"--defect must be drop:N, one clean event in N is lost; got {spec!r}")
    return DropDefect(int(number))


def waiting(metrics: WorkerMetrics) -> Callable[[str], AbstractContextManager[None]]:
    """A stopwatch for what waits: by the clock on the wall, where the worker's own goes by CPU time."""
    return partial(metrics.stopwatch, clock_s=time.perf_counter)


def hook_of(metrics: WorkerMetrics, *, downstream_ms: int, downstream_records: int, defect: str) -> EffectsHook:
    """The hook of one flow: first the defect, then the calls for what is left."""
    drops = parse_defect(defect)
    downstream = Downstream(downstream_ms, downstream_records, waiting(metrics)) if downstream_ms else None

    def hook(effects: Effects) -> Effects:
        if drops is not None:
            effects = drops.spoil(effects)
        return effects if downstream is None else downstream.take(effects)

    return hook


def command(
    *,
    pipeline: Annotated[str, typer.Option(help="Flow to run.")],
    data_dir: Annotated[Path, typer.Option(help="Local state.")],
    web_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics, /healthz, /readyz.")],
    downstream_ms: Annotated[int, typer.Option(min=0, max=10_000, help="Duration of a call; 0: no calls.")] = 0,
    downstream_records: Annotated[int, typer.Option(min=1, help="Events of one partition in a call.")] = (
        DOWNSTREAM_RECORDS
    ),
    defect: Annotated[str, typer.Option(help="drop:N: lose one clean event in N.")] = "",
) -> None:
    """Run a stream worker with the load test's addition until SIGTERM or Ctrl-C."""
    parse_defect(defect)
    settings = load_settings(streams_data_dir=data_dir)
    process = WorkerProcess(
        settings,
        select_pipelines([pipeline], prefix=settings.streams_topic_prefix),
        web_port=web_port,
        hook_of=lambda metrics: hook_of(
            metrics, downstream_ms=downstream_ms, downstream_records=downstream_records, defect=defect
        ),
    )
    configure_logging(settings.streams_log_format)
    warn_of_unknown_variables()
    process.run()


if __name__ == "__main__":
    run("loadtest.worker_process", command)
