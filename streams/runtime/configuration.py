"""Configuration of the tasks of a flow, for commands that work on its state outside a worker."""

from collections.abc import Iterator
from contextlib import contextmanager

from streams.engine.task import TaskConfig
from streams.kafka.partitioner import partition_of
from streams.operators.declaration import Pipeline
from streams.registry.catalog import Catalog
from streams.runtime.schemas import enum_symbols, reader_schema
from streams.settings import Settings


def config_of(pipeline: Pipeline, settings: Settings, partitions: int) -> TaskConfig:
    """Configuration of the tasks of a flow outside a worker."""
    reader = reader_schema(Catalog.load(), pipeline)
    return TaskConfig(
        pipeline=pipeline,
        lateness_ms=settings.streams_lateness_ms,
        horizon_ms=settings.streams_dedup_horizon_ms,
        stopwatch=lambda _: _nothing(),
        partition_of=lambda key: partition_of(key, partitions),
        quarantine_rejects_max=settings.streams_quarantine_rejects,
        quarantine_cooldown_ms=settings.streams_quarantine_cooldown_ms,
        symbols=enum_symbols(reader, pipeline.payload_fields),
    )


@contextmanager
def _nothing() -> Iterator[None]:
    yield
