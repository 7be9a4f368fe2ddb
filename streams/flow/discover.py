"""The app that runs: which flows it declares, and where its schemas are.

An app is a module or package of a user's project, named by `--app` or `STREAMS_APP`; by default the logistics flows
that are shipped. It is imported from the working directory or from what is installed.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from streams.errors import UsageError
from streams.flow.builder import Flow
from streams.flow.checks import did_you_mean
from streams.flow.declaration import Pipeline, fed_from_outside
from streams.flow.fleet_map import FleetMap
from streams.flow.version import version_in
from streams.settings import variable
from streams.sinks.spec import SinkSpec

APP_VARIABLE: Final = "STREAMS_APP"
APP_DEFAULT: Final = "logistics"
FLOWS: Final = "flows"
"""Name of a module or package: if a package has one of this name, only that one is searched for flows."""
SCHEMAS: Final = "schemas"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declared:
    """A flow, and the module and name that declare it."""

    flow: Flow
    module: str
    constant: str


def app_in_force() -> str:
    """`MODULE[:NAME]` of the app: `STREAMS_APP`, else the logistics flows."""
    return variable(APP_VARIABLE) or APP_DEFAULT


def declared_flows(app: str | None = None) -> tuple[Declared, ...]:
    """Flows of an app, by default of the one in force: each after those whose outputs it reads, else by module.

    `MODULE` declares the flows that are values in it. A package declares those of its module or package `flows`, or, if
    it has none, those of all its modules. `MODULE:NAME` is one flow, or several in a tuple or list.

    Raises:
        UsageError: there is no such module or name, it cannot be imported, it declares no flow, or two of its flows
            have the same name, read or write the same topic, or read each other's outputs.

    """
    return _declared(app or app_in_force())


def flows(app: str | None = None) -> dict[str, Flow]:
    """Flows by name; raises as `declared_flows`."""
    return {each.flow.name: each.flow for each in declared_flows(app)}


def pipelines(app: str | None = None) -> dict[str, Pipeline]:
    """What the engine runs of each flow, by its name; raises as `declared_flows`."""
    return {name: flow.pipeline for name, flow in flows(app).items()}


def declared_values(kind: type[T], app: str | None = None) -> tuple[T, ...]:
    """Values of a type that an app's modules hold beside its flows, each once; by default of the app in force.

    Raises:
        UsageError: there is no such module, or it cannot be imported.

    """
    with_working_directory()
    found = (
        value
        for module in _modules(_imported(_module_name(app or app_in_force())))
        for value in vars(module).values()
        if isinstance(value, kind)
    )
    return tuple({id(value): value for value in found}.values())


def declared_map(*, prefix: str = "", app: str | None = None) -> FleetMap | None:
    """The fleet map that an app declares, by default the app in force; None: it declares none.

    Raises:
        UsageError: it declares several.

    """
    found = declared_values(FleetMap, app)
    if len(found) > 1:
        raise UsageError("the app declares several fleet maps: one of them can be shown")
    return found[0].with_prefix(prefix) if found else None


def select_flow(name: str) -> Flow:
    """The flow of this name.

    Raises:
        UsageError: there is none; the message names those that there are.

    """
    found = flows()
    if name not in found:
        raise UsageError(f"no flow {name!r}: there is {', '.join(found)}{did_you_mean(name, found)}")
    return found[name]


def select_pipelines(names: list[str] | None, *, prefix: str = "") -> list[Pipeline]:
    """Flows by name, each with the stages before it; all of them when no name is given.

    `prefix`: what their topics and groups begin with. A name may be that of a version: `gps.run.v2`.

    Raises:
        UsageError: there is no such flow, or as `declared_flows`.

    """
    declared = flows()
    found = {name: flow.pipeline for name, flow in declared.items()}
    if not names:
        names = list(found)
    parted = [version_in(name) for name in names]
    unknown = [name for name, (flow, _) in zip(names, parted, strict=True) if flow not in found]
    if unknown:
        raise UsageError(f"no flow {unknown[0]!r}: there is {', '.join(found)}")
    staged = [
        (stage.name, version)
        for name, version in parted
        for stage in (*(() if version else declared[name].stages), declared[name])
    ]
    return [found[name].with_prefix(prefix).as_version(version) for name, version in dict.fromkeys(staged)]


def select_fed(*, prefix: str = "") -> list[Pipeline]:
    """Flows that read topics from outside: all but those that read the output of another flow or of an earlier stage.

    Raises:
        UsageError: as `select_pipelines`.

    """
    found = fed_from_outside(select_pipelines(None, prefix=prefix))
    return [pipeline for pipeline in found if not pipeline.source_is_internal]


def select_sink(name: str, *, prefix: str = "") -> tuple[Pipeline, SinkSpec]:
    """The sink of this name, and the pipeline that declares it; `prefix`: what topics and groups begin with.

    Raises:
        UsageError: there is none; the message names those that there are.

    """
    found = {
        sink.name: (pipeline, sink) for pipeline in select_pipelines(None, prefix=prefix) for sink in pipeline.sinks
    }
    if name not in found:
        known = f"there is {', '.join(found)}" if found else "the app declares none: .to(postgres(...))"
        raise UsageError(f"no sink {name!r}: {known}{did_you_mean(name, found)}")
    return found[name]


def app_schemas_dir(app: str | None = None) -> Path:
    """Folder of the app's schemas: `schemas` in its package (as installed), else beside it (a project).

    Nothing is imported for it, and it need not exist.

    Raises:
        UsageError: there is no such module.

    """
    top = _module_name(app or app_in_force()).partition(".")[0]
    with_working_directory()
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise UsageError(_no_module(top))
    if not spec.submodule_search_locations:
        return Path(spec.origin or ".").absolute().parent / SCHEMAS
    package = Path(next(iter(spec.submodule_search_locations))).absolute()
    inside = package / SCHEMAS
    return inside if inside.is_dir() else package.parent / SCHEMAS


def with_working_directory() -> None:
    """Make modules of the working directory importable, after installed ones, so that none of those is hidden."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


