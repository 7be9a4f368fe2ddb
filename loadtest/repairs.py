"""What the ordeal's dead letters need, as a steward would write it: `--transform loadtest.repairs:repair_position`."""

import json
import os
from typing import Final

from streams.deadletters.letter.letter import Letter, Repair
from streams.deadletters.letter.walk import walk
from streams.schemas.catalog import Catalog

SCHEMA_ID_VARIABLE: Final = "ORDEAL_SCHEMA_ID"
"""Id of version 1 of the positions' schema."""
_SUBJECT: Final = "gps.positions.v1-value"
_SCHEMA: Final = json.loads(Catalog.load().versions(_SUBJECT)[0].text)
_FRAME_BYTES: Final = 5


def repair_position(letter: Letter) -> Repair | None:
    """The position inside a letter, framed with its own schema and keyed by its device; None when it is not whole."""
    value = letter.value or b""
    found = walk(_SCHEMA, value, start=_FRAME_BYTES)
    device = next((leaf.shown for leaf in found.leaves if leaf.path == "device_id"), None)
    is_whole = len(found.leaves) == len(_SCHEMA["fields"]) and device is not None
    if not is_whole or letter.reason in {"not_framed", "invalid"}:
        return None
    schema_id = int(os.environ[SCHEMA_ID_VARIABLE])
    frame = b"\0" + schema_id.to_bytes(4, "big", signed=True)
    return Repair(frame + value[_FRAME_BYTES : found.end], json.loads(device or '""').encode())
