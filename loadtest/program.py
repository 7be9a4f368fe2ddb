"""How the programs of this package run: errors in one line, and an end that stops what was started."""

import signal
import sys
from collections.abc import Callable

import typer

from streams.errors import StreamsError


def run(name: str, command: Callable[..., None]) -> None:
    """Run a command line; an error that a person can do something about is one line and its exit status."""
    try:
        typer.run(command)
    except StreamsError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def run_to_the_end(name: str, command: Callable[..., None], *, is_patient: bool = False) -> None:
    """As `run`, of a command that has started something: SIGTERM and Ctrl-C unwind it, and the exit status is 130.

    `is_patient`: a second signal does not cut short what the first one has begun, such as writing a report.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        if is_patient:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        run(name, command)
    except KeyboardInterrupt:
        sys.exit(130)
