"""Which devices are quarantined: a gauge, and a line in the log whenever that changes."""

from collections.abc import Iterable
from typing import Final

import structlog

from streams.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

_DEVICES_LOGGED: Final = 10


class QuarantineNews:
    """Of one source."""

    def __init__(self, source: str, metrics: WorkerMetrics) -> None:
        self._source = source
        self._gauge = metrics.quarantined_devices.labels(source)
        self._known: frozenset[bytes] = frozenset()

    def tell(self, open_keys: Iterable[bytes]) -> None:
        """Log which devices are quarantined since the last call, and which are no longer."""
        found = frozenset(open_keys)
        self._gauge.set(len(found))
        if found != self._known:
            begun, ended = sorted(found - self._known), sorted(self._known - found)
            log.warning(
                "quarantined devices have changed", topic=self._source, devices=len(found),
                begun=begun[:_DEVICES_LOGGED], ended=ended[:_DEVICES_LOGGED],
            )  # fmt: skip
            self._known = found
