"""Conditions on columns: `status=LATE`, `speed_max_kmh>80`, `stopped_since!=null`. Never evaluated as code. Pure.

A condition is a column, one of `=`, `!=`, `<`, `<=`, `>`, `>=`, and a value of the column's type; the value is the rest
of the text, in quotes where it has spaces at an end or is the word null. A row without a value in the column satisfies
`column=null` alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from streams.errors import UsageError
from streams.sinks.target import TargetColumn

CONDITIONS_MAX: Final = 16
VALUE_CHARACTERS_MAX: Final = 1_000
_FORM: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_NULL: Final = "null"
_COMPARE: Final[Mapping[str, Callable[[pa.Array, pa.Scalar], pa.Array]]] = {
    "=": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_ORDERLESS: Final = frozenset({"boolean"})


@dataclass(frozen=True, slots=True)
class Condition:
    """What a row must satisfy."""

    column: str
    compare: str
    value: pa.Scalar | None
    """Value to compare with; None: null."""

    def holds(self, batch: pa.RecordBatch) -> pa.Array:
        """For each row whether it does; never null."""
        column = batch.column(self.column)
        if self.value is None:
            return pc.is_null(column) if self.compare == "=" else pc.is_valid(column)
        return pc.fill_null(_COMPARE[self.compare](column, self.value), False)  # noqa: FBT003 - positional in pyarrow


def conditions_of(texts: Sequence[str], columns: Sequence[TargetColumn], *, table: str) -> tuple[Condition, ...]:
    """The conditions that the texts say; all of them must hold.

    Raises:
        UsageError: a text is no condition, or there is no such column, or the value is none of its type.

    """
    if len(texts) > CONDITIONS_MAX:
        raise UsageError(f"where: {len(texts)} conditions; at most {CONDITIONS_MAX} are taken")
    by_name = {column.name: column for column in columns}
    return tuple(_condition(text, by_name, table) for text in texts)


def matching(batch: pa.RecordBatch, conditions: Sequence[Condition]) -> pa.RecordBatch:
    """The rows that satisfy all conditions."""
    if not conditions or not batch.num_rows:
        return batch
    holds = [condition.holds(batch) for condition in conditions]
    whole = holds[0]
    for one in holds[1:]:
        whole = pc.and_(whole, one)
    return batch.filter(whole)


def _condition(text: str, columns: Mapping[str, TargetColumn], table: str) -> Condition:
    found = _FORM.fullmatch(text)
    if found is None or len(text) > VALUE_CHARACTERS_MAX:
        raise UsageError(f"where: {text[:100]!r} is no condition: write column=value, with =, !=, <, <=, > or >=")
    name, compare, value = found.groups()
    column = columns.get(name)
    if column is None:
        raise UsageError(f"where: {table} has no column {name!r}: there is {', '.join(columns)}")
    if value == _NULL:
        if compare not in {"=", "!="}:
            raise UsageError(f"where: {text!r}: null is neither smaller nor larger: use = or !=")
        return Condition(name, compare, None)
    if column.kind in _ORDERLESS and compare not in {"=", "!="}:
        raise UsageError(f"where: {name} is a {column.kind}: use = or !=")
    return Condition(name, compare, _value(_unquoted(value), column))


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _value(text: str, column: TargetColumn) -> pa.Scalar:
    reader = _READERS.get(column.kind)
    if reader is None:
        raise UsageError(f"where: {column.name} is {column.kind}, which cannot be compared")
    read, form = reader
    try:
        value = read(text)
        return pa.scalar(value, column.arrow)
    except (ValueError, InvalidOperation, pa.ArrowInvalid, OverflowError):
        raise UsageError(f"where: {column.name} is {column.kind}; {text[:100]!r} is not {form}") from None


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def _instant(text: str) -> datetime:
    """ISO 8601, in UTC where it says nothing else; or milliseconds since 1970."""
    if re.fullmatch(r"-?\d+", text) and len(text) > len("2024"):
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


_TIMES: Final = "a time such as 2026-01-31T12:00:00Z or milliseconds since 1970"
_READERS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "boolean": (_truth, "true or false"),
    "int": (int, "a whole number of 32 bits"),
    "long": (int, "a whole number of 64 bits"),
    "float": (float, "a number"),
    "double": (float, "a number"),
    "decimal": (Decimal, "a number with so few digits"),
    "string": (str, "a text"),
    "timestamp": (_instant, _TIMES),
    "local_timestamp": (_local, "a time such as 2026-01-31T12:00:00"),
    "date": (lambda text: datetime.fromisoformat(text).date(), "a day such as 2026-01-31"),
}
