"""Batches built ahead of their use, in a thread: building is mostly numpy and Arrow, which let other threads run."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def built_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The items, up to `depth` of them made before they are asked for; closing the iterator ends the thread.

    Raises:
        Exception: whatever making an item raised, in its place.

    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    ended = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> bool:
        while not ended.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def build() -> None:
        try:
            for item in items:
                if not offer(item, None):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            offer(None, error)
        else:
            offer(None, StopIteration())

    thread = threading.Thread(target=build, name="builder", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # no error, so there is an item
    finally:
        ended.set()
        thread.join()
