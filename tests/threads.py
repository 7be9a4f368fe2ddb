"""Two threads that touch the same object: what a switch between any two steps of theirs can break, breaks soon."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_SWITCH_INTERVAL_S: Final = 1e-6


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Repeat `work` in another thread for the length of a block; what it raises is raised at the end of the block."""
    ends = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        try:
            while not ends.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        sys.setswitchinterval(usual_s)
    for failure in failures:
        raise failure
