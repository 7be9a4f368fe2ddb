"""Background tasks of a flow on the event loop: restores, and look-ups of schemas."""

import asyncio
from collections.abc import Callable
from functools import partial

from streams.avro.framing import SchemaKey
from streams.engine.engine import Engine
from streams.engine.task import PartitionTask
from streams.worker.core_thread import CoreThread
from streams.worker.ports import Attempt
from streams.worker.restorer import Restorer
from streams.worker.schemas import SchemaLookup


class BackgroundRestores:
    """Implements `ports.Stores` with a `Restorer`. Create it on the event loop; the core's thread calls it."""

    def __init__(self, restorer: Restorer, thread: CoreThread, *, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` is called with an error that retrying a restore cannot cure."""
        self._restorer = restorer
        self._thread = thread
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def restore(self, attempt: Attempt, *, after_s: float) -> None:
        """Restore a partition `after_s` seconds from now, and install it between two steps."""
        self._loop.call_soon_threadsafe(self._begin, attempt, after_s)

    def release(self, partition: int, task: PartitionTask | None) -> None:
        """Close the store of a partition; what its task has in memory is moved there first."""
        self._restorer.release(partition, task)

    def flush(self) -> None:
        """Make what was written so far survive a crash."""
        self._restorer.flush()

    def close(self) -> None:
        """Cancel all restores; on the event loop."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _begin(self, attempt: Attempt, after_s: float) -> None:
        if not self._is_closed:
            task = self._loop.create_task(self._restore(attempt, after_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _restore(self, attempt: Attempt, after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
            restored = await self._restorer.restore(attempt.partition, attempt.is_wanted)
            if restored is not None:
                await self._thread.run(partial(attempt.install, restored))
        except Exception as error:
            self._on_failure(error)
            raise


class SchemaLookups:
    """Looks up schemas that the engine needs, one round at a time. On the event loop."""

    def __init__(
        self,
        lookup: SchemaLookup,
        engine: Engine,
        thread: CoreThread,
        *,
        on_failure: Callable[[BaseException], None],
        input_number: int = 0,
    ) -> None:
        """Look-ups for one input. `on_failure` is called with any error but an outage of the registry: it is a bug."""
        self._lookup = lookup
        self._input_number = input_number
        self._engine = engine
        self._thread = thread
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start a round of look-ups if schemas are missing and no round is running."""
        if self._task is None and (missing := self._engine.missing_of(self._input_number)):
            self._task = asyncio.get_running_loop().create_task(self.look_up(missing))

    async def look_up(self, keys: frozenset[SchemaKey]) -> None:
        """Look these schemas up, and hand the answers to the engine."""
        try:
            await self._lookup.resolve(
                keys, lambda known: self._thread.post(partial(self._engine.learn, known, self._input_number))
            )
        except Exception as error:
            self._on_failure(error)
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Cancel the round that is running."""
        if self._task is not None:
            self._task.cancel()
