"""The thread that a flow's core runs in, and how the event loop and the intake thread call into it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

import structlog

from streams.limits import REVOKE_TIMEOUT_MS

log = structlog.get_logger(__name__)

T = TypeVar("T")


class CoreThread:
    """Runs everything that touches a flow's core: one call at a time, in the order of the calls.

    Create it on the event loop. `run` is for coroutines of that loop; `later` and `bounded` are
    `streams.worker.ports.BetweenSteps` for other threads.
    """

    def __init__(self, name: str, *, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` is called on the event loop with what work given to `later` has raised."""
        self.step_lock = asyncio.Lock()
        """Held while a call runs, and fair: first come, first served.

        A call whose caller was cancelled before it started is skipped; one that was running goes on in the thread, and
        the next call waits for it there.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, f"{name}-engine")
        self._on_failure = on_failure

    async def run(self, work: Callable[[], T]) -> T:
        """Result of `work`, which runs after all earlier calls."""
        async with self.step_lock:
            return await self._loop.run_in_executor(self._thread, work)

    def later(self, work: Callable[[], None]) -> None:
        """Queue `work`; do not wait for it."""
        self._hand_over(work).add_done_callback(self._look_at)

    def bounded(self, work: Callable[[], None], what: str) -> None:
        """Queue `work` and wait for its end, at most `REVOKE_TIMEOUT_MS`; after that it still runs, unawaited."""
        try:
            self._hand_over(work).result(REVOKE_TIMEOUT_MS / 1000)
        except FutureTimeoutError:
            log.warning("releasing partitions takes long; the group goes on, and a late commit is refused", what=what)

    def post(self, work: Callable[[], None]) -> None:
        """Queue `work` before the next call, after the one that is running. It must not fail."""
        self._thread.submit(work)

    def close(self) -> None:
        """Accept no more calls. Calls that were submitted before still run; does not wait for them."""
        self._thread.shutdown(wait=False)

    def _hand_over(self, work: Callable[[], None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(self.run(work), self._loop)

    def _look_at(self, done: "Future[None]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._loop.call_soon_threadsafe(self._on_failure, error)
