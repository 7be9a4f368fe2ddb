"""The monitor's loop: every interval a look at offsets, sources and workers becomes a snapshot for whoever listens."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from streams.deadletters.index import Figures
from streams.errors import StreamsError
from streams.kafka.offsets_process import RoundFailed
from streams.kafka.round import Round
from streams.monitor.book import GroupLag
from streams.monitor.dead_letters import DeadLetterWatch
from streams.monitor.lookout import Lookout
from streams.monitor.slo import SloBook
from streams.monitor.snapshot import Health, Point, Snapshot
from streams.monitor.sources import SourceWatch
from streams.monitor.workers import Targets, WorkerState, WorkerWatch
from streams.operators.declaration import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)

HISTORY_POINTS: Final = 240
AGAIN_S: Final = 1.0
"""After a failed round the next one comes so soon, if the interval is not shorter."""

Listener = Callable[[Snapshot], None]


class Watcher:
    """Looks until stopped, in a thread of its own. A broker, registry or worker that is away is waited for, aloud."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Sequence[Pipeline],
        *,
        count_letters: Callable[[], Sequence[Figures]] = tuple,
    ) -> None:
        """Raise what is wrong with the settings at once.

        `count_letters` counts dead letters by topic, in a thread of its own: it may take long.

        Raises:
            UsageError: STREAMS_MONITOR_WORKERS is not usable.

        """
        self._settings = settings
        self._interval_s = settings.streams_monitor_interval_s
        self._dead_letters = DeadLetterWatch(
            count_letters, interval_s=self._interval_s, window_s=settings.streams_monitor_window_s
        )
        self._workers = WorkerWatch(Targets.parse(settings.streams_monitor_workers))
        self._lookout = Lookout(
            settings, window_s=settings.streams_monitor_window_s, interval_s=settings.streams_monitor_interval_s
        )
        self._sources = SourceWatch(settings, pipelines, self._lookout.peeker)
        self._slo = SloBook()
        self._history: dict[str, deque[Point]] = {}
        self._totals: dict[object, dict[str, float]] = {}
        self._totals_at_s = 0.0
        self._rounds = self._failures = 0
        self._round_s = 0.0
        self._listeners: list[Listener] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self.latest: Snapshot | None = None
        """None until the first round has succeeded."""
        self.failure: str | None = None
        """Why there is no (newer) round."""

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with each snapshot, in the watcher's thread. Before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin."""
        self._dead_letters.start()
        self._thread.start()

    def stop(self) -> None:
        """End; returns when everything is let go."""
        self._stop.set()
        self._dead_letters.stop()
        if self._thread.is_alive():
            self._thread.join()
        self._lookout.close()
        self._workers.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            started_s = time.monotonic()
            self._look()
            pause_s = self._interval_s if self.failure is None else min(self._interval_s, AGAIN_S)
            self._stop.wait(max(0.0, started_s + pause_s - time.monotonic()))

    def _look(self) -> None:
        started_s = time.monotonic()
        before = self.latest
        try:
            found, groups = self._lookout.look()
            self._sources.look(found)
            if self.failure is not None:
                log.info("offsets are read again", failures=self._failures)
            self.failure = None
            self._rounds += 1
        except RoundFailed as error:
            self._failed(error)
            if before is None:
                return
            found, groups = before.round, dict(before.groups)
        except StreamsError as error:
            log.warning("sources could not be read", error=str(error))
        self._round_s = time.monotonic() - started_s
        self.latest = snapshot = self._snapshot(found, groups)
        for listener in self._listeners:
            listener(snapshot)

    def _failed(self, error: StreamsError) -> None:
        self._failures += 1
        if self.failure is None:
            log.warning("no offsets this time; trying again", error=str(error))
        self.failure = str(error)

    def _snapshot(self, found: Round, groups: dict[str, GroupLag]) -> Snapshot:
        now_ms = time.time_ns() // 1_000_000
        workers = self._workers.look()
        self._slo.observe(time.monotonic(), {str(one.address): one.visible for one in workers if one.outcomes})
        if self.failure is None:
            self._note(groups)
        return Snapshot(
            time_ms=now_ms,
            cluster=self._settings.streams_cluster_name,
            interval_s=self._interval_s,
            round=found,
            groups=groups,
            history={name: tuple(points) for name, points in self._history.items()},
            freshness=tuple(self._sources.book.judge(now_ms)),
            slo=self._slo.judge(),
            workers=tuple(workers),
            rates=self._rates(workers),
            dead_letters=self._dead_letters.rows,
            health=Health(
                rounds=self._rounds,
                failures=self._failures,
                deaths=self._lookout.probe.deaths,
                round_s=self._round_s,
                failure=self.failure,
            ),
        )

    def _note(self, groups: dict[str, GroupLag]) -> None:
        for name in set(self._history) - groups.keys():
            del self._history[name]
        for name, group in groups.items():
            points = self._history.setdefault(name, deque(maxlen=HISTORY_POINTS))
            points.append(Point(group.time_ms, group.lag_sum, group.lag_s_max))

    def _rates(self, workers: list[WorkerState]) -> dict[str, float]:
        """Events a second since the last look, over all workers; one that was started anew counts from zero."""
        now_s, gained = time.monotonic(), dict[str, float]()
        for worker in workers:
            before = self._totals.get(worker.address, worker.outcomes)
            for outcome, count in worker.outcomes.items():
                was = before.get(outcome, 0.0)
                gained[outcome] = gained.get(outcome, 0.0) + (count - was if count >= was else count)
            if worker.outcomes:
                self._totals[worker.address] = dict(worker.outcomes)
        seconds, self._totals_at_s = now_s - self._totals_at_s, now_s
        return {outcome: count / seconds for outcome, count in gained.items()}
