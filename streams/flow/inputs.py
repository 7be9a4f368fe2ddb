"""One input of a flow: a topic, and which fields of its events are read. A flow that merges streams has several."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from streams.batch.events import Fields
from streams.flow.bounds import BOUNDS_DEFAULT, Bounds
from streams.flow.version import of_version
from streams.operators.spec import named_for
from streams.state.identity import Consequences, SettingsByName

LATE_SUFFIX: Final = ".late"
DEAD_LETTERS_SUFFIX: Final = ".dlq"
AUDIT_SUFFIX: Final = ".audit"


@dataclass(frozen=True, slots=True)
class Input:
    """A topic that a flow reads. Field names refer to the reader schema, the newest committed version of `subject`."""

    topic: str
    name: str = ""
    """Name that tells its fields from those of other inputs; empty for the only input of a flow."""
    id_field: str = "event_id"
    key_field: str = "device_id"
    time_field: str = "event_time"
    sequence_field: str = "sequence"
    payload_fields: tuple[str, ...] = ()
    text_fields: tuple[str, ...] = ()
    field_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    subject: str = ""
    bounds: Bounds = BOUNDS_DEFAULT
    is_internal: bool = False
    """Whether it is the topic between two stages of a flow: consumed records of it are deleted."""
    is_table: bool = False
    """Whether its events are rows of a compacted topic: each is known by its place in the log, none is a copy."""
    version: str = ""
    """Version of the flow, where it is not the declared one (`streams.flow.version`)."""
    named_after: str = ""
    """Topic that late events and dead letters are named after; empty: its own. The history of a topic may be read from
    another one."""

    @property
    def fields(self) -> Fields:
        """Fields that events of this input have."""
        return Fields(self.payload_fields, self.text_fields)

    @property
    def fields_read(self) -> tuple[str, ...]:
        """Every field of the schema that is read."""
        named = (self.id_field, self.key_field, self.time_field, self.sequence_field)
        return (*named, *self.payload_fields, *self.text_fields)

    @property
    def late(self) -> str:
        """Topic of this input's late events."""
        return of_version(f"{self.named_after or self.topic}{LATE_SUFFIX}", self.version)

    @property
    def dlq(self) -> str:
        """Topic of this input's dead letters."""
        return of_version(f"{self.named_after or self.topic}{DEAD_LETTERS_SUFFIX}", self.version)

    @property
    def audit(self) -> str:
        """Topic of what was done about each dead letter."""
        return of_version(f"{self.named_after or self.topic}{DEAD_LETTERS_SUFFIX}{AUDIT_SUFFIX}", self.version)

    # --- as part of the state's identity, beside the flow's first input ----------------------------------------------

    def named(self, what: str) -> str:
        """A name of this input among those of the flow."""
        return named_for(what, self.name)

    @property
    def recorded(self) -> dict[str, int]:
        """Bounds that are recorded with the state, under names of this input."""
        return {self.named(bound): value for bound, value in self.bounds.recorded.items()}

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """What changed bounds of this input mean for state that was written under other ones."""
        own = {bound: bounds[self.named(bound)] for bound in self.bounds.recorded if self.named(bound) in bounds}
        found = self.bounds.judge_change(own, settings)
        return Consequences(found.refused, tuple(f"{self.name}: {text}" for text in found.migrated))
