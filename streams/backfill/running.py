"""Runs a version of a flow over a range of its logs: the worker as it is in production, which ends by itself."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.backfill.progress import Meter, Progress
from streams.flow.declaration import Pipeline
from streams.settings import Settings
from streams.sources.kafka.range import Range
from streams.worker.process import WorkerProcess
from streams.worker.replay import CpuShare, Replay

_TELL_S: Final = 0.5

Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run has done."""

    is_over: bool
    """Whether all of the range is processed and committed; else it was stopped."""
    outcomes: Mapping[str, int]
    """Events of this run by what became of them."""
    progress: Progress
    seconds: float


def data_dir_of(settings: Settings, flow: Pipeline) -> Path:
    """Where a backfill keeps its state by default: no flow's folder is called like this."""
    return settings.streams_data_dir / f"{flow.prefix}{flow.name}.backfill"


def run_over(
    settings: Settings, flow: Pipeline, over: Range, starts: Mapping[int, int], *, share: float, web_port: int | None,
    tell: Tell, on_reached: Callable[[Mapping[int, int]], None] = lambda _: None,
) -> Ran:  # fmt: skip
    """Process `over`, from where the flow's group is. Returns at its end, or when SIGTERM or SIGINT stops it.

    `settings` have the data directory; `share` of the machine's processors is used at most. `on_reached` is told often
    how far each lane is.

    Raises:
        StreamsError: it had to stop by itself.
        FencedError: another process goes on with the same version.

    """
    meter, began_s = Meter(starts), time.monotonic()
    newest = meter.look(starts, over.ends, began_s)
    told_s = 0.0

    def on_progress(reached: dict[int, int]) -> None:
        nonlocal newest, told_s
        now_s = time.monotonic()
        on_reached(reached)
        if reached and now_s - told_s >= _TELL_S:
            told_s, newest = now_s, meter.look(reached, over.ends, now_s)
            tell(newest)

    replay = Replay(over, CpuShare(share, len(os.sched_getaffinity(0))), on_progress)
    worker = WorkerProcess(settings, [flow], web_port=web_port, replay=replay)
    worker.run()
    is_over = replay.over.is_set()
    if is_over:
        newest = meter.look(over.ends, over.ends, time.monotonic())
        tell(newest)
    outcomes = {
        str(sample.labels["outcome"]): int(sample.value)
        for metric in worker.metrics.events.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels.get("pipeline") == flow.name
    }
    return Ran(is_over, outcomes, newest, time.monotonic() - began_s)
