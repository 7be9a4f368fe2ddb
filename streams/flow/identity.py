"""Identity of the state of a flow as it is declared now, where its topics are now."""

from collections.abc import Mapping, Sequence

from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline
from streams.operators.base import OperatorSpec
from streams.state.identity import Identity, Places


def identity_of(
    pipeline: Pipeline, *, horizon_ms: int, places: Places, symbols: Mapping[str, tuple[str, ...]] | None = None
) -> Identity:
    """Identity of what is declared and there now; `symbols` of the payload fields that are enums."""
    return identity_under(pipeline, operators_of(pipeline, horizon_ms=horizon_ms), places, symbols or {})


def identity_under(
    pipeline: Pipeline, operators: Sequence[OperatorSpec], places: Places, symbols: Mapping[str, tuple[str, ...]]
) -> Identity:
    """As `identity_of`, of these operators."""
    keyed = [state for spec in operators for state in spec.keyed]
    names = [topic.name for topic in pipeline.topics()]
    return Identity(
        cluster=places.cluster,
        partitions=places.partitions,
        topics={name: places.topics[name] for name in names if name in places.topics},
        fields={
            "id": pipeline.id_field,
            "key": pipeline.key_field,
            "time": pipeline.time_field,
            "sequence": pipeline.sequence_field,
        },
        payload={name: ",".join(symbols.get(name, ())) for name in pipeline.payload_fields},
        texts=pipeline.text_fields,
        bounds={name: bound for spec in operators for name, bound in spec.bounds.items()},
        tables={state.name: 0 for state in keyed if state.is_table},
        partial=tuple(state.name for state in keyed if state.is_table and not state.has_all_keys),
        windows={name: settings for spec in operators for name, settings in spec.settings.items()},
        rows={state.name: state.layout for state in keyed},
    )
