"""Server-sent events: sends each snapshot to the browsers. A slow reader skips some and delays nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

from streams.monitor.snapshot import Snapshot
from streams.monitor.web import views

READERS_MAX: Final = 100
BEAT_S: Final = 15.0
"""A comment is sent after so long without news: proxies and phones drop silent connections."""


class TooMany(Exception):
    """No place is free: the maximum number of readers is connected."""


class Live:
    """The newest snapshot, and the readers that wait for the next. Everything but `publish` runs on one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Condition | None = None
        self._readers = 0
        self._number = 0
        self._ended = False
        self._latest: Snapshot | None = None

    def bind(self) -> None:
        """Use the running event loop."""
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Condition()

    def publish(self, snapshot: Snapshot) -> None:
        """Have a new snapshot sent out; from any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        publishing = self._publish(snapshot)
        try:
            asyncio.run_coroutine_threadsafe(publishing, loop)
        except RuntimeError:  # the event loop was closed just now: the server stops, and there are no readers
            publishing.close()

    async def end(self) -> None:
        """End all streams: the server stops."""
        self._ended = True
        if self._news is not None:
            async with self._news:
                self._news.notify_all()

    async def _publish(self, snapshot: Snapshot) -> None:
        if self._news is not None:
            async with self._news:
                self._latest, self._number = snapshot, self._number + 1
                self._news.notify_all()

    def enter(self) -> None:
        """Take a reader's place; give it back with `leave`.

        Raises:
            TooMany: there is none.

        """
        if self._readers >= READERS_MAX:
            raise TooMany
        self._readers += 1

    def leave(self) -> None:
        """Give a place back."""
        self._readers -= 1

    async def events(self, group: str | None) -> AsyncIterator[bytes]:
        """Snapshots as server-sent events, the newest at once; with the partitions of `group`. After `enter`."""
        number, known = 0, False
        yield b"retry: 2000\n\n"
        while not self._ended:
            if self._latest is not None and self._number != number:
                number, snapshot = self._number, self._latest
                yield _event("overview", views.overview(snapshot))
                if group is not None and group in snapshot.groups:
                    told = views.partitions(snapshot, snapshot.groups[group], history=not known)
                    known = True
                    yield _event("partitions", told)
            elif not await self._wait():
                yield b": still here\n\n"

    async def _wait(self) -> bool:
        """Whether there is news within BEAT_S."""
        news = self._news
        if news is None:
            return False
        try:
            async with asyncio.timeout(BEAT_S), news:
                await news.wait()
        except TimeoutError:
            return False
        return True


def _event(name: str, content: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
