"""The thread that a flow's core runs in, and the ways into it: from the event loop, and from the intake thread."""

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
    """Runs all that touches a flow's core: one call at a time, in the order in which the calls came.

    Create it on the event loop. `run` is for coroutines of that loop; `later` and `bounded` are
    `streams.worker.ports.BetweenSteps` for other threads.
    """

    def __init__(self, name: str, *, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` is told, on the event loop, what `later` has raised."""
        self.step_lock = asyncio.Lock()
        """Held while a call runs. It is fair: who asked first goes first. A call whose caller was cancelled before its
        turn is not made; one that was under way goes on in the thread, and the next one waits for it there."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, f"{name}-engine")
        self._on_failure = on_failure

    async def run(self, work: Callable[[], T]) -> T:
        """Result of `work`, once all that came before is done."""
        async with self.step_lock:
            return await self._loop.run_in_executor(self._thread, work)

    def later(self, work: Callable[[], None]) -> None:
        """Have `work` run; do not wait for it."""
        self._hand_over(work).add_done_callback(self._look_at)

    def bounded(self, work: Callable[[], None], what: str) -> None:
        """Have `work` run and wait for its end, at most `REVOKE_TIMEOUT_MS`; then it still runs, later."""
        try:
            self._hand_over(work).result(REVOKE_TIMEOUT_MS / 1000)
        except FutureTimeoutError:
            log.warning("releasing partitions takes long; the group goes on, and a late commit is refused", what=what)

    def post(self, work: Callable[[], None]) -> None:
        """Have `work` run before the next call, or after the one that runs. It must not fail."""
        self._thread.submit(work)

    def close(self) -> None:
        """Take no more calls."""
        self._thread.shutdown(wait=False)

    def _hand_over(self, work: Callable[[], None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(self.run(work), self._loop)

    def _look_at(self, done: "Future[None]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._loop.call_soon_threadsafe(self._on_failure, error)
