"""Records on their way: parallel arrays, not yet in the order of arrival; values stay in Arrow until they are sent."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.traffic import TrafficBatch


@dataclass(frozen=True, slots=True)
class Rows:
    """Records in an order in which those of the same arrival are to be sent."""

    arrival_ms: NDArray[np.int64]
    keys: NDArray[np.object_]
    kinds: NDArray[np.int8]
    value: NDArray[np.intp]
    """Index of each record's value in `pool`; copies share one."""
    pool: pa.BinaryArray

    @staticmethod
    def join(first: "Rows | None", second: "Rows") -> "Rows":
        """The records of both, those of `first` before those of `second`."""
        if first is None:
            return second
        return Rows(
            np.concatenate([first.arrival_ms, second.arrival_ms]),
            np.concatenate([first.keys, second.keys]),
            np.concatenate([first.kinds, second.kinds]),
            np.concatenate([first.value, second.value + len(first.pool)]),
            pa.concat_arrays([first.pool, second.pool]),
        )

    def arrived(self, ends_ms: int, records_max: int) -> tuple[TrafficBatch, "Rows"]:
        """Records that arrive before `ends_ms`, in order of arrival, and those that are still on their way."""
        has_arrived = self.arrival_ms < ends_ms
        index = np.flatnonzero(has_arrived)
        # One sort of plain numbers, arrival and place in one: several times faster than a stable argsort.
        begin_ms = int(self.arrival_ms.min(initial=ends_ms))
        bits = len(self.arrival_ms).bit_length()
        places = np.sort((self.arrival_ms.take(index) - begin_ms << bits) | index)[:records_max]
        order = places & ((1 << bits) - 1)
        values = self.pool.take(pa.array(self.value.take(order))).to_numpy(zero_copy_only=False)
        batch = TrafficBatch(
            self.keys.take(order).tolist(),
            values.tolist(),
            ((places >> bits) + begin_ms).tolist(),
            self.kinds.take(order),
        )
        rest = np.flatnonzero(~has_arrived)
        waiting = Rows(
            self.arrival_ms.take(rest),
            self.keys.take(rest),
            self.kinds.take(rest),
            np.arange(rest.size),
            self.pool.take(pa.array(self.value.take(rest))),
        )
        return batch, waiting
