"""Records of partitions that wait for a schema."""

from collections.abc import Iterable

import numpy as np

from streams.avro.decoded import Decoded
from streams.batch.events import Events
from streams.batch.lanes import lane_of
from streams.batch.records import Records
from streams.batch.rejects import Reject
from streams.engine.coupled import memory_of
from streams.engine.input_decoder import InputDecoder
from streams.engine.lane_records import in_lane
from streams.limits import SCHEMA_LOOKUPS_MAX


class WaitingRecords:
    """By lane (`batch.lanes`), in log order. A partition waits from its first record of an unknown schema on."""

    def __init__(self) -> None:
        self._queues: dict[int, list[Records]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __contains__(self, lane: int) -> bool:
        return lane in self._queues

    @property
    def lanes(self) -> frozenset[int]:
        """Lanes of which records wait."""
        return frozenset(self._queues)

    def add(self, lane: int, records: Records) -> None:
        """Have further records of a lane wait; what else came with them is not kept in memory."""
        self._queues.setdefault(lane, []).append(records.compact())

    def take_all(self) -> list[Records]:
        """All of them; none waits any more."""
        found = [records for queue in self._queues.values() for records in queue]
        self._queues.clear()
        return found

    def drop(self, lanes: Iterable[int]) -> None:
        """Forget the records of these lanes."""
        for lane in lanes:
            self._queues.pop(lane, None)

    def bytes_used(self) -> int:
        """Approximate memory of waiting records, in bytes."""
        return sum(memory_of(records) for queue in self._queues.values() for records in queue)

    def hold(
        self, records: Records, decoded: Decoded, skip: frozenset[int], of: InputDecoder
    ) -> tuple[Records, Decoded, frozenset[int]]:
        """Cut each partition off before its first record whose schema is not known yet; the rest waits.

        Returns what does not wait: records, what they are decoded to, and which of the rows in `skip` are left. Notes
        in `of.missing` which schemas are waited for.
        """
        cut: dict[int, int] = {}
        first_met = {rows[0]: schema_id for schema_id, rows in decoded.unresolved.items()}
        for schema_id, rows in decoded.unresolved.items():
            for row in rows:
                partition = int(records.partition[row])
                if row < cut.get(partition, row + 1):
                    cut[partition] = row
                    first_met[row] = schema_id
        # What stops a partition first, then the rest in log order, as many as are looked up in one go.
        wanted = [first_met[row] for row in (*sorted(cut.values()), *sorted(first_met))]
        of.missing.update(list(dict.fromkeys(wanted))[: max(SCHEMA_LOOKUPS_MAX, len(cut))])
        waits = np.zeros(len(records), dtype=np.bool_)
        for partition, row in cut.items():
            mine = records.partition == partition
            mine[:row] = False
            waits |= mine
            self.add(lane_of(of.number, partition), in_lane(records.take(np.flatnonzero(mine)), of.number))
        kept = np.flatnonzero(~waits)
        place = np.cumsum(~waits) - 1
        events: Events = decoded.events.take(~waits[decoded.events.row])
        rejects = [
            Reject(int(place[reject.row]), reject.reason, reject.message, reject.schema_id)
            for reject in decoded.rejects
            if not waits[reject.row]
        ]
        skip = frozenset(int(place[row]) for row in skip if not waits[row])
        unexpected = [(plan, place[rows[~waits[rows]]]) for plan, rows in decoded.unexpected]
        return records.take(kept), Decoded(events.with_rows(place[events.row]), rejects, {}, unexpected), skip
