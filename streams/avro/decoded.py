"""The result of decoding a micro-batch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan
from streams.batch.columns import Int64
from streams.batch.events import Events
from streams.batch.rejects import Reason, Reject

_UNREAD: Final = frozenset({Reason.MALFORMED, Reason.INCOMPATIBLE_SCHEMA})

Known = Mapping[SchemaKey, Plan | Reject]
"""Known schemas by id or GUID: a plan, or a reject (its row is ignored) for every record that names it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Result for a micro-batch. Events and rejects are in batch order; `unresolved` rows wait for the registry."""

    events: Events
    rejects: list[Reject]
    unresolved: Mapping[SchemaKey, list[int]]
    """Schema id or GUID to the rows that carry it; neither in `events` nor in `rejects`."""
    unexpected: Sequence[tuple[Plan, Int64]] = ()
    """Plans whose writer has fields that the reader does not know, and the rows that are written with it."""
    schemas: Collection[SchemaKey] = ()
    """Schema ids and GUIDs that records of the batch carry, known or not."""


def merged(valid: Decoded, rest: Decoded, rows: Int64) -> Decoded:
    """Both in batch order; `rest` is of the records at `rows`."""
    events, places = valid.events, rows.tolist()
    if len(rest.events):
        events = Events.concat([events, rest.events.with_rows(rows[rest.events.row])])
        events = events.take(np.argsort(events.row, kind="stable"))
    return Decoded(
        events,
        [replace(reject, row=places[reject.row]) for reject in rest.rejects],
        {key: [places[row] for row in found] for key, found in rest.unresolved.items()},
        [*valid.unexpected, *((plan, rows[found]) for plan, found in rest.unexpected)],
        {*valid.schemas, *rest.schemas},
    )


def note_unexpected(plan: Plan | Reject | None, rows: Sequence[int] | Int64, found: list[tuple[Plan, Int64]]) -> None:
    """Add the rows written with `plan` to `found`, if its writer has fields that the reader does not know."""
    if isinstance(plan, Plan) and plan.unexpected:
        found.append((plan, np.asarray(rows, dtype=np.int64)))


def without(rejects: Sequence[Reject], found: list[tuple[Plan, Int64]]) -> list[tuple[Plan, Int64]]:
    """Leave out rows that are not valid values of their schema: their content is unknown."""
    if not found or not rejects:
        return found
    unread = np.array([reject.row for reject in rejects if reject.reason in _UNREAD], dtype=np.int64)
    return [(plan, rows[~np.isin(rows, unread)]) for plan, rows in found]
