"""The records of a body: what each format gives, and why one is none. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streams.batch.rejects import Reason
from streams.limits import GATEWAY_REQUEST_RECORDS_MAX

Row = dict[str, Any]
"""Values of a record, by the name of the field."""


class TooManyRecords(Exception):
    """A body has more records than a request may."""

    def __init__(self) -> None:
        super().__init__(f"a request has at most {GATEWAY_REQUEST_RECORDS_MAX:,} records: send more requests")


@dataclass(frozen=True, slots=True)
class Rejection:
    """States why a record is not an event."""

    reason: Reason
    message: str
    pointer: str = ""
    """JSON pointer (RFC 6901) into the record; empty: the record as a whole."""
    schema_id: int | None = None
    """The schema id that it names, where it names one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The records of a body: rows, or why there is none; and the bytes of each as they came."""

    rows: Sequence[Row | Rejection]
    raw: Callable[[int], bytes]
    """The bytes of a record, by its position."""


def malformed(message: str) -> Rejection:
    """Return the rejection of a record that cannot be read."""
    return Rejection(Reason.MALFORMED, message)


def too_large(size: int, bytes_max: int) -> Rejection:
    """A record of more bytes than one may have."""
    return Rejection(Reason.TOO_LARGE, f"{size} bytes; at most {bytes_max} are accepted")
