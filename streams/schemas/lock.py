"""`schemas/versions.lock`: a digest of each committed version. Versions are append-only.

One line for each version: subject, version, SHA-256 of the schema's JSON without its spacing and order of attributes.
It needs no git history and no registry, and it is reviewed like the schema itself: lines must never change.
"""

import hashlib
import json
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Final

from streams.errors import StreamsError
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.gate.findings import Finding, Rule

LOCK_FILE: Final = "versions.lock"
_LINE: Final = re.compile(r"(\S+) ([1-9][0-9]*) sha256:([0-9a-f]{64})")
_HEADER: Final = (
    "# What every committed version says. Written by `streams schemas lock`; lines are added, never changed.\n"
)

Lock = Mapping[tuple[str, int], str]
"""Digest of each committed version, by subject and version."""


def digest(text: str) -> str:
    """Digest of a schema's meaning as JSON, docs included: spacing and the order of attributes do not count."""
    canonical = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_lock(root: Path) -> dict[tuple[str, int], str]:
    """Read the lock file of a folder of schemas; empty if there is none.

    Raises:
        StreamsError: it cannot be read, or a line of it is none.

    """
    path = root / LOCK_FILE
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StreamsError(f"{path}: cannot be read: {error}; restore it from the history") from None
    found: dict[tuple[str, int], str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or (match[1], int(match[2])) in found:
            raise StreamsError(f"{path}:{number}: not a line of this file; restore it from the history")
        found[match[1], int(match[2])] = match[3]
    return found


def edited(catalog: Catalog, lock: Lock, subject: str) -> list[Finding]:
    """Versions of a subject that differ from their lock, and missing ones."""
    versions = {each.version: each for each in catalog.versions(subject)}
    found = [
        _edited(each)
        for each in versions.values()
        if (known := lock.get((subject, each.version))) is not None and known != digest(each.text)
    ]
    gone = sorted(number for name, number in lock if name == subject and number not in versions)
    return found + [_removed(catalog, subject, number) for number in gone]


def removed_subjects(catalog: Catalog, lock: Lock, known: Container[str]) -> list[Finding]:
    """Locked versions of subjects that are not among the `known` ones any more."""
    return [_removed(catalog, subject, number) for subject, number in sorted(lock) if subject not in known]


def unlocked(catalog: Catalog, lock: Lock, subject: str) -> list[SchemaVersion]:
    """Versions of a subject that are not in the lock yet."""
    return [each for each in catalog.versions(subject) if (subject, each.version) not in lock]


def write_lock(catalog: Catalog, lock: Lock) -> list[SchemaVersion]:
    """Add the versions that are not in the lock yet; lines that are there stay. Returns what was added.

    Raises:
        StreamsError: the file cannot be written.

    """
    added = [each for subject in catalog.subjects() for each in unlocked(catalog, lock, subject)]
    if added:
        rows = {**lock, **{(each.subject, each.version): digest(each.text) for each in added}}
        lines = [f"{subject} {version} sha256:{value}\n" for (subject, version), value in sorted(rows.items())]
        path = catalog.root / LOCK_FILE
        try:
            path.write_text(_HEADER + "".join(lines), encoding="utf-8")
        except OSError as error:
            raise StreamsError(f"{path}: cannot be written: {error}") from None
    return added


def _removed(catalog: Catalog, subject: str, version: int) -> Finding:
    return Finding(
        subject, version, Rule.REMOVED, "the file of a committed version is gone",
        breaks="whoever decodes events that were written with it", fix="restore it from the history",
        file=catalog.root / subject / f"{version}.avsc",
    )  # fmt: skip


def _edited(version: SchemaVersion) -> Finding:
    return Finding(
        version.subject, version.version, Rule.EDITED, "edited after it was committed",
        breaks="events that were written with what it said before",
        fix=f"restore the file, and put the change into a new version ({version.path.parent.name}/<next>.avsc)",
        file=version.path,
    )  # fmt: skip
