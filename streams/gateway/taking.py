"""Records on their way to Kafka: rows become events or dead letters, and every one of them is acknowledged.

What speaks to senders (HTTP requests, MQTT) reads rows of what they send and gives them here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog

from streams.batch.columns import Headers
from streams.batch.rejects import Reason
from streams.gateway.answers import Outcome, Refused
from streams.gateway.delivery import Delivers, Outgoing
from streams.gateway.formats import Format
from streams.gateway.framed import judged
from streams.gateway.letters import Origin, letters_of
from streams.gateway.metrics import OUTCOMES, GatewayMetrics
from streams.gateway.records import Rejection, Row, Rows
from streams.gateway.rows import Asked
from streams.gateway.sources import Source, Sources
from streams.gateway.unexpected import UnexpectedFields
from streams.limits import GATEWAY_SLICE_RECORDS_MAX

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Records:
    """The records of a request on their way."""

    rows: Sequence[Row | Rejection]
    raw: Callable[[int], bytes]
    outcome: Outcome
    keys: list[bytes | None]
    values: list[bytes]
    rejected: dict[int, tuple[Rejection, bytes | None, bytes]] = field(default_factory=dict)
    """Why, key and bytes of the dead letter."""

    @classmethod
    def of(cls, found: Rows) -> "_Records":
        count = len(found.rows)
        return cls(found.rows, found.raw, Outcome([None] * count), [None] * count, [b""] * count)


class Taking:
    """Takes records of the sources of a gateway. Of one event loop."""

    def __init__(
        self,
        sources: Sources,
        delivery: Delivers,
        metrics: GatewayMetrics,
        *,
        record_bytes_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._sources, self._delivery, self._metrics, self._now_ms = sources, delivery, metrics, now_ms
        self._record_bytes_max = record_bytes_max
        self._unexpected = {
            name: UnexpectedFields(name, source.names, self._counting_fields(name))
            for name, source in sources.by_name.items()
        }
        self._count_events = {
            (name, outcome): metrics.events.labels(name, outcome) for name in sources.by_name for outcome in OUTCOMES
        }

    async def rows(
        self,
        source: Source,
        found: Rows,
        origin: Origin,
        *,
        ids: Callable[[int], str] | None = None,
        format_: Format | None = None,
        trace: Headers | None = None,
    ) -> Outcome:
        """Have rows acknowledged, as events or as dead letters.

        `ids` gives an id to a row without one, by its position; None: it comes of the row's values. `trace` are
        headers of the events.

        Raises:
            Refused: Kafka has not acknowledged all of them, or the source is not ready: they may be given again.

        """
        self._unexpected[source.name].look(found.rows)
        records = _Records.of(found)
        await self._converted(source, records, ids, format_)
        return await self._finished(source, records, origin, trace)

    async def framed(self, source: Source, content: bytes, origin: Origin, *, trace: Headers | None = None) -> Outcome:
        """Have one event acknowledged that is framed as a producer would send it: it is passed on as it is.

        Raises:
            Refused: as `rows`; or the registry does not answer.

        """
        records = _Records.of(Rows([{}], lambda _: content))
        await self._framed(source, records, content)
        return await self._finished(source, records, origin, trace)

    async def _finished(self, source: Source, records: _Records, origin: Origin, trace: Headers | None) -> Outcome:
        await self._delivered(source, records, trace, origin)
        self._count(source, records.outcome)
        return records.outcome

    async def _converted(
        self, source: Source, records: _Records, ids: Callable[[int], str] | None, format_: Format | None
    ) -> None:
        places: list[int] = []
        for index, row in enumerate(records.rows):
            if isinstance(row, Rejection):
                records.rejected[index] = (row, None, records.raw(index))
            else:
                places.append(index)
        seen: set[tuple[str | None, int]] = set()
        for start in range(0, len(places), GATEWAY_SLICE_RECORDS_MAX):
            part = places[start : start + GATEWAY_SLICE_RECORDS_MAX]
            rows: Any = [records.rows[index] for index in part]
            asked = Asked(rows, start, None if ids is None else [ids(index) for index in part])
            converted = await source.batcher.convert(asked)
            for position, index in enumerate(part):
                rejection, value = converted.rejections.get(position), converted.values[position]
                event_id = records.outcome.event_ids[index] = converted.event_ids[position]
                if rejection is not None:
                    if format_ is not None:
                        rejection = Rejection(rejection.reason, rejection.message, format_.pointer(rejection.pointer))
                    key = converted.keys[position] or _key_of(rows[position], source.pipeline.key_field)
                    records.rejected[index] = (rejection, key, value or records.raw(index))
                    continue
                identity = (event_id, converted.times_ms[position])
                if identity in seen:
                    records.outcome.duplicates.add(index)
                    continue
                seen.add(identity)
                records.keys[index], records.values[index] = converted.keys[position], value

    async def _framed(self, source: Source, records: _Records, content: bytes) -> None:
        """One event as a producer would send it: passed on as it is."""
        found = await judged(self._sources, source, content, self._record_bytes_max, self._now_ms())
        records.outcome.event_ids[0] = found.event_id
        if found.rejection is not None:
            records.rejected[0] = (found.rejection, found.key, content)
        else:
            records.keys[0], records.values[0] = found.key, content

    # --- Kafka ------------------------------------------------------------------------------------------------------

    async def _delivered(self, source: Source, records: _Records, trace: Headers | None, origin: Origin) -> None:
        """Send events, then dead letters: of what the topic refuses as well."""
        pipeline, now_ms = source.pipeline, self._now_ms()
        sent = [index for index, value in enumerate(records.values) if value]
        if sent:
            outgoing = Outgoing(
                pipeline.source,
                [records.keys[index] for index in sent],
                [records.values[index] for index in sent],
                now_ms,
                None if trace is None else [trace] * len(sent),
            )
            for position, words in (await self._delivery.deliver(outgoing)).items():
                index = sent[position]
                why = Rejection(Reason.REFUSED_BY_OUTPUT, f"{pipeline.source} does not take it: {words}")
                records.rejected[index] = (why, records.keys[index], records.values[index])
        if not records.rejected:
            return
        letters = letters_of(pipeline, records.rejected, origin, now_ms=now_ms)
        refused = await self._delivery.deliver(
            Outgoing(pipeline.dlq, letters.keys, letters.values, now_ms, letters.headers)
        )
        if refused:
            log.error("dead letters were refused by their topic", topic=pipeline.dlq, why=next(iter(refused.values())))
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a record is no event, and too large for a dead letter",
                kind="too_large",
            )  # fmt: skip
        for (index, (rejection, _, _)), letter_id in zip(records.rejected.items(), letters.ids, strict=True):
            records.outcome.rejections[index] = (rejection, letter_id)

    def _count(self, source: Source, outcome: Outcome) -> None:
        counts = (outcome.accepted, len(outcome.duplicates), len(outcome.rejections))
        for name, count in zip(OUTCOMES, counts, strict=True):
            if count:
                self._count_events[source.name, name].inc(count)
        for rejection, _ in outcome.rejections.values():
            self._metrics.rejects.labels(source.name, rejection.reason.value).inc()

    def _counting_fields(self, source: str) -> Callable[[str, int], None]:
        def count(name: str, records: int) -> None:
            self._metrics.unexpected_fields.labels(source, name).inc(records)

        return count


def _key_of(row: Row, field_name: str) -> bytes | None:
    """The key of a record that is no event, where it says one."""
    found = row.get(field_name)
    if not isinstance(found, str | int) or isinstance(found, bool) or not str(found):
        return None
    key = str(found).encode(errors="replace")
    return key if len(key) <= 1_024 else None
