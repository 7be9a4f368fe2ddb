"""Readers of one table's changes: one thread reads the topic for all of them, each gets what it sees of it.

A reader that goes on from an earlier place first reads, with a consumer of its own, what it has missed. What waits for
a reader is bounded: one that does not keep up is cut off, and told from where it can go on.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.limits import CHANGES_QUEUE_BYTES_MAX
from streams.resilience.retry import Backoff
from streams.schemas.client import RegistryUnavailable
from streams.settings import Settings
from streams.tables.change_log import ChangeLog, Chunk, Positions, View, closing, ends_of, sse
from streams.tables.shape import TableShape

log = structlog.get_logger(__name__)

BEAT_S: Final = 15.0
"""A comment goes out when there is no change for so long: proxies drop silent connections."""
_FAILED: Final = Backoff(first_s=0.5, pause_s_max=10.0)
_CUT_OFF: Final = (
    "this reader did not keep up with the changes, and what waited for it was dropped: connect again with this event's "
    "id as Last-Event-ID, read faster, or ask for fewer columns or rows"
)


class BeyondEnd(Exception):
    """The place to go on from is after the end of the topic: it is another topic of the same name."""


class Reader:
    """One reader; `deliver` is for the thread that reads, the rest for the event loop."""

    def __init__(self, view: View, loop: asyncio.AbstractEventLoop) -> None:
        self.view = view
        self._loop = loop
        self._news = asyncio.Event()
        self._waiting: deque[tuple[bytes, Positions]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._is_ended = False
        self.is_cut_off = False

    def deliver(self, chunk: Chunk) -> None:
        """Queue changes for this reader. It is cut off if the queue would exceed `CHANGES_QUEUE_BYTES_MAX`."""
        event = chunk.event(self.view)
        with self._lock:
            if self.is_cut_off or not event:
                return
            if self._bytes + len(event) > CHANGES_QUEUE_BYTES_MAX:
                self.is_cut_off = True
                self._waiting.clear()
            else:
                self._waiting.append((event, chunk.after))
                self._bytes += len(event)
        self._tell()

    def end(self) -> None:
        """Nothing more comes: the worker stops, or the topic cannot be read."""
        self._is_ended = True
        self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return

    def take(self) -> list[tuple[bytes, Positions]]:
        """Take the changes that wait for the reader."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        return taken

    async def wait(self) -> bool:
        """Whether there is news, within `BEAT_S`."""
        try:
            async with asyncio.timeout(BEAT_S):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    @property
    def is_ended(self) -> bool:
        """Whether all that came was taken and nothing more comes."""
        return self._is_ended and not self._waiting


class Changes:
    """Changes of one table for its readers. Nothing is read while there is no reader."""

    def __init__(self, settings: Settings, table: TableShape, *, on_cut_off: Callable[[], object]) -> None:
        """`on_cut_off` is told of each reader that did not keep up."""
        self._settings, self._table, self._on_cut_off = settings, table, on_cut_off
        self._readers: set[Reader] = set()
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        """Held while the thread is started or ended."""
        self._after: Positions | None = None
        """Where the thread is; None: it does not run."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def events(self, view: View, since: Positions | None) -> AsyncIterator[bytes]:
        """Server-sent events, without end: the first says where changes are read from, `since` or the end.

        Raises:
            StreamsError: the topic cannot be read.
            BeyondEnd: `since` is after its end.

        """
        reader = Reader(view, asyncio.get_running_loop())
        live_from = await asyncio.to_thread(self._enter, reader)
        try:
            position = live_from
            if since is not None:
                position = await asyncio.to_thread(_checked, self._settings, self._table, since)
            yield b"retry: 2000\n\n" + sse("start", {"table": self._table.topic}, position)
            if since is not None:
                async for event in self._missed(view, position, live_from):
                    yield event
            async for event in _live(reader):
                yield event
            if reader.is_cut_off:
                self._on_cut_off()
        finally:
            await asyncio.to_thread(self._leave, reader)

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            self._stop.set()
            for reader in self._readers:
                reader.end()

    async def _missed(self, view: View, since: Positions, until: Positions) -> AsyncIterator[bytes]:
        """Changes from `since` up to `until`."""
        change_log = ChangeLog(self._settings, self._table)
        try:
            await asyncio.to_thread(change_log.start, since, until)
            while not (change_log.is_done or self._stop.is_set()):
                chunk = await asyncio.to_thread(change_log.poll)
                if chunk is not None and (event := chunk.event(view)):
                    yield event
        finally:
            await asyncio.to_thread(change_log.close)

    def _enter(self, reader: Reader) -> Positions:
        """Have a reader told of all changes from the positions on that are returned.

        Raises:
            StreamsError: the topic cannot be read.

        """
        with self._starting:
            if self._after is None:
                self._after = ends_of(self._settings, self._table.topic)[1]
                self._stop.clear()
                self._thread = threading.Thread(
                    target=self._read, args=(self._after,), name=f"changes-{self._table.topic}", daemon=True
                )
                self._thread.start()
            with self._lock:
                self._readers.add(reader)
                return self._after

    def _leave(self, reader: Reader) -> None:
        """Tell it nothing more; without readers nothing is read."""
        with self._starting:
            with self._lock:
                self._readers.discard(reader)
                is_last = not self._readers
            if is_last and self._thread is not None:
                self._stop.set()
                self._thread.join()
                self._thread = self._after = None

    def _read(self, start: Positions) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                with closing(ChangeLog(self._settings, self._table)) as change_log:
                    change_log.start(self._after or start)
                    while not self._stop.is_set():
                        chunk = change_log.poll()
                        failures = 0
                        if chunk is not None:
                            self._deliver(chunk)
            except (StreamsError, RegistryUnavailable) as error:
                failures += 1
                pause_s = _FAILED.jittered_s(failures)
                log.warning(
                    "changes of a table cannot be read; trying again", table=self._table.topic, error=str(error),
                    retry_in_s=round(pause_s, 1),
                )  # fmt: skip
                self._stop.wait(pause_s)

    def _deliver(self, chunk: Chunk) -> None:
        with self._lock:
            self._after = chunk.after
            readers = list(self._readers)
        for reader in readers:
            reader.deliver(chunk)


async def _live(reader: Reader) -> AsyncIterator[bytes]:
    position: Positions | None = None
    while not reader.is_ended:
        for event, position in reader.take():  # noqa: B007 - of the last one that was sent
            yield event
        if reader.is_cut_off:
            yield sse("cut_off", {"reason": _CUT_OFF}, position)
            return
        if not await reader.wait():
            yield b": nothing has changed\n\n"


def _checked(settings: Settings, table: TableShape, since: Positions) -> Positions:
    """Positions to go on from: partitions that `since` does not name are read from their beginnings.

    Raises:
        StreamsError: the topic cannot be read.
        BeyondEnd: one is after the end.

    """
    first, ends = ends_of(settings, table.topic)
    beyond = [partition for partition, offset in since.items() if offset > ends.get(partition, -1)]
    if beyond:
        raise BeyondEnd(
            f"{table.topic}-{beyond[0]} ends at offset {ends.get(beyond[0], 0)}, and changes are asked for from "
            f"{since[beyond[0]]} on: the topic was created again. Read the table again, then its changes without an id"
        )
    return {partition: max(since.get(partition, 0), offset) for partition, offset in first.items()}
