"""Workers upgraded one after the other under load: nothing is lost or doubled, no partition stands still for long."""

from pathlib import Path
from typing import Final

import pytest

from streams.local.stack import Stack
from tests.rolling.upgrade import WORKERS, lines, upgraded

PAUSE_S_MAX: Final = 45.0
"""Start of a process and restore, with four workers and a broker on two cores. A session (10 s) is part of it where
others take the partitions over."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_workers_are_upgraded_one_after_the_other(stack: Stack, tmp_path: Path) -> None:
    result = upgraded(stack, tmp_path, records_per_s=1_000, between_s=3.0, seed=22)

    said = "\n".join(lines(result))
    assert result.report.ok, said
    assert len(result.steps) == WORKERS
    assert result.pause_s <= PAUSE_S_MAX, said
