"""`streams plan`: estimates partitions, workers, cores and disk for a fleet of devices."""

from pathlib import Path
from typing import Annotated

import typer

from streams.capacity import SHIPPED, Demand, Plan, read_figures
from streams.cli.output import Format, FormatOption, echo_json, echo_line


def plan(
    devices: Annotated[int, typer.Option("--devices", min=1, max=1_000_000_000, help="How many devices send.")],
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.001, max=86_400, help="Seconds between two events of a device.")
    ],
    peak: Annotated[
        float, typer.Option("--peak", min=1, max=100, help="How many times the mean rate is to be kept up with.")
    ] = 2.0,
    record_bytes: Annotated[int, typer.Option("--record-bytes", min=1, max=1_048_576, help="Size of an event.")] = 110,
    retention_h: Annotated[
        float, typer.Option("--retention-hours", min=1, max=100_000, help="How long Kafka keeps records.")
    ] = 168.0,
    replicas: Annotated[int, typer.Option("--replication-factor", min=1, max=10, help="Of topics.")] = 3,
    core_hour: Annotated[float, typer.Option("--core-hour", min=0, help="Price of a core for an hour.")] = 0.04,
    gb_month: Annotated[float, typer.Option("--gb-month", min=0, help="Price of a GB of disk for a month.")] = 0.10,
    currency: Annotated[str, typer.Option("--currency", help="Of the prices.")] = "USD",
    report: Annotated[
        Path | None,
        typer.Option("--report", help="report.json of a load test on your machines. Default: shipped figures."),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Plan partitions, workers, cores, disk and cost for a number of devices; say what is measured and what is not."""
    demand = Demand(
        devices,
        interval_s,
        peak=peak,
        record_bytes=record_bytes,
        retention_h=retention_h,
        replicas=replicas,
        core_hour=core_hour,
        gb_month=gb_month,
        currency=currency,
    )
    found = Plan.of(demand, SHIPPED if report is None else read_figures(report))
    if output is Format.JSON:
        echo_json(found.as_dict())
        return
    for line in found.as_lines():
        echo_line(line)
