"""Seeds of joined pairs of logs, and that what they compare can differ."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.joined import Latest
from tests.merged import schemas_of
from tests.simulation import pairs

SEEDS = 12


def test_whatever_happens_the_join_is_a_function_of_the_logs(tmp_path: Path) -> None:
    schemas = schemas_of(tmp_path)
    found = [pairs.simulate_pair(seed, schemas, events=40) for seed in range(SEEDS)]
    assert len({type(one.model) for one in found}) == 3
    assert sum(one.crashes for one in found) > SEEDS
    assert any(one.truncations for one in found)
    assert sum(one.matched for one in found) > 100


def test_a_wrong_join_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = Latest(4_000), Latest(2_000)
    monkeypatch.setattr(pairs, "model_of", lambda _: replace(right))
    monkeypatch.setattr(Latest, "flow", lambda _, flow=Latest.flow: flow(wrong))
    schemas = schemas_of(tmp_path)
    with pytest.raises(AssertionError, match="and not"):
        _run(schemas)


def _run(schemas: Path) -> None:
    for seed in range(40):
        pairs.simulate_pair(seed, schemas, events=60)
