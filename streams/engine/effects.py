"""Effects of a micro-batch: what the committer, and nothing else, carries out."""

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
    """Records that were read in one partition and belong into another one, undecoded, in the order of the log."""

    partition: int
    """Where they belong."""
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]
    """With where each was read from the source, and the epoch of the layout by which it was sent on."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Keys whose rows in a partition of a table are to go: they have moved to another one, or are forgotten."""

    topic: str
    partition: int
    keys: Sequence[bytes]
    headers: Headers


@dataclass(frozen=True, slots=True)
class PartitionEffects:
    """What one partition's share of a micro-batch brings about."""

    partition: int
    records: Sequence[EventRecords] = field(default_factory=list)
    """Events for topics, in order."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Events that go nowhere, by outcome."""
    dropped_replayed: Mapping[str, Sequence[Headers]] = field(default_factory=dict)
    """Headers of those of them that were replayed from dead letters, by outcome."""
    found: Mapping[str, int] = field(default_factory=dict)
    """What operators have noticed, by name."""
    refused: Sequence[RefusedEvents] = field(default_factory=list)
    """Events that become dead letters since an output has refused them."""
    misrouted: int = 0
    """Accepted events whose key belongs into another partition."""
    misrouted_keys: Sequence[bytes] = ()
    """Some of their keys."""
    input_number: int = 0
    """Input whose records, or idle time, it comes of."""
    beside: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Events that were dropped beside the way to the clean topic, by name of the operator and outcome: they are counted
    in `records` or `dropped` as well."""
    partitions: int = 0
    """By how many the state is divided, where partitions of records go by that; 0: they go by those of the topic."""
    all_home: bool = True
    """Whether every key that was looked up has its home in the partition."""
    forwards: Sequence[Forwards] = ()
    """Records for other partitions."""

    def outcomes(self) -> dict[str, int]:
        """Events by what became of them."""
        counts = dict(self.dropped)
        for part in (each for each in self.records if each.outcome):
            counts[part.outcome] = counts.get(part.outcome, 0) + len(part.events)
        return counts

    def of(self, outcome: str) -> list[EventRecords]:
        """Records of an outcome."""
        return [part for part in self.records if part.outcome == outcome]


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
class TaskCommit:
    """What one partition contributes to the end of a commit cycle."""

    partition: int
    cycle: int
    offset_next: int
    watermark: int
    event_time_max: int
    journal: list[bytes]
    changelogs: list[ChangelogRows]
    carried: list[CarriedRows]
    """What each of their records carries of other operators: of the same keys, in the same order."""
    rows: list[RowRecords]
    store: WriteBatch
    """To be written with the checkpoint once the cycle is committed."""
    marks: Mapping[str, int]
    leader_epoch: int = -1
    """Of the newest record before `offset_next`; -1: not known."""
    further: tuple[Position, ...] = ()
    """Where the cycle ends in each input beside the source; offset, watermark and epoch are the source's."""
    partitions: int = 0
    """As of `PartitionEffects`."""
    growth: GrowthState = NO_GROWTH
    identity: Identity = field(default_factory=Identity)
    standing: Standing | None = None
    """How the partition stands in a growth after this cycle; None: the flow was never grown."""
    tombstones: Sequence[Tombstones] = ()
    progress: Mapping[int, Progress] = field(default_factory=dict)
    """What children are told, by lane: of each input by itself."""

    @property
    def is_adoption(self) -> bool:
        """Whether it writes state that is taken over from another partition, of which more is to come."""
        return self.standing is not None and self.standing.epoch == 0

    @property
    def positions(self) -> tuple[Position, ...]:
        """Where the cycle ends in each input."""
        return (Position(self.offset_next, self.watermark, self.leader_epoch), *self.further)


@dataclass(frozen=True, slots=True)
class CycleEnd:
    """Everything that step 2's second half, step 3 and step 5 of the commit cycle need."""

    commits: list[TaskCommit]
