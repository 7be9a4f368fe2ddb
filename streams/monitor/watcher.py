"""The monitor's loop: reads offsets, sources and workers at every interval, and makes a snapshot of them.

A failed round is part of the monitor's state; the next round follows as usual.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from streams.acls.roles import Role, rights_of
from streams.deadletters.letter.figures import Figures
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.acls import in_words, lacking
from streams.kafka.admin import admin_client
from streams.kafka.offsets_process import RoundFailed
from streams.kafka.round import Round
from streams.monitor.dead_letters import DeadLetterWatch
from streams.monitor.evaluator import LagEvaluator
from streams.monitor.group_lag import GroupLag
from streams.monitor.growth_watch import GrowthWatch
from streams.monitor.health import Health
from streams.monitor.history.book import HistoryBook
from streams.monitor.missing import missing_topics
from streams.monitor.processes import ProcessWatch, S, Targets
from streams.monitor.sinks import SinkKind
from streams.monitor.slo import VISIBLE_S, SloTracker
from streams.monitor.snapshot import Point, Snapshot
from streams.monitor.sources import SourceWatch
from streams.monitor.throughput import CounterRates, TopicRates, by_worker
from streams.monitor.topic_growth import GrowthView
from streams.monitor.workers import WorkerKind
from streams.settings import Settings

log = structlog.get_logger(__name__)

HISTORY_POINTS: Final = 240
AGAIN_S: Final = 1.0
"""Pause after a failed round, if the interval is not shorter."""
STOP_S: Final = 5.0
"""How long `stop` waits for a round that is under way."""

Listener = Callable[[Snapshot], None]


class Watcher:
    """Runs until stopped, in a thread of its own. It waits for a broker, registry or worker that does not answer."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Pipeline],
        *,
        count_letters: Callable[[], Sequence[Figures]] = tuple,
    ) -> None:
        """Raise what is wrong with the settings at once.

        `count_letters` counts dead letters by topic, in a thread of its own: it may take long.

        Raises:
            UsageError: STREAMS_MONITOR_WORKERS or STREAMS_MONITOR_SINKS is not usable.

        """
        self._settings = settings
        self._interval_s = settings.streams_monitor_interval_s
        self._dead_letters = DeadLetterWatch(
            count_letters, interval_s=self._interval_s, window_s=settings.streams_monitor_window_s
        )
        self._workers = ProcessWatch(Targets.parse(settings.streams_monitor_workers), WorkerKind())
        self._sinks = ProcessWatch(Targets.parse(settings.streams_monitor_sinks, "STREAMS_MONITOR_SINKS"), SinkKind())
        self._evaluator = LagEvaluator(
            settings,
            window_s=settings.streams_monitor_window_s,
            interval_s=settings.streams_monitor_interval_s,
            flows=flows,
        )
        self._flows = flows
        self._sources = SourceWatch(settings, flows, self._evaluator.log_reader)
        self._growth = GrowthWatch(settings, flows)
        self._growths: tuple[GrowthView, ...] = ()
        self._slo = SloTracker()
        self._points: dict[str, deque[Point]] = {}
        self._rates, self._flow_rates, self._topic_rates = CounterRates(), CounterRates(), TopicRates()
        self.history = HistoryBook(
            interval_s=self._interval_s,
            hours=settings.streams_monitor_history_hours,
            memory_mb_max=settings.streams_monitor_history_mb_max,
        )
        """Data of the charts; any thread."""
        self._rounds = self._failures = 0
        self._round_s = 0.0
        self._offsets_at_s: float | None = None
        self._quiet_since_s = time.monotonic()
        self._doing = "starting"
        self._listeners: list[Listener] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self.latest: Snapshot | None = None
        """None until the first round has succeeded."""
        self.failure: str | None = None
        """Why there is no (newer) round."""

    @property
    def interval_s(self) -> float:
        """Seconds from the begin of a round to the begin of the next."""
        return self._interval_s

    def listen(self, listener: Listener) -> None:
        """Call `listener` with each snapshot, in the watcher's thread. Use it before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start the rounds and the count of dead letters, each in a thread of its own. Call it once."""
        self._quiet_since_s = time.monotonic()
        self._dead_letters.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop. A round that takes longer than `STOP_S` ends with the process, and its connections with it."""
        self._stop.set()
        self._dead_letters.stop()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        if self._thread.is_alive():
            log.warning("a round is under way and is not waited for", doing=self._doing)
            return
        self._evaluator.close()
        self._growth.close()
        self._workers.close()
        self._sinks.close()

    def health(self) -> Health:
        """State of the monitor itself; from any thread."""
        now_s = time.monotonic()
        return Health(
            interval_s=self._interval_s,
            rounds=self._rounds,
            failures=self._failures,
            deaths=self._evaluator.probe.deaths,
            round_s=self._round_s,
            failure=self.failure,
            age_s=None if self._offsets_at_s is None else now_s - self._offsets_at_s,
            is_alive=self._thread.is_alive(),
            quiet_s=now_s - self._quiet_since_s,
            doing=self._doing,
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            started_s = time.monotonic()
            try:
                self._look()
            except Exception as error:
                log.exception("a round failed unexpectedly", doing=self._doing)
                self._failures += 1
                self.failure = f"a round failed at {self._doing}: {error!r}"
            self._doing, self._quiet_since_s = "waiting", time.monotonic()
            pause_s = self._interval_s if self.failure is None else min(self._interval_s, AGAIN_S)
            self._stop.wait(max(0.0, started_s + pause_s - time.monotonic()))

    def _look(self) -> None:
        started_s = time.monotonic()
        before = self.latest
        failure, offsets_at_s = None, self._offsets_at_s
        try:
            self._doing = "offsets"
            found, groups = self._evaluator.look()
            offsets_at_s = time.monotonic()
            self._rounds += 1
        except RoundFailed as error:
            failure = str(error)
            self._failed(failure)
            if before is None:
                return
            found, groups = before.round, dict(before.groups)
        else:
            self._look_at_sources(found)
            self._look_at_growths(found)
            if self._rounds == 1:
                self._warn_of_lacking_rights()
        self._round_s = time.monotonic() - started_s
        self.latest = snapshot = self._snapshot(found, groups, failure)
        self._offsets_at_s = offsets_at_s
        if failure is None and self.failure is not None:
            log.info("offsets are read again", failures=self._failures)
        self.failure = failure
        self.history.observe(snapshot)
        for listener in self._listeners:
            listener(snapshot)

    def _warn_of_lacking_rights(self) -> None:
        """Log once what the monitor cannot see: topics that it may not describe are not listed to it."""
        self._doing = "rights"
        try:
            found = lacking(admin_client(self._settings), rights_of([Role.MONITOR], self._flows))
        except StreamsError as error:
            log.warning("the brokers do not tell the rights of this monitor", error=str(error))
            return
        if found:
            log.warning("the monitor does not see all of the flows", error=in_words(found))

    def _look_at_sources(self, found: Round) -> None:
        self._doing = "sources"
        try:
            self._sources.look(found)
        except StreamsError as error:
            log.warning("sources could not be read", error=str(error))
        except Exception:  # lag is judged without them
            log.exception("sources could not be read")

    def _look_at_growths(self, found: Round) -> None:
        self._doing = "growths"
        try:
            self._growths = self._growth.look(found, time.monotonic())
        except Exception:  # as above
            log.exception("growths could not be looked at")

    def _look_at(self, what: str, watch: ProcessWatch[S], last: Sequence[S]) -> Sequence[S]:
        """The processes of a kind now; `last`: as they were, for where they cannot be asked."""
        self._doing = what
        try:
            return watch.look(time.monotonic())
        except Exception:  # as above: what anybody answers must not blind the monitor
            log.exception("processes could not be asked", kind=what)
            return last

    def _failed(self, failure: str) -> None:
        self._failures += 1
        if self.failure is None:
            log.warning("no offsets this time; trying again", error=failure)
        self.failure = failure

    def _snapshot(self, found: Round, groups: dict[str, GroupLag], failure: str | None) -> Snapshot:
        now_ms = time.time_ns() // 1_000_000
        before = self.latest
        workers = self._look_at("workers", self._workers, () if before is None else before.workers)
        sinks = self._look_at("sinks", self._sinks, () if before is None else before.sinks)
        self._doing = "snapshot"
        self._slo.observe(
            time.monotonic(),
            {f"{one.address}/{process}": counts for one in workers for process, counts in one.visible.items()},
            sum(group.waiting(VISIBLE_S) for group in groups.values() if group.is_flow),
        )
        if failure is None:
            self._note(groups)
        outcomes, flows = by_worker(workers)
        now_s = time.monotonic()
        return Snapshot(
            time_ms=now_ms,
            cluster=self._settings.streams_cluster_name,
            interval_s=self._interval_s,
            round=found,
            groups=groups,
            history={name: tuple(points) for name, points in self._points.items()},
            freshness=tuple(self._sources.tracker.judge(now_ms)),
            slo=self._slo.judge(),
            workers=tuple(workers),
            sinks=tuple(sinks),
            rates=self._rates.look(outcomes, now_s),
            flow_rates=self._flow_rates.look(flows, now_s),
            topic_rates=self._topic_rates.look(found),
            dead_letters=self._dead_letters.rows,
            failure=failure,
            missing=missing_topics(found.base.keys(), self._flows),
            growths=self._growths,
            growth_records=self._growth.records(),
        )

    def _note(self, groups: dict[str, GroupLag]) -> None:
        for name in set(self._points) - groups.keys():
            del self._points[name]
        for name, group in groups.items():
            points = self._points.setdefault(name, deque(maxlen=HISTORY_POINTS))
            points.append(Point(group.time_ms, group.lag_sum, group.lag_s_max))
