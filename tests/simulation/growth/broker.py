"""Logs, tables, journals and committed offsets of the model; a transaction is visible as a whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.growth.forwarding import NOT_FORWARDED
from streams.growth.layout import Growth, Layout
from streams.growth.stages import Phase, Progress, Standing

Order = tuple[int, int, int]
"""(event time, sequence, id): the order of events of a key."""


@dataclass(frozen=True)
class Record:
    """One event, as a producer has sent it."""

    ident: int
    """Of the event: a copy has the same."""
    number: int
    """Of this record: the place of its append among all appends."""
    key: int
    key_hash: int
    event_time: int
    sequence: int
    is_exempt: bool = False
    """Sent by a producer of which nothing is promised in time: another partitioner, or one that slept for long."""

    @property
    def order(self) -> Order:
        return self.event_time, self.sequence, self.ident


@dataclass(frozen=True)
class Forwarded:
    """What stands in the forwarded topic: a record of somebody else's log, or progress."""

    of: int
    """The source partition that the record was read from; of progress, the parent."""
    record: Record | None = None
    epoch: int = NOT_FORWARDED
    progress: Progress | None = None


@dataclass(frozen=True)
class Row:
    """Of a table: how many events of the key are in clean, and which was the last."""

    count: int
    last: int


@dataclass
class Entry:
    """A journal record: what one committed cycle has changed."""

    epoch: int
    own_next: int
    forwarded_next: int
    coupling: object
    watermark: int
    ids: frozenset[int]
    held: tuple[Record, ...]
    """All that are held after the cycle."""
    due: Mapping[int, Order]
    """Last released event of the keys that have changed."""
    kind: str = "cycle"
    """`cycle`, `cut`, `adopting`, `adopted`."""
    rows: Mapping[int, Row] = field(default_factory=dict)
    settled: int = 0
    """Epoch of the growth whose coupling this parent has ended."""


class Fenced(Exception):
    """The partition was given to somebody else."""


@dataclass
class Broker:
    """Everything that survives."""

    layout: Layout
    counts: dict[str, int]
    source: dict[int, list[Record]] = field(default_factory=dict)
    forwarded: dict[int, list[Forwarded]] = field(default_factory=dict)
    journal: dict[int, list[Entry]] = field(default_factory=dict)
    table: dict[int, list[tuple[int, Row | None]]] = field(default_factory=dict)
    clean: list[Record] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    duplicates: list[Record] = field(default_factory=list)
    standings: dict[int, Standing] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    """Parents that have ended the coupling of the newest growth."""
    growth: Growth | None = None
    phase: Phase | None = None
    terms: dict[int, int] = field(default_factory=dict)
    appended: int = 0

    def append(self, partition: int, record: Record) -> None:
        self.source.setdefault(partition, []).append(record)

    def rows(self, partition: int) -> dict[int, Row]:
        """The table as a reader of the compacted topic sees this partition."""
        found: dict[int, Row] = {}
        for key, row in self.table.get(partition, []):
            if row is None:
                found.pop(key, None)
            else:
                found[key] = row
        return found

    def require_term(self, partition: int, term: int) -> None:
        if self.terms[partition] != term:
            raise Fenced
