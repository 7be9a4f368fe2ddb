"""The committed schemas: `schemas/<subject>/<version>.avsc`, append-only, versions counted from 1 without gaps.

In a checkout `streams/schemas` is a symbolic link to the top-level folder; a wheel carries a copy of the files at the
same place (package data), so that both are found by the same path. `STREAMS_SCHEMAS_DIR` names another folder.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streams.errors import StreamsError, UsageError

SCHEMAS_DIR_VARIABLE: Final = "STREAMS_SCHEMAS_DIR"
SCHEMAS_DIR_DEFAULT: Final = Path(__file__).parent.parent / "schemas"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One committed version of a subject's schema."""

    subject: str
    version: int
    path: Path
    text: str
    """The file as it is: what gets registered."""
    parsed: dict[str, Any]


class Catalog:
    """Schemas by subject, versions ascending and contiguous from 1."""

    def __init__(self, versions: Mapping[str, tuple[SchemaVersion, ...]]) -> None:
        self._versions = dict(sorted(versions.items()))

    @classmethod
    def load(cls, directory: Path | None = None) -> "Catalog":
        """Read every schema below `directory` (default: `STREAMS_SCHEMAS_DIR`, else the committed ones).

        Raises:
            UsageError: there is no such folder, or no schema in it.
            StreamsError: a file or folder is not what it should be; the message names it.

        """
        root = directory or Path(os.environ.get(SCHEMAS_DIR_VARIABLE) or SCHEMAS_DIR_DEFAULT)
        if not root.is_dir():
            raise UsageError(f"no schemas: {root} is not a folder (set {SCHEMAS_DIR_VARIABLE})")
        root = root.resolve()
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        versions = {folder.name: _read_subject(folder) for folder in folders}
        if not versions:
            raise UsageError(f"no schemas: {root} has no folder <subject>/1.avsc (set {SCHEMAS_DIR_VARIABLE})")
        return cls(versions)

    def subjects(self) -> tuple[str, ...]:
        """Subjects in alphabetical order."""
        return tuple(self._versions)

    def versions(self, subject: str) -> tuple[SchemaVersion, ...]:
        """All versions of a subject, oldest first.

        Raises:
            UsageError: there is no such subject.

        """
        if subject not in self._versions:
            raise UsageError(f"no schema for subject {subject!r}: there is {', '.join(self._versions)}")
        return self._versions[subject]

    def latest(self, subject: str) -> SchemaVersion:
        """The newest version of a subject: the one that events are read and written with.

        Raises:
            UsageError: there is no such subject.

        """
        return self.versions(subject)[-1]


def _read_subject(folder: Path) -> tuple[SchemaVersion, ...]:
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        stem = path.stem
        if path.suffix != ".avsc" or not (stem.isascii() and stem.isdigit()) or stem != str(int(stem)) or stem == "0":
            raise StreamsError(f"{path}: a schema file is named <version>.avsc, such as 1.avsc")
        numbered[int(stem)] = path
    if not numbered:
        raise StreamsError(f"{folder}: no schema in it; the first one is 1.avsc")
    missing = next((number for number in range(1, max(numbered)) if number not in numbered), None)
    if missing is not None:
        raise StreamsError(f"{folder / f'{missing}.avsc'}: missing; versions count up from 1 without gaps")
    return tuple(_read_version(folder.name, number, numbered[number]) for number in sorted(numbered))


def _read_version(subject: str, version: int, path: Path) -> SchemaVersion:
    from fastavro.schema import SchemaParseException, UnknownType, parse_schema  # noqa: PLC0415 - start-up time

    try:
        text = path.read_text(encoding="utf-8")
        parsed = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise StreamsError(f"{path}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise StreamsError(f"{path}: not JSON: {error}") from None
    if not isinstance(parsed, dict) or parsed.get("type") != "record" or not parsed.get("fields"):
        raise StreamsError(f"{path}: the schema of a topic's values is an Avro record with fields")
    try:
        parse_schema(parsed)
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError) as error:
        raise StreamsError(f"{path}: not a valid Avro schema: {error!r}") from None
    return SchemaVersion(subject, version, path, text, parsed)
