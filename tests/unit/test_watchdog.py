"""What silence means: `judge`, without Kafka. That a hung worker ends is tested on a real one."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from streams.errors import StreamsError
from streams.kafka.lag import lag_of
from streams.worker.vitals import Vitals
from streams.worker.watchdog import Verdict, all_stacks, judge

STALL_S = 300.0


class Pipeline:
    """A pipeline by its answers."""

    def __init__(self, work: dict[int, tuple[int, int]] | None = None, lags: dict[int, int] | None = None) -> None:
        self.now_s = 1_000.0
        self.vitals = Vitals(lambda: self.now_s)
        self._work, self._lags = work or {}, lags

    def at_work(self) -> Mapping[int, tuple[int, int]]:
        return self._work

    def lags(self, at_work: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        if self._lags is None:
            raise StreamsError("nobody answers")
        return self._lags

    def waits_for(self) -> str:
        return "godot"


@pytest.mark.parametrize(
    ("work", "lags", "verdict"),
    [
        ({0: (5, 5)}, {0: 1_000}, Verdict.STALLED),
        ({0: (5, 5)}, {}, Verdict.IDLE),
        ({0: (5, 5)}, None, Verdict.WAITS),
        ({}, {0: 1_000}, Verdict.IDLE),
    ],
)
def test_silence_is_a_stall_only_with_work_and_a_broker(
    work: dict[int, tuple[int, int]], lags: dict[int, int] | None, verdict: Verdict
) -> None:
    one = Pipeline(work, lags)
    one.now_s += STALL_S - 1
    assert Verdict.ALIVE is judge(one, STALL_S).verdict
    one.now_s += 1
    assert verdict is judge(one, STALL_S).verdict


def test_an_announced_pause_is_not_silence() -> None:
    one = Pipeline({0: (5, 5)}, {0: 1})
    one.vitals.sign(30.0)
    one.vitals.sign()
    one.now_s += STALL_S + 29
    assert Verdict.ALIVE is judge(one, STALL_S).verdict
    one.now_s += 1
    assert Verdict.STALLED is judge(one, STALL_S).verdict


@pytest.mark.parametrize(
    ("position", "end", "up_to", "taken", "lag"),
    [
        (10, 10, 10, 10, 0),
        (10, 11, 11, 10, 0),  # a transaction marker behind the last record
        (10, 11, 10, 10, 1),  # a record, or a marker that the consumer has not told of
        (10, 30, 30, 30, 20),  # all is taken, and hangs in the worker
        (0, 30, 0, 0, 30),  # nothing is taken
    ],
)
def test_lag_is_what_nobody_is_known_to_have_passed(position: int, end: int, up_to: int, taken: int, lag: int) -> None:
    assert lag == lag_of(position, end=end, up_to=up_to, taken=taken)


def test_the_stacks_show_threads_and_what_tasks_await() -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def generator() -> AsyncIterator[None]:
        await inner()
        yield

    async def outer() -> None:
        async for _ in generator():
            pass

    async def main() -> list[tuple[str, str]]:
        task = asyncio.create_task(outer(), name="hangs")
        await asyncio.sleep(0)
        found = await asyncio.to_thread(all_stacks, asyncio.get_running_loop())
        task.cancel()
        return found

    found = dict(asyncio.run(main()))
    assert any(where.startswith("thread MainThread") for where in found)
    (stack,) = [stack for where, stack in found.items() if where.startswith("task hangs")]
    assert "in outer" in stack
    assert "in generator" in stack
    assert "in inner" in stack
