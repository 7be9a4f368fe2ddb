"""Makes calls of a Kafka client with a time limit of their own.

Some calls of librdkafka outlive the timeout that they are given: sending offsets to a transaction waits for its
coordinator until the state of some connection changes (librdkafka#5456, #5511), and a client that has lost every broker
(`streams.kafka.broker_watch`) has no connection whose state could change. Such a client is abandoned, with its thread.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple["Future[Any]", Callable[[], Any]]


class ClientHangs(Exception):
    """A call has not returned in time; its client must not be used any more."""


class BoundedCalls:
    """Makes the calls of one client in a thread of its own, one after the other.

    The thread is a daemon: one that hangs does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """The result of `work`, or what it raises.

        Raises:
            ClientHangs: it does neither within `timeout_s`.

        """
        future: Future[T] = Future()
        self._work.put((future, work))
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise  # its own
            raise ClientHangs(f"the Kafka client has not returned from a call within {timeout_s:g} s") from None

    def close(self) -> None:
        """End the thread once its call has returned."""
        self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where the call was made
                future.set_exception(error)
            del item, future, work  # a client is closed when the last reference to it is gone
