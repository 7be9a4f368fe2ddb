"""What is wrong with the source of a flow, in words: for the log, the metrics and `/readyz`.

Three things that a worker cannot correct: partitions that the flow's state has no place for, records that retention
deleted before they were read, and a transaction that its producer leaves open.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from streams.batch.lanes import input_of, partition_of_lane
from streams.clock import monotonic_ms
from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.limits import RECORDS_LOST_SAID_MS
from streams.sources.base import Unreadable
from streams.text import counted
from streams.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Lost:
    records: int
    at_ms: int
    """When it was lost, on the monotonic clock."""
    since: str


class SourceRemarks:
    """Remarks on one flow. Call `unreadable` and `remarks` on the event loop, the rest in the intake thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        metrics: WorkerMetrics,
        *,
        partitions: int,
        layouts: Callable[[], Layouts | None] = lambda: None,
    ) -> None:
        """`partitions`: the number that state is divided into, if the flow was never grown; `layouts`: if it was."""
        self._layouts = layouts
        self._source = pipeline.source
        self._topics = tuple(one.topic for one in pipeline.inputs)
        self._journal = pipeline.journal
        self._partitions = partitions
        self._lost_metrics = [metrics.records_lost.labels(topic) for topic in self._topics]
        self._paused_metric = metrics.paused_partitions.labels("not_in_layout")
        self._lost: dict[int, _Lost] = {}
        self._unreadable: dict[int, tuple[Unreadable, str]] = {}
        """The open transaction of each partition, with the sentence about it."""
        self.refused: frozenset[int] = frozenset()
        """Partitions assigned to this worker that are not consumed, since no state topic has them."""

    # --- partitions that were added ---------------------------------------------------------------------------------

    def assigned(self, partitions: list[int]) -> list[int]:
        """Those of newly assigned `partitions` that have state topics; the others are refused."""
        places = self._places()
        refused = frozenset(partition for partition in partitions if partition >= places)
        if refused:
            self._refuse(self.refused | refused)
            log.error("partitions are not consumed", topic=self._source, partitions=sorted(refused), why=self.refusal())
        return [partition for partition in partitions if partition not in refused]

    def admitted(self) -> list[int]:
        """Refused partitions that can be consumed now, since a growth has become known; no longer refused."""
        if not self.refused:
            return []
        places = self._places()
        found = sorted(partition for partition in self.refused if partition < places)
        self._refuse(self.refused - frozenset(found))
        return found

    def _places(self) -> int:
        """Partitions that the flow's state has, or will have when a growth is done."""
        layouts = self._layouts()
        return self._partitions if layouts is None or layouts.growth is None else layouts.known[-1].partitions

    def gone(self, partitions: list[int]) -> None:
        """Forget partitions that are no longer assigned."""
        self._refuse(self.refused - frozenset(partitions))

    def _refuse(self, refused: frozenset[int]) -> None:
        self._paused_metric.inc(len(refused) - len(self.refused))  # several flows share it
        self.refused = refused

    def refusal(self) -> str | None:
        """Why partitions are not consumed, and what to do; None when all are consumed."""
        if not self.refused:
            return None
        places = self._places()
        grow = (
            f"If the source has a multiple of that now, `streams topics grow {self._source} --partitions N` with that "
            "number brings the others there. If not, have"
        )
        return (
            f"{self._source} partitions {sorted(self.refused)} are not consumed: {self._journal} and the tables have "
            f"{counted(places, 'partition')}, and no growth of the flow is known that brings more. "
            f"{grow} producers write to partitions 0 to {places - 1} (murmur2 of the key "
            f"modulo {places}); records in the others stay unread for as long as the topic keeps them"
        )

    # --- records that are gone, records that cannot be read ---------------------------------------------------------

    def records_lost(self, partition: int, first: int, end: int) -> None:
        """Record that offsets `first` to `end` of `partition`, a lane, were deleted before they were read."""
        self._lost_metrics[input_of(partition)].inc(end - first)
        known = self._lost.get(partition)
        records = end - first + (0 if known is None else known.records)
        self._lost = {**self._lost, partition: _Lost(records, monotonic_ms(), _instant(time.time()))}
        log.error(
            "records were deleted unread: retention has overtaken this worker, or it was down for longer than it; "
            "raise retention.ms of the source, then send them again (runbook records-lost)",
            topic=self._topics[input_of(partition)], partition=partition_of_lane(partition),
            first=first, end=end, records=end - first,
        )  # fmt: skip

    def unreadable(self, found: Mapping[int, Unreadable], now_ms: int) -> None:
        """Record which partitions stand before an open transaction; `now_ms`: monotonic."""
        before, self._unreadable = self._unreadable, {}
        for partition, one in sorted(found.items()):
            since = _instant(time.time() - (now_ms - one.since_ms) / 1000)
            sentence = (
                f"{self._named(partition)}: {counted(one.records, 'record')} after an open transaction cannot be "
                f"read yet; it begins at offset {one.offset} and has been seen open since {since} (how to find its "
                "producer: runbook open-transaction)"
            )
            self._unreadable[partition] = (one, sentence)
            if partition not in before or before[partition][0].offset != one.offset:
                log.warning("an open transaction on the source holds its partition up", why=sentence)

    def remarks(self, now_ms: int) -> list[str]:
        """Remarks as sentences; `now_ms`: monotonic.

        Losses are reported for an hour, an open transaction while it is open.
        """
        lost = [
            f"{self._named(partition)}: {counted(one.records, 'record')} deleted unread, last noticed at {one.since}"
            for partition, one in sorted(self._lost.items())
            if now_ms - one.at_ms < RECORDS_LOST_SAID_MS
        ]
        return [*lost, *(sentence for _, sentence in self._unreadable.values())]

    def _named(self, lane: int) -> str:
        return f"{self._topics[input_of(lane)]}-{partition_of_lane(lane)}"


def _instant(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
