"""The identity of a flow's state as it is declared now, and what a change of it means."""

from collections.abc import Mapping, Sequence

from streams.flow.declaration import Pipeline
from streams.flow.inputs import Input
from streams.operators.spec import OperatorSpec
from streams.state.identity import Identity, Judgement, Places, judge


def identity_of(
    pipeline: Pipeline,
    operators: Sequence[OperatorSpec],
    places: Places,
    symbols: Mapping[str, tuple[str, ...]] | None = None,
) -> Identity:
    """The identity of what is declared, with the topics as they are now; `symbols` of payload fields that are enums."""
    symbols = symbols or {}
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
            **{role: field for one in pipeline.further_inputs for role, field in _roles(one).items()},
        },
        payload={name: ",".join(symbols.get(name, ())) for name in _payload(pipeline)},
        texts=(
            *pipeline.text_fields,
            *(one.named(name) for one in pipeline.further_inputs for name in one.text_fields),
        ),
        bounds={
            **pipeline.bounds.recorded,
            **{name: it for one in pipeline.further_inputs for name, it in one.recorded.items()},
            **{name: it for spec in operators for name, it in spec.bounds.items()},
        },
        tables={state.name: 0 for state in keyed if state.is_table},
        partial=tuple(state.name for state in keyed if state.is_table and not state.has_all_keys),
        settings={name: settings for spec in operators for name, settings in spec.settings.items()},
        rows={state.name: state.layout for state in keyed},
    )


def judged(found: Identity, declared: Identity, pipeline: Pipeline, operators: Sequence[OperatorSpec]) -> Judgement:
    """What the identity `found` means for state under the `declared` one of `pipeline` and its `operators`."""
    return judge(found, declared, pipeline, (pipeline.bounds, *pipeline.further_inputs, *operators))


def _roles(one: Input) -> dict[str, str]:
    """Which fields of an input identify, key, time and order its events."""
    return {
        one.named("id"): one.id_field,
        one.named("key"): one.key_field,
        one.named("time"): one.time_field,
        one.named("sequence"): one.sequence_field,
    }


def _payload(pipeline: Pipeline) -> tuple[str, ...]:
    """Numeric fields of all inputs, by the names under which they are recorded."""
    further = (one.named(name) for one in pipeline.further_inputs for name in one.payload_fields)
    return (*pipeline.payload_fields, *further)
