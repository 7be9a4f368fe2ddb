"""Events whose key is in a partition that murmur2 would not have chosen: counted, and some of their keys logged.

The order and the single occurrence of a key's events hold within one partition. A key in two partitions has two states,
so its producers have to agree; until they do, each such event is counted. Counts are of committed cycles.
"""

from dataclasses import dataclass, field
from typing import Final

import structlog

from streams.engine.effects import Effects
from streams.flow.declaration import Pipeline
from streams.limits import KEY_BYTES_LOGGED, MISROUTED_KEYS_LOGGED, MISROUTED_LOG_INTERVAL_MS, MISROUTED_SAID_MS
from streams.masking import PERSONAL_MASK
from streams.text import counted
from streams.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

_PARTITIONS_LOGGED: Final = 10


@dataclass(slots=True)
class MisroutedNews:
    """Misrouted events of one cycle, or of several."""

    events: int = 0
    keys: dict[int, list[bytes]] = field(default_factory=dict)
    """Some keys by the partition in which they came."""

    def add(self, effects: Effects) -> None:
        """Add the misrouted events of a micro-batch."""
        for part in effects.partitions:
            self.events += part.misrouted
            for key in part.misrouted_keys:
                self._name(part.partition, key)

    def merge(self, other: "MisroutedNews") -> None:
        """Add the events and keys of `other`."""
        self.events += other.events
        for partition, keys in other.keys.items():
            for key in keys:
                self._name(partition, key)

    def _name(self, partition: int, key: bytes) -> None:
        known = self.keys.setdefault(partition, [])
        if len(known) < MISROUTED_KEYS_LOGGED and key not in known:
            known.append(key)


class MisroutedWatch:
    """Counts and logs the misrouted events of one source. One thread at a time."""

    def __init__(self, pipeline: Pipeline, partitions: int, metrics: WorkerMetrics) -> None:
        """`partitions`: the number that the flow's state is divided into; the metric is set to 0 from the beginning."""
        self._source = source = pipeline.source
        self._masks = pipeline.masks_keys
        self._partitions = partitions
        self._count = metrics.misrouted.labels(source)
        self._untold = MisroutedNews()
        self._told_ms: int | None = None
        self._events = 0
        self._last_ms: int | None = None

    def tell(self, news: MisroutedNews, now_ms: int) -> None:
        """Count the events of a committed cycle; log those since the last line, at most once a minute.

        `now_ms`: monotonic.
        """
        if news.events:
            self._count.inc(news.events)
            self._events, self._last_ms = self._events + news.events, now_ms
            self._untold.merge(news)
        if not self._untold.events:
            return
        if self._told_ms is not None and now_ms - self._told_ms < MISROUTED_LOG_INTERVAL_MS:
            return
        self._told_ms = now_ms
        untold, self._untold = self._untold, MisroutedNews()
        log.warning(
            "keys are in partitions that murmur2 would not have chosen: their order and duplicates are not guaranteed; "
            "have all producers use murmur2 (librdkafka: partitioner=murmur2_random)",
            topic=self._source, partitions=self._partitions, events=untold.events,
            keys={partition: [PERSONAL_MASK if self._masks else shown(key) for key in untold.keys[partition]]
                  for partition in sorted(untold.keys)[:_PARTITIONS_LOGGED]},
        )  # fmt: skip

    def remark(self, now_ms: int) -> str | None:
        """A sentence for `/readyz`, for an hour after the last misrouted event; `now_ms`: monotonic.

        Any thread may ask.
        """
        if self._last_ms is None or now_ms - self._last_ms >= MISROUTED_SAID_MS:
            return None
        return (
            f"{self._source}: {counted(self._events, 'event')} since the start "
            f"{'has' if self._events == 1 else 'have'} a key of another partition; "
            "duplicates and disorder of such keys go unnoticed (runbook keys-misrouted; the log names some)"
        )


def shown(key: bytes) -> str:
    """A key for a log line: escaped, and shortened where it is long."""
    text = ascii(key.decode("utf-8", "backslashreplace")[:KEY_BYTES_LOGGED])[1:-1]
    return text if len(key) <= KEY_BYTES_LOGGED else f"{text}... ({len(key)} bytes)"
