"""What the drives of a load test work with: workers, generators, and the clock of the samples."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loadtest.crew import Crew, crew
from loadtest.generators import Generators, Sent, generators
from loadtest.plan import Plan, Point, Work
from loadtest.sampler import INTERVAL_S, Sampler
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.settings import Settings

NEVER_IDLE_MS: Final = 86_400_000
"""A partition whose sender is held up is not idle, or its records would be late for that: results must not depend on
how busy this machine is."""
READY_S_MAX: Final = 120.0
STALL_S_MAX: Final = 60.0

Progress = Callable[[str, float], None]
"""What is being done, and how much of it is, from 0 to 1."""


class Stage:
    """Of one point."""

    def __init__(
        self,
        plan: Plan,
        point: Point,
        settings: Settings,
        pipeline: Pipeline,
        sampler: Sampler,
        scratch: Path,
        logs: Path,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.point = point
        self.settings = settings
        self.pipeline = pipeline
        self.sampler = sampler
        self.progress = progress
        self._scratch = scratch
        self._logs = logs
        self._phase = 0

    @contextmanager
    def workers(self) -> Iterator[Crew]:
        """Workers, started; stopped when the block is left."""
        plan = self.plan
        environment = {
            "STREAMS_LATENESS_MS": str(plan.lateness_ms),
            "STREAMS_IDLE_MS": str(NEVER_IDLE_MS),
            "STREAMS_GROUP_STATIC": "false",  # a static member outlives its worker by a session, and the group with it
        }
        additions = ["--defect", plan.defect] if plan.defect else []
        if self.point.work is Work.DOWNSTREAM:
            additions += ["--downstream-ms", str(plan.downstream_ms)]
            additions += ["--downstream-records", str(plan.downstream_records)]
        with crew(
            self.settings,
            self.pipeline.name,
            self.point.workers,
            environment,
            additions,
            data=self._scratch,
            logs=self._logs,
            sampler=self.sampler,
        ) as found:
            yield found

    @contextmanager
    def traffic(self, *arguments: str) -> Iterator[Generators]:
        """Generators with the plan's mix, each call with devices of its own."""
        plan, settings = self.plan, self.settings
        self._phase += 1
        common = [
            *("--pipeline", plan.pipeline, "--topic", self.pipeline.source),
            *("--seed", str(plan.seed * 1000 + self._phase), "--device-prefix", f"{self._phase}-"),
        ]
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "SCHEMA_REGISTRY_URL": settings.schema_registry_url,
            "STREAMS_LATENESS_MS": str(plan.lateness_ms),
        }
        with generators(
            plan.generators, [*common, *arguments, *plan.mix], environment, self._logs, self.sampler
        ) as found:
            yield found

    def wait_ready(self, workers: Crew) -> None:
        """Wait until every worker processes.

        Raises:
            StreamsError: none lives any more, or they are not ready in time.

        """
        deadline = time.monotonic() + READY_S_MAX
        while not workers.all_ready():
            self.progress("starting workers", 0.0)
            if time.monotonic() > deadline:
                raise StreamsError(f"the workers were not ready within {READY_S_MAX:.0f} s")
            time.sleep(0.2)

    def wait_drained(self, workers: Crew, what: str) -> float:
        """Wait until everything in the topic is committed; returns when, on the samples' clock.

        Raises:
            StreamsError: no progress for too long, or no worker is left.

        """
        done, moved_s = -1, time.monotonic()
        since_s = self.sampler.now_s()
        while True:
            time.sleep(INTERVAL_S)
            workers.look()
            sample = self.sampler.last
            if sample is not None and sample.at_s > since_s + INTERVAL_S:
                total = sample.done + sum(sample.lag)
                self.progress(what, sample.done / max(1, total))
                if not sum(sample.lag):
                    return sample.at_s
                if sample.done != done:
                    done, moved_s = sample.done, time.monotonic()
            if time.monotonic() - moved_s > STALL_S_MAX:
                behind = f"{sum(sample.lag):,} records behind" if sample else "nothing is known"
                raise StreamsError(f"no progress for {STALL_S_MAX:.0f} s, {behind}")

    def open_loop(self, workers: Crew, rate: float, seconds: float, what: str) -> tuple[Sent, float, float]:
        """Send at a rate for some time; returns what was sent, and from when to when on the samples' clock."""
        with self.traffic("--rate", str(max(1, round(rate))), "--seconds", str(round(seconds))) as traffic:
            while not traffic.sent and traffic.running():
                time.sleep(0.05)
            start_s = self.sampler.now_s()
            while traffic.running():
                workers.look()
                self.progress(what, min(1.0, (self.sampler.now_s() - start_s) / seconds))
                time.sleep(0.1)
            return traffic.result(), start_s, self.sampler.now_s()
