"""The operators of a flow, in the order in which events pass them."""

from collections.abc import Sequence

from streams.flow.declaration import Pipeline
from streams.operators.dedup.operator import Dedup
from streams.operators.fold.operator import FoldTable
from streams.operators.quarantine.operator import Quarantine
from streams.operators.reorder.operator import Reorder
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.publish import Publish
from streams.operators.window.operator import TumblingWindow


def operators_of(pipeline: Pipeline) -> tuple[OperatorSpec, ...]:
    """The chain that `pipeline` declares.

    Raises:
        ValueError: two operators have the same name or record a bound under the same one, or rows by key have no table
            to travel with.

    """
    own, bounds = len(pipeline.prefix), pipeline.bounds
    declared: dict[str, OperatorSpec] = {
        "deduplicate": Dedup(bounds.horizon_ms, pipeline.late),
        "reorder": Reorder(pipeline.late),
        "to": Publish(pipeline.clean),
        **{f"fold:{table.topic[own:]}": FoldTable(table.topic, table.aggregate) for table in pipeline.tables},
        **{
            f"window:{one.topic[own:]}": TumblingWindow(one.topic, one.aggregate, one.size_ms, one.grace_ms)
            for one in pipeline.windows
        },
    }
    chain = [*declared.values(), *pipeline.operators]
    if pipeline.order:
        custom = {spec.name: spec for spec in pipeline.operators}
        chain = [custom[name] if name in custom else declared[name] for name in pipeline.order]
    specs = (Quarantine(bounds.quarantine_rejects, bounds.quarantine_cooldown_ms), *chain)
    if twice := _first_repeated([spec.name for spec in specs]):
        raise ValueError(f"{pipeline.name}: two operators are called {twice!r}")
    if twice := _first_repeated([*bounds.recorded, *(name for spec in specs for name in spec.bounds)]):
        raise ValueError(
            f"{pipeline.name}: the bound {twice!r} is recorded twice: let its name begin with that of the operator"
        )
    keyed = [state for spec in specs for state in spec.keyed]
    if not any(state.is_table for state in keyed) and keyed:
        raise ValueError(
            f"{pipeline.name}: the rows of {keyed[0].name} travel with the rows of a table, so there must be one"
        )
    return specs


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)
