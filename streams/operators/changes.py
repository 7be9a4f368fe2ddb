"""What an operator adds to a commit cycle that ends: sections of the journal, rows for its store and for topics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from streams.batch.columns import TIME_MIN, Bools, Objects
from streams.batch.refs import ByteColumn
from streams.batch.rows import Rows
from streams.state.store import WriteBatch

ToColumns = Callable[[Objects, Rows], pa.RecordBatch]
"""Keys and rows of state to public rows, in the field order of the topic's schema."""


@dataclass(frozen=True, slots=True)
class RowRecords:
    """Rows for a topic, one record each; the partition goes by the key."""

    topic: str
    keys: ByteColumn
    rows: Rows
    columns: ToColumns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class ChangelogRows(RowRecords):
    """The newest row of each changed key, for a compacted topic that the state is restored from.

    Of all `ChangedKeys`, in their order: what other operators carry goes with these rows.

    A record goes to the partition that the state belongs to, and has the row itself in a header.
    """

    digest: bytes = b""
    """Stands for topic and layout of the rows (`state.identity.row_digest`)."""
    of_changed: Bools | None = None
    """Which of the changed keys have a row here; None: all. A key that has got a row once has one in every cycle in
    which it changes, and one table of the flow has a row of every key."""


@dataclass(frozen=True, slots=True)
class CarriedRows:
    """Rows of changed keys, in the order of `ChangedKeys`, that travel with the rows of the flow's tables."""

    digest: bytes
    rows: Rows


@dataclass(slots=True)
class Changes:
    """What an operator adds to a cycle that ends."""

    sections: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """For the journal, by name (the operator's, or one that no other has): one piece, or several of at most
    `JOURNAL_RECORD_BYTES_MAX` bytes each (a single row may be larger). All pieces of a section are replayed in their
    order."""
    event_time_max: int = TIME_MIN
    """Up to which event time the sections matter: see `OperatorSpec.journal_ms`."""
    is_of_cycle_end: bool = False
    """Whether they matter up to the watermark at the cycle's end, whatever event times they hold."""
    store: WriteBatch = field(default_factory=WriteBatch)
    """Written with the checkpoint, once the cycle is committed."""
    changelogs: Sequence[ChangelogRows] = ()
    carried: CarriedRows | None = None
    rows: Sequence[RowRecords] = ()
