"""What the core of a flow needs from outside: time, a commit thread, the intake, stores, the journal, the host.

The worker implements these protocols over Kafka, RocksDB, threads and the event loop (`streams.worker.pipeline`,
`streams.worker.wiring`); the simulation implements them in memory, with everything that can happen in between.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streams.avro.framing import SchemaKey
from streams.engine.forget import ForgetRequest
from streams.engine.task import PartitionTask
from streams.engine.telling import Ends
from streams.growth.layouts import Layouts
from streams.growth.stages import Standing


class TimeSource(Protocol):
    """The time."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; may step."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that never steps and counts from anywhere."""


class Outcome(Protocol):
    """A commit that was handed to the commit thread."""

    def done(self) -> bool:
        """Whether it has ended, in either way."""

    def result(self) -> object:
        """Wait for its end.

        Raises:
            CycleAborted: it did not happen.
            StreamsError: it did not, and this worker cannot go on.

        """


class CommitThread(Protocol):
    """Runs commits, one at a time, beside the processing of the next micro-batch."""

    def submit(self, commit: Callable[[], None], /) -> Outcome:
        """Start `commit`."""


class BetweenSteps(Protocol):
    """Runs work in the thread of the core, between two steps, in the order of the calls."""

    def later(self, work: Callable[[], None]) -> None:
        """Have `work` run; do not wait for it."""

    def bounded(self, work: Callable[[], None], what: str) -> None:
        """Have `work` run and wait for its end, no longer than a rebalance may take; then it still runs, later.

        `what` is being done, for the log.
        """


class IntakeCommands(Protocol):
    """What the consumer is told; it carries commands out before its next poll. See `streams.kafka.intake.Intake`."""

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Consume `partition`, a lane, from `offset_next` on.

        `bounds`: its first offset, and the one after its last record.
        """

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop consuming `partitions` in all inputs, and begin another generation of micro-batches."""

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the lanes that are consumed."""


class Restored(NamedTuple):
    """A partition that can be processed."""

    task: PartitionTask
    source_bounds: tuple[int, int]
    """First offset of its source partition, and the offset after the last record."""
    further_bounds: tuple[tuple[int, int], ...] = ()
    """The same of its partition in each input beside the source."""


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One attempt to restore a partition. A later one for the same partition voids it."""

    partition: int
    is_wanted: Callable[[], bool]
    """Whether its result is still of use; any thread may ask."""
    install: Callable[[Restored], None]
    """Takes the result, and does nothing when it is no longer wanted. To be called in the core's thread."""


class Stores(Protocol):
    """The local stores of the partitions."""

    def restore(self, attempt: Attempt, *, after_s: float) -> None:
        """Restore a partition in the background, `after_s` seconds from now, and hand the result to `install`."""

    def release(self, partition: int, task: PartitionTask | None) -> None:
        """Close the store of a partition; what its task has in memory, and is committed, is moved there first."""

    def flush(self) -> None:
        """Make what was written so far survive a crash.

        Raises:
            StoreUnavailable: the disk refuses.

        """


class Truncation(Protocol):
    """Deletes what is no longer needed of a changelog."""

    def truncate(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete records before an offset, by partition. A failure is logged, and made good by a later call."""


class SchemaExpiry(Protocol):
    """Remembers for how long the registry's answers are good."""

    def expired(self) -> list[SchemaKey]:
        """Schemas that are to be asked for again when they are next met; each is returned once."""


class SourceCheck(Protocol):
    """Looks whether offsets in the source still mean what they did."""

    def require_unchanged(self, now_s: float) -> None:
        """Return if nothing is known against it; `now_s`: monotonic.

        Raises:
            CycleAborted: the source was recreated or truncated; the state must be reloaded.

        """


class HostMemory(Protocol):
    """Memory of the process beyond that of tasks."""

    def resident_bytes(self) -> int:
        """Resident memory of the process."""

    def cache_bytes(self) -> int:
        """Memory that the stores' caches and write buffers take."""

    def give_back(self) -> None:
        """Return what allocators keep to the system."""


class GrowthNews(Protocol):
    """What is known of the growths of the flow. It may be out of date: all of it only goes forward. Any thread."""

    def layouts(self) -> Layouts | None:
        """The layouts of the flow; None: not known yet, nothing is done about any."""

    def standings(self) -> Mapping[int, Standing]:
        """How partitions stand by what the group has committed."""

    def want_ends(self, partitions: frozenset[int]) -> None:
        """Have the ends of these lanes of the inputs asked for, again and again; of no others any more."""

    def ends(self) -> Ends | None:
        """The newest answer; None: there is none."""


class ForwardedCommands(Protocol):
    """What the reader of the forwarded topics, one for each input, is told; carried out before it reads next."""

    def start(self, lane: int, offset_next: int) -> None:
        """Read what is forwarded to a lane from `offset_next` on."""

    def stop(self, partitions: Iterable[int]) -> None:
        """Read these no more, of all inputs; what was read of them and is not processed is void."""

    def pause_only(self, lanes: frozenset[int]) -> None:
        """Pause exactly these of the lanes that are read."""


@dataclass(frozen=True, slots=True)
class AskedToForget:
    """Requests to forget keys that were open when their topic was read to its end."""

    read_at_s: float
    """When that reading began, by the monotonic clock of the worker."""
    requests: tuple[ForgetRequest, ...]


class ForgetNews(Protocol):
    """What the worker is asked to forget."""

    def asked(self) -> AskedToForget | None:
        """The newest answer, of some seconds ago; None: there is none yet. Any thread."""


class NeverAsked:
    """`ForgetNews` of a flow of which nobody asks anything."""

    def asked(self) -> AskedToForget | None:
        """None."""
        return None


class NeverGrown:
    """`GrowthNews` and `ForwardedCommands` of a flow that has one layout only."""

    def layouts(self) -> Layouts | None:
        """None."""
        return None

    def standings(self) -> Mapping[int, Standing]:
        """None."""
        return {}

    def want_ends(self, partitions: frozenset[int]) -> None:
        """Nobody asks."""

    def ends(self) -> Ends | None:
        """None."""
        return None

    def start(self, lane: int, offset_next: int) -> None:
        """Nothing is there."""

    def stop(self, partitions: Iterable[int]) -> None:
        """Nothing is there."""

    def pause_only(self, lanes: frozenset[int]) -> None:
        """Nothing is there."""
