"""The sources that events are taken for: the source topic of each declared flow, by its name without the prefix."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog

from streams.avro.decode import Decoder
from streams.avro.framing import SchemaKey
from streams.avro.known import KnownSchemas
from streams.avro.resolve import Plan
from streams.batch.rejects import Reject
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoder_of
from streams.gateway.answers import Refused
from streams.gateway.batching import Batcher
from streams.gateway.rows import RowReader
from streams.ingest.fields import fields_of
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.resilience.retry import Backoff
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import Registry, RegistryUnavailable
from streams.schemas.personal import with_personal
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings

log = structlog.get_logger(__name__)

_ASK_S: Final = 3.0
"""How long a broker may take to answer before it is asked again."""
_PREPARE: Final = Backoff(first_s=0.5, pause_s_max=10.0)


class Source:
    """One source: what makes events of rows, once topic and schema are known to be there."""

    def __init__(
        self, pipeline: Pipeline, schema: SchemaVersion, settings: Settings, now_ms: Callable[[], int]
    ) -> None:
        """Nothing is asked of anybody.

        Raises:
            UsageError: a field of the schema is of a type that a flat row cannot fill; or the flow's bounds and the
                settings contradict each other.

        """
        self.name = pipeline.source.removeprefix(pipeline.prefix)
        self.pipeline, self.schema = pipeline, schema
        self.fields = fields_of(schema.parsed)
        self.names = frozenset(field.name for field in self.fields)
        self.decoder: Decoder = decoder_of(pipeline, settings)
        self.known = KnownSchemas()
        self._now_ms = now_ms
        self._batcher: Batcher | None = None
        self.unready = "topic and schema are not looked up yet"
        """Why no event is taken; empty when they are."""

    def use(self, schema_id: int) -> None:
        """From now on, events are written with this id."""
        reader = RowReader(self.pipeline, self.schema, schema_id, self.decoder)
        self._batcher = Batcher(reader.events, self._now_ms)
        self.unready = ""

    @property
    def batcher(self) -> Batcher:
        """What converts rows.

        Raises:
            Refused: the source is not ready.

        """
        if self._batcher is None:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self.name} takes no events yet; /readyz says why",
                kind="unready", retry_s=5,
            )  # fmt: skip
        return self._batcher


class Sources:
    """All sources of a gateway."""

    def __init__(
        self, settings: Settings, pipelines: list[Pipeline], catalog: Catalog, now_ms: Callable[[], int]
    ) -> None:
        """Nothing is asked of anybody.

        Raises:
            UsageError: as `Source`; or a schema is missing.

        """
        self._settings = settings
        self._registry = Registry(settings)
        flows = with_personal(pipelines, catalog)
        found = (Source(one, catalog.latest(one.subject), settings, now_ms) for one in flows)
        self.by_name: Mapping[str, Source] = {source.name: source for source in found}

    @property
    def unready(self) -> list[str]:
        """Sources that take no events, and why."""
        return [f"{source.name}: {source.unready}" for source in self.by_name.values() if source.unready]

    async def prepare(self) -> None:
        """Find topics and schema ids, for as long as it takes: a broker or registry may come later than the gateway."""
        failures = 0
        said = ""
        while self.unready:
            await asyncio.to_thread(self._look)
            if not self.unready:
                break
            failures += 1
            if said != (said := "; ".join(self.unready)):
                log.warning("sources that take no events yet", why=said)
            await asyncio.sleep(_PREPARE.jittered_s(failures))
        log.info("all sources take events", sources=list(self.by_name))

    async def learn(self, source: Source, key: SchemaKey) -> Plan | Reject:
        """How values of a writer's schema are read, or why they are not.

        Raises:
            Refused: the registry does not answer.

        """
        found = source.known.get(key)
        if found is not None:
            source.known.used([key])
            return found
        try:
            found = await asyncio.to_thread(plan_or_reject, self._registry, key, source.schema.text)
        except RegistryUnavailable as error:
            log.warning("a schema cannot be looked up", schema=key, error=str(error))
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "the schema registry does not answer: send again later",
                kind="registry", retry_s=5,
            ) from None  # fmt: skip
        source.known.learn({key: found})
        source.known.trim()
        return found

    def _look(self) -> None:
        waiting = [source for source in self.by_name.values() if source.unready]
        try:
            topics = partition_counts(wait_for_broker(self._settings, timeout_s=_ASK_S))
        except StreamsError as error:
            for source in waiting:
                source.unready = str(error)
            return
        for source in waiting:
            missing = [topic for topic in (source.pipeline.source, source.pipeline.dlq) if topic not in topics]
            if missing:
                source.unready = f"there is no topic {' and no '.join(missing)}: run `streams topics apply`"
                continue
            try:
                source.use(self._registry.lookup(source.schema.subject, source.schema.text))
            except StreamsError as error:
                source.unready = str(error)
