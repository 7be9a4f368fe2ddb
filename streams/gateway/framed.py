"""An event that comes as a Kafka producer would send it: Confluent's frame and Avro. Judged by the flow's decoder."""

from dataclasses import dataclass

import numpy as np

from streams.avro.framing import FRAME_BYTES, SchemaKey
from streams.avro.values import decode_one
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.gateway.records import Rejection, too_large
from streams.gateway.sources import Source, Sources


@dataclass(frozen=True, slots=True)
class Judged:
    """What a framed value is: why it is no event (None: it is one), and its key and id as far as they can be read."""

    rejection: Rejection | None
    key: bytes | None = None
    event_id: str | None = None


async def judged(sources: Sources, source: Source, content: bytes, record_bytes_max: int, now_ms: int) -> Judged:
    """Judge a value that comes in at `now_ms`.

    Raises:
        Refused: its schema cannot be looked up now.

    """
    if len(content) > record_bytes_max:
        return Judged(too_large(len(content), record_bytes_max))
    if len(content) < FRAME_BYTES or content[0] != 0:
        words = "no schema id: the value does not begin with the frame's magic byte, nor is it a container file"
        return Judged(Rejection(Reason.NOT_FRAMED, words))
    schema: SchemaKey = int.from_bytes(content[1:FRAME_BYTES], "big", signed=True)
    plan = await sources.learn(source, schema)
    if isinstance(plan, Reject):
        return Judged(Rejection(plan.reason, plan.message, schema_id=plan.schema_id))
    value = decode_one(plan, content[FRAME_BYTES:])
    if not isinstance(value, dict):
        return Judged(Rejection(*value, schema_id=plan.schema_id))
    key, event_id = value.get(source.pipeline.key_field), value.get(source.pipeline.id_field)
    found = Judged(None, str(key).encode(errors="replace"), None if event_id is None else str(event_id))
    stamp = np.full(1, now_ms, dtype=np.int64)
    records = Records(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), stamp, [found.key], [content])
    rejects = source.decoder.decode(records, {schema: plan}).rejects
    if not rejects:
        return found
    first = rejects[0]
    return Judged(Rejection(first.reason, first.message, schema_id=first.schema_id), found.key, found.event_id)
