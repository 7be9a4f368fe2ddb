"""The decoder of a flow, for its workers and for whatever has to judge or read records as they would."""

from dataclasses import replace

from streams.avro.decode import Decoder
from streams.avro.native import choose
from streams.avro.table import TableDecoder
from streams.flow.declaration import Pipeline
from streams.flow.inputs import Input
from streams.settings import Settings


def decoder_of(pipeline: Pipeline, settings: Settings) -> Decoder:
    """A decoder with the limits of a worker with these settings: the flow's own, where no setting overrides them.

    Raises:
        UsageError: what is set and what the flow declares contradict each other; or the native library is demanded and
            cannot be used.

    """
    return _decoder(pipeline.inputs[0], settings, pipeline.under(settings).bounds.skew_ms_max)


def decoders_of(pipeline: Pipeline, settings: Settings) -> list[Decoder]:
    """A decoder for each input of a flow, in their order; as `decoder_of`.

    Raises:
        UsageError: as `decoder_of`.

    """
    return [_decoder(one, settings, one.bounds.skew_ms_max) for one in pipeline.under(settings).inputs]


def _decoder(one: Input, settings: Settings, skew_ms_max: int) -> Decoder:
    """The decoder of an input. A key set by the stage before is checked; the field it is from may be null elsewhere."""
    if one.is_table:
        return TableDecoder(one, record_bytes_max=settings.streams_record_bytes_max, skew_ms_max=skew_ms_max)
    return Decoder(
        replace(one, key_field=one.id_field) if one.is_internal else one,
        checks_key=not one.is_internal,
        record_bytes_max=settings.streams_record_bytes_max,
        skew_ms_max=skew_ms_max,
        native=choose(settings.streams_native).native,
    )
