"""What the target of a declared sink holds. The library of a target is imported here, when it is used."""

from streams.errors import UsageError
from streams.settings import Settings
from streams.sink.declared import DeclaredSink
from streams.sink.reconcile.held import Held
from streams.sink.targets import delta_url, missing_extra, postgres_url
from streams.sinks.spec import DeltaSpec, PostgresSpec


def held_of(sink: DeclaredSink, settings: Settings, topic_id: str) -> Held:
    """What a sink's target holds now; `topic_id`: the id that Kafka gave the topic.

    Raises:
        UsageError: it keeps no rows that could be read; or a library or a variable is missing.
        StreamsError: it cannot be had.

    """
    match sink.spec:
        case PostgresSpec() as spec:
            url = postgres_url(spec, settings)
            try:
                from streams.sink.reconcile.held_postgres import PostgresHeld
            except ImportError as error:
                raise missing_extra("postgres", error) from None
            return PostgresHeld(url, sink=spec.name, topic_id=topic_id, table=spec.table, columns=sink.columns)
        case DeltaSpec() as spec:
            try:
                from streams.sink.reconcile.held_delta import DeltaHeld
            except ImportError as error:
                raise missing_extra("delta", error) from None
            return DeltaHeld(
                delta_url(spec, settings), sink=spec.name, topic_id=topic_id, columns=sink.columns, day_of=spec.day_of
            )
        case spec:
            raise UsageError(f"sink {spec.name}: its target ({spec.kind}) keeps no rows that could be compared")
