"""Scaffolds a new version of a topic, for a change that no new version of its schema can carry.

Two topics have no common order, and the state of a flow belongs to the partitions of one. So the new topic gets a flow
of its own, which runs beside the old one while producers move over; each flow is exact by itself.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import FLOWS, Declared
from streams.schemas.catalog import Catalog, SubjectSettings
from streams.schemas.gate.findings import shown

_VERSIONED: Final = re.compile(r"(?P<stem>.+)\.v(?P<number>[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Files of a new topic version, and what is to be done with them."""

    topic: str
    files: tuple[tuple[Path, str], ...]
    pipeline: str | None
    """Name of the new flow; None when the topic is the source of none."""
    next_steps: tuple[str, ...]


def next_topic(topic: str) -> str:
    """`gps.positions.v2` for `gps.positions.v1`.

    Raises:
        UsageError: the topic's name ends with no version.

    """
    match = _VERSIONED.fullmatch(topic)
    if match is None:
        raise UsageError(f"{topic!r} has no version in its name: a topic is called <name>.v<number>")
    return f"{match['stem']}.v{int(match['number']) + 1}"


def plan_new_version(catalog: Catalog, topic: str, declared: Sequence[Declared]) -> Scaffold:
    """The files of a new version of `topic`: copies of the newest schemas, and a flow derived from the old one.

    The flow is written beside the module that declares the old one. An output that was declared with a subject of
    another name than its topic's keeps it: both flows write rows by the same schema.

    Raises:
        UsageError: the topic has no schema, is written by a flow, or its next version is there already.

    """
    successor = next_topic(topic)
    for each in declared:
        pipeline = each.flow.pipeline
        if topic in {written.topic for written in pipeline.row_outputs}:
            raise UsageError(
                f"{topic} is written by flow {pipeline.name}: its rows change with their source; "
                f"`streams schemas new-version {pipeline.source}` gives them a new version too"
            )
    if _subject_of(topic) not in catalog.subjects():
        topics = ", ".join(each.removesuffix("-value") for each in catalog.subjects())
        raise UsageError(f"no schema for topic {topic!r}: there is {topics}")
    reader = next((each for each in declared if each.flow.pipeline.source == topic), None)
    rows = () if reader is None else reader.flow.pipeline.row_outputs
    moved = {topic: successor} | {written.topic: next_topic(written.topic) for written in rows}
    shared = {written.topic: written.subject for written in rows if written.subject != _subject_of(written.topic)}
    anew = {old: new for old, new in moved.items() if old not in shared}
    files = [
        (catalog.root / _subject_of(new) / "1.avsc", catalog.latest(_subject_of(old)).text) for old, new in anew.items()
    ]
    steps = [
        f"change {shown(files[0][0])}: it is a copy of the newest schema of {topic}",
        *(
            f"rows of {moved[old]} keep the subject {subject}, as those of {old}: where they change, so does its schema"
            for old, subject in shared.items()
        ),
        *_settings_steps(catalog, anew),
        "`streams schemas check`, then `streams schemas lock`, and commit",
    ]
    name = None
    if reader is not None:
        old = reader.flow
        name = _next_name(old.name, successor)
        path = _directory_of(reader.module) / f"{name}.py"
        files.append((path, _declaration(reader, name, _with_events(old.pipeline, moved))))
        steps += [
            f"fit {shown(path)} to the change (which fields it reads)",
            *_module_steps(reader, name),
            "`streams topics apply` creates the topics and registers the schemas",
            f"`streams worker` reads both topics, {old.name} the old one, {name} the new one; move the producers",
            f"move the consumers of {old.pipeline.clean} to {_with_events(old.pipeline, moved)[old.pipeline.clean]}",
            f"when nothing comes to {topic} any more, delete the declaration of {old.name}",
        ]
    for path, _ in files:
        if path.exists() or (path.suffix == ".avsc" and path.parent.exists()):
            raise UsageError(f"{path if path.exists() else path.parent} is there already: nothing was written")
    return Scaffold(successor, tuple(files), name, tuple(steps))


def write_scaffold(scaffold: Scaffold) -> None:
    """Write the files; existing ones are never touched.

    Raises:
        StreamsError: one cannot be written; the message names it.

    """
    for path, text in scaffold.files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StreamsError(f"{path}: cannot be written: {error}; run it in a checkout of the project") from None


def _settings_steps(catalog: Catalog, moved: Mapping[str, str]) -> list[str]:
    """Settings in `subjects.toml` that have to be repeated for the new subjects."""
    found = [_subject_of(old) for old in moved if catalog.settings(_subject_of(old)) != SubjectSettings()]
    if not found:
        return []
    personal = any(catalog.settings(subject).personal for subject in found)
    why = ": personal fields are shown unmasked until then" if personal else ""
    return [f"repeat in subjects.toml for the new subjects what it says of {', '.join(found)}{why}"]


def _subject_of(topic: str) -> str:
    return f"{topic}-value"


def _next_name(name: str, topic: str) -> str:
    """`gps_v2` for `gps`, `gps_v3` for `gps_v2`."""
    number = topic.rpartition(".v")[2]
    return f"{re.sub(r'_v[0-9]+$', '', name)}_v{number}"


def _with_events(pipeline: Pipeline, moved: Mapping[str, str]) -> dict[str, str]:
    """The topics that move, those of events as they came too; that of late ones follows from the source's."""
    source, found = pipeline.source, dict(moved)
    for topic in pipeline.event_outputs:
        if topic.startswith(f"{source}."):
            found[topic] = moved[source] + topic.removeprefix(source)
        else:
            found[topic] = next_topic(topic)
    del found[pipeline.late]
    return found


def _directory_of(module: str) -> Path:
    return Path(sys.modules[module].__file__ or ".").parent


def _module_steps(reader: Declared, name: str) -> list[str]:
    """For an app that is a single module, the import of the new one."""
    package = reader.module.rpartition(".")[0]
    if package and package.rpartition(".")[2] == FLOWS:
        return []
    line = f"from {package} import {name}" if package else f"import {name}"
    return [f"import its flow in {reader.module}, the only module that is looked at: {line}, then {name}.flow"]


def _declaration(reader: Declared, name: str, moved: Mapping[str, str]) -> str:
    """Source of the module that declares the new flow."""
    package, _, alias = reader.module.rpartition(".")
    old = f"{alias}.{reader.constant}"
    before = reader.flow.pipeline
    topics = [f'        "{topic}": "{successor}",' for topic, successor in moved.items()]
    return "\n".join(
        [
            f'"""{name}: {before.name} for {moved[before.source]}, beside it while producers move over.',
            "",
            f"All of `{before.name}` but the topics. Where the change of the schema asks for more, such as other",
            "fields, declare a new flow from `source(...)` here.",
            '"""',
            "",
            f"from {package} import {alias}" if package else f"import {alias}",
            "",
            f"flow = {old}.with_topics(",
            f'    "{name}",',
            "    {",
            *topics,
            "    },",
            ")",
            "",
        ]
    )
