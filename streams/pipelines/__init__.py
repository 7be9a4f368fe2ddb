"""The declared pipelines: adding a stream is a file here and a schema, and no other change."""

from streams.errors import UsageError
from streams.pipelines.declaration import Pipeline
from streams.pipelines.gps import GPS

PIPELINES: dict[str, Pipeline] = {pipeline.name: pipeline for pipeline in (GPS,)}


def select_pipelines(names: list[str] | None) -> list[Pipeline]:
    """Pipelines by name; all of them when no name is given.

    Raises:
        UsageError: there is no such pipeline.

    """
    if not names:
        return list(PIPELINES.values())
    unknown = [name for name in names if name not in PIPELINES]
    if unknown:
        raise UsageError(f"no pipeline {unknown[0]!r}: there is {', '.join(PIPELINES)}")
    return [PIPELINES[name] for name in dict.fromkeys(names)]
