"""Tells whether a record is a dead letter that was replayed into its source."""

from collections.abc import Sequence
from typing import Final

REPLAYED: Final = "dlq.replayed"
"""The last header of such a record: the audit record of its replay."""


def is_replayed(headers: Sequence[tuple[str, bytes | None]] | None) -> bool:
    """Whether a record with these headers was replayed: its mark is the last header."""
    return bool(headers) and headers[-1][0] == REPLAYED  # type: ignore[index]  # not None where it is true
