"""`make loadtest`: how much goes through, how soon, with how many partitions, and what is in the way.

Measures point after point, each on fresh topics with fresh workers, has an oracle check every output, and writes a
report. Everything runs on a stack of its own unless told otherwise; nothing is left behind.
Exit status: 0 measured; 1 it could not be; 2 wrong usage; 100 measured, but the oracle found an output wrong.
"""

import signal
import sys

import typer

from loadtest.command import command
from streams.errors import StreamsError


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""

    def interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough: what was measured is being written
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        typer.run(command)
    except StreamsError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
