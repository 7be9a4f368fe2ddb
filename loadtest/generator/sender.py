"""A fleet's log into a topic: as fast as possible, or each record at its time; never waiting for a consumer."""

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from loadtest.fleet import TrafficBatch
from loadtest.fleet.fill import PAUSE_S, Filler
from loadtest.generator.holding import Holding
from loadtest.generator.tally import Tally, Window
from streams.resilience.prefetch import built_ahead

Stop = threading.Event
"""Event that another thread sets to stop the sender."""
CHUNK_RECORDS: Final = 10_000
"""So many are sent between two looks at whether to stop."""


class Sender:
    """Sends batches until they end or `stop` is set; other threads may read how far it is."""

    def __init__(
        self,
        filler: Filler,
        topic: str,
        tally: Tally,
        stop: Stop,
        window: Window | None = None,
        holding: Holding | None = None,
    ) -> None:
        """`holding`: keeps records of open loop back, where asked to."""
        self._holding = holding
        self._filler = filler
        self._topic = topic
        self._tally = tally
        self._stop = stop
        self._window = window
        self.began_s: float | None = None
        """When the first record was sent, by the monotonic clock."""
        self._due_ms: int | None = None
        self._behind_ms_max = 0.0

    @property
    def behind_ms(self) -> float:
        """How long the next record has been due, milliseconds; 0 where nothing is due at a certain time."""
        due_ms = self._due_ms
        return 0.0 if due_ms is None else max(0.0, time.time() * 1000 - due_ms)

    @property
    def behind_ms_max(self) -> float:
        """The most that a record was sent after its time, or has been due by now."""
        return max(self._behind_ms_max, self.behind_ms)

    def send_history(self, batches: Iterator[TrafficBatch]) -> None:
        """Send everything as fast as the broker takes it."""
        with closing(built_ahead(batches)) as ahead:
            for batch in ahead:
                if self._is_over():
                    return
                self._send(batch)

    def send_open_loop(self, batches: Iterator[TrafficBatch], ends_ms: int | None) -> None:
        """Send each record when the clock reaches its timestamp; those from `ends_ms` on are left out."""
        with closing(built_ahead(batches)) as ahead:
            for batch in ahead:
                end = len(batch) if ends_ms is None else bisect_left(batch.timestamps_ms, ends_ms)
                self._send_at_their_time(batch, end)
                if end < len(batch) or self._is_over():
                    break
        rest = None if self._holding is None else self._holding.rest(int(time.time() * 1000))
        if rest is not None:
            self._send(rest)

    def _send_at_their_time(self, batch: TrafficBatch, end: int) -> None:
        first = 0
        while first < end and not self._is_over():
            self._due_ms = batch.timestamps_ms[first]
            last = bisect_right(batch.timestamps_ms, int(time.time() * 1000), first, end)
            if last == first:
                time.sleep(PAUSE_S)
                continue
            self._behind_ms_max = self.behind_ms_max
            last = min(last, first + CHUNK_RECORDS)
            due = batch.slice(first, last)
            self._send(due if self._holding is None else self._holding.pass_on(due, int(time.time() * 1000)))
            first = last
        self._due_ms = None

    def _send(self, batch: TrafficBatch) -> None:
        if self.began_s is None:
            self.began_s = time.monotonic()
        sent = self._filler.send(self._topic, batch)
        given = batch if sent == len(batch) else batch.slice(0, sent)
        self._tally.add(given)
        if self._window is not None:
            self._window.add(given, sent_ms=time.time() * 1000)

    def _is_over(self) -> bool:
        # What the broker refused will not come true: no use in going on. `flush` tells why.
        return self._stop.is_set() or self._filler.refused > 0
