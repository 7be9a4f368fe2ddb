"""Makes the target of a declared sink. Libraries of targets are imported here, when they are used."""

import importlib
from collections.abc import Callable, Collection, Mapping
from types import ModuleType

from streams.errors import UsageError
from streams.settings import Settings
from streams.sink.declared import DeclaredSink
from streams.sinks.http.target import HttpTarget
from streams.sinks.spec import DeltaSpec, HttpSpec, PostgresSpec
from streams.sinks.target import Target


def target_of(
    sink: DeclaredSink,
    settings: Settings,
    *,
    topic_id: str,
    committed: Callable[[Collection[int]], Mapping[int, int]],
) -> Target:
    """The target, not yet connected.

    `topic_id`: the id that Kafka gave the topic. `committed`: offsets of the sink's group, for targets that keep none.

    Raises:
        UsageError: a library or a variable is missing, or cannot be used.

    """
    match sink.spec:
        case PostgresSpec() as spec:
            return _postgres(sink, spec, settings, topic_id)
        case DeltaSpec() as spec:
            return _delta(sink, spec, settings, topic_id)
        case HttpSpec() as spec:
            return HttpTarget(
                spec.url, sink=spec.name, topic=spec.topic, committed=committed, key=sink.key, rows_max=spec.rows_max,
                rate=spec.rate, headers=dict(spec.headers), token=lambda: settings.secret("STREAMS_HTTP_SINK_TOKEN"),
                masks_words=sink.is_personal,
            )  # fmt: skip
        case spec:
            raise UsageError(f"sink {spec.name}: there is no target {spec.kind}")


def _postgres(sink: DeclaredSink, spec: PostgresSpec, settings: Settings, topic_id: str) -> Target:
    try:
        from streams.sinks.postgres.target import PostgresTarget, check_url
    except ImportError as error:
        raise missing_extra("postgres", error) from None
    check_url(postgres_url(spec, settings))
    return PostgresTarget(
        lambda: settings.secret("STREAMS_POSTGRES_URL") or "", sink=spec.name, topic=spec.topic, topic_id=topic_id,
        table=spec.table, columns=sink.columns, key=sink.key, masks_values=sink.is_personal,
    )  # fmt: skip


def postgres_url(spec: PostgresSpec, settings: Settings) -> str:
    """The database of a sink.

    Raises:
        UsageError: none is named.

    """
    url = settings.secret("STREAMS_POSTGRES_URL")
    if url is None:
        raise UsageError(f"sink {spec.name}: STREAMS_POSTGRES_URL names no database: postgresql://user@host/database")
    return url


def _delta(sink: DeclaredSink, spec: DeltaSpec, settings: Settings, topic_id: str) -> Target:
    try:
        from streams.sinks.delta.target import DeltaTarget
    except ImportError as error:
        raise missing_extra("delta", error) from None
    return DeltaTarget(
        delta_url(spec, settings), sink=spec.name, topic_id=topic_id, columns=sink.columns, key=sink.key,
        day_of=spec.day_of, masks_values=sink.is_personal,
    )  # fmt: skip


def delta_upkeep() -> ModuleType:
    """The module that keeps Delta tables in order: `streams.sinks.delta.maintenance`.

    Raises:
        UsageError: the extra is missing.

    """
    try:
        return importlib.import_module("streams.sinks.delta.maintenance")
    except ImportError as error:
        raise missing_extra("delta", error) from None


def delta_url(spec: DeltaSpec, settings: Settings) -> str:
    """Where a Delta table is: below `STREAMS_DELTA_URL`, else below `delta` in the data directory."""
    root = settings.streams_delta_url or str((settings.streams_data_dir / "delta").absolute())
    return f"{root.rstrip('/')}/{spec.path}"


def missing_extra(extra: str, error: ImportError) -> UsageError:
    """What to install."""
    return UsageError(f"sinks into {extra} need more ({error.name}): pip install 'logistics-streams[{extra}]'")
