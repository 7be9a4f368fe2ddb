"""How a record names the schema of its value: by an id or a GUID, in front of the value or in a header.

Confluent's frame is the magic byte 0 and the id in four bytes, big-endian. The header holds the same five bytes, or the
magic byte 1 and the 16 bytes of a GUID; a value whose schema is named by a header begins with the value itself.
"""

import uuid
from collections.abc import Sequence
from typing import Final

SCHEMA_ID_HEADER: Final = "__value_schema_id"
FRAME_BYTES: Final = 5
NOT_FRAMED: Final = "no schema id: the value does not begin with the frame's magic byte"
"""Message for a value without a frame, where no header names its schema."""
_GUID_BYTES: Final = 17

SchemaKey = int | str
"""What a record names its schema by: the registry's id, or a GUID in its usual form of 36 characters."""


def id_in_frame(frame: bytes) -> int | None:
    """The id that the first `FRAME_BYTES` bytes of a value hold; None if they are fewer, or no frame."""
    if len(frame) == FRAME_BYTES and frame[0] == 0:
        return int.from_bytes(frame[1:], "big", signed=True)
    return None


def key_in_header(value: bytes | None) -> SchemaKey | None:
    """The id or GUID that a value of `__value_schema_id` holds; None if it is neither."""
    if value is None:
        return None
    if len(value) == _GUID_BYTES and value[0] == 1:
        return str(uuid.UUID(bytes=value[1:]))
    return id_in_frame(value)


def key_in_headers(headers: Sequence[tuple[str, bytes | None]] | None) -> SchemaKey | None:
    """The id or GUID that a record's headers name; of several usable headers the first one counts."""
    keys = (key_in_header(value) for name, value in headers or () if name == SCHEMA_ID_HEADER)
    return next((key for key in keys if key is not None), None)


def schema_id_of(value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None) -> int | None:
    """The schema id that a record carries, in a header or in front of its value; None if it carries none, or a GUID."""
    key = key_in_headers(headers)
    if key is not None:
        return key if isinstance(key, int) else None
    return None if value is None else id_in_frame(value[:FRAME_BYTES])
