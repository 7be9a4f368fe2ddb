"""The operators of a flow, in the order in which events pass them."""

from streams.flow.declaration import Pipeline
from streams.operators.base import OperatorSpec
from streams.operators.dedup.operator import Dedup
from streams.operators.fold.operator import FoldTable
from streams.operators.quarantine.operator import Quarantine
from streams.operators.reorder.operator import Reorder
from streams.operators.stateless.publish import Publish
from streams.operators.window.operator import TumblingWindow


def operators_of(
    pipeline: Pipeline, *, horizon_ms: int, quarantine_rejects_max: int = 0, quarantine_cooldown_ms: int = 60_000
) -> tuple[OperatorSpec, ...]:
    """The chain that `pipeline` declares, under the bounds of a deployment.

    Raises:
        ValueError: two operators have the same name, or rows by key have no table to travel with.

    """
    own = len(pipeline.prefix)
    declared: dict[str, OperatorSpec] = {
        "deduplicate": Dedup(horizon_ms, pipeline.late),
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
    specs = (Quarantine(quarantine_rejects_max, quarantine_cooldown_ms), *chain)
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ValueError(f"{pipeline.name}: two operators are called {next(n for n in names if names.count(n) > 1)!r}")
    keyed = [state for spec in specs for state in spec.keyed]
    if not any(state.is_table for state in keyed) and keyed:
        raise ValueError(
            f"{pipeline.name}: the rows of {keyed[0].name} travel with the rows of a table, so there must be one"
        )
    return specs
