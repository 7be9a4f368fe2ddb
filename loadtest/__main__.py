"""`make loadtest`: how much goes through, how soon, with how many partitions, and what is in the way.

Measures point after point, each on fresh topics with fresh workers, has an oracle check every output, and writes a
report. Everything runs on a stack of its own unless told otherwise; nothing is left behind.
Exit status: 0 measured; 1 it could not be; 2 wrong usage; 100 measured, but the oracle found an output wrong.
"""

from loadtest.command import command
from loadtest.program import run_to_the_end


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""
    run_to_the_end("loadtest", command, is_patient=True)


if __name__ == "__main__":
    main()
