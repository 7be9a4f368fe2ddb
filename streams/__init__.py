"""Exactly-once stream processing in Python, on Kafka: declare a flow, run it with `streams worker --app MODULE`.

What is here is the public API; `streams.testing` has the driver for tests. Everything else may change between versions.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from streams.batch.events import Events
    from streams.batch.rows import RowLayout, Rows
    from streams.errors import StreamsError, UsageError
    from streams.flow.builder import Flow, Quarantine, Stream, source
    from streams.flow.declaration import DeviceClass
    from streams.flow.merging import join_interval, join_latest, join_table, merge, table
    from streams.operators.base import Operator, OperatorContext
    from streams.operators.changes import CarriedRows, ChangelogRows, Changes, RowRecords
    from streams.operators.fold.aggregate import Aggregate, Segments, WindowAggregate
    from streams.operators.fold.builder import Fold, WindowFold
    from streams.operators.fold.columns import (
        Column,
        Count,
        FirstTime,
        Greatest,
        LastTime,
        Latest,
        LatestSymbol,
        LatestText,
        Least,
        Total,
    )
    from streams.operators.keyed import ChangedKeys, StoredRows
    from streams.operators.output import EventRecords, Output
    from streams.operators.spec import KeyedState, OperatorSpec, OutputTopic
    from streams.operators.trace import WatermarkTrace
    from streams.sinks.spec import SinkSpec, delta, http, postgres
    from streams.state.identity import Consequences

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "CarriedRows",
    "ChangedKeys",
    "ChangelogRows",
    "Changes",
    "Column",
    "Consequences",
    "Count",
    "DeviceClass",
    "EventRecords",
    "Events",
    "FirstTime",
    "Flow",
    "Fold",
    "Greatest",
    "KeyedState",
    "LastTime",
    "Latest",
    "LatestSymbol",
    "LatestText",
    "Least",
    "Operator",
    "OperatorContext",
    "OperatorSpec",
    "Output",
    "OutputTopic",
    "Quarantine",
    "RowLayout",
    "RowRecords",
    "Rows",
    "Segments",
    "SinkSpec",
    "StoredRows",
    "Stream",
    "StreamsError",
    "Total",
    "UsageError",
    "WatermarkTrace",
    "WindowAggregate",
    "WindowFold",
    "__version__",
    "delta",
    "http",
    "join_interval",
    "join_latest",
    "join_table",
    "merge",
    "postgres",
    "source",
    "table",
]

_FLOW: Final = ("Flow", "Quarantine", "Stream", "source")
_DECLARATIONS: Final = ("KeyedState", "OperatorSpec", "OutputTopic")
_SINKS: Final = ("SinkSpec", "delta", "http", "postgres")
_CHANGES: Final = ("CarriedRows", "ChangelogRows", "Changes", "RowRecords")
_CONTRACTS: Final = ("Aggregate", "Segments", "WindowAggregate")
_FOLDS: Final = ("Fold", "WindowFold")
_COLUMNS: Final = (
    "Column", "Count", "FirstTime", "Greatest", "LastTime", "Latest", "LatestSymbol", "LatestText", "Least", "Total",
)  # fmt: skip
_HOMES: Final[dict[str, str]] = {
    **dict.fromkeys(_FLOW, "streams.flow.builder"),
    **dict.fromkeys(("join_interval", "join_latest", "join_table", "merge", "table"), "streams.flow.merging"),
    **dict.fromkeys(_CONTRACTS, "streams.operators.fold.aggregate"),
    **dict.fromkeys(_SINKS, "streams.sinks.spec"),
    **dict.fromkeys(_FOLDS, "streams.operators.fold.builder"),
    **dict.fromkeys(_COLUMNS, "streams.operators.fold.columns"),
    **dict.fromkeys(("Operator", "OperatorContext"), "streams.operators.base"),
    **dict.fromkeys(_DECLARATIONS, "streams.operators.spec"),
    **dict.fromkeys(_CHANGES, "streams.operators.changes"),
    **dict.fromkeys(("EventRecords", "Output"), "streams.operators.output"),
    "ChangedKeys": "streams.operators.keyed",
    "Consequences": "streams.state.identity",
    "DeviceClass": "streams.flow.declaration",
    "Events": "streams.batch.events",
    "RowLayout": "streams.batch.rows",
    "Rows": "streams.batch.rows",
    "StoredRows": "streams.operators.keyed",
    "WatermarkTrace": "streams.operators.trace",
    "StreamsError": "streams.errors",
    "UsageError": "streams.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `streams --help` needs none of numpy and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'streams' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
