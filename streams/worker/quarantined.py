"""Which devices are quarantined: a gauge, and a line in the log whenever that changes."""

from collections.abc import Iterable
from typing import Final

import structlog

from streams.flow.declaration import Pipeline
from streams.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

_DEVICES_LOGGED: Final = 10


class QuarantineNews:
    """Reports quarantined devices of one source."""

    def __init__(self, pipeline: Pipeline, metrics: WorkerMetrics) -> None:
        self._source = pipeline.source
        self._shown_max = 0 if pipeline.masks_keys else _DEVICES_LOGGED
        self._gauge = metrics.quarantined_devices.labels(pipeline.source)
        self._known: frozenset[bytes] = frozenset()

    def tell(self, open_keys: Iterable[bytes]) -> None:
        """Log devices that were quarantined since the last call, and those that no longer are.

        Where keys are personal data, only how many of them.
        """
        found = frozenset(open_keys)
        self._gauge.set(len(found))
        if found != self._known:
            begun, ended = sorted(found - self._known), sorted(self._known - found)
            log.warning(
                "quarantined devices have changed", topic=self._source, devices=len(found),
                begun=begun[: self._shown_max] or len(begun), ended=ended[: self._shown_max] or len(ended),
            )  # fmt: skip
            self._known = found
