"""Schemas at run time: asks the registry for what the engine does not know, and waits out its absence."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.limits import UNKNOWN_SCHEMA_TTL_MS
from streams.operators.decode import Known
from streams.operators.rejects import Reason, Reject
from streams.operators.resolve import IncompatibleSchema, Plan, build_plan
from streams.registry.client import Registry, RegistryUnavailable, UnknownSchema

log = structlog.get_logger(__name__)

_BACKOFF_S_MAX: Final = 10.0


class SchemaLookup:
    """Looks schema ids up, one round at a time; unknown ids are remembered for a while."""

    def __init__(self, registry: Registry, reader_schema: str) -> None:
        self._registry = registry
        self._reader = reader_schema
        self._unknown_until: dict[int, float] = {}

    async def resolve(self, schema_ids: frozenset[int], learned: Callable[[Known], object]) -> None:
        """Call `learned` with a plan or a reject for each id, as soon as the registry answers.

        A registry that does not answer is asked again with growing pauses, for as long as it takes.
        """
        for schema_id in sorted(schema_ids):
            delay_s = 0.25
            while True:
                try:
                    found = await asyncio.to_thread(self._ask, schema_id)
                    break
                except RegistryUnavailable as error:
                    log.warning(
                        "the schema registry does not answer: records with this schema wait, others flow",
                        schema_id=schema_id, retry_in_s=round(delay_s, 2), error=str(error),
                    )  # fmt: skip
                    await asyncio.sleep(delay_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
                    delay_s = min(delay_s * 2, _BACKOFF_S_MAX)
            learned({schema_id: found})

    def expired(self) -> list[int]:
        """Unknown ids that are to be asked for again when they are next met."""
        now = time.monotonic()
        due = [schema_id for schema_id, until in self._unknown_until.items() if until <= now]
        for schema_id in due:
            del self._unknown_until[schema_id]
        return due

    def _ask(self, schema_id: int) -> Plan | Reject:
        try:
            return build_plan(schema_id, self._registry.schema_by_id(schema_id), self._reader)
        except UnknownSchema:
            self._unknown_until[schema_id] = time.monotonic() + UNKNOWN_SCHEMA_TTL_MS / 1000
            return Reject(-1, Reason.UNKNOWN_SCHEMA, f"the registry has no schema with id {schema_id}", schema_id)
        except IncompatibleSchema as error:
            return Reject(-1, Reason.INCOMPATIBLE_SCHEMA, str(error), schema_id)


def table_schema_id(registry: Registry, subject: str, schema: str, stopping: Callable[[], bool]) -> int:
    """Id of a table's schema in the registry; waits, aloud, for a registry that does not answer.

    Raises:
        StreamsError: the schema is not registered, or the worker stops.

    """
    delay_s = 0.5
    while True:
        try:
            return registry.lookup(subject, schema)
        except RegistryUnavailable as error:
            if stopping():
                raise StreamsError("stopped while waiting for the schema registry") from None
            log.warning("waiting for the schema registry", retry_in_s=delay_s, error=str(error))
            time.sleep(delay_s)
            delay_s = min(delay_s * 2, _BACKOFF_S_MAX)
        except UnknownSchema:
            raise StreamsError(f"{subject} is not registered: run `streams schemas register`") from None
