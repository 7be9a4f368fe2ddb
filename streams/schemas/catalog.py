"""The committed schemas: `schemas/<subject>/<version>.avsc`, append-only, versions counted from 1 without gaps.

`schemas/subjects.toml`, if it exists, has the exceptions: a subject's compatibility mode, fields exempt from a rule of
lint, and fields with personal data.

They belong to an app (`streams.flow.discover`): they are in the folder `schemas` of its package, as package data of
what is installed, or beside it, in a project. `STREAMS_SCHEMAS_DIR` names another folder.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from streams.errors import StreamsError, UsageError
from streams.flow.discover import app_schemas_dir
from streams.schemas.gate.findings import Finding, Rule
from streams.schemas.gate.modes import MODE_DEFAULT, Mode
from streams.schemas.located import Located, located
from streams.settings import variable

SCHEMAS_DIR_VARIABLE: Final = "STREAMS_SCHEMAS_DIR"
SUBJECTS_FILE: Final = "subjects.toml"
_BYTE_ORDER_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One committed version of a subject's schema."""

    subject: str
    version: int
    path: Path
    text: str
    """The unchanged text of the file, which is registered."""
    parsed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SubjectSettings:
    """Settings of a subject in `subjects.toml`."""

    compatibility: Mode = MODE_DEFAULT
    lint_ignore: frozenset[str] = frozenset()
    """Exempted rules, each with the field: `unit_suffix:odometer`; a rule alone applies nowhere."""
    personal: frozenset[str] = frozenset()
    """Names of fields, of any version and at any depth, that hold personal data. A field's own `"pii": true` says so of
    one version, which cannot be changed once it is locked."""


class Catalog:
    """Schemas by subject, versions ascending and contiguous from 1."""

    def __init__(
        self,
        versions: Mapping[str, tuple[SchemaVersion, ...]],
        *,
        root: Path | None = None,
        settings: Mapping[str, SubjectSettings] | None = None,
    ) -> None:
        self._versions = dict(sorted(versions.items()))
        self._settings = settings or {}
        self.root = root or Path()
        """The folder that holds the subjects' folders."""

    @classmethod
    def load(cls, directory: Path | None = None) -> "Catalog":
        """Read every schema below `directory` (default: `STREAMS_SCHEMAS_DIR`, else those of the app).

        Raises:
            UsageError: there is no such folder, or no schema in it.
            StreamsError: a file or folder is not what it should be; the message names it.

        """
        catalog, broken = cls.read(directory)
        for finding in broken:
            raise StreamsError(f"{finding.file}: {finding.message}")
        return catalog

    @classmethod
    def read(cls, directory: Path | None = None) -> tuple["Catalog", list[Finding]]:
        """Like `load`, but a file that is no schema is a finding; its subject is left out.

        Raises:
            UsageError: there is no such folder, or no schema in it.
            StreamsError: a file or folder has not the name that it should have.

        """
        root = schemas_dir(directory)
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not folders:
            raise UsageError(f"no schemas: {root} has no folder <subject>/1.avsc (set {SCHEMAS_DIR_VARIABLE})")
        versions: dict[str, tuple[SchemaVersion, ...]] = {}
        broken: list[Finding] = []
        for folder in folders:
            read = _read_subject(folder)
            wrong = [each for each in read if isinstance(each, Finding)]
            broken += wrong
            if not wrong:
                versions[folder.name] = tuple(each for each in read if isinstance(each, SchemaVersion))
        settings = _read_settings(root / SUBJECTS_FILE, frozenset(folder.name for folder in folders))
        return cls(versions, root=root, settings=settings), broken

    def settings(self, subject: str) -> SubjectSettings:
        """Settings of a subject; the defaults if there are none."""
        return self._settings.get(subject, SubjectSettings())

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


def schemas_dir(directory: Path | None = None) -> Path:
    """The folder of the schemas: `directory`, else `STREAMS_SCHEMAS_DIR`, else the one of the app.

    Raises:
        UsageError: there is no such folder.

    """
    root = directory or Path(variable(SCHEMAS_DIR_VARIABLE) or app_schemas_dir())
    if not root.is_dir():
        raise UsageError(f"no schemas: {root} is not a folder (set {SCHEMAS_DIR_VARIABLE})")
    return root.resolve()


def _read_subject(folder: Path) -> Sequence[SchemaVersion | Finding]:
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


