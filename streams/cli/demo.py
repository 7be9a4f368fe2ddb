"""`streams demo`: starts a stack, a worker and traffic on this machine, and shows what they do."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from streams.cli.app import use_app
from streams.cli.local import DEFAULT_DIRECTORY, KAFKA_PORT, REGISTRY_PORT, DirectoryOption
from streams.demo import DemoOptions, run_demo
from streams.flow.discover import APP_DEFAULT
from streams.logs import configure_logging

KILL_INTERVAL_S = 10.0


def demo(
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Kafka on 127.0.0.1; 0: any free one.")
    ] = KAFKA_PORT,
    registry_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the registry on 127.0.0.1; 0: any free one.")
    ] = REGISTRY_PORT,
    rate: Annotated[
        int, typer.Option(min=1, max=100_000, help="Simulated records a second, after the real ones.")
    ] = 2_000,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End by itself after so many seconds. Default: until Ctrl-C.")
    ] = None,
    *,
    kill_worker: Annotated[
        bool, typer.Option("--kill-worker", help="Kill the worker (SIGKILL) every 10 seconds and start it again.")
    ] = False,
) -> None:
    """Start Kafka, the registry and a worker, feed them real and simulated positions, and watch, until Ctrl-C.

    At the end everything that it started is stopped. A stack that already runs in --dir is used and left running.
    """
    use_app(APP_DEFAULT)
    configure_logging("console", level=logging.CRITICAL + 1)  # a log line would break the view; errors are raised
    options = DemoOptions(
        directory=Path(directory),
        kafka_port=kafka_port,
        registry_port=registry_port,
        rate=rate,
        seconds=seconds,
        kill_interval_s=KILL_INTERVAL_S if kill_worker else None,
    )
    run_demo(options, Console(highlight=False))
