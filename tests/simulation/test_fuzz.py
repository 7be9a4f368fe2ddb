"""Random logs, each processed in two ways; `make fuzz` runs thousands."""

import pytest

from streams.operators.dedup.pages import SpilledIds
from streams.operators.quarantine.breakers import DeviceBreakers
from tests.simulation.fuzz import Done, fuzz

pytestmark = pytest.mark.thorough

LOGS_EACH = 25
SAYS = r"make fuzz SEED=\d+"


def fuzz_some(seed: int, done: Done | None = None, logs: int = LOGS_EACH) -> None:
    for one in range(seed, seed + logs):
        fuzz(one, done)


@pytest.mark.parametrize(
    "seed",
    [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(LOGS_EACH, 200, LOGS_EACH))],
)
def test_cuts_crashes_spills_and_truncation_do_not_matter(seed: int) -> None:
    fuzz_some(seed)


def test_everything_that_must_not_matter_does_happen() -> None:
    done = Done()
    fuzz_some(1_000, done)
    rare = {name: count for name, count in done.counts.items() if count < 5}
    assert rare == {}
    assert done.counts.keys() >= {"truncations", "expiries", "spills", "stops", "aborts", "crashes, store old"}


def test_a_truncation_that_forgets_breakers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceBreakers, "keys", ())
    with pytest.raises(AssertionError, match=SAYS):
        fuzz_some(20, logs=80)  # found by 27


def test_breakers_that_are_pushed_out_within_a_batch_and_still_keep_records_out_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeviceBreakers, "may_be_forgotten", lambda *_: frozenset())
    with pytest.raises(AssertionError, match=SAYS):
        fuzz_some(165, logs=15)  # found by 169


def test_spilled_ids_that_are_not_looked_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpilledIds, "newest_bucket_end", 0)
    monkeypatch.setattr(SpilledIds, "contains", lambda _, ids: [False] * len(ids))
    with pytest.raises(AssertionError, match=SAYS):
        fuzz_some(0, logs=100)
