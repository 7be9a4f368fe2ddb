"""Misfits in words: what was changed, who breaks, and how to change it compatibly."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from streams.schemas.catalog import SchemaVersion
from streams.schemas.gate.compatibility import Misfit
from streams.schemas.gate.findings import Direction, Finding, Rule, versions_in_words
from streams.schemas.located import ITEMS, VALUES, line_of

NEW_TOPIC: Final = "or make it a new version of the topic: `streams schemas new-version`"


def explained(new: SchemaVersion, old: int, misfit: Misfit, direction: Direction) -> Finding:
    """A misfit between a new version and an old one as a finding; backward, the new one is the reader."""
    message, fix = _in_words(misfit, direction)
    return Finding(
        subject=new.subject,
        version=new.version,
        rule=misfit.rule,
        message=message,
        fix=fix,
        field=field_shown(misfit.path),
        against=(old,),
        direction=direction,
        file=new.path,
        line=line_of(new.parsed, misfit.path),
    )


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that differ in the old version only, as one; who breaks is said of all of these versions."""
    groups: dict[Finding, list[int]] = {}
    for finding in findings:
        groups.setdefault(replace(finding, against=()), []).extend(finding.against)
    return [
        replace(finding, against=tuple(sorted(set(old))), breaks=finding.breaks or _breaks(finding, old))
        for finding, old in groups.items()
    ]


def field_shown(path: Sequence[str]) -> str:
    """`position.tags[].name` for ("position", "tags", "[]", "name")."""
    shown = ""
    for step in path:
        shown += step if step in {ITEMS, VALUES} or not shown else f".{step}"
    return shown


def _breaks(finding: Finding, old: Sequence[int]) -> str:
    versions = versions_in_words(old)
    if finding.direction is Direction.BACKWARD:
        return (
            f"stored events of {versions}, and producers that still send it: version {finding.version} cannot read them"
        )
    if finding.direction is Direction.FORWARD:
        return f"consumers that read with {versions}: they cannot read events of version {finding.version}"
    return ""


def _in_words(misfit: Misfit, direction: Direction) -> tuple[str, str]:
    """What is wrong, and what to do instead."""
    backward = direction is Direction.BACKWARD
    name = misfit.path[-1] if misfit.path else ""
    before, after = (misfit.writer, misfit.reader) if backward else (misfit.reader, misfit.writer)
    match misfit.rule:
        case Rule.MISSING_DEFAULT if backward:
            message = f"added without a default ({misfit.reader})"
            default = '"default": null' if misfit.reader.startswith("one of null") else "a default"
            fix = f"give {name} {default}"
            if misfit.other:
                fix += f'; if it is {misfit.other!r} under another name: "aliases": ["{misfit.other}"]'
        case Rule.MISSING_DEFAULT:
            message = f"removed, and it had no default ({misfit.reader})"
            fix = f"keep {name}; only a field that has a default in every older version can go"
        case Rule.MISSING_SYMBOLS:
            message = f"symbols {'removed' if backward else 'added'}: {misfit.other}"
            instead = "keep them" if backward else "let consumers upgrade first (BACKWARD)"
            fix = f"{instead}, or give the enum of the reading version a default symbol"
        case Rule.MISSING_BRANCH:
            message = f"{misfit.other} is {'no longer a' if backward else 'a new'} branch: {before} became {after}"
            fix = "keep the branches as they were"
        case Rule.NAME_MISMATCH:
            message = f"renamed: {before} became {after}"
            fix = f'keep the name, or add "aliases": ["{misfit.other}"] to the type' if backward else "keep the name"
        case Rule.SIZE_MISMATCH:
            message = f"{before} became {after}"
            fix = "a fixed type never changes its size: add a field beside it, with a default"
        case _ if "null" in {misfit.reader, misfit.writer} and misfit.path:
            kept = misfit.reader if misfit.writer == "null" else misfit.writer
            message = f"{'no longer' if backward else 'became'} nullable ({kept})"
            fix = f"leave {name} as it was"
        case _:
            message = f"{before} became {after}"
            fix = "keep the type, and add a field with the new one beside it, with a default"
    return message, f"{fix}; {NEW_TOPIC}"
