"""`/api/history`: lag and throughput over time, from memory or, for longer ranges, from Prometheus."""

import time
from typing import Any, Final

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streams.batch.columns import Float64
from streams.errors import StreamsError
from streams.monitor.history.annotations import Annotation
from streams.monitor.history.book import FIELDS, OUTCOMES, HistoryBook, Kept
from streams.monitor.history.prometheus import PrometheusHistory
from streams.monitor.history.series import Span
from streams.monitor.lookups import Partition
from streams.monitor.report import number
from streams.monitor.watcher import Watcher
from streams.monitor.web import burrow

SECONDS_MIN: Final = 60
SECONDS_MAX: Final = 92 * 86_400
SECONDS_DEFAULT: Final = 3_600
_DIGITS: Final = {"lag": 0, "lag_s": 1}


class HistoryApi:
    """The endpoint. `prometheus` None: only history in memory."""

    def __init__(self, watcher: Watcher, prometheus: PrometheusHistory | None) -> None:
        self._watcher = watcher
        self._book: HistoryBook = watcher.history
        self._prometheus = prometheus

    async def answer(self, request: Request) -> Response:
        """History of a `group`, or of its `topic` and `partition`; without one, events by outcome; last `seconds`."""
        asked = request.query_params
        try:
            seconds = int(asked.get("seconds", SECONDS_DEFAULT))
            partition = (asked["topic"], int(asked["partition"])) if "topic" in asked else None
        except (ValueError, KeyError):
            return JSONResponse(burrow.error("seconds and partition are numbers; topic comes with partition"), 400)
        span = self._book.span(min(max(seconds, SECONDS_MIN), SECONDS_MAX), time.time_ns() // 1_000_000)
        if "group" not in asked:
            kept = self._book.events(span)
            return JSONResponse(self._told(kept.span, kept.values, (), OUTCOMES) | self._remembered(kept))
        return await self._of_group(asked["group"], partition, span)

    async def _of_group(self, name: str, partition: Partition | None, span: Span) -> Response:
        kept = self._book.group(name, span) if partition is None else self._book.partition(name, partition, span)
        snapshot = self._watcher.latest
        group = None if snapshot is None else snapshot.groups.get(name)
        is_there = kept is not None or (group is not None and (partition is None or partition in group.partitions))
        if not is_there:
            return JSONResponse(burrow.error("no such group, or no such partition of it"), status_code=404)
        labels: dict[str, Any] = {"group": name}
        if partition is not None:
            labels |= {"topic": partition[0], "partition": partition[1]}
        problem = ""
        reaches = kept is not None and kept.oldest_ms is not None and kept.oldest_ms <= span.start_ms + span.step_ms
        if self._prometheus is not None and not reaches:
            try:
                topics = [] if group is None else sorted({topic for topic, _ in group.partitions})
                values = await self._asked(self._prometheus, name, topics, partition, span)
                told = self._told(span, values, self._book.annotations(name, span), FIELDS)
                return JSONResponse(labels | told | {"source": "prometheus", "since": span.start_ms, "problem": ""})
            except StreamsError as error:
                problem = str(error)
        if kept is None:
            reason = problem or (
                "no history of this group yet"
                if self._book.rows_used < self._book.rows_max
                else "not kept: more partitions than STREAMS_MONITOR_HISTORY_MB_MAX has room for"
            )
            return JSONResponse(labels | self._nothing(span) | {"problem": reason})
        told = self._told(kept.span, kept.values, kept.annotations, FIELDS) | self._remembered(kept)
        return JSONResponse(labels | told | {"problem": problem})

    @staticmethod
    async def _asked(
        prometheus: PrometheusHistory, name: str, topics: list[str], partition: Partition | None, span: Span
    ) -> Float64:
        if partition is None:
            return await prometheus.group(name, topics, span)
        return await prometheus.partition(name, partition, span)

    @staticmethod
    def _remembered(kept: Kept) -> dict[str, Any]:
        return {"source": "memory", "since": kept.oldest_ms, "problem": ""}

    def _nothing(self, span: Span) -> dict[str, Any]:
        values = np.full((span.steps, len(FIELDS)), np.nan)
        return self._told(span, values, (), FIELDS) | {"source": "memory", "since": None}

    @staticmethod
    def _told(
        span: Span, values: Float64, annotations: tuple[Annotation, ...], fields: tuple[str, ...]
    ) -> dict[str, Any]:
        columns = {
            name: [number(value, _DIGITS.get(name, 2)) for value in values[:, place]]
            for place, name in enumerate(fields)
        }
        return {
            "start": span.start_ms,
            "step": span.step_ms,
            "steps": span.steps,
            "values": columns,
            "annotations": [{"time": one.time_ms, "kind": one.kind.value, "text": one.text} for one in annotations],
        }
