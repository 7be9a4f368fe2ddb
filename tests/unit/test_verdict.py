import pytest

from streams.monitor.status import Status, group_status
from tests.lag_histories import DOCUMENT, HISTORIES, History, written


@pytest.mark.parametrize("history", HISTORIES, ids=lambda one: one.name)
def test_each_history_gets_the_verdict_that_it_should(history: History) -> None:
    told = history.of_ours

    assert history.ours.name == Status(int(told.verdicts.status[0])).name, told.why(0)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda one: one.name)
def test_burrows_rules_say_what_the_table_says_they_do(history: History) -> None:
    assert history.burrow.name == history.of_burrow().name


def test_the_documented_table_is_what_the_code_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert len(HISTORIES) >= 25
    assert text == written(text), "run: python -m tests.lag_histories"


def test_a_group_is_as_bad_as_its_worst_partition_and_at_most_err() -> None:
    assert Status.NOTFOUND == group_status([])
    assert Status.OK == group_status([Status.OK, Status.NOTFOUND])
    assert Status.WARN == group_status([Status.OK, Status.WARN])
    assert Status.ERR == group_status([Status.WARN, Status.STALL])
