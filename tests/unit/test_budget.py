from itertools import count

from streams.worker.budget import MemoryBudget
from tests.threads import beside


def test_a_pipeline_alone_may_use_all_of_it() -> None:
    assert 100 == MemoryBudget(100, pipelines=1).allowed("gps", 500)


def test_what_one_does_not_use_another_may() -> None:
    budget = MemoryBudget(100, pipelines=2)
    budget.allowed("orders", 10)
    assert 90 == budget.allowed("gps", 80)


def test_once_it_is_too_much_the_one_with_more_than_its_even_share_gives_back() -> None:
    budget = MemoryBudget(100, pipelines=2)
    budget.allowed("gps", 80)
    assert 30 <= budget.allowed("orders", 30)
    assert 70 == budget.allowed("gps", 80)


def test_nobody_is_pushed_below_its_even_share() -> None:
    budget = MemoryBudget(100, pipelines=2)
    budget.allowed("gps", 95)
    assert 50 == budget.allowed("orders", 60)


def test_flows_ask_at_the_same_time_as_others_begin() -> None:
    budget, names = MemoryBudget(100, pipelines=2), count()
    with beside(lambda: budget.allowed(f"flow {next(names) % 5_000}", 0)):
        for _ in range(2_000):
            assert 100 == budget.allowed("gps", 90)
