"""The parts of a running demo."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from streams.demo.audit import Audit
from streams.demo.child import Child
from streams.demo.feed import Feeder
from streams.demo.monitor_probe import MonitorProbe
from streams.demo.order_watch import OrderWatch
from streams.demo.sinks import Targets
from streams.demo.topic_probes import LagProbe, VehicleWatch
from streams.demo.worker_probe import WorkerProbe
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.local.stack import Stack
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the command line."""

    directory: Path
    kafka_port: int
    registry_port: int
    monitor_port: int
    gateway_port: int
    """Ports of Kafka, the registry, the monitor and the gateway; 0: any free one."""
    rate: int | None = None
    """Simulated positions a second; None: as many as suit this machine."""
    seconds: float | None = None
    """End by itself after showing for so long; None: never."""
    kill_interval_s: float | None = None
    """Kill the worker so long after it became ready, and start it again; None: never."""
    is_tour: bool = False
    """Whether the demo goes through everything step by step, then ends."""
    is_fast: bool = False
    """Whether pauses are short."""
    has_sinks: bool = False
    """Also PostgreSQL and a Delta table, and sinks that copy tables into them."""


@dataclass(frozen=True, slots=True)
class Links:
    """Pages to look at, as URLs."""

    fleet: str
    monitor: str
    dead_letters: str
    gateway: str
    """Address to which events are sent by POST."""
    metrics: str
    """Address of the worker's metrics."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The parts, all of them running."""

    options: DemoOptions
    settings: Settings
    flow: Pipeline
    """The flow of positions."""
    partitions: int
    stack: Stack
    environment: Mapping[str, str]
    """Variables of the environment that every started process gets."""
    worker: Child
    others: tuple[Child, ...]
    """Processes of monitor, gateway and sinks."""
    targets: Targets | None
    """What the sinks write to; None: there are no sinks."""
    feeder: Feeder
    worker_probe: WorkerProbe
    monitor_probe: MonitorProbe
    lag_probe: LagProbe
    vehicles: VehicleWatch
    orders: OrderWatch
    links: Links
    left_running: bool
    """Whether the stack ran before, so that it stays."""

    def audit(self, is_asked: Callable[[bytes], bool]) -> Audit:
        """An audit of the flow of positions, from now on.

        Raises:
            StreamsError: the topics cannot be read.

        """
        return Audit(self.settings, self.flow, self.partitions, is_asked)

    def check(self, followed: int) -> None:
        """Do nothing as long as everything runs; begin the next phase of feeding when it is time.

        `followed`: positions that are through the last flow that reads them.

        Raises:
            StreamsError: something has ended by itself; the message says what it said last.

        """
        for service in self.stack.services:
            if service.process.find() is None:
                raise StreamsError(
                    f"{service.title} ended by itself: {service.process.last_words()} (log: {service.process.log})"
                )
        for child in (self.worker, *self.others):
            child.check()
        self.feeder.check(followed)
