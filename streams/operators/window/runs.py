"""What all kinds of windows share: rows, closed windows, and folds of runs that continue each other."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from streams.batch.columns import Int64
from streams.batch.rows import Rows, put_rows
from streams.operators.fold.aggregate import Segments, WindowAggregate

NEVER: Final = int(np.iinfo(np.int64).max)
"""`close_at` of a window that is not open."""
_ROUNDS_MAX: Final = 3
"""Attempts at finding the values carried between windows of a key, before they are folded one after the other."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Rows of closed windows: position of their key in the input, and their state."""

    owner: Int64
    rows: Rows

    def __len__(self) -> int:
        return len(self.owner)


class WindowFamily(Protocol):
    """A kind of window per key. Of each key the newest one is kept, in a row with `close_at` among its fields."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row."""

    def empty(self, count: int) -> Rows:
        """Rows of keys that have had no window yet."""

    def fold(self, state: Rows, segments: Segments) -> tuple[Rows, Closed]:
        """Rows after the events of each segment (`state[i]` belongs to segment `i`), and what closed on the way.

        Closed windows come by key, and of each key in the order in which they closed.
        """


def close(state: Rows, watermark: int) -> Closed:
    """Close, in `state`, the windows that the watermark has passed."""
    owner = (state["close_at"] <= watermark).nonzero()[0]
    closed = Closed(owner, state.take(owner))
    state["close_at"][owner] = NEVER
    return closed


def fold_in_turn(aggregate: WindowAggregate, inner: Rows, picked: Segments, later: Int64, ordinal: Int64) -> Rows:
    """State of each run after its events.

    `inner` is what each begins with; those at `later` begin with what passes over from the run before them, whose state
    is not known yet. `ordinal` is the number of a run among those of its key.
    """
    states = aggregate.fold(inner, picked)
    if not len(later):
        return states
    # The values carried from run to run are found by iteration: fold all runs, start each with its predecessor's
    # result, fold again. When nothing changes, the result is that of folding one run after the other. After n rounds it
    # is right for the first n runs of each key in any case.
    for _ in range(_ROUNDS_MAX):
        carried = aggregate.carry(states.take(later - 1))
        if carried.tobytes() == inner.take(later).tobytes():
            return states
        put_rows(inner, later, carried)
        again = aggregate.fold(carried, picked.pick(picked.start[later], picked.end[later]))
        put_rows(states, later, again)
    for number in range(1, int(ordinal.max()) + 1):
        chosen = later[ordinal[later] == number]
        carried = aggregate.carry(states.take(chosen - 1))
        put_rows(states, chosen, aggregate.fold(carried, picked.pick(picked.start[chosen], picked.end[chosen])))
    return states
