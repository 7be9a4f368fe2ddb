"""Keys of a partition's store: what the engine keeps under a letter of its own, and where an operator's part begins.

An operator's part goes by its name, not by its place in the flow: the order in which a flow declares its operators does
not matter, and an operator that is no longer declared leaves a part that nobody reads.
"""

import hashlib
from typing import Final

CHECKPOINT: Final = b"m"
JOURNAL_INDEX: Final = b"j"
_OPERATOR: Final = b"o"
_DIGEST_BYTES: Final = 4


def operator_prefix(name: str) -> bytes:
    """What all keys of the operator `name`, or of a named part of it, begin with."""
    return _OPERATOR + hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()
