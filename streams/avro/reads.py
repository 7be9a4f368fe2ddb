"""The fields of a record that the decoder reads, and what their values have to be."""

from collections.abc import Mapping
from typing import Protocol


class ReaderFields(Protocol):
    """Field names of the reader schema; a flow's source declares them."""

    @property
    def id_field(self) -> str:
        """Identifies an event, with its time: a string."""

    @property
    def key_field(self) -> str:
        """Must equal the record's key: a string."""

    @property
    def time_field(self) -> str:
        """When it happened: a long, in milliseconds since the epoch."""

    @property
    def sequence_field(self) -> str:
        """Orders events of one key and time: a long."""

    @property
    def payload_fields(self) -> tuple[str, ...]:
        """Numeric fields beyond these, read as doubles."""

    @property
    def text_fields(self) -> tuple[str, ...]:
        """String fields that are read beyond id and key."""

    @property
    def field_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Closed range of a numeric field; a value outside is `invalid`."""

    @property
    def fields_read(self) -> tuple[str, ...]:
        """All fields that are read."""
