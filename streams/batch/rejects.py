"""Rejects: records that cannot be processed, each with its reason. They are values, not exceptions."""

from dataclasses import dataclass, replace
from enum import StrEnum

from streams.batch.columns import Headers


class Reason(StrEnum):
    """Reject reasons, in the order in which they are checked."""

    DEVICE_QUARANTINED = "device_quarantined"
    TOO_LARGE = "too_large"
    BAD_HEADER = "bad_header"
    NOT_FRAMED = "not_framed"
    UNKNOWN_SCHEMA = "unknown_schema"
    INCOMPATIBLE_SCHEMA = "incompatible_schema"
    MALFORMED = "malformed"
    INVALID = "invalid"
    KEY_MISMATCH = "key_mismatch"
    FUTURE_TIMESTAMP = "future_timestamp"
    REFUSED_BY_OUTPUT = "refused_by_output"


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that goes to the dead-letter topic: its row in the micro-batch, why, and in words."""

    row: int
    reason: Reason
    message: str
    schema_id: int | None = None

    def of_schema(self, schema_id: int | None) -> "Reject":
        """The same reject with this schema id, unless it has one."""
        return self if self.schema_id is not None or schema_id is None else replace(self, schema_id=schema_id)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected record as it came, and why."""

    reject: Reject
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    processed_in: int | None = None
    """Partition in which it was processed, where that is not the one that it was read in: it was forwarded."""
    input_number: int = 0
    """Input of the flow that it came from."""

    @property
    def origin(self) -> int:
        """Partition in which it was processed."""
        return self.partition if self.processed_in is None else self.processed_in
