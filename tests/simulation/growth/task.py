"""The task of one partition in the model: dedup, reorder and a count by key, over the rules of `streams.growth`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN
from streams.growth import coupling, forwarding, stages
from streams.growth.coupling import Coupling, ForwardedLog, Merged, OwnLog
from streams.growth.layout import Growth, Layout
from streams.growth.stages import Duty, Progress, Standing
from tests.simulation.growth.broker import Broker, Entry, Forwarded, Order, Record, Row

LATENESS: Final = 30
QUIET: Final = 50
"""Steps without a straggler after which a parent ends the coupling; all producers but sleepers have changed by then."""
PIECE: Final = 7
"""Ids, rows or held events of one transaction of an adoption."""


class Task:
    """State in memory, and what of it is not committed. A crash drops it; another one is restored."""

    def __init__(self, broker: Broker, partition: int, term: int, now: int) -> None:
        self.broker, self.partition, self.term = broker, partition, term
        self.layout = Layout(1, 1)
        self.ids: set[int] = set()
        self.held: list[Record] = []
        self.due: dict[int, Order] = {}
        self.rows: dict[int, Row] = {}
        self.watermark = TIME_MIN
        self.coupling = Coupling(TIME_MIN, TIME_MIN, is_settled=True)
        self.own_next = self.forwarded_next = 0
        self.growth, self.phase = broker.growth, broker.phase  # each restore reads the growth topic first
        self.asked: Mapping[int, int] = {}
        self.reach: Mapping[int, int] = {}
        self.told: Progress | None = None
        self.quiet_since = now
        self.told_at = now
        self.is_idle = False
        self.settled = 0
        self.pieces: list[Entry] | None = None
        self._open()
        self._restore()

    def _open(self) -> None:
        self.new_ids: set[int] = set()
        self.new_due: dict[int, Order] = {}
        self.new_rows: dict[int, Row] = {}
        self.clean: list[Record] = []
        self.late: list[Record] = []
        self.duplicates: list[Record] = []
        self.forwards: list[tuple[int, Forwarded]] = []
        self.has_read = False

    # --- restore, adoption ---

    def _restore(self) -> None:
        standing = self.broker.standings.get(self.partition, Standing(0))
        if standing.epoch:
            self.layout = self._layout_of(standing.epoch)
            for entry in self.broker.journal[self.partition]:
                self._replay(entry)
            self._keep_home()
        elif self.growth is None or self.partition in self.growth.parents:
            self.layout = self._layout_of(self.growth.before.epoch if self.growth else self.broker.layout.epoch)
        self.rows = {key: row for key, row in self.broker.rows(self.partition).items() if self._is_home(key)}

    def _layout_of(self, epoch: int) -> Layout:
        for layout in (self.broker.layout, *((self.growth.before, self.growth.after) if self.growth else ())):
            if layout.epoch == epoch:
                return Layout(epoch, layout.partitions)
        raise LookupError(f"no layout {epoch}")

    def _replay(self, entry: Entry) -> None:
        self.ids |= entry.ids
        self.held = list(entry.held)
        self.due |= entry.due
        self.watermark, self.own_next = entry.watermark, entry.own_next
        self.forwarded_next, self.settled = entry.forwarded_next, entry.settled
        assert isinstance(entry.coupling, Coupling)
        self.coupling = entry.coupling

    def _is_home(self, key: int) -> bool:
        return self.layout.home(hash_of(key)) == self.partition

    def _keep_home(self) -> None:
        """`Operator.keep_keys`: drop what is of keys that belong elsewhere."""
        self.held = [record for record in self.held if self._is_home(record.key)]
        self.due = {key: due for key, due in self.due.items() if self._is_home(key)}
        self.rows = {key: row for key, row in self.rows.items() if self._is_home(key)}

    @property
    def duty(self) -> Duty:
        standing = self.broker.standings.get(self.partition, Standing(0))
        growth = self.growth
        parent = growth.parent_of(self.partition) if growth else self.partition
        epoch = self.broker.standings.get(parent, Standing(0)).epoch
        layout = self.broker.layout
        return stages.duty_of(self.partition, standing, layout, growth, self.phase, parent_epoch=epoch)

    def adopt(self) -> None:
        """One transaction of an adoption; begins again where the journal does not say that it is complete."""
        growth = self._growth()
        if self.pieces is None:
            self.pieces = self._adoption(growth)
        piece = self.pieces.pop(0)
        self.broker.require_term(self.partition, self.term)
        self.broker.journal.setdefault(self.partition, []).append(piece)
        self.broker.table.setdefault(self.partition, []).extend(piece.rows.items())
        if piece.kind == "adopted":
            self.broker.standings[self.partition] = Standing(growth.epoch)
            self.pieces = None
            self.layout = growth.after
            self.ids, self.held, self.due = set(), [], {}
            self._restore()

    def _adoption(self, growth: Growth) -> list[Entry]:
        parent = growth.parent_of(self.partition)
        source = Task.__new__(Task)
        source.__dict__.update(vars(self), ids=set(), held=[], due={}, rows=self.broker.rows(parent))
        for entry in self.broker.journal.get(parent, []):
            if entry.kind == "cut" and entry.epoch == growth.epoch:
                source.watermark = entry.watermark
                break
            source._replay(entry)
        else:
            raise AssertionError(f"the cut of {parent} is gone from its journal")
        source.layout = growth.after
        source._keep_home()
        at = Coupling.at_cut(source.watermark)
        ids, due, rows = sorted(source.ids), list(source.due.items()), list(source.rows.items())
        cuts = range(0, max(len(ids), len(due), len(rows), 1), PIECE)
        entries = [
            Entry(
                growth.epoch,
                0,
                0,
                at,
                source.watermark,
                frozenset(ids[cut : cut + PIECE]),
                tuple(source.held),
                dict(due[cut : cut + PIECE]),
                "adopting",
                dict(rows[cut : cut + PIECE]),
            )
            for cut in cuts
        ]
        entries.append(Entry(growth.epoch, 0, 0, at, source.watermark, frozenset(), tuple(source.held), {}, "adopted"))
        return entries

    def tidy(self) -> None:
        """Tombstones of moved keys in the parent's table, once the state is this partition's own."""
        growth = self.growth
        standing = self.broker.standings.get(self.partition, Standing(0))
        self.broker.require_term(self.partition, self.term)
        if growth is not None and self.partition in growth.children and standing.epoch >= growth.epoch:
            parent = growth.parent_of(self.partition)
            moved = [key for key in self.broker.rows(parent) if growth.after.home(hash_of(key)) == self.partition]
            self.broker.table.setdefault(parent, []).extend((key, None) for key in moved[:PIECE])
            if len(moved) <= PIECE:
                self.broker.standings[self.partition] = replace(standing, cleared=growth.epoch)

    def _growth(self) -> Growth:
        assert self.growth is not None
        return self.growth

    # --- what comes in ---

    def learn(self) -> None:
        """Read the growth topic."""
        self.growth, self.phase = self.broker.growth, self.broker.phase

    def ask(self) -> None:
        """Ask for the ends of the children's logs, to be told once the own log is seen at its end after that."""
        self.asked = self._ends()

    def _ends(self) -> dict[int, int]:
        children = self.growth.children_of(self.partition) if self.growth else ()
        return {child: len(self.broker.source.get(child, [])) for child in children}

    def process(self, count: int, now: int) -> None:
        """Read up to so many records of each input, and process what may be."""
        own = self.broker.source.get(self.partition, [])[self.own_next : self.own_next + count]
        items = self.broker.forwarded.get(self.partition, [])[self.forwarded_next : self.forwarded_next + count]
        is_read = self.own_next + len(own) == len(self.broker.source.get(self.partition, []))
        own_to = self._destinations(own, [forwarding.NOT_FORWARDED] * len(own))
        items_to = self._destinations([item.record for item in items], [item.epoch for item in items])
        merged = self._merged(own, items, own_to, items_to, is_at_end=is_read)
        before_own, before_forwarded = self.own_next, self.forwarded_next
        for is_forwarded, index, watermark in zip(
            merged.is_forwarded.tolist(), merged.index.tolist(), merged.watermark.tolist(), strict=True
        ):
            item = items[index] if is_forwarded else None
            record = item.record if item else own[index]
            self._move(watermark)
            if record is None:
                continue
            to = items_to[index] if is_forwarded else own_to[index]
            if to == self.partition:
                self._judge(record)
            else:
                read_in = self.partition if item is None else item.of
                self.forwards.append((to, Forwarded(read_in, record, self.layout.epoch)))
                if self._tells and not is_forwarded:
                    self.quiet_since = now
        self.own_next, self.forwarded_next = before_own + merged.own, before_forwarded + merged.forwarded
        self.coupling = merged.after
        self.has_read |= bool(len(merged))
        self.reach = self.asked if is_read and merged.own == len(own) else {}

    def _destinations(self, records: Sequence[Record | None], under: list[int]) -> list[int]:
        hashes = [record.key_hash if record else forwarding.NO_KEY for record in records]
        found = forwarding.destinations(
            self.layout, self.partition, np.array(hashes, dtype=np.int64), np.array(under, dtype=np.int64)
        )
        return [int(to) for to in found]

    def _merged(
        self, own: list[Record], items: list[Forwarded], own_to: list[int], items_to: list[int], *, is_at_end: bool
    ) -> Merged:
        offsets = np.arange(self.own_next, self.own_next + len(own), dtype=np.int64)
        of_own = [self._time(record, to) for record, to in zip(own, own_to, strict=True)]
        log = OwnLog(offsets, np.array(of_own, dtype=np.int64), is_at_end)
        parent = self.growth.parent_of(self.partition) if self.growth else -1
        told = [item.progress for item in items]
        times = [
            item.progress.watermark if item.progress else self._time(item.record, to)
            for item, to in zip(items, items_to, strict=True)
        ]
        forwarded = ForwardedLog(
            time=np.array(times, dtype=np.int64),
            is_of_parent=np.array([item.of == parent for item in items], dtype=np.bool_),
            reach=np.array([one.of(self.partition) if one else coupling.NO_REACH for one in told], dtype=np.int64),
            idle=np.array([bool(one and one.is_idle) for one in told], dtype=np.bool_),
            is_progress=np.array([one is not None for one in told], dtype=np.bool_),
            settles=np.array([bool(one and one.is_settled) for one in told], dtype=np.bool_),
        )
        return self.coupling.merge(log, forwarded)

    def _time(self, record: Record | None, to: int) -> int:
        """What is not processed here is not decoded here, and says nothing of time."""
        return record.event_time - LATENESS if record and to == self.partition else TIME_MIN

    # --- operators ---

    def _move(self, watermark: int) -> None:
        self.watermark = max(self.watermark, watermark)
        ready = sorted((one for one in self.held if one.event_time <= self.watermark), key=lambda one: one.order)
        self.held = [one for one in self.held if one.event_time > self.watermark]
        for record in ready:
            self._release(record)

    def _judge(self, record: Record) -> None:
        if record.ident in self.ids:
            self.duplicates.append(record)
            return
        self.ids.add(record.ident)
        self.new_ids.add(record.ident)
        if record.event_time > self.watermark:
            self.held.append(record)
        elif record.key in self.due and record.order < self.due[record.key]:
            self.late.append(record)
        else:
            self._release(record)

    def _release(self, record: Record) -> None:
        self.clean.append(record)
        self.due[record.key] = self.new_due[record.key] = record.order
        count = self.rows[record.key].count if record.key in self.rows else 0
        self.rows[record.key] = self.new_rows[record.key] = Row(count + 1, record.ident)

    def idle(self, *, all_are: bool) -> None:
        """The own log is idle: release what is held, if that is allowed.

        Unless `all_are`, other logs are not: that makes a difference to a task that is coupled to one of them, and only
        such a one is asked.
        """
        if self.coupling.is_settled and not all_are:
            return
        is_read = self.forwarded_next == len(self.broker.forwarded.get(self.partition, []))
        if self.own_next != len(self.broker.source.get(self.partition, [])):
            return
        if self.coupling.lets_idle_pass(self.own_next, forwarded_is_read=is_read):
            newest = max((record.event_time for record in self.held), default=self.watermark)
            self._move(newest)
            self.has_read = True

    # --- the cycle ---

    @property
    def _tells(self) -> bool:
        """Whether children are coupled to this task."""
        growth = self.growth
        is_parent = growth is not None and self.partition in growth.parents and self.layout == growth.after
        return is_parent and self.settled < self.layout.epoch

    def commit(self, now: int) -> None:
        """End the cycle; in the same call what a growth asks for at the end of one."""
        broker, duty = self.broker, self.duty
        progress = self._progress(now) if self._tells else None
        if not (self.has_read or progress or duty is Duty.SAY_READY):
            return
        broker.require_term(self.partition, self.term)
        if progress is not None and progress.is_settled:
            self.settled = self.layout.epoch
            broker.settled.add(self.partition)
        if progress is not None:
            self.told, self.told_at = progress, now
            for child in self._growth().children_of(self.partition):
                self.forwards.append((child, Forwarded(self.partition, progress=progress)))
        for to, item in self.forwards:
            broker.forwarded.setdefault(to, []).append(item)
        self._write(Entry(
            self.layout.epoch, self.own_next, self.forwarded_next, self.coupling, self.watermark,
            frozenset(self.new_ids), tuple(self.held), dict(self.new_due), settled=self.settled,
        ))  # fmt: skip
        broker.clean += self.clean
        broker.late += self.late
        broker.duplicates += self.duplicates
        broker.table.setdefault(self.partition, []).extend(self.new_rows.items())
        self._open()
        self.reach = {}
        standing = broker.standings.get(self.partition, Standing(0))
        ready = self._growth().epoch if duty is Duty.SAY_READY else standing.ready
        broker.standings[self.partition] = replace(standing, epoch=self.layout.epoch, ready=ready)

    def cut(self, now: int) -> None:
        """A cycle of its own, right after one that was ended: where the state of moved keys is handed over."""
        if self.duty is not Duty.CUT or self.has_read:
            return
        self.broker.require_term(self.partition, self.term)
        self.layout = self._growth().after
        self._keep_home()
        self._write(Entry(
            self.layout.epoch, self.own_next, self.forwarded_next, self.coupling, self.watermark, frozenset(),
            tuple(self.held), {}, "cut", settled=self.settled,
        ))  # fmt: skip
        standing = self.broker.standings.get(self.partition, Standing(0))
        self.broker.standings[self.partition] = replace(standing, epoch=self.layout.epoch)
        self.quiet_since = now
        self.asked, self.reach = {}, {}

    def _write(self, entry: Entry) -> None:
        self.broker.journal.setdefault(self.partition, []).append(entry)

    def _progress(self, now: int) -> Progress | None:
        is_at_end = self.own_next == len(self.broker.source.get(self.partition, []))
        adopted = stages.have_adopted(self.partition, self._growth(), self.broker.standings)
        if not adopted:
            self.quiet_since = now
        ends = stages.settles(
            quiet_since_ms=self.quiet_since, now_ms=now, quiet_ms=QUIET, is_at_end=is_at_end, adopted=adopted
        )
        progress = Progress(self.watermark, self.reach, is_idle=self.is_idle and is_at_end, is_settled=ends)
        is_due = stages.is_due(progress, self.told, told_ms=self.told_at, now_ms=now, interval_ms=5)
        return progress if is_due else None

    def truncate(self) -> None:
        """Write all that is known as one entry, and cut off what is before it, if no child needs that."""
        journal = self.broker.journal.get(self.partition, [])
        cut = next((at for at, entry in enumerate(journal) if entry.kind == "cut" and self._is_of_growth(entry)), None)
        if self.has_read or not journal or journal[-1].kind == "adopting":
            return
        if (
            cut is not None
            and stages.journal_needed_from(self.partition, cut, self._growth(), self.broker.standings) is None
        ):
            return
        self.broker.require_term(self.partition, self.term)
        last = journal[-1]
        self.broker.journal[self.partition] = [
            Entry(
                last.epoch,
                last.own_next,
                last.forwarded_next,
                last.coupling,
                last.watermark,
                frozenset(self.ids),
                tuple(self.held),
                dict(self.due),
                settled=self.settled,
            )
        ]

    def _is_of_growth(self, entry: Entry) -> bool:
        return self.growth is not None and entry.epoch == self.growth.epoch


@cache
def hash_of(key: int) -> int:
    """Stands in for murmur2: spread, and the same for ever."""
    return random.Random(key).getrandbits(31)
