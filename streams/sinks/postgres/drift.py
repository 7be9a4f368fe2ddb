"""What differs between a table that is there and the one that a sink declares: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.sinks.postgres.statements import PLACE, type_of
from streams.sinks.target import TargetColumn, TargetMismatch


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """A column as the catalogue of the database has it."""

    type: str
    """As `format_type` names it."""
    must_be_given: bool
    """Whether an insert without it fails: not null, and no default."""


def missing_columns(
    table: str, columns: Sequence[TargetColumn], there: Mapping[str, ExistingColumn]
) -> list[TargetColumn | str]:
    """Columns that the table lacks, to be added: fields of a later version of the schema, and where a row was read.

    Raises:
        TargetMismatch: a column is of another type, or one that the sink does not write must be given.

    """
    missing: list[TargetColumn | str] = []
    wrong: list[str] = []
    for column in columns:
        found = there.get(column.name)
        if found is None:
            missing.append(column)
        elif found.type != type_of(column):
            wrong.append(f"column {column.name} is {found.type}, the schema's field needs {type_of(column)}")
        elif found.must_be_given and column.is_nullable:
            wrong.append(f"column {column.name} is not null, the schema's field may be null")
    for name, kind in PLACE.items():
        if name not in there:
            missing.append(name)
        elif there[name].type != kind:
            wrong.append(f"column {name} is {there[name].type}, it must be {kind}")
    ours = {column.name for column in columns} | PLACE.keys()
    wrong += [
        f"column {name} is not null, has no default and is no field of the schema"
        for name, found in there.items()
        if found.must_be_given and name not in ours
    ]
    if wrong:
        raise TargetMismatch(
            f"table {table} is not as the sink needs it: {'; '.join(wrong)}. Alter the table, or give the sink another"
        )
    return missing


def require_key(table: str, key: Sequence[str], unique: Sequence[frozenset[str]]) -> None:
    """Return if rows can be told apart by `key`; `unique`: columns of each unique index of the table.

    Raises:
        TargetMismatch: they cannot.

    """
    if key and frozenset(key) not in unique:
        raise TargetMismatch(
            f"table {table} has no unique index on ({', '.join(key)}), by which the sink tells rows apart: create one"
        )
