"""Freshness of sources: age of the newest event, by event time and by arrival, and which sources fell silent. Pure.

A source that has never had an event is waiting for its first one, and does not count as silent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from streams.monitor.words import duration

RECOVERED_SHOWN_S: Final = 900.0
"""How long a source that speaks again is said to have been silent."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source topic, or a class of its devices, and when it counts as silent."""

    topic: str
    device_class: str | None
    silent_after_s: float

    @property
    def name(self) -> str:
        """The topic, or topic/class."""
        return self.topic if self.device_class is None else f"{self.topic}/{self.device_class}"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh a source is. Ages in seconds; None: no event is known."""

    source: Source
    waiting: bool
    """Whether its topic never had an event, or does not exist: it is not silent then."""
    silent: bool
    event_age_s: float | None
    """Seconds since the newest event happened, by its event time."""
    arrival_age_s: float | None
    """Seconds since the last event arrived, by the record's timestamp."""
    silent_since_ms: int | None
    """While it is silent: its last arrival, or when watching began."""
    recovered_ms: int | None
    """When its last silence ended, if that is not long ago."""
    silence_s: float | None
    """How long that silence lasted."""
    why: str


@dataclass(slots=True)
class _Seen:
    since_ms: int
    was_fed: bool = False
    event_time_ms: int | None = None
    arrival_ms: int | None = None
    silent_since_ms: int | None = None
    recovered_ms: int | None = None
    silence_s: float | None = None


class FreshnessTracker:
    """Tracks the freshness of each source. Time is an argument."""

    def __init__(self, sources: Iterable[Source], now_ms: int) -> None:
        self._seen = {source: _Seen(now_ms) for source in sources}

    @property
    def sources(self) -> list[Source]:
        """All of them, in the order given."""
        return list(self._seen)

    def feed(self, topic: str) -> None:
        """The topic holds events, or held some before: its sources no longer wait for their first one."""
        for source, seen in self._seen.items():
            seen.was_fed = seen.was_fed or source.topic == topic

    def observe(self, source: Source, *, arrival_ms: int, event_time_ms: int | None) -> None:
        """An event arrived at `arrival_ms`; `event_time_ms` None: its event time could not be read.

        Order does not matter: the newest counts.
        """
        seen = self._seen[source]
        seen.was_fed = True
        seen.arrival_ms = max(arrival_ms, seen.arrival_ms or arrival_ms)
        if event_time_ms is not None:
            seen.event_time_ms = max(event_time_ms, seen.event_time_ms or event_time_ms)

    def judge(self, now_ms: int) -> list[Freshness]:
        """Freshness of each source at `now_ms`; records silences that begin or end."""
        return [self._judge(source, seen, now_ms) for source, seen in self._seen.items()]

    def _judge(self, source: Source, seen: _Seen, now_ms: int) -> Freshness:
        # A clock that runs ahead (the producer's or ours) makes no source silent, and no event younger than now.
        last_ms = min(seen.arrival_ms if seen.arrival_ms is not None else seen.since_ms, now_ms)
        quiet_s = (now_ms - last_ms) / 1000.0
        silent = seen.was_fed and quiet_s > source.silent_after_s
        if silent and seen.silent_since_ms is None:
            seen.silent_since_ms = last_ms
        elif not silent and seen.silent_since_ms is not None:
            seen.silence_s = (last_ms - seen.silent_since_ms) / 1000.0
            seen.recovered_ms, seen.silent_since_ms = now_ms, None
        recent = seen.recovered_ms is not None and now_ms - seen.recovered_ms < RECOVERED_SHOWN_S * 1000
        event_age_s = None if seen.event_time_ms is None else max(0.0, (now_ms - seen.event_time_ms) / 1000.0)
        arrival_age_s = None if seen.arrival_ms is None else quiet_s
        return Freshness(
            source=source,
            waiting=not seen.was_fed,
            silent=silent,
            event_age_s=event_age_s,
            arrival_age_s=arrival_age_s,
            silent_since_ms=seen.silent_since_ms,
            recovered_ms=seen.recovered_ms if recent else None,
            silence_s=seen.silence_s if recent else None,
            why=_why(source, seen, quiet_s, now_ms, silent=silent, recent=recent),
        )


def _why(source: Source, seen: _Seen, quiet_s: float, now_ms: int, *, silent: bool, recent: bool) -> str:
    limit = f"at most {duration(source.silent_after_s)} are expected between two"
    if not seen.was_fed:
        return "waiting for its first event"
    if seen.arrival_ms is None:
        return f"no event for {duration(quiet_s)}, since watching began ({limit})"
    if silent:
        return f"silent: the last event came {duration(quiet_s)} ago ({limit})"
    if recent and seen.recovered_ms is not None and seen.silence_s is not None:
        ago = duration((now_ms - seen.recovered_ms) / 1000.0)
        return f"has been speaking again for {ago}, after {duration(seen.silence_s)} of silence"
    return f"the last event came {duration(quiet_s)} ago"
