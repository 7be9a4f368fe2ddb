"""Events that an output has refused: they become dead letters instead of going on."""

import numpy as np

from streams.batch.columns import Bools
from streams.batch.events import Events
from streams.operators.output import RefusedEvents, RefusedOutputs

_UNKNOWN_ROW = -1


def accepted(
    events: Events, refusals: RefusedOutputs, refused: list[RefusedEvents], *, were_held: bool = False
) -> Bools:
    """Which of `events` no output has refused; the others are appended to `refused`.

    `were_held`: they came in an earlier micro-batch.
    """
    good = np.ones(len(events), dtype=np.bool_)
    messages = refusals.messages(events)
    if messages:
        good[list(messages)] = False
        found = events.take(np.array(list(messages), dtype=np.int64))
        if were_held:
            found = found.with_rows(np.full(len(found), _UNKNOWN_ROW, dtype=np.int64))
        refused.append(RefusedEvents(found, list(messages.values())))
    return good
