"""`python -m loadtest.oracle`: exit status 0 when the output is right, 100 when it is not, 1 when it cannot be told."""

import sys

import typer

from loadtest.oracle.check import command
from streams.errors import StreamsError

if __name__ == "__main__":
    try:
        typer.run(command)
    except StreamsError as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
