"""The decoder of a flow, for its workers and for what judges or reads records as they would."""

from streams.avro.decode import Decoder
from streams.avro.native import choose
from streams.flow.declaration import Pipeline
from streams.settings import Settings


def decoder_of(pipeline: Pipeline, settings: Settings) -> Decoder:
    """A decoder with the limits that a worker with these settings has: the flow's own, where no setting overrides them.

    Raises:
        UsageError: what is set and what the flow declares contradict each other; or the native library is demanded and
            cannot be used.

    """
    return Decoder(
        pipeline,
        record_bytes_max=settings.streams_record_bytes_max,
        skew_ms_max=pipeline.under(settings).bounds.skew_ms_max,
        native=choose(settings.streams_native).native,
    )
