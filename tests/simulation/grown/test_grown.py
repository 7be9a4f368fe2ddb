"""Seeds of a flow that grows under the core of the worker, and the proof that a broken rule is found."""

from collections.abc import Callable
from pathlib import Path

import pytest

from streams.engine import commit
from streams.growth.coupling import Coupling
from streams.growth.home import Home
from streams.operators.reorder.operator import ReorderOperator
from streams.worker.growing import Growing
from tests.merged import schemas_of
from tests.simulation.grown.pairs import simulate_pair
from tests.simulation.grown.run import simulate_grown

STEPS = 250
SEEDS = range(30)
LONG = [pytest.mark.thorough, pytest.mark.slow]


@pytest.mark.parametrize("seed", [4, *(pytest.param(seed, marks=LONG) for seed in SEEDS)])
def test_a_flow_that_grows_is_as_one_stream_per_key(seed: int) -> None:
    grown = simulate_grown(seed, steps=STEPS)
    assert len(grown.partitions) > 1


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return schemas_of(tmp_path_factory.mktemp("schemas"))


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, 9, *(pytest.param(seed, marks=LONG) for seed in SEEDS)])
def test_a_flow_of_two_inputs_that_grows_joins_as_one_stream_per_key(seed: int, schemas: Path) -> None:
    grown = simulate_pair(seed, schemas, steps=STEPS)
    assert grown.forwarded
    assert not grown.late


def _child_begins_without_a_watermark(_: int) -> Coupling:
    return Coupling(0, 0, is_settled=True)


def _keeps_everything(_home: Home, _keys: object) -> None:
    return None


def _nothing(*_: object) -> None:
    return None


def _always(*_: object) -> bool:
    return True


def _no_forwards(*_: object, **__: object) -> bytes:
    return b"{}"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Home, "kept", _keeps_everything),
        (ReorderOperator, "keys_moved", _nothing),
        (Growing, "may_truncate", _always),
        (Growing, "_clear", _nothing),
        (commit, "progress_value", _no_forwards),
        (Coupling, "at_cut", staticmethod(_child_begins_without_a_watermark)),
    ],
)
def test_a_broken_rule_is_found(
    owner: object, name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, ValueError, RuntimeError, TypeError)):
        _simulate_all()


def _simulate_all() -> None:
    for seed in SEEDS:
        simulate_grown(seed, steps=STEPS)
