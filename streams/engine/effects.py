"""Effects of a micro-batch, which only the committer carries out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.batch.columns import Headers
from streams.batch.rejects import DeadLetter
from streams.growth.stages import Progress, Standing
from streams.growth.state import NO_GROWTH, GrowthState
from streams.operators.changes import CarriedRows, ChangelogRows, RowRecords
from streams.operators.output import EventRecords, RefusedEvents
from streams.state.identity import Identity
from streams.state.journal import Position
from streams.state.store import WriteBatch


@dataclass(frozen=True, slots=True)
class Forwards:
    """Undecoded records that belong to another partition than the one they were read in, in log order."""

    partition: int
    """The partitions they belong to."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]
    """Headers with their place in the source, and the epoch of the layout by which they were forwarded."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Keys whose rows in a partition of a table are to be deleted: they have moved, or are forgotten."""

    topic: str
    partition: int
    keys: Sequence[bytes]
    headers: Headers


@dataclass(frozen=True, slots=True)
class PartitionEffects:
    """Effects of one partition's share of a micro-batch."""

    partition: int
    records: Sequence[EventRecords] = field(default_factory=list)
    """Events for topics, in order."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Events that go to no topic, by outcome."""
    dropped_replayed: Mapping[str, Sequence[Headers]] = field(default_factory=dict)
    """Headers of those of them that were replayed from dead letters, by outcome."""
    found: Mapping[str, int] = field(default_factory=dict)
    """Observations of operators, by name."""
    refused: Sequence[RefusedEvents] = field(default_factory=list)
    """Events that become dead letters because an output has refused them."""
    misrouted: int = 0
    """Number of accepted events whose key belongs to another partition."""
    misrouted_keys: Sequence[bytes] = ()
    """Some of the misrouted keys, as examples."""
    input_number: int = 0
    """Input that the records, or the idle time, belong to."""
    beside: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Events dropped on branches beside the way to the clean topic, by operator and outcome: they also count in
    `records` or `dropped`.
    """
    partitions: int = 0
    """Partition count of the state, if output partitions follow it; 0: the topics' own counts apply."""
    all_home: bool = True
    """Whether every key that was looked up belongs to the partition."""
    forwards: Sequence[Forwards] = ()
    """Records for other partitions."""

    def outcomes(self) -> dict[str, int]:
        """Events by outcome."""
        counts = dict(self.dropped)
        for part in (each for each in self.records if each.outcome):
            counts[part.outcome] = counts.get(part.outcome, 0) + len(part.events)
        return counts

    def of(self, outcome: str) -> list[EventRecords]:
        """Records of an outcome."""
        return [part for part in self.records if part.outcome == outcome]


@dataclass(frozen=True, slots=True)
class Effects:
    """Effects of a micro-batch."""

    now_ms: int
    records: int = 0
    partitions: list[PartitionEffects] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    unexpected: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Records by (schema id, path of a field that the reader does not know)."""


@dataclass(frozen=True, slots=True)
class TaskCommit:
    """One partition's contribution to the end of a commit cycle."""

    partition: int
    cycle: int
    offset_next: int
    watermark: int
    event_time_max: int
    journal: list[bytes]
    changelogs: list[ChangelogRows]
    carried: list[CarriedRows]
    """State of other operators that these records carry: of the same keys, in the same order."""
    rows: list[RowRecords]
    store: WriteBatch
    """Rows to write with the checkpoint once the cycle is committed."""
    marks: Mapping[str, int]
    leader_epoch: int = -1
    """Leader epoch of the newest record before `offset_next`; -1: not known."""
    further: tuple[Position, ...] = ()
    """Position in each input beside the source; offset, watermark and epoch are the source's."""
    partitions: int = 0
    """The same as in `PartitionEffects`."""
    growth: GrowthState = NO_GROWTH
    identity: Identity = field(default_factory=Identity)
    standing: Standing | None = None
    """State of the partition in a growth after this cycle; None: the flow was never grown."""
    tombstones: Sequence[Tombstones] = ()
    progress: Mapping[int, Progress] = field(default_factory=dict)
    """Reports to children by lane: for each input separately."""

    @property
    def is_adoption(self) -> bool:
        """Whether it writes a part of state taken over from another partition, with more to come."""
        return self.standing is not None and self.standing.epoch == 0

    @property
    def positions(self) -> tuple[Position, ...]:
        """Where the cycle ends in each input."""
        return (Position(self.offset_next, self.watermark, self.leader_epoch), *self.further)


@dataclass(frozen=True, slots=True)
class CycleEnd:
    """What the second half of step 2, step 3 and step 5 of the commit cycle need."""

    commits: list[TaskCommit]
