"""Carries out requests to forget keys, between two cycles of a running worker (docs/adr/0090).

A key is due once its partition has processed all that it had when it was asked for, and no operator holds events of it.
The cycle that forgets it says in the same transaction that the request is carried out. All state of the worker is then
restored, as after an aborted cycle: so there is one way in which state forgets, that of a restore.
"""

from typing import Final

import structlog

from streams.engine.effects import TaskCommit
from streams.engine.engine import Engine
from streams.engine.forget import ForgetRequest, has_processed, told_beside, waits
from streams.engine.task import PartitionTask
from streams.flow.declaration import Pipeline
from streams.sinks.base import TopicRecords
from streams.worker.cycle import CommitCycle
from streams.worker.ownership import Ownership
from streams.worker.ports import ForgetNews, TimeSource

log = structlog.get_logger(__name__)

_INTERVAL_S: Final = 1.0
"""Pause between two checks whether a request is due: a check may read held events from the store."""


class Forgetter:
    """Used by one thread at a time, between steps."""

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        cycle: CommitCycle,
        ownership: Ownership,
        news: ForgetNews,
        clock: TimeSource,
    ) -> None:
        self._pipeline = pipeline
        self._engine = engine
        self._cycle = cycle
        self._ownership = ownership
        self._news = news
        self._clock = clock
        self._looked_at_s = clock.monotonic_s() - _INTERVAL_S
        self._since: dict[int, tuple[PartitionTask, float]] = {}
        """By partition its task, and when it was there: what was carried out before that may be news of it still."""

    def run(self) -> None:
        """Forget the keys that are due.

        Raises:
            CycleAborted: a commit did not happen.

        """
        asked = self._news.asked()
        now_s = self._clock.monotonic_s()
        if asked is None or not asked.requests or now_s - self._looked_at_s < _INTERVAL_S:
            return
        self._looked_at_s = now_s
        due = self._due(asked.requests, asked.read_at_s, now_s)
        if not due:
            return
        self._cycle.end()
        self._cycle.wait_for_commit()
        commits: list[TaskCommit] = []
        beside: list[TopicRecords] = []
        for partition, requests in due.items():
            task = self._engine.tasks[partition]
            if not task.is_settled:
                continue
            commits.append(task.cycle.forgetting([one.key for one in requests]))
            for one in requests:
                now_ms = self._clock.wall_ms()
                beside += told_beside(self._pipeline, one.actor, partition, now_ms, done=[one])
        if not commits:
            return
        self._cycle.forget(commits, beside)
        for commit in commits:
            log.info(
                "keys are forgotten, as was asked for; state is restored", topic=self._pipeline.source,
                partition=commit.partition, keys=len(due[commit.partition]),
            )  # fmt: skip
        self._ownership.reload(after_s=0.0)

    def _due(
        self, requests: tuple[ForgetRequest, ...], read_at_s: float, now_s: float
    ) -> dict[int, list[ForgetRequest]]:
        """What can be carried out now, by partition."""
        tasks = self._engine.tasks
        known = self._since
        self._since = {
            partition: known[partition] if partition in known and known[partition][0] is task else (task, now_s)
            for partition, task in tasks.items()
        }
        found: dict[int, list[ForgetRequest]] = {}
        for partition, (task, since_s) in self._since.items():
            if read_at_s <= since_s:
                continue  # the owner before may have carried out what was read then
            mine = [
                one for one in requests
                if task.home.has([one.key])[0] and has_processed(task, one) and not waits(task, one.key)
            ]  # fmt: skip
            if mine:
                found[partition] = mine
        return found
