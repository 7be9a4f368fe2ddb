"""Renders a snapshot of the demo: tables for a terminal, one line for a log, a summary at the end. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.demo.order_watch import FollowedOrder, OrdersReading
from streams.demo.parts import Links
from streams.demo.snapshot import Snapshot
from streams.demo.worker_probe import OUTCOMES, READY, Age
from streams.text import counted, printable

BECOMES: Final = {
    "clean": "in order, once: .clean",
    "late": "own past is over: .late",
    "duplicate": "dropped",
    "rejected": "dead letter: .dlq",
}
VEHICLES_SUMMED_UP: Final = 2
STYLES: Final = {"clean": "green", "late": "yellow", "duplicate": "cyan", "rejected": "red"}
STATUS_STYLES: Final = {"OK": "green", "WARN": "yellow"}
KEYS_LINE: Final = "t tunnel   p poison   w kill the worker   ? help   q quit"


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses and folders; constant during a run."""

    directory: Path
    links: Links


def screen(shot: Snapshot, place: Place, said: Sequence[str] = (), hint: str = KEYS_LINE) -> RenderableType:
    """The live view, in at most 24 lines for 80 columns or more while `said` is one line."""
    links = place.links
    return Group(
        _headline(shot),
        Text(f"feeding   {shot.feeding}", no_wrap=True, overflow="ellipsis"),
        _flows(shot),
        Text(f"events a second; from event time to commit: {_age_text(shot.worker.age)}", style="dim"),
        _vehicles(shot),
        Text(order_line(shot.orders, shot.now), no_wrap=True, overflow="ellipsis"),
        *_links(links),
        Text(hint, style="bold"),
        *(Text(text, style="yellow") for text in said),
    )


def line(shot: Snapshot) -> str:
    """One line for a log: rates per second and lag of each flow, watermark, and one vehicle."""
    parts = [f"{shot.elapsed_s:4.0f} s  worker {printable(shot.worker.state)}"]
    for name, flow in shot.worker.flows.items():
        is_first = len(parts) == 1
        shown = [one for one in OUTCOMES if is_first or one == "clean"]
        rates = "  ".join(f"{one} {flow.rates[one]:,.0f}/s" for one in shown)
        parts.append(f"{name}: {rates}  lag {_count(_lag(shot, name, is_first=is_first))}")
    parts.append(f"watermark age {duration(_watermark_age_s(shot))}")
    if shot.vehicles:
        one = shot.vehicles[-1]
        parts.append(f"vehicle {printable(one.device)}: {counted(one.events, 'event')}, {one.odometer_km:,.1f} km")
    if shot.orders.rows:
        parts.append(order_line(shot.orders, shot.now))
    return " | ".join(parts)


def summary(shot: Snapshot, fed: str, found: Sequence[str] = ()) -> str:
    """The summary of a run, as plain text."""
    first, flow = next(iter(shot.worker.flows.items()))
    totals = flow.totals
    lines = [
        f"The demo was watched for {shot.elapsed_s:.0f} s"
        + (f", the worker killed {times(shot.kills)}." if shot.kills else "."),
        f"  fed        {fed}",
        *(f"  {name:<10} {totals[name]:>11,}   {BECOMES[name]}" for name in totals),
        f"  {'all':<10} {sum(totals.values()):>11,}   as the flow {first} counts them on /metrics",
        f"  {'lag':<10} {_count(shot.lag_sum):>11}   records not yet committed",
    ]
    if shot.vehicles:
        shown = (f"{printable(one.device)} {one.odometer_km:,.1f} km" for one in shot.vehicles[-VEHICLES_SUMMED_UP:])
        lines.append(f"  vehicles   {'; '.join(shown)}")
    if shot.orders.rows:
        lines.append(f"  orders     {shot.orders.rows:>11,}   rows in orders.tracking.v1; {_verdicts(shot.orders)}")
    return "\n".join([*lines, *found])


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
    """How often something happened, in words."""
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


def links_lines(links: Links) -> list[str]:
    """The links, one a line."""
    return [
        f"fleet         {links.fleet}",
        f"monitor       {links.monitor}",
        f"dead letters  {links.dead_letters}",
        f"gateway       POST {links.gateway}",
    ]


def _links(links: Links) -> list[Text]:
    return [Text(text, no_wrap=True, overflow="fold") for text in links_lines(links)]


def _flows(shot: Snapshot) -> Table:
    table = _table("flow", "clean", "late", "copies", "rejects", "total", "lag", "watermark", "monitor")
    for place, (name, flow) in enumerate(shot.worker.flows.items()):
        group = shot.monitor.groups.get(f"streams.{name}")
        status = "-" if group is None else group.status
        table.add_row(
            name,
            *(Text(f"{flow.rates[one]:,.0f}", STYLES[one]) for one in OUTCOMES),
            f"{sum(flow.totals.values()):,}",
            _count(_lag(shot, name, is_first=place == 0)),
            duration(flow.watermark_age_s_max),
            Text(status, "dim" if group is None else STATUS_STYLES.get(status, "red")),
        )
    return table


def _lag(shot: Snapshot, flow: str, *, is_first: bool) -> int | None:
    """Lag of the flow of positions from Kafka now; of the others as last reported by the monitor."""
    if is_first:
        return shot.lag_sum
    group = shot.monitor.groups.get(f"streams.{flow}")
    return None if group is None else group.lag


def _watermark_age_s(shot: Snapshot) -> float | None:
    return next(iter(shot.worker.flows.values())).watermark_age_s_max


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
