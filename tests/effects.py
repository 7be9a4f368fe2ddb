"""What a micro-batch has brought about, by what became of the events."""

from streams.batch.events import Events
from streams.deadletters.letter.audit import Outcome
from streams.engine.effects import PartitionEffects
from streams.operators.late import LateEvents


def clean(effects: PartitionEffects) -> Events | None:
    """Unique events in order; None when there are none."""
    return next((part.events for part in effects.of(Outcome.CLEAN)), None)


def late(effects: PartitionEffects) -> list[LateEvents]:
    """Late events, with why and by how much."""
    return [part for part in effects.of(Outcome.LATE) if isinstance(part, LateEvents)]


def duplicates(effects: PartitionEffects) -> int:
    """Number of dropped copies."""
    return effects.dropped.get(Outcome.DUPLICATE, 0)
