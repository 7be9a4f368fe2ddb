"""The state of one source partition: its operators over its store, and how far they have got."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from streams.batch.columns import TIME_MIN
from streams.engine.config import TaskConfig
from streams.engine.journal_index import JournalIndex
from streams.engine.refusals import Refusals
from streams.operators.base import Operator
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Places
from streams.state.store import Store, WriteBatch

Kind = TypeVar("Kind", bound=Operator)
Value = TypeVar("Value")


class PartitionState:
    """What is remembered of one partition. Between calls of the engine it is consistent; one thread at a time."""

    def __init__(self, config: TaskConfig, partition: int, store: Store, checkpoint: Checkpoint | None) -> None:
        """Operators without what is in memory only: a restore brings that back."""
        self.config = config
        self.partition = partition
        self.store = store
        self.refusals = Refusals(config.pipeline, config.partition_of)
        """What outputs have refused; the engine's own ones once the task is installed."""
        context = config.context(partition, store, lambda: self.refusals)
        self.keys = context.keys
        fields = config.fields_given
        self.operators: dict[str, Operator] = {
            spec.name: spec.build(replace(context, fields=fields[spec.name])) for spec in config.operators
        }
        self.checkpoint = checkpoint or Checkpoint(
            cycle=0, offset_next=-1, watermark=TIME_MIN, journal_next=0, replay_from=0
        )
        self.identity = config.identity(Places())
        self.journal_index = JournalIndex()
        self.positions = self.checkpoint.positions(config.further_names)
        """Where the task stands in each input."""
        self.has_output = False
        """Whether the open cycle has records for topics."""
        self.cycle_closed = self.checkpoint.cycle
        self.offsets_closed = self.offsets_next

    @property
    def offset_next(self) -> int:
        """Offset to go on from in the source."""
        return self.positions[0].offset_next

    @property
    def offsets_next(self) -> tuple[int, ...]:
        """Offset to go on from in each input."""
        return tuple(position.offset_next for position in self.positions)

    @property
    def watermark(self) -> int:
        """Up to where the events of all inputs are in order: the smallest of their watermarks."""
        return min(position.watermark for position in self.positions)

    def watermark_of(self, operator: str) -> int:
        """Up to where an operator has got all events."""
        return self.config.watermark_of(operator, self.positions)

    def stand_at(self, checkpoint: Checkpoint) -> None:
        """Start from `checkpoint`: what it names has been read."""
        replay_from = self.journal_index.replay_from(checkpoint.journal_next)
        self.checkpoint = replace(checkpoint, replay_from=replay_from, marks=self.marks())
        self.identity = checkpoint.identity
        self.positions = checkpoint.positions(self.config.further_names)
        self.cycle_closed, self.offsets_closed = checkpoint.cycle, self.offsets_next

    def operator(self, kind: type[Kind]) -> Kind:
        """The first operator of a kind.

        Raises:
            LookupError: there is none.

        """
        for operator in self.operators.values():
            if isinstance(operator, kind):
                return operator
        raise LookupError(f"no {kind.__name__} in this flow")

    def marks(self) -> dict[str, int]:
        """Numbers that the checkpoint keeps for the operators, by name."""
        return merged([one.marks for one in self.operators.values()])

    def forget_keys(self) -> None:
        """Drop all keys and their rows from memory; only between cycles, when every row is in the store."""
        batch = WriteBatch()
        self.keys.forget(batch)
        self.store.write(batch)
        for operator in self.operators.values():
            operator.keys_forgotten()

    @property
    def is_settled(self) -> bool:
        """Whether everything this partition has done is committed and applied: nothing is open or in flight."""
        return (
            self.cycle_closed == self.checkpoint.cycle
            and self.offsets_next == self.offsets_closed
            and not self.has_changed
        )

    @property
    def has_changed(self) -> bool:
        """Whether something has come of the open cycle, beside offsets."""
        operators = self.operators.values()
        return self.has_output or self.keys.has_changed or not all(one.is_settled for one in operators)

    # --- what it takes ----------------------------------------------------------------------------------------------

    def in_memory(self) -> dict[str, int]:
        """What is in memory, by name."""
        return {name: count for one in self.operators.values() for name, count in one.in_memory().items()}

    def bytes_used(self) -> int:
        """Approximate memory of this partition."""
        return self.keys.bytes_used + sum(operator.bytes_used for operator in self.operators.values())

    def cycle_bytes(self) -> int:
        """Approximate memory that committing the open cycle takes."""
        return self.keys.changed_bytes + sum(operator.cycle_bytes for operator in self.operators.values())


def merged(parts: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """What operators write under names of their own.

    Raises:
        ValueError: two of them have the same one; what is written could not be told apart.

    """
    found: dict[str, Value] = {}
    for part in parts:
        if clash := found.keys() & part.keys():
            raise ValueError(f"two operators write {min(clash)!r} to the journal: call it by the operator's name")
        found |= part
    return found
