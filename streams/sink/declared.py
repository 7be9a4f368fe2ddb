"""A declared sink with the committed schemas: columns, key, and whether deletions apply."""

from dataclasses import dataclass

from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.flow.topics import Cleanup
from streams.schemas.catalog import Catalog
from streams.schemas.personal import personal_of
from streams.sink.shape import columns_of, subset
from streams.sinks.spec import SinkSpec, dead_letters_of, group_of
from streams.sinks.target import TargetColumn


@dataclass(frozen=True, slots=True)
class DeclaredSink:
    """A sink as its process runs it."""

    spec: SinkSpec
    group: str
    dead_letters: str
    schema: str
    """Text of the newest committed schema of the topic: what records are read with."""
    columns: tuple[TargetColumn, ...]
    key: tuple[str, ...]
    """Empty: every record is a row."""
    has_tombstones: bool
    is_personal: bool = False
    """Whether rows hold personal data, which must not be quoted."""


def declared_sink(pipeline: Pipeline, spec: SinkSpec, catalog: Catalog) -> DeclaredSink:
    """The sink `spec` of a pipeline.

    Raises:
        UsageError: a field that it names is not in the schema of its topic; or what a row goes by is not known.

    """
    topic = next((each for each in pipeline.topics() if each.name == spec.topic), None)
    subject = (topic.subject if topic is not None else None) or pipeline.subject
    text = catalog.latest(subject).text
    columns = columns_of(text)
    is_table = topic is not None and topic.cleanup is Cleanup.COMPACT
    key = spec.key
    if not key and is_table:
        if pipeline.key_field not in {column.name for column in columns}:
            raise UsageError(
                f"sink {spec.name}: rows of {spec.topic} have no field {pipeline.key_field!r}, the key of the flow: "
                f"say which fields identify a row (key=...)"
            )
        key = (pipeline.key_field,)
    found = subset(columns, key, of=f"sink {spec.name}: {subject}")
    return DeclaredSink(
        spec=spec,
        group=group_of(spec, pipeline.prefix),
        dead_letters=dead_letters_of(spec, pipeline.prefix),
        schema=text,
        columns=columns,
        key=key,
        has_tombstones=is_table and len(found) == 1 and found[0].kind == "string",
        is_personal=bool(personal_of(catalog, subject) | personal_of(catalog, pipeline.subject)),
    )
