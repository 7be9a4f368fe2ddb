"""The gate's findings: which schema, field and rule, who breaks, and what to do instead."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Rule(StrEnum):
    """What a schema breaks. The first six are Avro's, under the names that its libraries and registries give them."""

    MISSING_DEFAULT = "reader_field_missing_default_value"
    TYPE_MISMATCH = "type_mismatch"
    MISSING_BRANCH = "missing_union_branch"
    MISSING_SYMBOLS = "missing_enum_symbols"
    NAME_MISMATCH = "name_mismatch"
    SIZE_MISMATCH = "fixed_size_mismatch"

    MEANING_CHANGED = "meaning_changed"
    TEXT_OF_BYTES = "text_of_bytes"
    UNBOUNDED = "unbounded"
    AMBIGUOUS_ALIAS = "ambiguous_alias"
    PIPELINE_FIELD = "pipeline_field"
    ROW_SCHEMA = "row_schema"

    EDITED = "edited"
    REMOVED = "removed"
    UNLOCKED = "unlocked"
    DISAGREEMENT = "disagreement"
    NOT_READABLE = "not_readable"

    PARSE = "parse"
    REPEATED_ATTRIBUTE = "repeated_attribute"
    SUBJECT_NAME = "subject_name"
    NAME_STYLE = "name_style"
    NAMESPACE = "namespace"
    DOC = "doc"
    UNIT_SUFFIX = "unit_suffix"
    OPTIONAL_DEFAULT = "optional_default"
    DEFAULT_TYPE = "default_type"
    LOGICAL_TYPE = "logical_type"
    EVENT_FIELD = "event_field"


class Direction(StrEnum):
    """Which of two versions reads what the other one writes."""

    BACKWARD = "backward"
    """The new one reads what is stored."""
    FORWARD = "forward"
    """The old one reads what will be written."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one version of a subject."""

    subject: str
    version: int
    rule: Rule
    message: str
    breaks: str = ""
    """Who breaks; empty where nobody does yet."""
    fix: str = ""
    """How to change it compatibly."""
    field: str = ""
    """Path of the field: dots between names, `[]` for an array's items, `{}` for a map's values; empty: the schema."""
    against: tuple[int, ...] = ()
    """Versions that it was compared with."""
    direction: Direction | None = None
    file: Path | None = None
    line: int = 1

    def as_json(self) -> dict[str, Any]:
        """The finding for JSON output."""
        return {**asdict(self), "against": list(self.against), "file": shown(self.file)}


def shown(path: Path | None) -> str | None:
    """A path as people and annotations want it: relative to the working directory where it is below it."""
    if path is None:
        return None
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def versions_in_words(versions: Iterable[int]) -> str:
    """`version 1`, `versions 1 and 2`, `versions 1 to 7`, `versions 1, 2 and 5`."""
    found = sorted(set(versions))
    if len(found) == 1:
        return f"version {found[0]}"
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"versions {found[0]} to {found[-1]}"
    return f"versions {', '.join(map(str, found[:-1]))} and {found[-1]}"
