"""Seeds of the simulation, the same log processed in different ways, and the proof that the checker can fail."""

import zlib
from typing import Any

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.batch.columns import Bools
from streams.batch.events import Events
from streams.engine.commit import Committer
from streams.engine.effects import CycleEnd
from streams.engine.journal_chain import RestoreFailed
from streams.engine.task import PartitionTask
from streams.kafka.partitioner import partition_of
from streams.operators.dedup.operator import DedupOperator
from streams.operators.reorder.held import Held
from streams.sinks.base import Committed, CycleAborted, OutcomeUnknown
from streams.worker.cycle import CommitCycle
from streams.worker.ownership import Ownership
from streams.worker.ports import Attempt, Restored
from streams.worker.rebalance import RebalanceListener
from streams.worker.terms import Term, Terms
from tests.simulation.run import Outcome, simulate

thorough = pytest.mark.thorough


def marked(seeds: list[int] | range, *marks: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(seed, marks=marks) for seed in seeds]


def result(outcome: Outcome) -> tuple[object, ...]:
    return outcome.clean, outcome.late, outcome.dead, outcome.table


@pytest.mark.parametrize(
    "seed", [2, *marked([1, *range(3, 7)], thorough), *marked(range(7, 41), thorough, pytest.mark.slow)]
)
def test_crashes_rebalances_and_lost_answers_change_nothing(seed: int) -> None:
    simulate(seed, events=800, batch_records_max=(3, 10, 30, 100)[seed % 4])


@thorough
@pytest.mark.parametrize("lateness_ms", [0, 1, 5_000])
def test_any_lateness_is_as_the_model_says(lateness_ms: int) -> None:
    simulate(100 + lateness_ms, lateness_ms=lateness_ms)


@thorough
def test_a_short_horizon_sends_old_events_beyond_it() -> None:
    outcome = simulate(200, horizon_ms=500)
    assert {b"late", b"beyond_horizon"} == {reason for _, _, reason, _ in outcome.late}


@thorough
def test_more_workers_and_partitions_are_as_the_model_says() -> None:
    simulate(300, partitions=5, workers=3, batch_records_max=5)


@thorough
@pytest.mark.parametrize(
    ("traffic_seed", "events"), [(11, 150), *(pytest.param(seed, 300, marks=pytest.mark.slow) for seed in (11, 12))]
)
def test_batch_sizes_faults_and_workers_do_not_change_the_outcome(traffic_seed: int, events: int) -> None:
    def run(seed: int, **options: Any) -> tuple[object, ...]:
        return result(simulate(seed, traffic_seed=traffic_seed, events=events, **options))

    expected = run(0, batch_records_max=500, faults=False, workers=1)
    for seed, batch_records_max in enumerate((1, 7, 500), start=1):
        assert run(seed, batch_records_max=batch_records_max, faults=False) == expected
        assert run(seed + 10, batch_records_max=batch_records_max, faults=True) == expected
    assert run(20, batch_records_max=7, workers=4) == expected


@thorough
def test_faults_do_happen() -> None:
    assert sum(simulate(seed, batch_records_max=3).crashes for seed in range(5)) > 20


def refuses_some(topic: str, key: bytes | None, value: bytes | None) -> bool:
    return topic in {GPS.clean, GPS.late} and zlib.crc32(value or b"") % 25 == 0


@thorough
@pytest.mark.parametrize("seed", [*range(400, 403), *marked(range(403, 412), pytest.mark.slow)])
def test_what_an_output_refuses_is_a_dead_letter_and_changes_nothing_else(seed: int) -> None:
    outcome = simulate(seed, batch_records_max=(3, 10, 100)[seed % 3], refuses=refuses_some)
    assert "refused_by_output" in {reason for reason, _, _ in outcome.dead}


@thorough
def test_batch_sizes_and_faults_do_not_change_what_is_refused() -> None:
    def run(seed: int, **options: Any) -> tuple[object, ...]:
        return result(simulate(seed, traffic_seed=13, events=300, refuses=refuses_some, **options))

    expected = run(0, batch_records_max=500, faults=False, workers=1)
    for seed, batch_records_max in enumerate((1, 7, 500), start=1):
        assert expected == run(seed, batch_records_max=batch_records_max, faults=True)


@thorough
def test_events_of_a_key_whose_rows_are_refused_are_dead_letters_and_other_keys_are_as_before() -> None:
    def of_one_device(topic: str, key: bytes | None, value: bytes | None) -> bool:
        return topic == GPS.tables[0].topic and key == b"device-1"

    plain = simulate(500, faults=False)
    outcome = simulate(500, faults=False, refuses=of_one_device, checked=False)
    assert b"device-1" not in outcome.table
    assert b"device-1" not in outcome.clean
    assert plain.clean.pop(b"device-1")
    assert plain.clean == outcome.clean
    assert {b"device-1"} == {key for reason, key, _ in outcome.dead if reason == "refused_by_output"}


