"""Runs an iterator in a background thread, buffering up to `depth` items."""

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from typing import Final, TypeVar

T = TypeVar("T")
_OFFER_S: Final = 0.1


def built_ahead(items: Iterable[T], depth: int = 2) -> Generator[T]:
    """The items, up to `depth` of them made before they are asked for; closing the iterator ends the thread.

    A generator is run, and closed, in that thread.

    Raises:
        Exception: whatever making an item raised, in its place.

    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    ended = threading.Event()
    thread = threading.Thread(target=_build, args=(items, made, ended), name="builder", daemon=True)
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


def _build(
    items: Iterable[T], made: "queue.Queue[tuple[T | None, BaseException | None]]", ended: threading.Event
) -> None:
    try:
        with closing(items) if isinstance(items, Generator) else nullcontext():
            for item in items:
                if not _offer(made, (item, None), ended):
                    return
    except BaseException as error:  # noqa: BLE001 - raised again where the items are used
        _offer(made, (None, error), ended)
    else:
        _offer(made, (None, StopIteration()), ended)


def _offer(made: "queue.Queue[T]", entry: T, ended: threading.Event) -> bool:
    while not ended.is_set():
        try:
            made.put(entry, timeout=_OFFER_S)
            return True
        except queue.Full:
            continue
    return False
