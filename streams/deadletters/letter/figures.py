"""Counts of dead letters for dashboards, alerts and pages."""

from collections.abc import Mapping
from dataclasses import dataclass

from streams.deadletters.letter.index import Rows
from streams.deadletters.letter.resolutions import States


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one dead-letter topic for a dashboard."""

    topic: str
    by_reason: Mapping[str, int]
    """Letters, open or not."""
    open_by_reason: Mapping[str, int]
    oldest_open_at_ms: int | None
    """When the oldest open letter failed for the first time."""


def figures(topic: str, rows: Rows, states: States) -> Figures:
    """Count letters (the latest attempt of each), and those that nothing was done about."""
    still = rows.where(states.is_open)
    oldest = int(still.first_failed_at.min()) if len(still) else None
    return Figures(topic, rows.counts("reason"), still.counts("reason"), oldest)