@lru_cache(maxsize=8)
def _declared(app: str) -> tuple[Declared, ...]:
    with_working_directory()
    name, _, constant = app.partition(":")
    root = _imported(_module_name(app))
    found = [_named(root, constant)] if constant else [_of_module(module) for module in _modules(root)]
    by_name: dict[str, Declared] = {}
    sinks: dict[str, str] = {}
    for each in (stage for part in found for one in part for stage in _staged(one)):
        if (known := by_name.get(each.flow.name)) is not None:
            if known.flow is each.flow:
                continue  # imported from where it is declared, to declare another one like it
            raise UsageError(f"two flows are called {each.flow.name!r}: {known.module} and {each.module} declare them")
        for sink in each.flow.pipeline.sinks:
            if sink.name in sinks:
                raise UsageError(f"{sinks[sink.name]} and {each.flow.name} both declare a sink {sink.name!r}")
            sinks[sink.name] = each.flow.name
        by_name[each.flow.name] = each
    if not by_name:
        raise UsageError(f"{name} declares no flow: a module of it holds flow = Flow(...)")
    return _writers_first(list(by_name.values()))


def _staged(declared: Declared) -> list[Declared]:
    """A flow after the stages that come before it."""
    return [replace(declared, flow=flow) for flow in (*declared.flow.stages, declared.flow)]


def _writers_first(found: list[Declared]) -> tuple[Declared, ...]:
    """The flows, each after those whose outputs it reads, else in their order.

    Raises:
        UsageError: two flows read the same topic, write the same one, or read each other's outputs.

    """
    written: dict[str, str] = {}
    readers: dict[str, str] = {}
    for each in found:
        pipeline = each.flow.pipeline
        read = [one.topic for one in pipeline.inputs]
        own = [one.name for one in pipeline.topics() if one.name not in read]
        for known, name in (*((readers, name) for name in read), *((written, name) for name in own)):
            if name in known:
                raise UsageError(f"{known[name]} and {each.flow.name} both declare the topic {name}")
            known[name] = each.flow.name
    ordered: dict[str, Declared] = {}
    while waiting := [each for each in found if each.flow.name not in ordered]:
        ready = [each for each in waiting if _givers(each, written) <= ordered.keys()]
        if not ready:
            names = " and ".join(each.flow.name for each in waiting)
            raise UsageError(f"{names} read each other's outputs: none of them can be the first")
        ordered[ready[0].flow.name] = ready[0]
    return tuple(ordered.values())


def _givers(each: Declared, written: Mapping[str, str]) -> set[str]:
    """Names of other flows whose outputs a flow reads."""
    return {written[one.topic] for one in each.flow.pipeline.inputs if one.topic in written} - {each.flow.name}


def _module_name(app: str) -> str:
    name = app.partition(":")[0]
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{app!r} is no app: MODULE or MODULE:NAME, such as mycompany.flows")
    return name


def _no_module(name: str) -> str:
    return f"no app: no module {name!r} here ({Path.cwd()}) or installed; name yours by --app or {APP_VARIABLE}"


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(_no_module(error.name)) from None
        raise UsageError(f"the app {name} cannot be imported: {error}") from error
    except (ImportError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, NameError) as error:
        raise UsageError(f"the app {name} cannot be imported: {_where(error)}{error}") from error


def _where(error: BaseException) -> str:
    """File and line of the app at which an import failed."""
    at = error.__traceback__
    place = ""
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        if not file.startswith("<") and Path(__file__).parents[1] not in Path(file).parents:
            place = f"{file}:{at.tb_lineno}: "
        at = at.tb_next
    return place


def _modules(root: ModuleType) -> Iterator[ModuleType]:
    """Modules of an app that may declare flows."""
    if not hasattr(root, "__path__"):
        yield root
        return
    names = sorted(module.name for module in pkgutil.iter_modules(root.__path__))
    if FLOWS in names:
        yield from _modules(_imported(f"{root.__name__}.{FLOWS}"))
        return
    yield root
    for name in names:
        if name != "__main__":
            yield _imported(f"{root.__name__}.{name}")


def _of_module(module: ModuleType) -> list[Declared]:
    return [Declared(value, module.__name__, name) for name, value in vars(module).items() if isinstance(value, Flow)]


def _named(module: ModuleType, name: str) -> list[Declared]:
    value: Any = getattr(module, name, None)
    if value is None:
        raise UsageError(f"{module.__name__} has no {name!r}{did_you_mean(name, vars(module))}")
    values: Iterable[Any] = value if isinstance(value, tuple | list) else (value,)
    found = [Declared(each, module.__name__, name) for each in values if isinstance(each, Flow)]
    if not found:
        raise UsageError(f"{module.__name__}:{name} is no flow, but a {type(value).__name__}")
    return found