class _NoSchema(Exception):
    """A file is not a schema of a topic's values; the message says why."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


def _read_version(subject: str, version: int, path: Path) -> SchemaVersion | Finding:
    def wrong(message: str, line: int = 1) -> Finding:
        return Finding(subject, version, Rule.PARSE, message, file=path, line=line)

    try:
        text, parsed = _read_record(path)
    except _NoSchema as error:
        return wrong(str(error), error.line)
    refused = _why_invalid(json.loads(text))
    if refused is not None:
        return _at_its_field(wrong(f"not a valid Avro schema: {refused}"), parsed)
    return SchemaVersion(subject, version, path, text, parsed)


def _read_record(path: Path) -> tuple[str, Located]:
    """Text and JSON of a file with a record that has fields.

    Raises:
        _NoSchema: it holds something else, or cannot be read.

    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(_BYTE_ORDER_MARK):
            raise _NoSchema("begins with a byte order mark: save it as UTF-8 without one")
        parsed = located(text)
    except (OSError, UnicodeDecodeError) as error:
        raise _NoSchema(f"cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise _NoSchema(f"not JSON: {error}", error.lineno) from None
    except RecursionError:
        raise _NoSchema("nested too deeply") from None
    if not isinstance(parsed, Located) or parsed.get("type") != "record" or not parsed.get("fields"):
        raise _NoSchema("the schema of a topic's values is an Avro record with fields")
    if (aliases := _wrong_aliases(parsed)) is not None:
        raise _NoSchema(f"aliases is a list of names, not {json.dumps(aliases['aliases'])}", aliases.line)
    return text, parsed


def _wrong_aliases(schema: Any) -> Located | None:
    """The first type or field whose aliases are not a list of names: text would be read as a list of letters."""
    if isinstance(schema, list):
        return next((found for each in schema if (found := _wrong_aliases(each)) is not None), None)
    if not isinstance(schema, Located):
        return None
    aliases = schema.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
        return schema
    parts = (schema[part] for part in ("type", "items", "values", "fields") if part in schema)
    return next((found for each in parts if (found := _wrong_aliases(each)) is not None), None)


def _why_invalid(schema: Any) -> str | None:
    """Why fastavro refuses the schema; None if it accepts it."""
    try:
        parse_schema(schema)
    except UnknownType as error:
        return f"it does not define {error.name!r}: a committed schema holds all of its types, also those of references"
    except (SchemaParseException, KeyError, TypeError, ValueError, AttributeError) as error:
        return repr(error)
    return None


def _at_its_field(finding: Finding, schema: Any) -> Finding:
    """The finding at the first field that makes the schema invalid; unchanged if there is none."""
    fields = schema["fields"] if isinstance(schema["fields"], list) else []
    for count, field in enumerate(fields, 1):
        if isinstance(field, Located) and _why_invalid(json.loads(json.dumps({**schema, "fields": fields[:count]}))):
            return replace(finding, field=str(field.get("name", "")), line=field.line)
    return finding


def _read_settings(path: Path, subjects: frozenset[str]) -> dict[str, SubjectSettings]:
    """Read the settings file; empty if there is none.

    Raises:
        StreamsError: it contains something invalid.

    """
    if not path.is_file():
        return {}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StreamsError(f"{path}: cannot be read: {error}") from None
    found: dict[str, SubjectSettings] = {}
    for subject, values in said.items():
        if subject not in subjects:
            raise StreamsError(f"{path}: there is no subject {subject!r}")
        if not isinstance(values, dict) or values.keys() - {"compatibility", "lint_ignore", "personal"}:
            raise StreamsError(f"{path}: [{subject!r}] takes compatibility, lint_ignore and personal, nothing else")
        mode, ignored = values.get("compatibility", MODE_DEFAULT), values.get("lint_ignore", [])
        if mode not in set(Mode):
            raise StreamsError(f"{path}: [{subject!r}]: no mode {mode!r}: there is {', '.join(Mode)}")
        if not isinstance(ignored, list) or not all(str(each).partition(":")[0] in set(Rule) for each in ignored):
            raise StreamsError(f"{path}: [{subject!r}]: lint_ignore is a list such as ['unit_suffix:odometer']")
        personal = values.get("personal", [])
        if not isinstance(personal, list) or not all(isinstance(each, str) for each in personal):
            raise StreamsError(f"{path}: [{subject!r}]: personal is a list of names of fields")
        found[subject] = SubjectSettings(Mode(mode), frozenset(ignored), frozenset(personal))
    return found
