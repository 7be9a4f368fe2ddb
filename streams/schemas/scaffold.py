"""A new version of a topic, for a change that no new version of its schema can carry.

Two topics have no common order, and the state of a pipeline belongs to the partitions of one: so the new topic gets a
pipeline of its own, which runs beside the old one while producers move over. Both are read; each is exact by itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog, SubjectSettings
from streams.schemas.gate.findings import shown
from streams.schemas.gate.row_schemas import outputs

_VERSIONED: Final = re.compile(r"(?P<stem>.+)\.v(?P<number>[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Files of a new topic version, and what is to be done with them."""

    topic: str
    files: tuple[tuple[Path, str], ...]
    pipeline: str | None
    """Name of the new pipeline; None when the topic is the source of none."""
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


def plan_new_version(
    catalog: Catalog,
    topic: str,
    pipelines: Sequence[Pipeline],
    pipelines_dir: Path,
    constants: dict[str, tuple[str, str]],
) -> Scaffold:
    """What a new version of `topic` takes: copies of the newest schemas, and a pipeline declared from the old one.

    `constants` maps pipelines to (module, name) of their declarations.

    Raises:
        UsageError: the topic has no schema, is written by a pipeline, or its next version is there already.

    """
    subject, successor = f"{topic}-value", next_topic(topic)
    if subject not in catalog.subjects():
        topics = ", ".join(each.removesuffix("-value") for each in catalog.subjects())
        raise UsageError(f"no schema for topic {topic!r}: there is {topics}")
    writer = next((p for p in pipelines if topic in {t.topic for t in outputs(p)}), None)
    if writer is not None:
        raise UsageError(
            f"{topic} is written by pipeline {writer.name}: its rows change with their source; "
            f"`streams schemas new-version {writer.source}` gives them a new version too"
        )
    reader = next((p for p in pipelines if p.source == topic), None)
    moved = {topic: successor}
    if reader is not None:
        moved |= {t.topic: next_topic(t.topic) for t in outputs(reader)}
    files = [(catalog.root / f"{new}-value" / "1.avsc", _first_version(catalog, old)) for old, new in moved.items()]
    steps = [
        f"change {shown(files[0][0])}: it is a copy of the newest schema of {topic}",
        *_settings_steps(catalog, moved),
        "`streams schemas check`, then `streams schemas lock`, and commit",
    ]
    name = None
    if reader is not None:
        name = _next_name(reader.name, successor)
        module, constant = constants[reader.name]
        path = pipelines_dir / f"{name}.py"
        files.append((path, _declaration(reader, name, module, constant, moved)))
        steps += [
            f"fit {shown(path)} to the change (which fields it reads)",
            "`streams topics apply` creates the topics and registers the schemas",
            f"`streams worker` reads both topics, {reader.name} the old one, {name} the new one; move the producers",
            f"move the consumers of {reader.clean} to {successor}.clean",
            f"when nothing comes to {topic} any more, delete the declaration of {reader.name}",
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
            raise StreamsError(f"{path}: cannot be written: {error}; is this a checkout of the project?") from None


def _settings_steps(catalog: Catalog, moved: Mapping[str, str]) -> list[str]:
    """What `subjects.toml` says of the old subjects does not hold for the new ones until it says so of them too."""
    found = [f"{old}-value" for old in moved if catalog.settings(f"{old}-value") != SubjectSettings()]
    if not found:
        return []
    personal = any(catalog.settings(subject).personal for subject in found)
    why = ": personal fields are shown unmasked until then" if personal else ""
    return [f"repeat in subjects.toml for the new subjects what it says of {', '.join(found)}{why}"]


def _first_version(catalog: Catalog, topic: str) -> str:
    return catalog.latest(f"{topic}-value").text


def _next_name(name: str, topic: str) -> str:
    """`gps_v2` for `gps`, `gps_v3` for `gps_v2`."""
    number = topic.rpartition(".v")[2]
    return f"{re.sub(r'_v[0-9]+$', '', name)}_v{number}"


def _declaration(pipeline: Pipeline, name: str, module: str, constant: str, moved: dict[str, str]) -> str:
    """Source of the module that declares the new pipeline."""
    alias = module.rpartition(".")[2]
    old = f"{alias}.{constant}"
    lines = [
        f'"""{name}: {pipeline.name} for {moved[pipeline.source]}, beside it while producers move over.',
        "",
        f"All of `{pipeline.name}` but the topics. What the change of the schema asks for goes here, such as other",
        "`payload_fields`; what is not named stays as it is there.",
        '"""',
        "",
        "from dataclasses import replace",
        "",
        f"from {module.rpartition('.')[0]} import {alias}",
        "",
        f"{name.upper()} = replace(",
        f"    {old},",
        f'    name="{name}",',
        f'    source="{moved[pipeline.source]}",',
    ]
    written = {"tables": [t.topic for t in pipeline.tables], "windows": [w.topic for w in pipeline.windows]}
    for attribute, topics in written.items():
        made = [
            f'replace({old}.{attribute}[{position}], topic="{moved[topic]}")' for position, topic in enumerate(topics)
        ]
        if len(made) == 1:
            lines.append(f"    {attribute}=({made[0]},),")
        elif made:
            lines += [f"    {attribute}=(", *(f"        {each}," for each in made), "    ),"]
    return "\n".join([*lines, ")", ""])
