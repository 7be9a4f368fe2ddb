"""`streams local`: a real Kafka and schema registry on this machine."""

import logging
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething
from streams.interrupts import Interrupts
from streams.local import stack as local
from streams.local.progress import Progress
from streams.local.security import ADMIN, ROLES
from streams.logs import configure_logging

DirectoryOption = Annotated[Path, typer.Option("--dir", help="Where its data, logs and process files live.")]
DEFAULT_DIRECTORY = Path(".local")
KAFKA_PORT = 9092
REGISTRY_PORT = 8081


def up_command(
    directory: DirectoryOption = DEFAULT_DIRECTORY,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Kafka on 127.0.0.1; 0: any free one.")
    ] = KAFKA_PORT,
    registry_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the registry on 127.0.0.1; 0: any free one.")
    ] = REGISTRY_PORT,
    secure: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--secure", help="TLS, a password per role, and rights per role.")
    ] = False,
) -> None:
    """Start Kafka and the schema registry; return when both answer.

    Safe to repeat. Data survives restarts. The first time it downloads both (about 200 MB, verified, kept for all
    stacks). A second stack needs another --dir and other ports.

    With --secure, Kafka takes SASL_SSL with SCRAM-SHA-512 only, the registry HTTPS only; certificates and one password
    per role are made in security/ of --dir, and the variables that a client needs are printed.
    """
    configure_logging("console", level=logging.ERROR)  # a download that is tried again is no news
    with Interrupts() as interrupts, _progress() as progress:
        stack, started = local.up(directory, kafka_port, registry_port, progress, secure=secure)
        if started and interrupts.requested:  # and swallowed: otherwise it would have stopped what it started by itself
            interrupts.ignore()
            stack.stop()
            raise KeyboardInterrupt
    echo_line("Kafka and the schema registry are up." if started else "Kafka and the schema registry already run.")
    echo_line(f"  Kafka            {stack.bootstrap_servers}")
    echo_line(f"  Schema registry  {stack.registry_url}")
    echo_line(f"  Data and logs    {stack.directory}")
    if stack.security is not None or (stack.kafka.port, stack.registry.port) != (KAFKA_PORT, REGISTRY_PORT):
        echo_line("To use it:")
        for name, value in stack.environment().items():
            echo_line(f"  export {name}={shlex.quote(value)}")
    if stack.security is not None:
        echo_line(f"Roles, each with KAFKA_SASL_USERNAME and a file in {stack.security.directory} like {ADMIN}:")
        echo_line(f"  {', '.join(ROLES)}")


def down_command(directory: DirectoryOption = DEFAULT_DIRECTORY) -> None:
    """Stop Kafka and the schema registry. Their data stays: remove the directory to start from nothing."""
    stopped = local.down(directory)
    if stopped:
        echo_line(f"Stopped: {', '.join(stopped)}. The data stays in {directory}.")
    else:
        echo_line(f"Nothing runs in {directory}.")


def status_command(directory: DirectoryOption = DEFAULT_DIRECTORY, output: FormatOption = Format.TEXT) -> None:
    """Report whether Kafka and the registry run and answer; exit status 100 unless both do."""
    found = local.status(directory)
    if output is Format.JSON:
        echo_json({one.name: {key: value for key, value in asdict(one).items() if key != "name"} for one in found})
    else:
        for one in found:
            pid = f"pid {one.pid}" if one.pid else ""
            echo_line(f"{one.name:<9} {one.state:<10} {one.address or '':<40} {pid}".rstrip())
            if one.detail:
                echo_line(f"          {one.detail} (log: {one.log})")
    if any(one.state is not local.State.RUNNING for one in found):
        raise FoundSomething


class _Lines:
    """Progress for logs and pipes: one line per step."""

    def step(self, text: str) -> None:
        """Print the step."""
        echo_line(text, err=True)

    def detail(self, text: str) -> None:
        """Leave it out."""


class _Spinner:
    """Progress for a terminal: one line that changes."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def step(self, text: str) -> None:
        """Show the step."""
        self._status.update(text)

    def detail(self, text: str) -> None:
        """Show how far it is."""
        self._status.update(text)


@contextmanager
def _progress() -> Generator["Progress"]:
    if not sys.stderr.isatty():
        yield _Lines()
        return

    with Console(stderr=True).status("looking for the local stack") as status:
        yield _Spinner(status)