@thorough
def test_a_dead_letter_that_is_refused_stops_its_partition_only() -> None:
    def refuses(topic: str, key: bytes | None, value: bytes | None) -> bool:
        return topic == GPS.dlq and partition_of(key or b"", 2) == 1

    outcome = simulate(501, faults=False, refuses=refuses, checked=False, drained=[0])
    plain = simulate(501, faults=False)
    of_first = {key: values for key, values in plain.clean.items() if partition_of(key, 2) == 0}
    assert of_first == {key: values for key, values in outcome.clean.items() if partition_of(key, 2) == 0}
    assert all(partition_of(key, 2) == 0 for _, key, _ in outcome.dead)


SAYS = r"make simulate SEED="


def simulate_some(
    *, faults: bool = True, first: int = 0, seeds: int = 8, events: int = 250, batch_records_max: int = 8
) -> None:
    for seed in range(first, first + seeds):
        simulate(seed, events=events, batch_records_max=batch_records_max, faults=faults)


@thorough
def test_a_journal_without_held_events_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Held, "came_in", lambda self, _: self._none)
    with pytest.raises(AssertionError, match=SAYS):
        simulate_some()


@thorough
def test_a_restore_that_forgets_ids_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DedupOperator, "replay", lambda *_: 0)
    with pytest.raises(AssertionError, match=SAYS):
        simulate_some()


@thorough
def test_a_dedup_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_new(self: DedupOperator, events: Events) -> Bools:
        new = first_copies(self, events)
        new[:] = True
        return new

    first_copies = DedupOperator._first_copies
    monkeypatch.setattr(DedupOperator, "_first_copies", all_new)
    with pytest.raises(AssertionError, match=SAYS):
        simulate_some(faults=False)


@thorough
def test_a_release_order_that_is_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.operators.reorder.operator.release_order", lambda events: np.arange(len(events)))
    with pytest.raises(AssertionError, match=SAYS):
        simulate_some(faults=False)


@thorough
def test_a_commit_in_the_name_of_the_newest_membership_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: whatever a cycle contains, it is committed by the place in the group at its end."""
    monkeypatch.setattr(Terms, "claim", lambda self, _: self._membership)
    with pytest.raises((AssertionError, RestoreFailed)):
        simulate_some(first=20, seeds=6, events=800, batch_records_max=30)


@thorough
def test_a_commit_in_nobodys_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: CommitCycle, end: CycleEnd, tasks: dict[int, PartitionTask], _: object) -> None:
        self._committer.commit(end, tasks, self._clock.wall_ms(), lambda: None)

    monkeypatch.setattr(CommitCycle, "_commit", commit)
    with pytest.raises(TypeError, match=SAYS):
        simulate_some(seeds=1)


@thorough
def test_a_loss_that_does_not_wait_for_the_commit_in_flight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is under way writes to the store of a partition that was lost meanwhile, once it is closed."""
    monkeypatch.setattr(RebalanceListener, "_abandon", lambda self, partitions: self._ownership.release(partitions))
    with pytest.raises(AssertionError, match=SAYS):
        simulate_some(seeds=40)


@thorough
def test_a_restore_that_is_not_wanted_any_more_and_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(self: Ownership, term: Term) -> Attempt:
        def install(restored: Restored) -> None:
            self._engine.install(restored.task)
            self._restored_in[term.partition] = term
            self._intake.start(term.partition, restored.task.offset_next, restored.source_bounds)

        return Attempt(term.partition, lambda: True, install)

    monkeypatch.setattr(Ownership, "_attempt", attempt)
    with pytest.raises((AssertionError, RestoreFailed), match=SAYS):
        simulate_some()


@thorough
def test_an_outcome_that_is_settled_by_the_number_of_the_cycle_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: another worker's cycle of the same number is taken for one's own."""

    def settle(self: Committer, positions: dict[int, Committed], error: OutcomeUnknown) -> None:
        self._open = False
        self._transactions.reopen()
        found = self._changelog.committed(list(positions))
        cycles = {partition: one and one.cycle for partition, one in found.items()}
        if any(cycles[partition] != position.cycle for partition, position in positions.items()):
            raise CycleAborted("outcome_settled", "the commit had not happened") from error

    monkeypatch.setattr(Committer, "_settle", settle)
    with pytest.raises((AssertionError, RestoreFailed)):
        simulate_some(first=50, seeds=16)
