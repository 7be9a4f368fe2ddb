"""Pages of a REST source into its topic, each in a transaction with the position.

Records that are read again after a kill, a failure or an overlap have the same event ids, so that the flow drops them.
The topic itself has duplicates only if the source sends some.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoder_of
from streams.gateway.formats import Request
from streams.gateway.letters import Origin, letters_of
from streams.gateway.records import Rejection, TooManyRecords
from streams.gateway.rows import Asked, RowReader
from streams.ingest.fields import fields_of
from streams.limits import GATEWAY_SLICE_RECORDS_MAX
from streams.names import PULL_PREFIX
from streams.pull.client import FetchFailed, RestClient
from streams.pull.cursor import Course, Cursor, CursorFailed, Step, first, parameters
from streams.pull.declaration import PullSource
from streams.resilience.retry import Backoff, Retrier
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.personal import with_personal
from streams.settings import Settings
from streams.sinks.base import Checkpoint, Outgoing, Sink, WriteInterrupted
from streams.sinks.kafka.checkpoints import KafkaCheckpoints
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.transactional import TransactionalSink

log = structlog.get_logger(__name__)

CONNECT_S_MAX: Final = 30.0
KEEP_S: Final = 3_600.0
"""A cursor that does not move is committed again so often: Kafka forgets offsets that are not (after 7 days)."""
_AGAIN: Final = Backoff(first_s=1.0, pause_s_max=300.0)
ATTEMPTS_MAX: Final = 8
"""Failures in a row after which a single run (`--once`) gives up."""


@dataclass(slots=True)
class PullResult:
    """Result of a run."""

    pages: int = 0
    records: int = 0
    sent: int = 0
    rejected: int = 0
    failures: int = 0


class Puller:
    """Polls one source until it is stopped, or has nothing more."""

    def __init__(
        self, settings: Settings, source: PullSource, pipeline: Pipeline, reader: RowReader, sink: Sink
    ) -> None:
        self._settings, self._source, self._pipeline, self._reader = settings, source, pipeline, reader
        self._sink = sink
        self._course = Course(source)
        self._position = 0
        self._committed_s = 0.0
        self._stopping = asyncio.Event()
        self.result = PullResult()

    def stop(self) -> None:
        """End after the page that is under way."""
        self._stopping.set()

    async def run(self, *, once: bool) -> PullResult:
        """Pull until `stop`, or, `once`, until the source has nothing more for now.

        Raises:
            FetchFailed: `once`: the source has failed `ATTEMPTS_MAX` times in a row.
            StreamsError: the checkpoint is not readable, or Kafka cannot be had.
            FencedError: another process pulls this source.

        """
        cursor = await self._open()
        failures = 0
        try:
            async with RestClient(self._source, masks_words=bool(self._pipeline.personal)) as client:
                while not self._stopping.is_set():
                    try:
                        cursor, is_end = await self._page(client, cursor)
                    except (FetchFailed, CursorFailed, WriteInterrupted) as error:
                        failures += 1
                        self.result.failures += 1
                        if once and failures >= ATTEMPTS_MAX:
                            raise FetchFailed(f"{self._source.name}: {error}") from None
                        if isinstance(error, WriteInterrupted):
                            cursor = await self._open()
                        await self._pause_after(error, failures)
                        continue
                    failures = 0
                    if is_end:
                        if once:
                            break
                        await self._pause(self._source.every_s)
        finally:
            await asyncio.to_thread(self._sink.close)
        return self.result

    async def _open(self) -> Cursor:
        """Where the last one of this name stopped."""
        try:
            checkpoint = await asyncio.to_thread(self._sink.open)
        except WriteInterrupted as error:
            raise StreamsError(f"{self._source.name}: Kafka cannot be had: {error}") from None
        if checkpoint is None:
            return first(self._source)
        self._position = checkpoint.position
        try:
            return Cursor.parse(checkpoint.metadata)
        except (ValueError, TypeError):
            raise StreamsError(
                f"the checkpoint of {self._source.name} is not readable: delete the "
                f"consumer group {self._pipeline.prefix}{PULL_PREFIX}{self._source.name} to begin anew"
            ) from None

    async def _page(self, client: RestClient, cursor: Cursor) -> tuple[Cursor, bool]:
        """Pull one page and commit it; the cursor after it, and whether there is nothing more for now."""
        answer = await client.fetch(parameters(self._source, cursor))
        records = self._source.format.records_in(answer)
        if records is None:
            where = "/" + "/".join(self._source.format.records)
            raise FetchFailed(f"{self._source.url}: the answer has no records at {where}")
        step = self._course.step(cursor, answer, records)
        if step.went_back:
            log.warning("the source answers with records before what was asked for", source=self._source.name)
        outgoing = self._outgoing(answer)
        if outgoing or step.cursor != cursor or time.monotonic() - self._committed_s > KEEP_S:
            await asyncio.to_thread(self._commit, outgoing, step)
        self._course.taken(step)
        self.result.pages += 1
        self.result.records += len(records)
        return step.cursor, step.is_end

    def _commit(self, outgoing: list[Outgoing], step: Step) -> None:
        self._sink.write(outgoing)
        self._position += 1
        self._sink.commit(Checkpoint(self._position, str(step.cursor)))
        self._committed_s = time.monotonic()

    def _outgoing(self, answer: Any) -> list[Outgoing]:
        """Events and dead letters of a page."""
        pipeline, now_ms = self._pipeline, time.time_ns() // 1_000_000
        try:
            found = self._source.format.rows(Request(answer, {}, {}), b"", self._settings.streams_record_bytes_max)
        except TooManyRecords as error:
            raise FetchFailed(f"{self._source.url}: {error}: ask for smaller pages") from None
        rejected: dict[int, tuple[Rejection, bytes | None, bytes]] = {}
        places = []
        for index, row in enumerate(found.rows):
            if isinstance(row, Rejection):
                rejected[index] = (row, None, found.raw(index))
            else:
                places.append(index)
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        seen: set[tuple[str | None, int]] = set()
        for start in range(0, len(places), GATEWAY_SLICE_RECORDS_MAX):
            part = places[start : start + GATEWAY_SLICE_RECORDS_MAX]
            rows: Any = [found.rows[index] for index in part]
            converted = self._reader.events([Asked(rows, start)], now_ms)
            for position, index in enumerate(part):
                why, value = converted.rejections.get(position), converted.values[position]
                if why is not None:
                    rejected[index] = (why, converted.keys[position] or None, value or found.raw(index))
                    continue
                identity = (converted.event_ids[position], converted.times_ms[position])
                if identity not in seen:
                    seen.add(identity)
                    keys.append(converted.keys[position])
                    values.append(value)
        self.result.sent += len(values)
        self.result.rejected += len(rejected)
        outgoing = [Outgoing(pipeline.source, keys, values, now_ms)] if values else []
        if rejected:
            origin = Origin(PULL_PREFIX + self._source.name, "application/json")
            letters = letters_of(pipeline, rejected, origin, now_ms=now_ms)
            outgoing.append(Outgoing(pipeline.dlq, letters.keys, list(letters.values), now_ms, letters.headers))
        return outgoing

    async def _pause_after(self, error: Exception, failures: int) -> None:
        asked_s = error.retry_s if isinstance(error, FetchFailed) else None
        pause_s = _AGAIN.jittered_s(failures) if asked_s is None else max(asked_s, 0.1)
        log.warning(
            "a page could not be pulled", source=self._source.name, error=str(error), failures=failures,
            retry_in_s=round(pause_s, 2),
        )  # fmt: skip
        await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def puller(settings: Settings, source: PullSource, pipelines: list[Pipeline]) -> Puller:
    """A puller of the source into its topic on Kafka.

    Raises:
        UsageError: there is no such topic, or no such field in its schema.
        StreamsError: the registry does not answer, or does not have the schema.

    """
    named = {name: one for one in pipelines for name in (one.source, one.source.removeprefix(one.prefix))}
    pipeline = named.get(source.source)
    if pipeline is None:
        known = ", ".join(one.source for one in pipelines)
        raise UsageError(f"{source.name}: no flow reads {source.source!r}: source is one of {known}")
    catalog = Catalog.load()
    (pipeline,) = with_personal([pipeline], catalog)
    schema = catalog.latest(pipeline.subject)
    names = {field.name for field in fields_of(schema.parsed)}
    others = sorted(source.format.fields.keys() - names)
    if others:
        raise UsageError(
            f"{source.name}: {pipeline.source} has no field {others[0]!r}, only {', '.join(sorted(names))}"
        )
    schema_id = Registry(settings).lookup(schema.subject, schema.text)
    reader = RowReader(pipeline, schema, schema_id, decoder_of(pipeline, settings))
    name = f"{pipeline.prefix}{PULL_PREFIX}{source.name}"
    transactions = KafkaTransactions(
        settings, transactional_id=name, source=pipeline.source, retrier=Retrier(), reopen_s_max=CONNECT_S_MAX
    )
    checkpoints = KafkaCheckpoints(settings, transactions, name=name, topic=pipeline.source)
    sink = TransactionalSink(
        transactions, checkpoints, fenced=f"another process pulls {source.name}: this one stops, do not start it again"
    )
    return Puller(settings, source, pipeline, reader, sink)
