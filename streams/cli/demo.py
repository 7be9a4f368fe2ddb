"""`streams demo`: starts a stack, a worker, monitor, gateway and traffic on this machine, and shows what they do."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from streams.cli.app import use_app
from streams.cli.local import DEFAULT_DIRECTORY, KAFKA_PORT, REGISTRY_PORT, DirectoryOption
from streams.demo import DemoOptions, run_demo
from streams.demo.sinks import APP as SINKS_APP
from streams.errors import UsageError
from streams.flow.discover import APP_DEFAULT
from streams.logs import configure_logging

KILL_INTERVAL_S = 10.0
MONITOR_PORT = 8080
GATEWAY_PORT = 8088


def demo(
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Kafka on 127.0.0.1; 0: any free one.")
    ] = KAFKA_PORT,
    registry_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the registry on 127.0.0.1; 0: any free one.")
    ] = REGISTRY_PORT,
    monitor_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the monitor's pages on 127.0.0.1; 0: any free one.")
    ] = MONITOR_PORT,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the gateway on 127.0.0.1; 0: any free one.")
    ] = GATEWAY_PORT,
    rate: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Simulated positions a second, after the real ones. Default: 2,000, fewer on a slow machine.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End after so many seconds. Default: until Ctrl-C.")
    ] = None,
    *,
    tour: Annotated[
        bool, typer.Option("--tour", help="Lead through everything in about five minutes, then end.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="With --tour: short pauses.")] = False,
    with_sinks: Annotated[
        bool,
        typer.Option(
            "--with-sinks",
            help="Also start PostgreSQL and two sinks: rows of vehicles go there, their minutes into a Delta table. "
            "At the end a query over both is shown.",
        ),
    ] = False,
    kill_worker: Annotated[
        bool, typer.Option("--kill-worker", help="Kill the worker (SIGKILL) every 10 seconds and start it again.")
    ] = False,
) -> None:
    """Start Kafka, the registry, a worker, the monitor and the gateway, feed them, and watch, until q or Ctrl-C.

    Keys: t a tunnel, p poison records, w kills the worker, ? help. A port that is taken is replaced by a free one. At
    the end everything that it started is stopped. A stack that already runs in --dir is used and left running.
    """
    if fast and not tour:
        raise UsageError("--fast goes with --tour")
    use_app(SINKS_APP if with_sinks else APP_DEFAULT)
    configure_logging("console", level=logging.CRITICAL + 1)  # a log line would break the view; errors are raised
    options = DemoOptions(
        directory=Path(directory),
        kafka_port=kafka_port,
        registry_port=registry_port,
        monitor_port=monitor_port,
        gateway_port=gateway_port,
        rate=rate,
        seconds=seconds,
        kill_interval_s=KILL_INTERVAL_S if kill_worker else None,
        is_tour=tour,
        is_fast=fast,
        has_sinks=with_sinks,
    )
    run_demo(options, Console(highlight=False))
