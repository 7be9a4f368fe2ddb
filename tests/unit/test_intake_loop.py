"""What intake hands to the core: all that comes, and little of nothing. Without Kafka."""

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.batch.records import Records
from streams.engine.engine import MicroBatch
from streams.limits import REST_MS_MAX
from streams.settings import Settings
from streams.sources.base import Idle, Polled
from streams.worker import pipeline as module
from streams.worker.metrics import WorkerMetrics
from streams.worker.pipeline import PipelineRunner

NOTHING = Polled(None, {}, 0)
NUMBER = np.zeros(1, np.int64)
SOME = Polled(Records(NUMBER, NUMBER, NUMBER, [b"k"], [b"v"]), {}, 0)
POLL_MS = 100


class World:
    """A runner whose intake brings what it is told, and whose core is at rest or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, polls: Iterable[Polled], *, is_at_rest: bool = True) -> None:
        self.now_ms = 0
        self._polls = list(polls)
        self.handed_over: list[MicroBatch] = []
        monkeypatch.setattr(module, "monotonic_ms", lambda: self.now_ms)
        shared: Any = SimpleNamespace(metrics=WorkerMetrics(), settings=Settings())
        self.runner = PipelineRunner(
            GPS, shared, partitions=1, failpoint=lambda _: None, on_failure=lambda error: pytest.fail(repr(error))
        )
        core = SimpleNamespace(is_at_rest=is_at_rest, polled=lambda batch: SimpleNamespace(batch=batch))
        intake = SimpleNamespace(poll=self._poll, unreadable={})
        started: Any = SimpleNamespace(
            core=core, wiring=SimpleNamespace(intake=intake, poll=lambda: (self._poll(), (None, {}), self.now_ms))
        )
        self.runner._started = started

    def _poll(self) -> Polled:
        found = self._polls.pop(0)
        self.now_ms += POLL_MS
        if not self._polls:
            self.runner.stopping()
        return found

    def run(self) -> list[MicroBatch]:
        async def loop() -> None:
            self.runner._loop = asyncio.get_running_loop()

            def send(polled: Any) -> "asyncio.Future[object]":
                self.handed_over.append(polled.batch)
                sent: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                sent.set_result(None)
                return sent

            await self.runner.intake_loop(send)

        asyncio.run(loop())
        return self.handed_over


def test_all_records_are_handed_over_with_how_long_they_were_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = World(monkeypatch, [SOME, NOTHING, SOME, SOME]).run()
    assert [batch for batch in found if batch.records is not None] == found
    assert [batch.waited_ms for batch in found] == [POLL_MS] * 3


def test_a_core_at_rest_is_told_of_nothing_only_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = 30
    found = World(monkeypatch, [NOTHING] * polls).run()
    assert len(found) == polls * POLL_MS // REST_MS_MAX


def test_a_core_that_is_not_at_rest_is_told_of_each_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(World(monkeypatch, [NOTHING] * 30, is_at_rest=False).run()) == 30


def test_idle_time_that_passes_and_another_generation_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [{0: Idle(0, until_ms)} for until_ms in (100, 200)]
    polls = [Polled(None, idle[0], 0), Polled(None, idle[0], 0), Polled(None, idle[1], 0), Polled(None, idle[1], 1)]
    found = World(monkeypatch, polls).run()
    assert [(batch.idle, batch.generation) for batch in found] == [(idle[0], 0), (idle[1], 0), (idle[1], 1)]
