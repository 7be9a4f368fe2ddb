"""What of a flow can be recomputed: which outputs, by which rules. What cannot be is named, or refused in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from streams.batch.events import Fields as ColumnNames
from streams.errors import UsageError
from streams.flow.chain import CLEAN, Placed, tree_of
from streams.flow.declaration import Pipeline, Table, Window
from streams.operators.fold.operator import fold_name
from streams.operators.merge.operator import Merge
from streams.operators.reorder.operator import Reorder
from streams.operators.stateless.publish import Publish
from streams.reconcile.model.decode import symbols_of
from streams.reconcile.model.events import Fields
from streams.reconcile.model.history import Rules


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What is compared of a flow."""

    pipeline: Pipeline
    rules: Rules
    reader_schema: str
    """Newest committed schema of the source's values."""
    clean: str | None
    """Topic of clean events; None: the flow has none."""
    tables: tuple[Table, ...]
    windows: tuple[Window, ...]
    left_out: tuple[str, ...]
    """Topics that are not compared, since the model does not know what makes them."""

    @property
    def columns(self) -> ColumnNames:
        """Fields that folds read."""
        return ColumnNames(self.rules.fields.numbers, self.rules.fields.texts)

    @property
    def symbols(self) -> Mapping[str, Sequence[str]]:
        """Symbols of the source's fields that are enums, by the name of the field."""
        return symbols_of(self.reader_schema, self.rules.fields.numbers)

    @property
    def keyed_outputs(self) -> tuple[str, ...]:
        """Topics that are compared key by key."""
        clean = () if self.clean is None else (self.clean,)
        rows = (*(table.topic for table in self.tables), *(window.topic for window in self.windows))
        return (*clean, self.pipeline.late, *rows)

    def under(self, bounds: Mapping[str, int]) -> "CheckPlan":
        """The same under bounds that are recorded with the flow's state, by name."""
        known: dict[str, Any] = {name: bounds[name] for name in _BOUNDS if name in bounds}
        return replace(self, rules=replace(self.rules, **known))


_BOUNDS: Final = (
    "lateness_ms", "skew_ms_max", "idle_ms", "horizon_ms", "quarantine_rejects", "quarantine_cooldown_ms",
)  # fmt: skip
"""Bounds that a flow with one input records with its state, by the names of `Rules`."""


def plan_of(pipeline: Pipeline, reader_schema: str, record_bytes_max: int) -> CheckPlan:
    """What can be compared of a flow, whose bounds are those in force.

    Raises:
        UsageError: the flow merges several inputs, or a step of the user's decides which events are clean.

    """
    if pipeline.further_inputs:
        topics = ", ".join(one.topic for one in pipeline.inputs)
        raise UsageError(
            f"flow {pipeline.name!r} merges several inputs ({topics}): the model knows flows with one source. "
            "Reconcile the flows that write them"
        )
    placed = {one.spec.name: one for one in tree_of(pipeline)}
    clean = _clean_of(pipeline, placed)
    tables = tuple(one for one in pipeline.tables if _gets_all(fold_name(one.topic), placed))
    windows = tuple(one for one in pipeline.windows if _gets_all(_window_name(one, placed), placed))
    compared = {clean, pipeline.late, *(one.topic for one in tables), *(one.topic for one in windows)}
    bounds = pipeline.bounds
    fields = Fields(
        pipeline.id_field,
        pipeline.key_field,
        pipeline.time_field,
        pipeline.sequence_field,
        pipeline.payload_fields,
        pipeline.text_fields,
        dict(pipeline.field_ranges),
    )
    rules = Rules(
        fields,
        bounds.lateness_ms,
        bounds.horizon_ms,
        bounds.skew_ms_max,
        record_bytes_max,
        bounds.idle_ms,
        bounds.quarantine_rejects,
        bounds.quarantine_cooldown_ms,
    )
    left_out = tuple(topic for topic in pipeline.outputs if topic not in compared)
    return CheckPlan(pipeline, rules, reader_schema, clean, tables, windows, left_out)


def _clean_of(pipeline: Pipeline, placed: Mapping[str, Placed]) -> str | None:
    """Topic of clean events, which gets all that is released."""
    if pipeline.clean_topic is None:
        return None
    name = next(
        one.spec.name for one in placed.values() if isinstance(one.spec, Publish) and one.spec.topic == pipeline.clean
    )
    if not _gets_all(name, placed):
        steps = [one for one in _way(name, placed) if not placed[one].spec.passes_all]
        raise UsageError(
            f"flow {pipeline.name!r}: the step {steps[0] if steps else CLEAN!r} between reorder() and {pipeline.clean} "
            "decides which events are clean, and the model does not know what it does"
        )
    return pipeline.clean


def _window_name(window: Window, placed: Mapping[str, Placed]) -> str:
    return next(
        name for name, one in placed.items() if getattr(one.spec, "topic", None) == window.topic and name != CLEAN
    )


def _way(name: str, placed: Mapping[str, Placed]) -> list[str]:
    """The operators whose events an operator gets, up to reorder."""
    found: list[str] = []
    above = placed[name].after
    while above in placed and not isinstance(placed[above].spec, Reorder | Merge):
        found.append(above)
        above = placed[above].after
    return found


def _gets_all(name: str, placed: Mapping[str, Placed]) -> bool:
    """Whether an operator gets every event that is released, as it was."""
    return all(placed[one].spec.passes_all for one in _way(name, placed))
