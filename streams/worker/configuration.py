"""Configuration of a flow's tasks, for its workers and for commands that read or write its state."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from streams.avro.native import choose
from streams.engine.config import Stopwatch, TaskConfig
from streams.flow.declaration import Pipeline
from streams.kafka.partitioner import partitions_of
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.worker.schemas import enum_symbols, reader_schema, reader_schemas


def _symbols(catalog: Catalog, pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Enum symbols by field, for `TaskConfig.symbols`."""
    first, *further = pipeline.inputs
    found = enum_symbols(reader_schema(catalog, pipeline), first.payload_fields)
    for one, schema in zip(further, reader_schemas(catalog, pipeline)[1:], strict=True):
        found |= {one.named(name): symbols for name, symbols in enum_symbols(schema, one.payload_fields).items()}
    return found


@contextmanager
def _untimed(_: str) -> Iterator[None]:
    yield


def config_of(
    pipeline: Pipeline,
    settings: Settings,
    partitions: int,
    *,
    catalog: Catalog,
    stopwatch: Stopwatch = _untimed,
    seed: int = 0,
) -> TaskConfig:
    """Configuration of the tasks of a flow whose state is divided into `partitions`.

    That number decides which partition a key belongs to. If the source got more partitions since then, the new ones are
    refused, and a key belongs to the partition that has its state. Bounds are the flow's, where the environment does
    not override them.
    """
    native = choose(settings.streams_native).native
    return TaskConfig(
        pipeline=pipeline.under(settings),
        stopwatch=stopwatch,
        partitions_of=partial(partitions_of, partitions=partitions),
        seed=seed,
        add_ids=None if native is None else native.library.ids_add,
        key_map=None if native is None else native.library.KeyMap,
        symbols=_symbols(catalog, pipeline),
    )
