import pytest

from tests.lag_histories import DOCUMENT
from tests.lag_hour import HOURS, counted, written


@pytest.mark.slow
@pytest.mark.promtool
def test_an_hour_of_each_group_pages_for_what_is_down_and_for_nothing_that_is_healthy() -> None:
    found = counted()

    assert {one.name: one.fires for one in HOURS} == {name: one.fires for name, one in found.items()}
    healthy = [one.fires for name, one in found.items() if name.startswith(("healthy", "keeps", "runs"))]
    assert [{}] * 5 == healthy
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == written(text, found), "run: python -m tests.lag_hour"
