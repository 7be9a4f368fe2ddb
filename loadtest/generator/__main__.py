"""`python -m loadtest.generator`: told to stop at any moment, it still says what it has sent."""

import signal
import threading
from types import FrameType

STOP = threading.Event()


def _stop(_: int, __: FrameType | None) -> None:
    STOP.set()
    # The second time, at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main() -> None:
    """Run the command."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    from loadtest.generator.command import main as run

    run(STOP)


if __name__ == "__main__":
    main()
