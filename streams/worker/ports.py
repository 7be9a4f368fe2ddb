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
    """Clock of the wall, and a monotonic one."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; may step."""

    def monotonic_s(self) -> float:
        """Seconds of a clock that never steps; its zero is arbitrary."""


class Outcome(Protocol):
    """A commit that was submitted to the commit thread."""

    def done(self) -> bool:
        """Whether it has ended, successfully or not."""

    def result(self) -> object:
        """Wait for its end.

        Raises:
            CycleAborted: it did not happen.
            StreamsError: it did not happen, and this worker cannot go on.

        """


class CommitThread(Protocol):
    """Runs commits, one at a time, in parallel with the processing of the next micro-batch."""

    def submit(self, commit: Callable[[], None], /) -> Outcome:
        """Start a commit."""


class BetweenSteps(Protocol):
    """Runs work in the thread of the core, between two steps, in the order of the calls."""

    def later(self, work: Callable[[], None]) -> None:
        """Queue `work`; do not wait for it."""

    def bounded(self, work: Callable[[], None], what: str) -> None:
        """Queue `work` and wait for its end, no longer than a rebalance may take; after that it still runs, unawaited.

        `what` describes the work in the log.
        """


class IntakeCommands(Protocol):
    """Commands for the consumer; it carries them out before its next poll. See `streams.kafka.intake.Intake`."""

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Consume `partition`, a lane, from `offset_next` on.

        `bounds`: its first offset, and the one after its last record.
        """

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop consuming `partitions` in all inputs, and start a new generation of micro-batches."""

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the lanes that are being consumed."""


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
    """Whether its result is still wanted; any thread may ask."""
    install: Callable[[Restored], None]
    """Installs the result, or ignores it when it is no longer wanted. Call it in the core's thread."""


class Stores(Protocol):
    """The local stores of the partitions."""

    def restore(self, attempt: Attempt, *, after_s: float) -> None:
        """Restore a partition in the background, `after_s` seconds from now, and hand the result to `install`."""

    def release(self, partition: int, task: PartitionTask | None) -> None:
        """Close the store of a partition; what its task has in memory, and is committed, is moved there first."""

    def flush(self) -> None:
        """Make what was written so far durable.

        Raises:
            StoreUnavailable: the disk refuses.

        """


class Truncation(Protocol):
    """Deletes records of a changelog that are no longer needed."""

    def truncate(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete records before an offset, by partition. A failure is logged, and a later call repeats the deletion."""


class SchemaExpiry(Protocol):
    """How long the registry's answers stay valid."""

    def expired(self) -> list[SchemaKey]:
        """Schemas that are to be looked up again when next met; each is returned once."""


class SourceCheck(Protocol):
    """Checks whether offsets in the source still mean what they did."""

    def require_unchanged(self, now_s: float) -> None:
        """Return if the source is unchanged as far as is known; `now_s`: monotonic.

        Raises:
            CycleAborted: the source was recreated or truncated; the state must be reloaded.

        """


class HostMemory(Protocol):
    """Memory of the process outside of its tasks."""

    def resident_bytes(self) -> int:
        """Resident memory of the process in bytes."""

    def cache_bytes(self) -> int:
        """Bytes that the stores' caches and write buffers use."""

    def give_back(self) -> None:
        """Return the allocators' free memory to the system."""


class GrowthNews(Protocol):
    """What is known of the growths of the flow. It may be out of date: a growth only moves forward. Any thread."""

    def layouts(self) -> Layouts | None:
        """The layouts of the flow; None: not known yet, so nothing is done about a growth."""

    def standings(self) -> Mapping[int, Standing]:
        """State of each partition in a growth, as the group has committed it."""

    def want_ends(self, partitions: frozenset[int]) -> None:
        """Keep asking for the ends of these lanes of the inputs, and of no others."""

    def ends(self) -> Ends | None:
        """The newest answer; None: there is none."""


class ForwardedCommands(Protocol):
    """Commands for the reader of the forwarded topics, one per input; it carries them out before it reads next."""

    def start(self, lane: int, offset_next: int) -> None:
        """Read what is forwarded to a lane from `offset_next` on."""

    def stop(self, partitions: Iterable[int]) -> None:
        """Stop reading these lanes in all inputs; records that were read and not processed are ignored."""

    def pause_only(self, lanes: frozenset[int]) -> None:
        """Pause exactly these of the lanes that are being read."""


@dataclass(frozen=True, slots=True)
class AskedToForget:
    """Requests to forget keys that were open when their topic was read to its end."""

    read_at_s: float
    """When that reading began, by the worker's monotonic clock."""
    requests: tuple[ForgetRequest, ...]


class ForgetNews(Protocol):
    """Reads requests to forget keys."""

    def asked(self) -> AskedToForget | None:
        """The newest answer, some seconds old; None: there is none yet. Any thread."""


class NeverAsked:
    """`ForgetNews` for a flow without requests."""

    def asked(self) -> AskedToForget | None:
        """No requests."""
        return None


class NeverGrown:
    """`GrowthNews` and `ForwardedCommands` for a flow that was never grown."""

    def layouts(self) -> Layouts | None:
        """No layouts."""
        return None

    def standings(self) -> Mapping[int, Standing]:
        """No partition takes part in a growth."""
        return {}

    def want_ends(self, partitions: frozenset[int]) -> None:
        """Do nothing: nobody needs ends."""

    def ends(self) -> Ends | None:
        """No answer."""
        return None

    def start(self, lane: int, offset_next: int) -> None:
        """Do nothing: there is no forwarded topic."""

    def stop(self, partitions: Iterable[int]) -> None:
        """Do nothing: there is no forwarded topic."""

    def pause_only(self, lanes: frozenset[int]) -> None:
        """Do nothing: there is no forwarded topic."""
