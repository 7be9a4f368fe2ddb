"""Source records to the events of the load test's flows, by the decoder of `streams reconcile`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from loadtest import clients
from loadtest.oracle.events import AnyEvent
from streams.reconcile.model import decode as model
from streams.reconcile.model.decode import SchemaById, bad_header, plain_schema, too_large, unknown_schema
from streams.reconcile.model.events import Record
from streams.schemas.client import UnknownSchema

__all__ = [
    "SCHEMAS",
    "Decoder",
    "Record",
    "SchemaById",
    "bad_header",
    "newest_schema",
    "plain_schema",
    "registry_schemas",
    "too_large",
    "unknown_schema",
]

SCHEMAS: Final = Path(__file__).parents[2] / "schemas"


def registry_schemas(url: str) -> SchemaById:
    """Schemas of a registry by id, asked for once each; None for an id it does not have."""
    client = clients.registry(url)

    @cache
    def schema_by_id(schema_id: int) -> str | None:
        try:
            return client.schema_by_id(schema_id)
        except UnknownSchema:
            return None

    return schema_by_id


def newest_schema(subject: str) -> str:
    """Newest committed version of a subject, as JSON text."""
    versions = sorted((SCHEMAS / subject).glob("*.avsc"), key=lambda path: int(path.stem))
    return versions[-1].read_text(encoding="utf-8")


class Decoder(model.Decoder):
    """Framed records to events of one type or, where that fails, to `Reject` with the reason."""

    def __init__(self, schema_by_id: SchemaById, reader_schema: str, event: type[AnyEvent]) -> None:
        own = {*Record._fields, "raw"}
        attributes = [name for name in event._fields if name not in own]
        super().__init__(
            schema_by_id, reader_schema, [name.removesuffix("_ms") for name in attributes], _maker(event, attributes)
        )


def _maker(event: type[AnyEvent], attributes: list[str]) -> Callable[[Record, tuple[Any, ...]], AnyEvent]:
    places = [attributes.index(name) if name in attributes else -1 for name in event._fields]
    around = {"offset": 0, "timestamp_ms": 1, "key": 2, "raw": 3}
    order = [
        len(around) + place if place >= 0 else around[name] for name, place in zip(event._fields, places, strict=True)
    ]

    def make(record: Record, values: tuple[Any, ...]) -> AnyEvent:
        known = (*record, *values)
        return event(*[known[place] for place in order])

    return make
