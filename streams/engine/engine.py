"""The engine of one flow: micro-batches in, effects out; cycles closed; tasks installed and dropped.

Synchronous and free of I/O but for its tasks' stores. One thread at a time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np

from streams.avro.decode import Decoder
from streams.avro.decoded import Decoded, Known
from streams.avro.framing import SchemaKey
from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN
from streams.batch.lanes import all_lanes, input_of, inputs_of, partition_of_lane
from streams.batch.partitions import last_rows, of_each_row
from streams.batch.records import Records
from streams.engine.config import TaskConfig
from streams.engine.coupled import CoupledInputs, Ready
from streams.engine.effects import CycleEnd, Effects, Forwards, PartitionEffects
from streams.engine.forwarded import forwards, hashes_of, homes
from streams.engine.input_decoder import InputDecoder
from streams.engine.key_hashes import KeyHashes
from streams.engine.lane_records import by_partition, of_input
from streams.engine.letters import dead_letter, letters_of_refused
from streams.engine.refusals import Refusals
from streams.engine.task import PartitionTask, run_together
from streams.engine.waiting import WaitingRecords
from streams.growth.state import ForwardedReading
from streams.limits import BATCH_RECORDS_MAX, MISROUTED_KEYS_LOGGED, SCHEMA_LOOKUPS_MAX
from streams.operators.base import Operator
from streams.operators.spec import RecordGate
from streams.sources.base import Idle

_OFFSET_MAX: Final = np.iinfo(np.int64).max
_KEEP_ROWS: Final = 20_000
_KEPT_SHARE: Final = 4
"""Share of memory for state that stays there."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What intake hands to the agent: records, the time of day, and which partitions are idle."""

    records: Records | None
    now_ms: int
    idle: Mapping[int, Idle] = field(default_factory=dict)
    """Idle times by lane (`batch.lanes`), as in `records.partition`."""
    generation: int = 0
    """Batches consumed before the last reload of the state are ignored."""
    clock_ms: int | None = None
    """Substitute for unusable record timestamps (ADR 16); None: `now_ms`.

    Unlike that, it never goes back with the wall clock.
    """
    forwarded: Records | None = None
    """Records of the forwarded topics, of partitions that have been grown; `partition` is the lane of the input."""
    forwarded_idle: Mapping[int, Idle] = field(default_factory=dict)
    """The same as `idle`, for the forwarded topic."""
    polled_ms: int = 0
    """When it was read, monotonic, by the clock of `idle`."""
    waited_ms: int = 0
    """How long its records were gathered: roughly the age of the oldest."""

    @property
    def is_large(self) -> bool:
        """Whether intake did not have to wait for records: the worker lags."""
        return self.records is not None and len(self.records) > BATCH_RECORDS_MAX // 2


