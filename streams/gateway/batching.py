"""Rows of requests that are under way at the same time, converted together: fixed costs of a conversion are shared.

Nothing waits for company: what has come in while the event loop was busy is converted in its next round.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streams.gateway.rows import Asked, Converted
from streams.limits import GATEWAY_SLICE_RECORDS_MAX

Convert = Callable[[Sequence[Asked], int], Converted]


@dataclass(slots=True)
class _Waiting:
    asked: Asked
    done: "asyncio.Future[Converted]"


class Batcher:
    """Converts the rows of one source, a bounded slice at a time. Of one event loop."""

    def __init__(self, convert: Convert, now_ms: Callable[[], int]) -> None:
        self._convert, self._now_ms = convert, now_ms
        self._waiting: deque[_Waiting] = deque()
        self._is_due = False

    async def convert(self, asked: Asked) -> Converted:
        """What becomes of at most `GATEWAY_SLICE_RECORDS_MAX` rows."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(asked, loop.create_future())
        self._waiting.append(waiting)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._run)
        return await waiting.done

    def _run(self) -> None:
        taken: list[_Waiting] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0].asked.rows) <= GATEWAY_SLICE_RECORDS_MAX):
            one = self._waiting.popleft()
            taken.append(one)
            count += len(one.asked.rows)
        self._is_due = bool(self._waiting)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._run)
        try:
            found = self._convert([one.asked for one in taken], self._now_ms())
        except Exception as error:  # noqa: BLE001 - a fault of this program: it must reach the request that it belongs to
            if len(taken) == 1:
                _fail(taken[0], error)
                return
            for one in taken:  # each alone, so that one request cannot fail others
                try:
                    _settle(one, self._convert([one.asked], self._now_ms()))
                except Exception as own:  # noqa: BLE001 - as above
                    _fail(one, own)
            return
        at = 0
        for one in taken:
            end = at + len(one.asked.rows)
            _settle(one, found.part(at, end) if len(taken) > 1 else found)
            at = end


def _settle(one: _Waiting, found: Converted) -> None:
    if not one.done.done():  # its request may have been cancelled
        one.done.set_result(found)


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.done.done():
        one.done.set_exception(error)
