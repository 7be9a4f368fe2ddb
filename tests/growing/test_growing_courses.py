"""Two of the courses that `make grow-ordeal` plays, short: each comes to its end, and nothing is lost or doubled."""

from pathlib import Path

import pytest

from streams.local.stack import Stack
from tests.growing.courses import lines, run
from tests.integration.workers import fresh_world

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("course", ["kills", "scale"])
def test_kills_and_further_workers_in_a_growth_lose_and_double_nothing(
    stack: Stack, tmp_path: Path, course: str
) -> None:
    result = run(stack, tmp_path, course, records_per_s=500, devices=96, seed=19, group_protocol="classic")
    assert result.count.ok, "\n".join([*lines([result]), *result.count.details])
    fresh_world(stack)  # with as many partitions as other tests expect
