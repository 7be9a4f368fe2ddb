"""Schemas at run time: looks up those that the engine lacks, and waits while the registry is unavailable."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from streams.avro.decoded import Known
from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan
from streams.batch.rejects import Reason, Reject
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.limits import SCHEMA_LOOKUPS_AT_ONCE, UNKNOWN_SCHEMA_TTL_MS, UNKNOWN_SCHEMAS_MAX
from streams.resilience.breaker import BreakerOpen, Guard
from streams.resilience.retry import Backoff, Retrier
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, RegistryUnavailable, UnknownSchema
from streams.schemas.gate.row_schemas import unfit_rows
from streams.schemas.gate.usage import unmet_needs
from streams.schemas.plans import plan_or_reject

log = structlog.get_logger(__name__)

_BACKOFF: Final = Backoff(first_s=0.25, pause_s_max=10.0)


class SchemaLookup:
    """Looks up schemas by id or GUID, several at once in each round; remembers unknown ones for a while."""

    def __init__(self, registry: Registry, reader_schema: str, *, guard: Guard, retrier: Retrier) -> None:
        """`guard` is the registry's circuit breaker, shared by all that use the registry in this process."""
        self._registry = registry
        self._reader = reader_schema
        self._guard = guard
        self._retrier = retrier
        self._lock = threading.Lock()
        """Guards `_unknown_until`: written on the event loop, read by the core's thread."""
        self._unknown_until: dict[SchemaKey, float] = {}
        """By schema, until when it counts as unknown, the oldest entry first; bounded."""
        self._dropped: list[SchemaKey] = []

    async def resolve(self, keys: frozenset[SchemaKey], learned: Callable[[Known], object]) -> None:
        """Call `learned` with a plan or a reject for each schema, as soon as the registry answers.

        A registry that does not answer is asked again with growing pauses, for as long as it takes; while its breaker
        is open, records wait: only an answer makes one a dead letter.
        """
        waiting = iter(sorted(keys, key=_sort_key))

        async def look_up() -> None:
            for key in waiting:  # shared by all of them
                found = await self._retrier.call_async(
                    f"the schema registry does not answer: records with schema {key} wait, others flow",
                    lambda key=key: asyncio.to_thread(self._ask, key),  # type: ignore[misc]
                    passing=(RegistryUnavailable, BreakerOpen),
                    backoff=_BACKOFF,
                )
                if isinstance(found, Reject) and found.reason is Reason.UNKNOWN_SCHEMA:
                    self._note_unknown(key)
                learned({key: found})

        tasks = [asyncio.ensure_future(look_up()) for _ in range(min(SCHEMA_LOOKUPS_AT_ONCE, len(keys)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def expired(self) -> list[SchemaKey]:
        """Unknown schemas that are to be looked up again when next met; from any thread."""
        now = time.monotonic()
        with self._lock:
            due = [key for key, until in self._unknown_until.items() if until <= now]
            for key in due:
                del self._unknown_until[key]
            dropped, self._dropped = self._dropped, []
        return due + dropped

    def _note_unknown(self, key: SchemaKey) -> None:
        with self._lock:
            self._unknown_until.pop(key, None)
            self._unknown_until[key] = time.monotonic() + UNKNOWN_SCHEMA_TTL_MS / 1000
            while len(self._unknown_until) > UNKNOWN_SCHEMAS_MAX:
                oldest = next(iter(self._unknown_until))
                del self._unknown_until[oldest]
                self._dropped.append(oldest)

    def _ask(self, key: SchemaKey) -> Plan | Reject:
        return self._guard.call(lambda: plan_or_reject(self._registry, key, self._reader), failure=RegistryUnavailable)


class ExpiriesOfAll:
    """`streams.worker.ports.SchemaExpiry` over the look-ups of several inputs."""

    def __init__(self, lookups: Sequence[SchemaLookup]) -> None:
        self._lookups = lookups

    def expired(self) -> list[SchemaKey]:
        """Schemas that are to be looked up again when next met."""
        return [key for lookup in self._lookups for key in lookup.expired()]


def _sort_key(key: SchemaKey) -> tuple[bool, int, str]:
    """Sort key: ids in their order, then GUIDs."""
    return (False, key, "") if isinstance(key, int) else (True, 0, key)


def reader_schema(catalog: Catalog, pipeline: Pipeline) -> str:
    """The schema that a flow reads with: the newest committed one.

    Raises:
        StreamsError: it lacks a field that the flow reads, or has it of another type.

    """
    newest = catalog.latest(pipeline.subject)
    for finding in unmet_needs(newest, [pipeline]):
        raise StreamsError(f"{finding.file}: {finding.field}: {finding.message}; {finding.fix}")
    return newest.text


def reader_schemas(catalog: Catalog, pipeline: Pipeline) -> list[str]:
    """The schema that each input of a pipeline is read with, in their order.

    Raises:
        StreamsError: as `reader_schema`.

    """
    for one in pipeline.inputs:
        for finding in unmet_needs(catalog.latest(one.subject), [pipeline]):
            raise StreamsError(f"{finding.file}: {finding.field}: {finding.message}; {finding.fix}")
    return [catalog.latest(one.subject).text for one in pipeline.inputs]


def require_row_schemas(catalog: Catalog, pipeline: Pipeline) -> None:
    """Return if the rows of all tables and windows fit the newest committed schemas of their topics.

    Raises:
        StreamsError: they do not; the message names the field, what the fold gives and what the schema says.

    """
    for subject in dict.fromkeys(written.subject for written in pipeline.row_outputs):
        for finding in unfit_rows(catalog.latest(subject), [pipeline]):
            place = f"{finding.file}: {finding.field}" if finding.field else f"{finding.file}"
            raise StreamsError(f"{place}: {finding.message}; {finding.fix}")


def enum_symbols(schema: str, fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Symbols, in their order, of those of `fields` that are enums in a record schema."""
    named: dict[str, dict[str, Any]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for field in json.loads(schema)["fields"]:
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for kind in kinds:
            enum = named.get(kind) if isinstance(kind, str) else kind
            if isinstance(enum, dict) and enum.get("type") == "enum":
                named[enum["name"]] = enum
                if field["name"] in fields:
                    found[field["name"]] = tuple(enum["symbols"])
    return found


def table_schema_id(registry: Registry, subject: str, schema: str, *, guard: Guard, retrier: Retrier) -> int:
    """Id of a table's schema in the registry; waits, logging it, for a registry that does not answer.

    Raises:
        StreamsError: the schema is not registered, or the worker stops.

    """
    try:
        return retrier.call(
            "waiting for the schema registry",
            lambda: guard.call(lambda: registry.lookup(subject, schema), failure=RegistryUnavailable),
            passing=(RegistryUnavailable, BreakerOpen),
            backoff=_BACKOFF,
        )
    except (RegistryUnavailable, BreakerOpen):
        raise StreamsError("stopped while waiting for the schema registry") from None
    except UnknownSchema:
        raise StreamsError(f"{subject} is not registered: run `streams schemas register`") from None
