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


def test_while_the_process_takes_too_much_state_gets_less_and_less_down_to_half() -> None:
    budget = MemoryBudget(100, pipelines=2, resident_bytes_max=1_000)
    budget.follow(1_020)
    assert 90 == budget.allowed("gps", 0)
    assert budget.is_tight
    budget.follow(1_020)
    assert 80 == budget.allowed("gps", 0)
    budget.follow(9_000)
    assert 50 == budget.allowed("gps", 0)
    budget.allowed("orders", 50)
    assert 25 == budget.allowed("gps", 0), "the even share is one of what is left"


def test_once_the_process_takes_less_state_gets_all_of_it_again() -> None:
    budget = MemoryBudget(100, pipelines=1, resident_bytes_max=1_000)
    budget.follow(1_060)
    budget.follow(980)
    assert 80 == budget.allowed("gps", 0)
    budget.follow(100)
    assert 100 == budget.allowed("gps", 0)
    budget.follow(1_020)
    assert 90 == budget.allowed("gps", 0), "nothing is saved up while there is enough"


def test_flows_ask_at_the_same_time_as_others_begin() -> None:
    budget, names = MemoryBudget(100, pipelines=2), count()
    with beside(lambda: budget.allowed(f"flow {next(names) % 5_000}", 0)):
        for _ in range(2_000):
            assert 100 == budget.allowed("gps", 90)
