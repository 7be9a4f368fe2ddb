"""The declared pipelines: those of every module in the package of flows."""

import importlib
import pkgutil
from typing import Final

from streams.errors import UsageError
from streams.flow.declaration import Pipeline

FLOWS: Final = "logistics.flows"


def _declared() -> dict[str, Pipeline]:
    """Pipelines of all modules here, by name.

    Raises:
        TypeError: a module declares none.
        ValueError: two have the same name, or a topic in common.

    """
    found: dict[str, Pipeline] = {}
    topics: dict[str, str] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(FLOWS).__path__)):
        module = importlib.import_module(f"{FLOWS}.{name}")
        declared = [value for value in vars(module).values() if isinstance(value, Pipeline)]
        if not declared:
            raise TypeError(f"{module.__name__} declares no Pipeline")
        for pipeline in declared:
            if found.get(pipeline.name) is pipeline:
                continue  # imported from where it is declared, to declare another one like it
            if pipeline.name in found:
                raise ValueError(f"two pipelines are called {pipeline.name!r}")
            for topic in pipeline.topics():
                if topic.name in topics:
                    raise ValueError(f"{topics[topic.name]} and {pipeline.name} both declare the topic {topic.name}")
                topics[topic.name] = pipeline.name
            found[pipeline.name] = pipeline
    return found


PIPELINES: dict[str, Pipeline] = _declared()


def declarations() -> dict[str, tuple[str, str]]:
    """Module and constant that declare each pipeline, by its name."""
    found: dict[str, tuple[str, str]] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(FLOWS).__path__)):
        module = importlib.import_module(f"{FLOWS}.{name}")
        for constant, value in vars(module).items():
            if isinstance(value, Pipeline):
                found.setdefault(value.name, (module.__name__, constant))
    return found


def select_pipelines(names: list[str] | None, *, prefix: str = "") -> list[Pipeline]:
    """Pipelines by name; all of them when no name is given. `prefix`: what their topics and groups begin with.

    Raises:
        UsageError: there is no such pipeline.

    """
    if not names:
        names = list(PIPELINES)
    unknown = [name for name in names if name not in PIPELINES]
    if unknown:
        raise UsageError(f"no pipeline {unknown[0]!r}: there is {', '.join(PIPELINES)}")
    return [PIPELINES[name].with_prefix(prefix) for name in dict.fromkeys(names)]
