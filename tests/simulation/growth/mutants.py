"""The rules of growth, each broken in one way. Every one of them must be found by the model."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from unittest import mock

import numpy as np

from streams.batch.columns import TIME_MIN, Int64
from streams.growth import control, forwarding, stages
from streams.growth.coupling import Coupling, ForwardedLog, Merged, OwnLog
from streams.growth.layout import Growth, Layout
from streams.growth.plan import GrowthPlan
from streams.growth.stages import Duty, Phase, Progress, Standing
from tests.simulation.growth import world
from tests.simulation.growth.broker import Broker, Entry
from tests.simulation.growth.task import Task, hash_of

_duty_of = stages.duty_of
_is_over = stages.is_over
_merge = Coupling.merge
_once_begun = control._once_begun
_adoption = Task._adoption
_progress = Task._progress
_destinations = forwarding.destinations


def no_wait_for_the_cut(
    partition: int, standing: Standing, first: Layout, growth: Growth | None, phase: Phase | None, *, parent_epoch: int
) -> Duty:
    found = _duty_of(partition, standing, first, growth, phase, parent_epoch=parent_epoch)
    return Duty.NOTHING if found is Duty.AWAIT_CUT else found


def nothing_forwarded(layout: Layout, partition: int, key_hash: Int64, forwarded_under: Int64) -> Int64:
    return np.full(len(key_hash), partition)


def forwarded_once_only(layout: Layout, partition: int, key_hash: Int64, forwarded_under: Int64) -> Int64:
    found = _destinations(layout, partition, key_hash, np.zeros_like(forwarded_under))
    return np.where(forwarded_under > 0, partition, found)


def own_log_waits_for_nobody(self: Coupling, own: OwnLog, forwarded: ForwardedLog) -> Merged:
    return _merge(replace(self, reach=1 << 60), own, forwarded)


def forwarded_records_wait_for_nobody(self: Coupling, own: OwnLog, forwarded: ForwardedLog) -> Merged:
    return _merge(self, replace(own, is_at_end=True), forwarded)


def strangers_move_the_watermark(self: Coupling, own: OwnLog, forwarded: ForwardedLog) -> Merged:
    return _merge(self, own, replace(forwarded, is_of_parent=np.ones(len(forwarded), np.bool_)))


def settled_records_move_the_watermark(self: Coupling, own: OwnLog, forwarded: ForwardedLog) -> Merged:
    found = _merge(self, own, forwarded)
    if not found.after.is_settled or not len(found):
        return found
    times = np.where(found.is_forwarded, np.append(forwarded.time, 0)[found.index * found.is_forwarded], TIME_MIN)
    course = np.maximum(found.watermark, np.maximum.accumulate(times))
    return replace(found, watermark=course, after=replace(found.after, own=int(course[-1])))


def end_asked_for_too_late(self: Task, now: int) -> Progress | None:
    found = _progress(self, now)
    return replace(found, reach=self._ends()) if found is not None and found.reach else found


def settles_at_once(*, quiet_since_ms: int, now_ms: int, quiet_ms: int, is_at_end: bool, adopted: bool) -> bool:
    return True


def settles_once_all_is_read(
    *, quiet_since_ms: int, now_ms: int, quiet_ms: int, is_at_end: bool, adopted: bool
) -> bool:
    return is_at_end and adopted


def always_adopted(parent: int, growth: Growth, standings: Mapping[int, Standing]) -> bool:
    return True


def source_grown_before_all_have_cut(
    plan: GrowthPlan, standings: Mapping[int, Standing], settled: Collection[int]
) -> control.Step:
    return control.AddPartitions(plan.inputs) if plan.inputs else _once_begun(plan, standings, settled)


def idle_time_always_passes(self: Coupling, own_next: int, *, forwarded_is_read: bool) -> bool:
    return True


def parents_keep_what_is_held(self: Task) -> None:
    """Of keys that move."""


def tombstones_at_once(self: Task) -> None:
    growth = self.growth
    if growth is not None and self.partition in growth.children:
        parent = growth.parent_of(self.partition)
        moved = [key for key in self.broker.rows(parent) if growth.after.home(hash_of(key)) == self.partition]
        self.broker.table[parent].extend((key, None) for key in moved)


def adopts_no(name: str) -> Callable[[Task, Growth], object]:
    def adoption(self: Task, growth: Growth) -> object:
        empty: dict[str, object] = {"ids": frozenset(), "held": (), "due": {}, "rows": {}}
        return [replace(entry, **{name: empty[name]}) for entry in _adoption(self, growth)]  # type: ignore[arg-type]

    return adoption


def adopts_at_no_watermark(self: Task, growth: Growth) -> list[Entry]:
    begun = Coupling.at_cut(TIME_MIN)
    return [replace(entry, coupling=begun, watermark=TIME_MIN) for entry in _adoption(self, growth)]


def over_before_rows_are_cleared(growth: Growth, standings: Mapping[int, Standing], settled: Collection[int]) -> bool:
    cleared = {partition: replace(one, cleared=growth.epoch) for partition, one in standings.items()}
    return _is_over(growth, cleared, settled)


def former_owners_write(self: Broker, partition: int, term: int) -> None:
    """Nobody is fenced."""


MUTANTS: Final[Mapping[str, tuple[object, str, object]]] = {
    "no_wait_for_the_cut": (stages, "duty_of", no_wait_for_the_cut),
    "nothing_forwarded": (forwarding, "destinations", nothing_forwarded),
    "forwarded_once_only": (forwarding, "destinations", forwarded_once_only),
    "own_log_waits_for_nobody": (Coupling, "merge", own_log_waits_for_nobody),
    "forwarded_records_wait_for_nobody": (Coupling, "merge", forwarded_records_wait_for_nobody),
    "strangers_move_the_watermark": (Coupling, "merge", strangers_move_the_watermark),
    "settled_records_move_the_watermark": (Coupling, "merge", settled_records_move_the_watermark),
    "end_asked_for_too_late": (Task, "_progress", end_asked_for_too_late),
    "settles_at_once": (stages, "settles", settles_at_once),
    "settles_once_all_is_read": (stages, "settles", settles_once_all_is_read),
    "truncates_before_adoption": (stages, "have_adopted", always_adopted),
    "source_grown_before_all_have_cut": (control, "_once_begun", source_grown_before_all_have_cut),
    "idle_time_always_passes": (Coupling, "lets_idle_pass", idle_time_always_passes),
    "parents_keep_what_is_held": (Task, "_keep_home", parents_keep_what_is_held),
    "tombstones_at_once": (Task, "tidy", tombstones_at_once),
    "adopts_no_ids": (Task, "_adoption", adopts_no("ids")),
    "adopts_nothing_held": (Task, "_adoption", adopts_no("held")),
    "adopts_no_last_events": (Task, "_adoption", adopts_no("due")),
    "adopts_no_rows": (Task, "_adoption", adopts_no("rows")),
    "adopts_at_no_watermark": (Task, "_adoption", adopts_at_no_watermark),
    "over_before_rows_are_cleared": (world, "is_over", over_before_rows_are_cleared),
    "former_owners_write": (Broker, "require_term", former_owners_write),
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Break one rule."""
    where, what, how = MUTANTS[name]
    with mock.patch.object(where, what, how):
        yield
