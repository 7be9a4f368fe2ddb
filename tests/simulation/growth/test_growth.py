"""Growing a topic in the model: seeds, and of each rule that is broken a seed that finds it."""

import pytest

from tests.simulation.growth.mutants import MUTANTS, mutated
from tests.simulation.growth.run import Grown, simulate_growth

thorough = pytest.mark.thorough

FOUND_FROM = {
    "no_wait_for_the_cut": 20,
    "forwarded_once_only": 11,
    "settles_once_all_is_read": 119,
    "settled_records_move_the_watermark": 5,
    "source_grown_before_all_have_cut": 2,
    "truncates_before_adoption": 4,
    "adopts_no_last_events": 3,
    "adopts_at_no_watermark": 7,
}
"""First seed that is tried, where that is not 0."""
NOT_FOUND = {"end_asked_for_too_late", "strangers_move_the_watermark"}
"""Seeds that find these are not known."""
SEEDS = 12


@pytest.mark.parametrize(
    "seed",
    [
        1,
        *(pytest.param(seed, marks=thorough) for seed in range(2, 11)),
        *(pytest.param(seed, marks=(thorough, pytest.mark.slow)) for seed in range(11, 200)),
    ],
)
def test_a_topic_that_grows_is_as_one_stream_per_key(seed: int) -> None:
    simulate_growth(seed)


@thorough
def test_what_must_not_matter_does_happen() -> None:
    runs: list[Grown] = [simulate_growth(seed, steps=500) for seed in range(1_000, 1_010)]
    assert any(len(run.partitions) > 2 for run in runs), "two growths"
    assert sum(run.forwarded for run in runs) > 200
    assert sum(run.late for run in runs) > 20
    assert sum(run.kills for run in runs) > 100


@thorough
@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - NOT_FOUND))
def test_a_broken_rule_is_found(name: str) -> None:
    first = FOUND_FROM.get(name, 0)
    with mutated(name), pytest.raises(AssertionError):
        _simulate(range(first, first + SEEDS))


def _simulate(seeds: range) -> None:
    for seed in seeds:
        simulate_growth(seed)
