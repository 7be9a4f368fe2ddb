"""Keeps a picture of the fleet while somebody looks at it, and sends it to the browsers.

Reading begins when the first browser comes, with the last hour, and ends when nobody has looked for a while: a monitor
whose fleet page is not open reads nothing for it.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from streams.clock import SteadyClock
from streams.fleet.bounds import IDLE_S, NEWS_S, TICK_S, VIEWERS_MAX
from streams.fleet.feeds import BoundMap
from streams.fleet.frames import json_message, name_messages, vehicle_messages
from streams.fleet.picture import Picture
from streams.fleet.reader import FleetReader
from streams.fleet.views import news
from streams.settings import Settings

_LOOK_S: Final = 5.0


class TooManyViewers(Exception):
    """There are as many viewers as are served."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a viewer may see."""

    places: bool
    ids: bool


class FleetService:
    """The picture, its reader and its viewers. All on one event loop, but for `picture`, `known` and `end`."""

    def __init__(self, settings: Settings, bound: BoundMap, *, idle_s: float = IDLE_S) -> None:
        self._settings, self._bound, self._idle_s = settings, bound, idle_s
        self._clock = SteadyClock()
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._reader: FleetReader | None = None
        self._used_s = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._ended = False
        self.viewers = 0

    @property
    def bound(self) -> BoundMap:
        """What is shown."""
        return self._bound

    def now_ms(self) -> int:
        """The time of this machine."""
        return self._clock.now_ms()

    def picture(self) -> Picture:
        """The picture; reading begins where there was none."""
        with self._lock:
            self._used_s = time.monotonic()
            if self._picture is None:
                self._picture = Picture(self._bound.declared, epoch=self.now_ms())
                self._reader = FleetReader(self._settings, self._bound, self._picture)
                self._reader.start()
            return self._picture

    def known(self) -> Picture | None:
        """The picture, if there is one."""
        return self._picture

    def end(self) -> None:
        """End all streams and read no more: the server stops."""
        self._ended = True
        self._forget()

    def enter(self) -> None:
        """Take a place, to be given back by `leave`.

        Raises:
            TooManyViewers: there is none.

        """
        if self.viewers >= VIEWERS_MAX:
            raise TooManyViewers
        self.viewers += 1
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._forget_when_idle())

    def leave(self) -> None:
        """Free the place of a viewer that has gone."""
        self.viewers -= 1
        self._used_s = time.monotonic()

    async def messages(self, sight: Sight) -> AsyncIterator[bytes]:
        """Everything that is known, then what changes, at most every TICK_S; after `enter`."""
        picture = self.picture()
        yield json_message({"hello": self._hello(picture, sight)})
        version, named, news_s = 0, 0, 0.0
        while not self._ended and self._picture is picture:
            now_s = time.monotonic()
            parts: list[bytes] = []
            with picture.lock:
                picture.pass_time(self.now_ms())
                if len(picture.vehicles) > named:
                    parts += name_messages(picture.vehicles.ids, named, masked=not sight.ids)
                    named = len(picture.vehicles)
                if picture.version > version:
                    changed = picture.vehicles.changed_since(version)
                    parts += vehicle_messages(picture.vehicles, changed, self.now_ms(), masked=not sight.places)
                    version = picture.version
                if now_s - news_s >= NEWS_S:
                    parts.append(json_message({"news": news(picture, self.now_ms(), ids=sight.ids)}))
                    news_s = now_s
            for part in parts:
                yield part  # a slow browser is waited for here, and misses what came in between
            await asyncio.sleep(max(0.0, now_s + TICK_S - time.monotonic()))

    def _hello(self, picture: Picture, sight: Sight) -> dict[str, object]:
        return {
            "epoch": picture.epoch,
            "now": self.now_ms(),
            "masked": not sight.places,
            "silent_after_ms": round(picture.declared.silent_after_s * 1000),
            "feeds": [name for name, _ in picture.declared.feeds()],
        }

    async def _forget_when_idle(self) -> None:
        while not self._ended and (self._picture is not None or self.viewers):
            await asyncio.sleep(min(_LOOK_S, self._idle_s))
            if self.viewers == 0 and time.monotonic() - self._used_s > self._idle_s:
                await asyncio.to_thread(self._forget)

    def _forget(self) -> None:
        with self._lock:
            reader, self._reader, self._picture = self._reader, None, None
        if reader is not None:
            reader.close()
