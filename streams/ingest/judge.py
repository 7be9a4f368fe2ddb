"""Judges encoded events by the flow's own decoder, so that ingest has no rules of its own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from streams.avro.decode import Decoder
from streams.avro.resolve import Plan, build_plan
from streams.batch.event_ids import EVENT_TIME_MAX
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import SchemaVersion
from streams.text import far_ahead

END_OF_TIME_MS: Final = EVENT_TIME_MAX
"""As `now_ms`: no event is in the future."""


class Judge:
    """Judges records as a worker that reads them at `now_ms` (milliseconds since 1970)."""

    def __init__(
        self,
        flow: Pipeline,
        schema: SchemaVersion,
        schema_id: int,
        *,
        record_bytes_max: int,
        skew_ms_max: int,
        now_ms: int,
    ) -> None:
        self._decoder = Decoder(flow, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max)
        self._known: dict[int | str, Plan | Reject] = {schema_id: build_plan(schema_id, schema.text, schema.text)}
        self._now_ms = now_ms
        self._skew_ms_max = skew_ms_max
        self._time_field = flow.time_field

    def reasons(self, keys: Sequence[bytes], values: Sequence[bytes], times_ms: Sequence[int]) -> dict[int, str]:
        """Why records would be rejected, by their position; `times_ms` are their event times."""
        count = len(values)
        records = Records(
            partition=np.zeros(count, dtype=np.int64),
            offset=np.arange(count),
            timestamp_ms=np.full(count, self._now_ms),
            key=list(keys),
            value=list(values),
        )
        rejects = self._decoder.decode(records, self._known).rejects
        return {reject.row: self._words(reject, times_ms[reject.row]) for reject in rejects}

    def _words(self, reject: Reject, time_ms: int) -> str:
        if reject.reason is not Reason.FUTURE_TIMESTAMP:
            return f"the event has {reject.message}" if reject.reason is Reason.TOO_LARGE else reject.message
        clock = datetime.fromtimestamp(self._now_ms / 1000, UTC).isoformat(timespec="seconds")
        return (
            f"{self._time_field} is {far_ahead(time_ms - self._now_ms)} ahead of the clock ({clock}); "
            f"at most {self._skew_ms_max} ms are allowed (STREAMS_SKEW_MS_MAX)"
        )
