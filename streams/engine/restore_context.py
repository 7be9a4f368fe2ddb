"""What a restore works on: one partition of a flow, and where its state is in Kafka."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from streams.engine.config import TaskConfig
from streams.engine.log import Changelog
from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.state.identity import Identity, Places, rebuild_command

OnRows = Callable[[int, int], None]
"""Told how many changelog records were read, and how many rows of state they held."""


@dataclass(frozen=True, slots=True)
class RestoreContext:
    """What a restore of one partition needs."""

    config: TaskConfig
    partition: int
    changelog: Changelog
    places: Places
    """Where the flow's topics are now."""
    on_rows: OnRows
    layouts: Layouts | None = None
    """All that is known of the flow's growths; None: nothing is asked for, state is in the layout that it is in."""

    @property
    def pipeline(self) -> Pipeline:
        """The flow whose partition is restored."""
        return self.config.pipeline

    @property
    def where(self) -> str:
        """Name of the partition in messages."""
        return f"{self.pipeline.source}-{self.partition}"

    def where_of(self, number: int) -> str:
        """The partition of an input, for messages."""
        return f"{self.config.inputs[number].topic}-{self.partition}"

    @property
    def tables(self) -> list[str]:
        """Topics that bring rows by key back."""
        return [state.name for state in self.config.keyed if state.is_table]

    def declared(self, epoch: int) -> Identity:
        """Identity of what is declared and there now, of state in the layout of `epoch`: if that is known."""
        found = self.config.identity(self.places)
        if self.layouts is None:
            return found
        layout = self.layouts.of(epoch) or self.layouts.known[-1]
        return replace(found, epoch=layout.epoch, partitions=layout.partitions)

    def rebuild(self, source: str) -> str:
        """The command that rebuilds the flow's state from `local` state or from the `source`, for messages."""
        return rebuild_command(self.pipeline, source)
