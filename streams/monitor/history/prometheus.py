"""Reads history from Prometheus that is older than what the monitor keeps in memory."""

import asyncio
import json
import math
from typing import Any, Final

import aiohttp
import numpy as np
from yarl import URL

from streams.batch.columns import Float64, Int64
from streams.errors import StreamsError, UsageError
from streams.masking import without_credentials
from streams.monitor.exposition import label
from streams.monitor.history.series import Span
from streams.monitor.lookups import Partition
from streams.settings import Settings

TIMEOUT_S: Final = 10.0
"""Time limit of all queries for one chart together."""
ANSWER_BYTES_MAX: Final = 8 << 20
_RATE_S_MIN: Final = 60.0
"""Rates are averaged over at least this range: several scrapes lie within it."""


class PrometheusHistory:
    """Range queries against the HTTP API of Prometheus, or of a compatible server."""

    def __init__(self, settings: Settings) -> None:
        """Check the address; connect later.

        Raises:
            UsageError: STREAMS_PROMETHEUS_URL is no address.

        """
        text = settings.streams_prometheus_url.get_secret_value() if settings.streams_prometheus_url else ""
        try:
            url = URL(text)
        except ValueError as error:
            raise UsageError(f"STREAMS_PROMETHEUS_URL is no address: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise UsageError("STREAMS_PROMETHEUS_URL: http(s)://host:port, perhaps with a path")
        self._url = url.with_path(f"{url.path.rstrip('/')}/api/v1/query_range")
        self.name: Final = without_credentials(text)
        self._settings = settings
        pairs = (pair.partition("=") for pair in settings.streams_prometheus_labels.split(",") if pair)
        self._labels = "".join(f',{name.strip()}="{label(value.strip())}"' for name, _, value in pairs)

    async def group(self, name: str, topics: list[str], span: Span) -> Float64:
        """Lag, lag in seconds, consumed and arrived a second of a group: steps by fields; NaN: nothing is known.

        Raises:
            StreamsError: no answer, or one that says why there is none.

        """
        group = f'group="{label(name)}"{self._labels}'
        named = "|".join(_literal(topic) for topic in sorted(topics)) or "-"
        ends = f'topic=~"{label(named)}"{self._labels}'
        return await self._asked(
            f"kafka_consumergroup_group_sum_lag{{{group}}}",
            f"kafka_consumergroup_group_max_lag_seconds{{{group}}}",
            f"kafka_partition_latest_offset{{{ends}}}",
            span,
        )

    async def partition(self, name: str, partition: Partition, span: Span) -> Float64:
        """The same of one partition of a group."""
        place = f'topic="{label(partition[0])}",partition="{partition[1]}"{self._labels}'
        group = f'group="{label(name)}",{place}'
        return await self._asked(
            f"kafka_consumergroup_group_lag{{{group}}}",
            f"kafka_consumergroup_group_lag_seconds{{{group}}}",
            f"kafka_partition_latest_offset{{{place}}}",
            span,
        )

    async def _asked(self, lag: str, lag_s: str, ends: str, span: Span) -> Float64:
        step_s = span.step_ms / 1_000.0
        over = f"[{math.ceil(max(_RATE_S_MIN, step_s))}s]"
        step = f"[{math.ceil(step_s)}s]"
        queries = (
            f"max_over_time(max({lag}){_sub(step)})",
            f"max_over_time(max({lag_s}){_sub(step)})",
            f"sum(rate({ends}{over}))",
            f"max({lag})",
        )
        try:
            async with asyncio.timeout(TIMEOUT_S), self._session() as session:
                answers = await asyncio.gather(*(self._range(session, query, span) for query in queries))
        except TimeoutError:
            raise StreamsError(f"Prometheus at {self.name} does not answer within {TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise StreamsError(f"Prometheus at {self.name} does not answer: {type(error).__name__}") from None
        peak, peak_s, arrive, last = answers
        grown = np.concatenate([[np.nan], np.diff(last)]) / step_s
        # No metric has the committed rate: it is the arrival rate minus the growth of the lag.
        consume = np.maximum(arrive - grown, 0.0)
        return np.column_stack([peak, peak_s, consume, arrive])

    def _session(self) -> aiohttp.ClientSession:
        token = self._settings.secret("STREAMS_PROMETHEUS_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar())

    async def _range(self, session: aiohttp.ClientSession, query: str, span: Span) -> Float64:
        asked = {
            "query": query,
            "start": f"{(span.start_ms + span.step_ms) / 1_000.0:.3f}",
            "end": f"{span.end_ms / 1_000.0:.3f}",
            "step": f"{span.step_ms / 1_000.0:.3f}",
        }
        async with session.post(self._url, data=asked, allow_redirects=False) as answer:
            body = await answer.content.read(ANSWER_BYTES_MAX)
        return _values(self.name, body, span)


def _sub(step: str) -> str:
    """A subquery over a step, at the resolution that Prometheus evaluates rules with."""
    return f"{step[:-1]}:]"


def _literal(topic: str) -> str:
    """A topic's name as a regular expression: of what may be in one, only a dot means something there."""
    return topic.replace(".", "[.]")


def _values(name: str, body: bytes, span: Span) -> Float64:
    try:
        told: Any = json.loads(body)
        if told["status"] != "success":
            raise StreamsError(f"Prometheus at {name} refuses: {str(told.get('error', 'no reason given'))[:300]}")
        rows = told["data"]["result"]
        points = rows[0]["values"] if rows else []
        times: Int64 = np.array([round(float(at) * 1_000) for at, _ in points], dtype=np.int64)
        values = np.array([float(value) for _, value in points], dtype=np.float64)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise StreamsError(f"what answers at {name} is not Prometheus") from None
    found = np.full(span.steps, np.nan)
    place = np.round((times - span.start_ms) / span.step_ms).astype(np.int64) - 1
    inside = (place >= 0) & (place < span.steps)
    found[place[inside]] = np.where(np.isfinite(values[inside]), values[inside], np.nan)
    return found
