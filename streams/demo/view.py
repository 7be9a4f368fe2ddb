"""Renders a snapshot of the demo: tables for a terminal, one line for a log, a summary at the end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.demo.order_watch import FollowedOrder, OrdersReading
from streams.demo.topic_probes import Vehicle
from streams.demo.worker_probe import READY, Age, WorkerReading
from streams.text import counted, printable

WIDE_COLUMNS_MIN: Final = 108
PARTITIONS_SHOWN: Final = 3
"""With more of them, those furthest behind; the view must fit into 24 lines."""
BECOMES: Final = {
    "clean": "in order, once: .clean",
    "late": "own past is over: .late",
    "duplicate": "dropped",
    "rejected": "dead letter: .dlq",
}
VEHICLES_SUMMED_UP: Final = 2
STYLES: Final = {"clean": "green", "late": "yellow", "duplicate": "cyan", "rejected": "red"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything shown, at one moment."""

    now: datetime
    elapsed_s: float
    feeding: str
    worker: WorkerReading
    lag: Mapping[int, int] | None
    """By partition; None: Kafka did not answer."""
    vehicles: tuple[Vehicle, ...]
    kills: int
    orders: OrdersReading

    @property
    def lag_sum(self) -> int | None:
        """Lag of all partitions."""
        return None if self.lag is None else sum(self.lag.values())

    @property
    def watermark_age_s_max(self) -> float | None:
        """Age of the watermark that is furthest behind."""
        return max(self.worker.watermark_age_s.values(), default=None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are; the same during the whole run."""

    directory: Path
    metrics_url: str


def screen(shot: Snapshot, place: Place, width: int) -> RenderableType:
    """The live view, in at most 24 lines for 80 columns or more."""
    wide = width >= WIDE_COLUMNS_MIN
    side_by_side = Table.grid(padding=(0, 6))
    side_by_side.add_row(_outcomes(shot.worker, wide=wide), _partitions(shot))
    return Group(
        _headline(shot),
        Text(f"feeding   {shot.feeding}", no_wrap=True, overflow="ellipsis"),
        "",
        side_by_side,
        Text(f"event time to commit: {_age_text(shot.worker.age)}", style="dim"),
        "",
        _vehicles(shot),
        Text(order_line(shot.orders, shot.now), no_wrap=True, overflow="ellipsis"),
        Text(f"metrics {place.metrics_url}   logs {place.directory}/logs", style="dim", no_wrap=True, overflow="fold"),
        Text("Ctrl-C stops everything that this command started.", style="bold"),
    )


def line(shot: Snapshot) -> str:
    """One line for a log: rates per second, lag, watermark, and one vehicle."""
    rates = "  ".join(f"{name} {rate:,.0f}/s" for name, rate in shot.worker.rates.items())
    parts = [
        f"{shot.elapsed_s:4.0f} s  worker {printable(shot.worker.state)}",
        rates,
        f"lag {_count(shot.lag_sum)}",
        f"watermark age {duration(shot.watermark_age_s_max)}",
    ]
    if shot.vehicles:
        one = shot.vehicles[-1]
        parts.append(f"vehicle {printable(one.device)}: {counted(one.events, 'event')}, {one.odometer_km:,.1f} km")
    if shot.orders.rows:
        parts.append(order_line(shot.orders, shot.now))
    return " | ".join(parts)


def summary(shot: Snapshot, fed: str) -> str:
    """What the run came to, as plain text."""
    totals = shot.worker.totals
    lines = [
        f"The worker was watched for {shot.elapsed_s:.0f} s"
        + (f" and killed {times(shot.kills)}." if shot.kills else "."),
        f"  fed        {fed}",
        *(f"  {name:<10} {totals[name]:>11,}   {BECOMES[name]}" for name in totals),
        f"  {'all':<10} {sum(totals.values()):>11,}   as counted on /metrics",
        f"  {'lag':<10} {_count(shot.lag_sum):>11}   records not yet committed",
    ]
    if shot.vehicles:
        shown = (f"{printable(one.device)} {one.odometer_km:,.1f} km" for one in shot.vehicles[-VEHICLES_SUMMED_UP:])
        lines.append(f"  vehicles   {'; '.join(shown)}")
    if shot.orders.rows:
        lines.append(f"  orders     {shot.orders.rows:>11,}   rows in orders.tracking.v1; {_verdicts(shot.orders)}")
    return "\n".join(lines)


def order_line(orders: OrdersReading, now: datetime) -> str:
    """The order that is followed, or how many rows there are."""
    if orders.followed is None:
        return f"orders: {orders.rows:,} rows; {_verdicts(orders)}" if orders.rows else "orders: none on its way yet"
    return _followed(orders.followed, now)


def _followed(one: FollowedOrder, now: datetime) -> str:
    by = f" by {printable(one.vehicle)}" if one.vehicle else ""
    text = f"order {printable(one.order)}: {one.status}{by}"
    if one.verdict:
        off = "" if one.off_by_m is None else f", {one.off_by_m:,.0f} m from its destination"
        return f"{text}, verified: {one.verdict}{off}"
    if one.distance_km is not None:
        text += f", {one.distance_km:,.1f} km to go"
    if one.expected_arrival is not None:
        text += f", there in {duration(max(0.0, (one.expected_arrival - now).total_seconds()))}"
    return f"{text}, {one.risk}"


def _verdicts(orders: OrdersReading) -> str:
    said = ", ".join(f"{count:,} {name}" for name, count in sorted(orders.verdicts.items()))
    return f"deliveries verified: {said or 'none yet'}"


def duration(seconds: float | None) -> str:
    """A length of time in its natural unit."""
    if seconds is None:
        return "-"
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def times(count: int) -> str:
    """How often."""
    return "once" if count == 1 else f"{count} times"


def _headline(shot: Snapshot) -> Text:
    minutes, seconds = divmod(int(shot.elapsed_s), 60)
    ready = shot.worker.state == READY
    text = Text.assemble(
        ("streams demo", "bold"),
        f"   {minutes}:{seconds:02}   worker ",
        (printable(shot.worker.state), "bold green" if ready else "bold yellow"),
        no_wrap=True,
        overflow="ellipsis",
    )
    if shot.kills:
        text.append(f"   killed {times(shot.kills)}", "bold red")
    return text


def _outcomes(worker: WorkerReading, *, wide: bool) -> Table:
    table = _table("outcome", "events/s", "total")
    if wide:
        table.add_column("what becomes of it", style="dim")
    for name, rate in worker.rates.items():
        cells: list[RenderableType] = [Text(name, STYLES[name]), f"{rate:,.0f}", f"{worker.totals[name]:,}"]
        if wide:
            cells.append(BECOMES[name])
        table.add_row(*cells)
    table.add_row("all", f"{sum(worker.rates.values()):,.0f}", f"{sum(worker.totals.values()):,}", style="bold")
    return table


def _partitions(shot: Snapshot) -> Table:
    table = _table("partition", "lag", "watermark age")
    lag = shot.lag or {}
    ages = shot.worker.watermark_age_s
    numbers = sorted(lag.keys() | ages.keys())
    worst = sorted(numbers, key=lambda number: (-lag.get(number, 0), number))[:PARTITIONS_SHOWN]
    for number in sorted(worst):
        table.add_row(str(number), _count(lag.get(number)), duration(ages.get(number)))
    left_out = f" of {len(numbers)}" if len(numbers) > PARTITIONS_SHOWN else ""
    table.add_row(f"all{left_out}", _count(shot.lag_sum), duration(shot.watermark_age_s_max), style="bold")
    return table


def _vehicles(shot: Snapshot) -> RenderableType:
    if not shot.vehicles:
        return Text("no row of the vehicle table yet", style="dim")
    table = _table("vehicle", "events", "km", "km/h mean", "max", "last seen", "stopped since")
    for one in shot.vehicles:
        table.add_row(
            Text(printable(one.device)),
            f"{one.events:,}",
            f"{one.odometer_km:,.1f}",
            _speed(one.speed_mean_kmh),
            _speed(one.speed_max_kmh),
            duration((shot.now - one.last_seen).total_seconds()),
            f"{one.stopped_since.astimezone():%H:%M:%S}" if one.stopped_since else "moving",
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True
    )
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _age_text(age: Age | None) -> str:
    if age is None:
        return "-"
    bound = f"within {duration(age.p99_s_max)}" if age.p99_s_max != float("inf") else "above a day"
    return f"mean {duration(age.mean_s)}, 99% {bound}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
