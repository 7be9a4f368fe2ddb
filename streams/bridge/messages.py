"""Converts MQTT messages to rows. Pure."""

from typing import Final

from streams.batch.rejects import Reason
from streams.gateway import json_records
from streams.gateway.formats import Format
from streams.gateway.records import Rejection, Rows, TooManyRecords, malformed

_EMPTY: Final = malformed("the message is empty")


def rows_of(payload: bytes, topic: str, format_: Format | None, record_bytes_max: int) -> Rows:
    """The records of a message: a JSON object, an array of them, or what a format reads.

    What cannot be read is one row, a rejection.
    """
    if not payload:
        return _one(_EMPTY, payload)
    try:
        if format_ is not None:
            return format_.read(payload, {}, b"", record_bytes_max, topic=topic)
        return json_records.one_or_many(payload, record_bytes_max)
    except TooManyRecords as error:
        return _one(Rejection(Reason.TOO_LARGE, str(error)), payload)


def _one(why: Rejection, payload: bytes) -> Rows:
    return Rows([why], lambda _: payload)
