"""What a table looks like to those who ask: its columns, which are personal data, how rows of state become rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streams.batch.columns import objects
from streams.batch.rows import unpack_rows
from streams.flow.chain import tree_of
from streams.flow.declaration import Pipeline
from streams.operators.spec import KeyedState
from streams.schemas.catalog import Catalog
from streams.schemas.personal import personal_of
from streams.sink.shape import as_json_text, columns_of
from streams.sinks.target import TargetColumn
from streams.state.names import operator_prefix


@dataclass(frozen=True)
class TableShape:
    """A table of a flow: the rows that a fold, or an operator of your own, keeps by key."""

    topic: str
    flow: str
    group: str
    """Consumer group of the flow's workers."""
    state: KeyedState
    columns: tuple[TargetColumn, ...]
    """Those of the newest committed schema of the topic."""
    schema_text: str
    personal: frozenset[str]
    """Columns with personal data."""
    masks_keys: bool
    """Whether keys are personal data."""
    prefix: bytes = field(init=False)
    """What the store has before each key."""
    arrow: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", operator_prefix(self.state.part))
        fields = [pa.field(column.name, column.arrow, nullable=True) for column in self.columns]
        object.__setattr__(self, "arrow", pa.schema(fields))

    def rows(self, keys: Sequence[bytes], packed: Sequence[bytes]) -> pa.RecordBatch:
        """Public rows, of keys and rows as the store has them."""
        table = self.state.table
        if table is None:
            raise RuntimeError(f"{self.topic} has no public rows")
        made = table(objects(keys), unpack_rows(self.state.dtype, list(packed)))
        arrays = [_as_declared(made.column(column.name), column) for column in self.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow)

    def columns_named(self, names: Sequence[str] | None) -> pa.Schema:
        """Types of these columns; None: of all."""
        return self.arrow if names is None else pa.schema([self.arrow.field(name) for name in names])

    def as_dict(self) -> dict[str, Any]:
        """What a list of tables says of it."""
        return {
            "table": self.topic,
            "flow": self.flow,
            "columns": [
                {"name": column.name, "type": column.kind, "personal": column.name in self.personal}
                for column in self.columns
            ],
            "keys_are_personal": self.masks_keys,
        }


def tables_of(pipeline: Pipeline, catalog: Catalog) -> list[TableShape]:
    """The tables of a flow."""
    subjects = {one.topic: one.subject for one in pipeline.row_outputs}
    found = []
    for placed in tree_of(pipeline):
        for state in placed.spec.keyed:
            if state.is_table:
                subject = subjects[state.name]
                text = catalog.latest(subject).text
                columns = columns_of(text)
                names = frozenset(column.name for column in columns)
                personal = names & (personal_of(catalog, subject) | pipeline.personal)
                found.append(
                    TableShape(
                        state.name, pipeline.name, pipeline.group, state, columns, text, personal, pipeline.masks_keys
                    )
                )
    return found


def _as_declared(column: pa.Array, declared: TargetColumn) -> pa.Array:
    if column.type == declared.arrow:
        return column
    if declared.kind == "json":
        return pa.array([None if one is None else as_json_text(one) for one in column.to_pylist()], pa.string())
    return column.cast(declared.arrow)