class Engine:
    """All partition tasks of one flow in one worker."""

    def __init__(self, config: TaskConfig, *decoders: Decoder) -> None:
        """`decoders`: one for each input, in their order."""
        self.tasks: dict[int, PartitionTask] = {}
        self.adopting: dict[int, PartitionTask] = {}
        """Tasks that have to commit adopted state before they process anything."""
        self.refusals = Refusals(config.pipeline, config.partitions_of)
        self.config = config
        self._inputs = [InputDecoder(number, one) for number, one in enumerate(decoders)]
        self._waiting = WaitingRecords()
        self._hashes = KeyHashes(config.key_map)
        self._coupled = CoupledInputs([one.bounds.lateness_ms for one in config.inputs], self._hashes)
        self._idle_base: dict[int, tuple[int, int]] = {}
        """By lane, since when it is idle, and its watermark then."""

    # --- schemas ----------------------------------------------------------------------------------------------------

    @property
    def missing_schemas(self) -> frozenset[SchemaKey]:
        """Schema ids and GUIDs that partitions wait for."""
        return frozenset().union(*(one.missing for one in self._inputs))

    def missing_of(self, input_number: int) -> frozenset[SchemaKey]:
        """Missing schemas of one input."""
        return frozenset(self._inputs[input_number].missing)

    @property
    def waiting_partitions(self) -> frozenset[int]:
        """Lanes that wait for a schema; intake should pause them."""
        return self._waiting.lanes

    @property
    def has_grown(self) -> bool:
        """Whether a partition's state is in a later layout than the first."""
        return any(task.home.has_moved for task in self.tasks.values())

    @property
    def own_waiting(self) -> frozenset[int]:
        """Lanes of which records wait for what their parent forwards. Any thread may ask."""
        return self._coupled.own_waiting

    @property
    def forwarded_waiting(self) -> frozenset[int]:
        """Lanes of which forwarded records wait for their own logs. Any thread may ask."""
        return self._coupled.forwarded_waiting

    @property
    def own_full(self) -> frozenset[int]:
        """Lanes with so many waiting records that intake should pause their own logs."""
        return self._coupled.own_full

    @property
    def forwarded_full(self) -> frozenset[int]:
        """Lanes with so many waiting forwarded records that intake should pause these."""
        return self._coupled.forwarded_full

    def learn(self, known: Known, input_number: int = 0) -> None:
        """Add the registry's answers about schemas of an input."""
        self._inputs[input_number].learn(known)

    def forget_schema(self, key: SchemaKey) -> None:
        """Look up schema `key` again when it is next met (it may have been registered since)."""
        for one in self._inputs:
            one.known.forget(key)

    # --- processing -------------------------------------------------------------------------------------------------

    def process(self, batch: MicroBatch) -> Effects:
        """Process a micro-batch: returns its effects, and advances the state of the tasks."""
        effects = Effects(batch.now_ms)
        parts: list[Records] = []
        if self._waiting and not any(one.missing for one in self._inputs):
            parts = self._waiting.take_all()
        if batch.records is not None and len(batch.records):
            parts.append(batch.records)
        records = self._current(Records.concat(parts)) if parts else None
        has_learned = [one.number for one in self._inputs if not one.missing]
        if batch.forwarded is not None or self.has_grown:
            records = self._coupled.add(records, batch.forwarded, self.tasks, batch.idle, batch.polled_ms)
        if records is not None and len(records):
            effects = self._process_inputs(records, batch)
        for ready in self._coupled.ready(
            self.tasks, self.waiting_partitions, self._decoded, partial(self._clock, batch), again=has_learned
        ):
            effects = self._process_merged(ready, batch, effects)
        for part in (*self._close_overdue(), *self._release_idle(batch)):
            effects.partitions.append(part)
            effects.dead_letters.extend(letters_of_refused(part, None))
        return effects

    def _current(self, records: Records) -> Records | None:
        """Only records of our tasks and of this generation: others may be left over from before a rebalance."""
        if not len(records):
            return records
        lanes, _ = last_rows(records.partition)
        wanted_from = np.full(len(lanes), _OFFSET_MAX)
        for number, lane in enumerate(lanes.tolist()):
            task = self.tasks.get(partition_of_lane(lane))
            if task is not None and lane in self._waiting:
                self._waiting.add(lane, records.take((records.partition == lane).nonzero()[0]))
            elif task is not None:
                wanted_from[number] = task.positions[input_of(lane)].offset_next
        good = records.offset >= of_each_row(records.partition, lanes, wanted_from)
        return records if good.all() else records.take(good.nonzero()[0])

    def _process_inputs(self, records: Records, batch: MicroBatch) -> Effects:
        if len(self._inputs) == 1:
            return self._process_records(records, batch, self._inputs[0])
        effects = Effects(batch.now_ms, len(records))
        unexpected: Counter[tuple[int, str]] = Counter()
        numbers = inputs_of(records.partition)
        for one in self._inputs:
            mine = (numbers == one.number).nonzero()[0]
            if len(mine):
                found = self._process_records(of_input(records.take(mine)), batch, one)
                effects.partitions.extend(found.partitions)
                effects.dead_letters.extend(found.dead_letters)
                unexpected.update(found.unexpected)
        return replace(effects, unexpected=unexpected)

    def _process_records(self, records: Records, batch: MicroBatch, of: InputDecoder) -> Effects:
        """Effects of records of one input, by partition."""
        clock = self._clock(batch, records, of.number)
        away = self._away(records)
        gates = list(self._gates(of.number))
        skip = frozenset().union(*(gate.at_start(records, states, clock) for gate, states in gates))
        skip = (skip | away.keys()) if away else skip
        with self.config.stopwatch("decode"):
            decoded = of.decoder.decode(records, of.known, skip, clock)
        of.known.used(decoded.schemas)
        of.known.trim()
        if decoded.unresolved:
            records, decoded, skip = self._waiting.hold(records, decoded, skip, of)
            away = self._away(records)
        skip = (skip - away.keys()) if away else skip
        for gate, states in gates:
            decoded = gate.judge(records, decoded, skip, states, clock)
        letters = [dead_letter(records, reject, of.number) for reject in decoded.rejects]
        unexpected: Counter[tuple[int, str]] = Counter()
        for plan, rows in decoded.unexpected:  # a schema given twice, by prefix and by header
            unexpected.update({(plan.schema_id, name): len(rows) for name in plan.unexpected if len(rows)})
        effects = Effects(batch.now_ms, len(records), [], letters, unexpected)
        epochs = records.leader_epochs
        runs = [
            self.tasks[partition].begin(mine, offset_last + 1, clock, epochs.get(partition, -1), of.number)
            for partition, mine, offset_last in by_partition(records, decoded.events)
        ]
        for part in run_together(runs):
            effects.partitions.append(part)
            effects.dead_letters.extend(letters_of_refused(part, records))
        return self._with_forwards(effects, records, away) if away else effects

    def _clock(self, batch: MicroBatch, records: Records, input_number: int) -> Clock:
        read_ms = batch.now_ms if batch.clock_ms is None else batch.clock_ms
        return Clock(max(read_ms, records.broker_ms), self._inputs[input_number].decoder.skew_ms_max)

    # --- records of other partitions, and of two logs ---------------------------------------------------------------

    def _away(self, records: Records) -> dict[int, int]:
        """Rows that another partition processes, and which one; they are not decoded here."""
        found: dict[int, int] = {}
        grown = [(partition, task) for partition, task in self.tasks.items() if task.home.has_moved]
        if not grown:
            return found
        hashes = hashes_of(records, self._hashes)
        for partition, task in grown:
            rows = (records.partition == partition).nonzero()[0]
            if len(rows):
                to = homes(hashes[rows], task.layout, partition)
                found |= {int(rows[at]): int(to[at]) for at in (to != partition).nonzero()[0]}
        return found

    def _with_forwards(self, effects: Effects, records: Records, away: Mapping[int, int]) -> Effects:
        to = np.full(len(records), -1)
        to[list(away)] = list(away.values())
        parts = []
        for part in effects.partitions:
            rows = ((records.partition == part.partition) & (to >= 0)).nonzero()[0]
            task = self.tasks[part.partition]
            found = tuple(forwards(records, rows, to, records.partition, records.offset, task.identity.epoch))
            task.strays[part.input_number] += len(rows)
            strangers = task.home.strangers([key for row in rows.tolist() if (key := records.key[row]) is not None])
            parts.append(_forwarding(part, found, strangers) if found else part)
        return replace(effects, partitions=parts)

    def _decoded(self, records: Records, skip: frozenset[int], clock: Clock, input_number: int) -> Decoded:
        of = self._inputs[input_number]
        with self.config.stopwatch("decode"):
            decoded = of.decoder.decode(records, of.known, skip, clock)
        of.known.used(decoded.schemas)
        of.known.trim()
        of.missing.update(list(decoded.unresolved)[:SCHEMA_LOOKUPS_MAX])
        return decoded

    def _process_merged(self, ready: Ready, batch: MicroBatch, effects: Effects) -> Effects:
        """Add the effects of records merged from the two logs of a lane."""
        task, decoded, records, number = ready.task, ready.decoded, ready.records, ready.input_number
        if len(records):
            clock = self._clock(batch, records, number)
            for gate, states in self._gates(number):
                decoded = gate.judge(records, decoded, frozenset(), states, clock)
        growth = task.growth.reading(number, ForwardedReading(ready.forwarded_next, ready.merged.after))
        part = task.on_merged(
            decoded.events, ready.trace(decoded), growth, ready.offset_next, ready.leader_epoch, number
        )
        if ready.forwards:
            task.strays[number] += sum(map(len, ready.forwards))
            part = _forwarding(part, ready.forwards, ready.strangers)
        letters = [
            *(dead_letter(records, reject, number) for reject in decoded.rejects),
            *letters_of_refused(part, records),
        ]
        unexpected = Counter(effects.unexpected)
        for plan, rows in decoded.unexpected:
            unexpected.update({(plan.schema_id, name): len(rows) for name in plan.unexpected if len(rows)})
        return replace(
            effects,
            records=effects.records + len(ready.merged),
            partitions=[*effects.partitions, part],
            dead_letters=[*effects.dead_letters, *(ready.where_read(letter) for letter in letters)],
            unexpected=unexpected,
        )

    def _gates(self, input_number: int) -> Iterable[tuple[RecordGate, Mapping[int, Operator]]]:
        """The gates of an input, each with its operators by partition."""
        for spec in self.config.operators:
            if spec.gate is not None and self.config.gets[spec.name] == (input_number,):
                yield spec.gate, {number: task.operators[spec.name] for number, task in self.tasks.items()}

    def _close_overdue(self) -> Iterable[PartitionEffects]:
        """Continue work that was too much for one cycle, without waiting for input."""
        for partition, task in self.tasks.items():
            if task.is_overdue and partition not in self._waiting:
                yield task.on_idle(task.positions[0].watermark)

    def _release_idle(self, batch: MicroBatch) -> Iterable[PartitionEffects]:
        """Advance the watermark of idle partitions by their idle time, where that releases or closes something.

        An idle input does not keep others waiting: its watermark advances with the furthest of the others.
        """
        for lane, idle in batch.idle.items():
            task, number = self.tasks.get(partition_of_lane(lane)), input_of(lane)
            if task is None or lane in self._waiting:
                continue
            watermark = task.positions[number].watermark
            others = max((at.watermark for one, at in enumerate(task.positions) if one != number), default=TIME_MIN)
            if max(watermark, others) == TIME_MIN:
                continue
            if task.home.has_moved and not self._may_idle(task, lane, batch):
                continue
            base = self._idle_base.get(lane)
            if base is None or base[0] != idle.since_ms:
                base = self._idle_base[lane] = (idle.since_ms, watermark)
            idle_ms = idle.until_ms - idle.since_ms - self.config.inputs[number].bounds.idle_ms
            if idle_ms <= 0:
                continue
            moved = max(others, base[1] + idle_ms if base[1] > TIME_MIN else TIME_MIN)
            if watermark < moved and task.next_timer(number) <= moved:
                yield task.on_idle(moved, number)

    def _may_idle(self, task: PartitionTask, lane: int, batch: MicroBatch) -> bool:
        """Whether a lane with an idle own log may advance by idle time: its parent's log has to be idle as well."""
        number = input_of(lane)
        return self._coupled.is_empty(lane) and task.growth.of(number).coupling.lets_idle_pass(
            task.positions[number].offset_next, forwarded_is_read=lane in batch.forwarded_idle
        )

    # --- cycles and ownership ---------------------------------------------------------------------------------------

    def close_cycle(self) -> CycleEnd | None:
        """Close the open cycle; None when it is empty."""
        tasks = [*self.tasks.values(), *self.adopting.values()]
        commits = [commit for task in tasks if (commit := task.cycle.close()) is not None]
        return CycleEnd(commits) if commits else None

    def install(self, task: PartitionTask) -> None:
        """Start processing a restored partition."""
        task.refusals = self.refusals
        (self.tasks if task.adoption is None else self.adopting)[task.partition] = task

    def adopted(self, partition: int) -> PartitionTask:
        """Start processing a partition that has committed its adopted state."""
        task = self.tasks[partition] = self.adopting.pop(partition)
        return task

    def drop(self, partition: int) -> PartitionTask | None:
        """Stop processing a partition; its uncommitted effects are discarded."""
        lanes = all_lanes([partition], len(self._inputs))
        self._waiting.drop(lanes)
        for lane in lanes:
            self._idle_base.pop(lane, None)
        self._coupled.drop(lanes)
        if not self._waiting:
            for one in self._inputs:
                one.missing.clear()
        task = self.tasks.pop(partition, None) or self.adopting.pop(partition, None)
        if task is not None:
            task.drop_readers()
        return task

    def bytes_used(self) -> int:
        """Approximate memory of all tasks."""
        waiting = self._waiting.bytes_used() + self._coupled.bytes_used
        return waiting + sum(task.bytes_used() for task in self.tasks.values())

    def cycle_bytes(self) -> int:
        """Approximate memory needed to commit the open cycle."""
        return sum(task.cycle_bytes() for task in self.tasks.values())

    def expire(self) -> None:
        """Discard state that is too old to matter; only between cycles."""
        for task in self.tasks.values():
            task.maintenance.expire()

    def spill(self, bytes_max: int) -> bool:
        """Move state to the stores until about half of `bytes_max` is used; only between cycles.

        Returns whether anything had to be moved.
        """
        if self.bytes_used() <= bytes_max or not self.tasks:
            return False
        share = bytes_max // _KEPT_SHARE // len(self.tasks)
        for task in sorted(self.tasks.values(), key=PartitionTask.bytes_used, reverse=True):
            rows = _KEEP_ROWS // len(self.tasks)
            task.maintenance.spill(below=task.watermark, rows_keep=rows, bytes_keep=share, keep_keys=False)
            if self.bytes_used() <= bytes_max // 2:
                break
        return True


def _forwarding(part: PartitionEffects, found: tuple[Forwards, ...], strangers: Sequence[bytes]) -> PartitionEffects:
    """Add records for other partitions to the effects; `strangers` are keys that no growth explains."""
    return replace(
        part,
        forwards=found,
        misrouted=part.misrouted + len(strangers),
        misrouted_keys=[*part.misrouted_keys, *dict.fromkeys(strangers)][:MISROUTED_KEYS_LOGGED],
    )
