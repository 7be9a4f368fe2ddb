"""What a worker serves of one flow: its tables, their rows here, and whoever has the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.tables.changes import Changes
from streams.tables.lookups import Lookups
from streams.tables.metrics import TableMetrics
from streams.tables.owners import Owners
from streams.tables.shape import TableShape, tables_of
from streams.tables.stored import FlowState, StoredTables


@dataclass(frozen=True)
class ServedFlow:
    """What a worker serves of one flow's tables."""

    pipeline: Pipeline
    tables: Mapping[str, TableShape]
    """Shapes of the tables, by topic."""
    state: FlowState
    stored: StoredTables
    lookups: Lookups
    owners: Owners
    member: str
    """This worker's name in the group of the flow."""
    changes: Mapping[str, Changes] = field(default_factory=dict)
    """Changes of the tables, by topic."""

    def close(self) -> None:
        """Ask and read no more."""
        self.owners.close()
        for one in self.changes.values():
            one.close()


def served_flow(
    settings: Settings, pipeline: Pipeline, state: FlowState, metrics: TableMetrics, *, member: str, catalog: Catalog
) -> ServedFlow:
    """What is served of a flow; nothing connects before the first request."""
    shapes: Sequence[TableShape] = tables_of(pipeline, catalog)
    stored = StoredTables(state)
    return ServedFlow(
        pipeline,
        {shape.topic: shape for shape in shapes},
        state,
        stored,
        Lookups(stored),
        Owners(settings, pipeline),
        member,
        {shape.topic: Changes(settings, shape, on_cut_off=metrics.cut_off.inc) for shape in shapes},
    )
