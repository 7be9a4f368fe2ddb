"""What the demo feeds: the committed sample of real positions, then simulated traffic until it is stopped."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final

import streams
from streams.demo.child import Child
from streams.demo.topic_probes import SIMULATED
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.ingest import IngestOptions, IngestProgress, IngestResult, ingest_file
from streams.interrupts import Interrupts
from streams.settings import Settings
from streams.text import counted

CHECKOUT: Final = Path(streams.__file__).resolve().parent.parent
SAMPLE: Final = Path("loadtest/data/positions-real.parquet")
REAL_RATE: Final = 20_000
"""Real positions a second: fast, yet slow enough to be watched."""
STOP_S_MAX: Final = 30.0
LEAD_MS: Final = 5_000
"""Time for the generators to start before their first records are due."""
POSITIONS_PER_ORDER_STEP: Final = 50
ORDERS_RATE_MIN: Final = 5
ORDERS_PER_STEP_A_SECOND: Final = 15
"""So many orders are under way for each step a second: each takes one every ten seconds or so."""


def find_sample() -> Path:
    """Path of the sample of real positions.

    Raises:
        StreamsError: this is not a checkout of the repository.

    """
    path = CHECKOUT / SAMPLE
    if not path.is_file():
        raise StreamsError(
            f"{path} is missing: the demo feeds real positions that only a checkout of the repository has; "
            "clone it, then `make run`"
        )
    return path


class _Stopped(StreamsError):
    """The feeder is asked to stop."""


class Feeder:
    """Feeds the source topics of positions and orders; the caller looks in with `check` from time to time.

    The real positions span 17 hours; their times are moved so that the newest is now. Simulated traffic starts when all
    are in, with event times from that moment on and devices of its own: the watermark only ever moves forward.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        *,
        rate: int,
        log: Path,
        environment: Mapping[str, str],
        interrupts: Interrupts,
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._rate = rate
        self._sample = find_sample()
        # Another run's drives would begin elsewhere: trucks of another name, or their odometers would jump.
        now = datetime.now().astimezone()
        self.device_prefix = f"{SIMULATED}{now:%H%M}-"
        self._seed = int(now.timestamp())
        self._log, self._interrupts = log, interrupts
        self._environment = {**environment, "PYTHONPATH": str(CHECKOUT)}  # the generator is not installed
        self._traffic: list[Child] = []
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "demo-feeder")
        self._progress: IngestProgress | None = None
        self._ingest: Future[IngestResult] | None = None
        self.real: IngestResult | None = None
        """What became of the real positions, once that is known."""

    def start(self) -> None:
        """Begin with the real positions, in the background."""
        self._ingest = self._thread.submit(
            ingest_file,
            self._settings,
            self._sample,
            self._pipeline.source,
            IngestOptions(rebase_time=True, rate=REAL_RATE),
            progress=self._note,
        )

    def check(self) -> None:
        """Start the simulated traffic when its turn has come.

        Raises:
            StreamsError: feeding has failed; the message says why.

        """
        if self.real is None and self._ingest is not None and self._ingest.done():
            self.real = self._ingest.result()
            self._start_traffic()
        for child in self._traffic:
            child.check()

    def _start_traffic(self) -> None:
        """Positions, and orders that are bound to their vehicles: both begin at the same time."""
        begin = ["--seed", str(self._seed), "--start-ms", str(time.time_ns() // 1_000_000 + LEAD_MS)]
        orders_rate = max(ORDERS_RATE_MIN, self._rate // POSITIONS_PER_ORDER_STEP)
        order_prefix = self.device_prefix.replace(SIMULATED, "order-", 1)
        of = {
            "positions": ["--rate", str(self._rate), "--device-prefix", self.device_prefix],
            "orders": [
                "--pipeline", "orders", "--rate", str(orders_rate),
                "--devices", str(orders_rate * ORDERS_PER_STEP_A_SECOND), "--device-prefix", order_prefix,
                "--vehicle-rate", str(self._rate), "--vehicle-prefix", self.device_prefix,
            ],
        }  # fmt: skip
        for what, arguments in of.items():
            child = Child(
                f"the simulated traffic of {what}",
                ["-m", "loadtest.generator", "--any-topic", *begin, *arguments],
                log=self._log.with_name(f"{self._log.stem}-{what}.log"),
                environment=self._environment,
                interrupts=self._interrupts,
            )
            self._traffic.append(child)
            child.start()

    def describe(self) -> str:
        """What is being fed now."""
        if self.real is not None:
            before = "" if self.real.sent else " (real positions: in an earlier run)"
            return f"simulated, {counted(self._rate, 'position')} a second, and orders of these vehicles{before}"
        if self._progress is None or self._progress.phase != "sending":
            return "real positions: reading the sample"
        return f"real positions: {self._progress.rows:,} ({self._progress.part_done:.0%}), {REAL_RATE:,} a second"

    def describe_all(self) -> str:
        """What was fed in all."""
        if self.real is None:
            return "real positions, not yet all of them" if self._progress else "nothing"
        real = f"{self.real.sent:,} real positions" if self.real.sent else "real positions (in an earlier run)"
        return f"{real}, then simulated ones, {self._rate:,} a second"

    def stop(self) -> None:
        """Stop feeding; what was sent stays, and the next run goes on after it."""
        self._stop.set()
        for child in self._traffic:
            child.stop()
        if self._ingest is not None:
            deadline = time.monotonic() + STOP_S_MAX
            while not self._ingest.done() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note(self, progress: IngestProgress) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._progress = progress
