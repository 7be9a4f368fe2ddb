"""Which column of a file fills which field of the schema, and which columns fill none."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.ingest.chunks import Source
from streams.ingest.fields import Field, fields_of
from streams.schemas.catalog import SchemaVersion
from streams.text import counted

COLUMNS_SHOWN: Final = 30
_PREFIX_CHARACTERS_MIN: Final = 3
_ALIKE: Final = 0.75


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column that fills no field, and the field without a column that it may be meant for."""

    column: str
    field: str | None


@dataclass(frozen=True, slots=True)
class Filling:
    """What fills the fields of the schema."""

    fields: tuple[Field, ...]
    column_of: Mapping[str, str]
    """Column by field, for the fields of which the file is known to have a column."""
    asked: Mapping[str, str]
    """Column by field, with those that may still come (NDJSON)."""

    def left_out(self, columns: Iterable[str], filled: Iterable[str]) -> tuple[LeftOut, ...]:
        """Columns that fill no field; `filled` are the fields that had values. Columns without a name are not named."""
        used = set(self.asked.values())
        free = [field.name for field in self.fields if field.name not in set(filled)]
        return tuple(LeftOut(name, alike(name, free)) for name in dict.fromkeys(columns) if name and name not in used)


def filling_of(flow: Pipeline, schema: SchemaVersion, source: Source, mapping: Mapping[str, str]) -> Filling:
    """Decide which column fills which field: the one that `mapping` (column by field) names, else that of its name.

    Raises:
        UsageError: a required field has no column, or the mapping names a field or column that is not there.
        StreamsError: the file cannot be read.

    """
    fields = fields_of(schema.parsed, flow.personal)
    columns = source.columns
    try:
        found = _columns_of(flow, fields, columns, mapping)
    except UsageError:
        if source.all_columns is None:
            raise
        columns = source.all_columns()
        # Without a column no row can be read: all lines are reported as bad rows.
        found = _columns_of(flow, fields, columns, mapping) if columns else {}
    asked = {field.name: mapping.get(field.name, field.name) for field in fields} if source.is_open else found
    return Filling(fields, found, asked)


def _columns_of(
    flow: Pipeline, fields: Sequence[Field], columns: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, str]:
    names = [field.name for field in fields]
    for field_name, column in mapping.items():
        if field_name not in names:
            raise UsageError(f"--map {field_name}={column}: there is no field {field_name!r}, only {', '.join(names)}")
        if column not in columns:
            there = listed(columns, fields, mapping)
            raise UsageError(f"--map {field_name}={column}: there is no column {column!r}, only {there}")
    found = {name: mapping.get(name, name) for name in names if name in mapping or name in columns}
    derived = {flow.id_field, flow.sequence_field}
    free = [name for name in columns if name not in set(found.values())]
    for field in fields:
        if field.name not in found and field.name not in derived and not field.has_default:
            meant = next((name for name in free if alike(name, [field.name])), "COLUMN")
            raise UsageError(
                f"no column for the field {field.name!r}: the file has {listed(columns, fields, mapping)}; "
                f"name one by --map {field.name}={meant}"
            )
    return found


def listed(columns: Sequence[str], fields: Sequence[Field], mapping: Mapping[str, str]) -> str:
    """Columns of a file, for a message; where a field is personal, only those that are like the name of a field.

    Without a header line it is the first row that stands in the place of names.
    """
    if not columns:
        return "no columns"
    names = [field.name for field in fields]
    is_header = not set(columns).isdisjoint((*names, *mapping.values()))
    if is_header or all(field.is_quoted for field in fields):
        more = f" and {len(columns) - COLUMNS_SHOWN} more" if len(columns) > COLUMNS_SHOWN else ""
        return ", ".join(columns[:COLUMNS_SHOWN]) + more
    like = [column for column in columns if alike(column, names)]
    shown = f"{', '.join(like[:COLUMNS_SHOWN])} among " if like else ""
    return f"{shown}{counted(len(columns), 'column')}, none with the name of a field (is the first line a header?)"


def alike(column: str, names: Sequence[str]) -> str | None:
    """The one of `names` that a column of another name may mean; None where none is similar.

    `lat`, `Latitude` and `latitdue` are like `latitude`.
    """
    plain = {_plain(name): name for name in names}
    wanted = _plain(column)
    if wanted in plain:
        return plain[wanted]
    if len(wanted) >= _PREFIX_CHARACTERS_MIN:
        for one, name in plain.items():
            if one.startswith(wanted) or (wanted.startswith(one) and len(one) >= _PREFIX_CHARACTERS_MIN):
                return name
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=_ALIKE)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
