"""Rates of workers' counters and of the ends of topics. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from streams.kafka.round import Round
from streams.monitor.processes import Address
from streams.monitor.workers import WorkerState

ENDS_S: Final = 30.0
"""A topic's rate is averaged over this time."""

Counts = Mapping[str, Mapping[str, float]]
"""Counters of a worker, by process and by name."""


class CounterRates:
    """Rates since the last look of counters that each process of each worker has of its own."""

    def __init__(self) -> None:
        self._totals: dict[tuple[Address, str], Mapping[str, float]] = {}
        """Counters as each process last reported them."""
        self._at_s = 0.0

    def look(self, counts: Mapping[Address, Counts], now_s: float) -> dict[str, float]:
        """Increase a second since the last look, over all workers; a restarted worker counts from zero."""
        gained = dict[str, float]()
        totals, self._totals = self._totals, {}
        for address, processes in counts.items():
            for process, named in processes.items():
                before = totals.get((address, process), named)
                for name, count in named.items():
                    was = before.get(name, 0.0)
                    gained[name] = gained.get(name, 0.0) + (count - was if count >= was else count)
                self._totals[address, process] = named
        for one, named in totals.items():  # those of a process that did not answer this time
            if one[0] in counts:
                self._totals.setdefault(one, named)
        seconds, self._at_s = now_s - self._at_s, now_s
        return {name: count / seconds for name, count in gained.items()}


def by_worker(workers: Sequence[WorkerState]) -> tuple[dict[Address, Counts], dict[Address, Counts]]:
    """Counters of workers: events by outcome, and by flow and outcome."""
    return {one.address: one.outcomes for one in workers}, {one.address: one.flows for one in workers}


class TopicRates:
    """Offsets a second that topics grow by, from round to round; transaction markers are included."""

    def __init__(self) -> None:
        self._rounds: deque[tuple[int, dict[str, int]]] = deque()

    def look(self, found: Round) -> dict[str, float]:
        """Rates of topics that existed in two rounds and were not recreated between them."""
        if self._rounds and found.time_ms <= self._rounds[-1][0]:
            return self._rates()
        ends = {
            name: int(found.end[found.base[name] : found.base[name] + count].clip(0).sum())
            for name, count in found.topics
        }
        self._rounds.append((found.time_ms, ends))
        while len(self._rounds) > 2 and self._rounds[1][0] < found.time_ms - ENDS_S * 1_000:
            self._rounds.popleft()
        return self._rates()

    def _rates(self) -> dict[str, float]:
        (began_ms, before), (now_ms, now) = self._rounds[0], self._rounds[-1]
        seconds = (now_ms - began_ms) / 1_000.0
        return {
            name: (end - before[name]) / seconds
            for name, end in now.items()
            if seconds > 0 and end >= before.get(name, end + 1)
        }
