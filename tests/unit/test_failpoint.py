import pytest

from streams.engine.commit import STEPS
from streams.errors import UsageError
from streams.worker.failpoint import parse_failpoint


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("deed", ["kill", "hang", "stall", "slow"])
def test_each_step_may_kill_hang_stall_or_slow(step: str, deed: str) -> None:
    found = parse_failpoint(f"{deed}:{step}:7")
    assert (deed, step, 7) == (found.deed, found.step, found.number)


def test_a_step_and_a_number_kill() -> None:
    assert parse_failpoint("committed:3") == parse_failpoint("kill:committed:3")


@pytest.mark.parametrize(
    "spec", ["committed", "committed:", ":3", "nowhere:3", "committed:-1", "committed:²", "stop:committed:3", "a:b:c:4"]
)
def test_anything_else_is_wrong_usage(spec: str) -> None:
    with pytest.raises(UsageError, match="STREAMS_FAILPOINT must be STEP:N"):
        parse_failpoint(spec)


def test_only_its_own_step_is_slowed() -> None:
    found = parse_failpoint("slow:produced:0")
    for step in STEPS:
        found(step)
    assert 0 == found.number
