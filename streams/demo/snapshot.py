"""The state of the demo at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from streams.demo.monitor_probe import MonitorReading
from streams.demo.order_watch import OrdersReading
from streams.demo.topic_probes import Vehicle
from streams.demo.worker_probe import WorkerReading


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All values that are shown, at one moment."""

    now: datetime
    elapsed_s: float
    """Seconds since the demo was ready."""
    feeding: str
    worker: WorkerReading
    lag: Mapping[int, int] | None
    """Lag of the flow of positions, by partition; None: Kafka did not answer."""
    monitor: MonitorReading
    vehicles: tuple[Vehicle, ...]
    kills: int
    orders: OrdersReading

    @property
    def lag_sum(self) -> int | None:
        """Lag of all partitions."""
        return None if self.lag is None else sum(self.lag.values())

    @property
    def followed(self) -> int:
        """Positions (and orders) that are through the last flow."""
        return list(self.worker.flows.values())[-1].totals["clean"]
