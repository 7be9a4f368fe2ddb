"""What the agent yields: effects, to be carried out by the committer and by nobody else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.batch.columns import Headers, Int64, Objects
from streams.batch.events import Events
from streams.batch.rejects import DeadLetter
from streams.batch.rows import Rows
from streams.engine.keys import ClosedWindows
from streams.engine.refusals import RefusedEvents
from streams.flow.declaration import Table, Window


@dataclass(frozen=True, slots=True)
class LateEvents:
    """Events for the late topic, with why and by how much."""

    events: Events
    beyond_horizon: bool
    by_ms: Int64


@dataclass(frozen=True, slots=True)
class PartitionEffects:
    """What one partition's share of a micro-batch brings about."""

    partition: int
    clean: Events | None
    """In release order."""
    late: list[LateEvents]
    duplicates: int
    misrouted: int
    """Accepted events whose key belongs into another partition."""
    contradictions: int = 0
    """Released events that contradict their key's state."""
    replayed_duplicates: list[Headers] = field(default_factory=list)
    """Headers of those duplicates that were replayed from dead letters: somebody waits to hear of them."""
    refused: list[RefusedEvents] = field(default_factory=list)
    """Events that become dead letters since an output has refused them."""
    misrouted_keys: Sequence[bytes] = ()
    """Some of the keys of the misrouted events."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a micro-batch brings about."""

    now_ms: int
    records: int = 0
    partitions: list[PartitionEffects] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    unexpected: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Records by (schema id, path of a field that the reader does not know)."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of changed keys for a table's topic."""

    table: Table
    partition: int
    keys: Objects
    rows: Rows
    windows: list[tuple[Window, Rows]]
    """The keys' newest window of each declaration: every table carries them, so that any of them can restore them."""


@dataclass(frozen=True, slots=True)
class TaskCommit:
    """What one partition contributes to the end of a commit cycle."""

    partition: int
    cycle: int
    offset_next: int
    watermark: int
    event_time_max: int
    journal: list[bytes]
    tables: list[TableRows]
    windows: list[ClosedWindows]
    puts: list[tuple[bytes, bytes]]
    """Rows for the store, to be written with the checkpoint once the cycle is committed."""
    deletes: list[tuple[bytes, bytes]]
    """Ranges of the store that are to go with them."""
    breakers: list[tuple[bytes, bytes]]
    """Changed device breakers, likewise; no bytes where one is gone."""
    ids_known_from: int = 0
    """Event time from which on all ids are known."""
    leader_epoch: int = -1
    """Of the newest record before `offset_next`; -1: not known."""


@dataclass(frozen=True, slots=True)
class CycleEnd:
    """Everything that step 2's second half, step 3 and step 5 of the commit cycle need."""

    commits: list[TaskCommit]
