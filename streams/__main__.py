"""`python -m streams` is the `streams` command."""

import sys

from streams.early import exit_on_sigterm


def main() -> None:
    """Run the command; a worker can be told to stop from its first moment on."""
    if sys.argv[1:2] == ["worker"]:
        exit_on_sigterm()
    try:
        from streams.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
