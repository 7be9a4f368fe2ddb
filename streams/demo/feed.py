"""What the demo feeds: the committed sample of real positions, then simulated traffic until it is stopped."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final

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
RATE_MAX: Final = 2_000
RATE_MIN: Final = 200
RATE_SHARE: Final = 6
"""Simulated positions a second, where none are asked for: this part of the rate at which the real ones went through
the last flow that reads positions. They cost more each, since they come in small batches, and with orders."""
WITHOUT_REJECTS: Final = tuple(
    word
    for reason in (
        "not-framed", "malformed", "unknown-schema", "incompatible-schema", "invalid", "key-mismatch",
        "future-timestamp", "too-large",
    )
    for word in (f"--{reason}", "0")
)  # fmt: skip
"""The traffic has no broken records of its own, so that the monitor has nothing to say before somebody sends some."""
FOLLOWED_SHARE_MIN: Final = 0.95
FOLLOWED_S_MAX: Final = 30.0
"""So many of the real positions must be through, or so long it may take, before the simulated traffic begins."""
POSITIONS_PER_ORDER_STEP: Final = 50
ORDERS_RATE_MIN: Final = 5
ORDERS_PER_STEP_A_SECOND: Final = 15
"""So many orders are under way for each step a second: each takes one every ten seconds or so."""


def suitable_rate(through: float) -> int:
    """Simulated positions a second on a machine where so many real ones a second went through all flows."""
    return int(min(RATE_MAX, max(RATE_MIN, through / RATE_SHARE // 100 * 100)))


def _read_rate(path: Path) -> int | None:
    try:
        rate: Any = json.loads(path.read_text(encoding="utf-8"))["rate"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there was no run, or not one that came so far
    return rate if isinstance(rate, int) and RATE_MIN <= rate <= RATE_MAX else None


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
        rate: int | None,
        log: Path,
        environment: Mapping[str, str],
        interrupts: Interrupts,
        rate_file: Path,
    ) -> None:
        """`rate`: simulated positions a second; None: as many as suit this machine.

        That is found out by the real positions, which are fed once; a later run reads it in the file
        `rate_file`.
        """
        self._settings = settings
        self._pipeline = pipeline
        self._wanted_rate = rate
        self._remembered = rate_file
        self._rate = rate or _read_rate(self._remembered) or RATE_MAX
        self._began_s = 0.0
        self._sample = find_sample()
        # Another run's drives would begin elsewhere: trucks of another name, or their odometers would jump.
        now = datetime.now().astimezone()
        self.device_prefix = f"{SIMULATED}{now:%H%M}-"
        self._seed = int(now.timestamp())
        self._log, self._interrupts = log, interrupts
        self._environment = {**environment, "PYTHONPATH": str(CHECKOUT)}  # the generator is not installed
        self._traffic: dict[str, Child] = {}
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "demo-feeder")
        self._progress: IngestProgress | None = None
        self._ingest: Future[IngestResult] | None = None
        self.real: IngestResult | None = None
        """What became of the real positions, once that is known."""

    def start(self) -> None:
        """Start with the real positions, in the background."""
        self._began_s = time.monotonic()
        self._ingest = self._thread.submit(
            ingest_file,
            self._settings,
            self._sample,
            self._pipeline.source,
            IngestOptions(rebase_time=True, rate=REAL_RATE),
            progress=self._note,
        )

    @property
    def is_simulating(self) -> bool:
        """Whether the simulated traffic was started."""
        return bool(self._traffic)

    def hold(self, endings: Sequence[str], newest_first: Sequence[str], seconds: float) -> None:
        """Hold back positions of vehicles whose ids end in one of these, then send them; some of them newest first."""
        hold = {"endings": list(endings), "newest_first": list(newest_first), "seconds": seconds}
        self._traffic["positions"].tell(json.dumps({"hold": hold}))

    def check(self, followed: int) -> None:
        """Start the simulated traffic when its turn has come.

        `followed`: real positions that are through the last flow that reads positions.

        Raises:
            StreamsError: feeding has failed; the message says why.

        """
        if self.real is None and self._ingest is not None and self._ingest.done():
            self.real = self._ingest.result()
        if self.real is not None and not self._traffic:
            seconds = time.monotonic() - self._began_s
            if followed >= self.real.sent * FOLLOWED_SHARE_MIN or seconds > FOLLOWED_S_MAX:
                if self._wanted_rate is None and self.real.sent:
                    self._rate = suitable_rate(self.real.sent / seconds)
                    self._remembered.write_text(json.dumps({"rate": self._rate}), encoding="utf-8")
                self._start_traffic()
        for child in self._traffic.values():
            child.check()

    def _start_traffic(self) -> None:
        """Positions, and orders that are bound to their vehicles: both begin at the same time."""
        begin = ["--seed", str(self._seed), "--start-ms", str(time.time_ns() // 1_000_000 + LEAD_MS)]
        orders_rate = max(ORDERS_RATE_MIN, self._rate // POSITIONS_PER_ORDER_STEP)
        order_prefix = self.device_prefix.replace(SIMULATED, "order-", 1)
        of = {
            "positions": ["--rate", str(self._rate), "--device-prefix", self.device_prefix, "--commands"],
            "orders": [
                "--pipeline", "orders", "--rate", str(orders_rate),
                "--devices", str(orders_rate * ORDERS_PER_STEP_A_SECOND), "--device-prefix", order_prefix,
                "--vehicle-rate", str(self._rate), "--vehicle-prefix", self.device_prefix,
            ],
        }  # fmt: skip
        for what, arguments in of.items():
            child = Child(
                f"the simulated traffic of {what}",
                ["-m", "loadtest.generator", "--any-topic", *begin, *WITHOUT_REJECTS, *arguments],
                log=self._log.with_name(f"{self._log.stem}-{what}.log"),
                environment=self._environment,
                interrupts=self._interrupts,
                takes_commands=what == "positions",
            )
            self._traffic[what] = child
            child.start()

    def describe(self) -> str:
        """What is being fed now."""
        if self._traffic:
            before = "" if self.real is None or self.real.sent else " (real positions: in an earlier run)"
            return f"simulated, {counted(self._rate, 'position')} a second, and orders of these vehicles{before}"
        if self.real is not None:
            return "real positions: all are sent, the worker is at the last of them"
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
        """Stop feeding; records that were sent stay, and the next run continues after them."""
        self._stop.set()
        for child in self._traffic.values():
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
