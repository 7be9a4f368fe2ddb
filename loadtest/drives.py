"""The drives: how traffic meets the workers, and what is found on the way."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from loadtest.bottleneck import BEHIND_MS
from loadtest.crew import Crew
from loadtest.generators import Sent
from loadtest.plan import Drive, Work
from loadtest.sampler import Role, Series
from loadtest.stage import Stage
from loadtest.visible import VisibleLatency
from loadtest.worker_process import DOWNSTREAM

WARM_UP_S: Final = 4.0
"""Of an open-loop phase: clients connect, keys are new; sent and checked, not timed."""
OVERLOAD: Final = 1.2
"""Rate that keeps a downstream's queue full without piling up minutes of it."""
LATENCY_SHARE: Final = 0.25
"""Of the drained rate: what latency is measured at, when no rate is asked for. Nobody sends while a topic is drained;
generators, and whoever times the records, want their share of the machine."""
RATE_MIN: Final = 200
RAMP_FACTOR: Final = 1.5
RAMP_STEPS_MAX: Final = 20
RAMP_SEARCHES: Final = 3
RAMP_LAG_S: Final = 1.5
"""A step is sustained when the lag at its end is less than this much of its traffic."""
SPIKE_FACTOR: Final = 4
SOAK_WARM_UP_SHARE: Final = 0.2


@dataclass(slots=True)
class Found:
    """Figures of the phases so far."""

    consume_rate: float | None = None
    publish_rate: float | None = None
    latency_ms: dict[str, float] | None = None
    latency_rate: float | None = None
    latency_curve: list[tuple[float, float]] = field(default_factory=list)
    busy: Series = field(default_factory=Series)
    """Samples of the time in which the workers were kept busy."""
    downstream_share: float = 0.0
    behind_ms: float = 0.0
    rejects: int = 0
    rejects_exact: bool = True
    notes: list[str] = field(default_factory=list)


def _drain(stage: Stage, found: Found) -> list[str]:
    if stage.point.work is Work.DOWNSTREAM:
        return _saturate(stage, found)
    with stage.workers() as workers:
        stage.wait_ready(workers)
        with workers.held(), stage.traffic("--events", str(stage.plan.events)) as traffic:
            sent = traffic.wait(on_progress=lambda done: stage.progress("filling the topic", done / stage.plan.events))
        filled_s = stage.sampler.now_s()
        _note_sent(found, sent)
        ended_s = stage.wait_drained(workers, "draining")
        found.busy = stage.sampler.series.between(filled_s, ended_s)
        found.consume_rate = found.busy.rate()
        _latency(stage, found, workers)
        return workers.incidents


def _saturate(stage: Stage, found: Found) -> list[str]:
    """Slightly more than the downstream lets through: what is consumed meanwhile is what the workers can do."""
    rate = stage.plan.downstream_rate(stage.point.partitions) * OVERLOAD
    with stage.workers() as workers:
        stage.wait_ready(workers)
        waited_before_s = _waited_s(workers)
        sent, start_s, end_s = stage.open_loop(workers, rate, stage.plan.seconds + WARM_UP_S, "keeping it over-full")
        _note_sent(found, sent)
        _note_busy(stage, found, workers, start_s, end_s, waited_before_s)
        found.behind_ms = sent.behind_ms_max
        stage.wait_drained(workers, "draining")
        _latency(stage, found, workers)
        return workers.incidents


def _latency(stage: Stage, found: Found, workers: Crew) -> None:
    rate = stage.plan.rate or max(RATE_MIN, LATENCY_SHARE * (found.consume_rate or 0.0))
    _timed_open_loop(stage, found, workers, rate, stage.plan.seconds)


def _timed_open_loop(stage: Stage, found: Found, workers: Crew, rate: float, seconds: float) -> tuple[float, float]:
    """An open-loop phase whose records are timed; returns when it began and ended on the samples' clock."""
    with VisibleLatency(stage.settings, stage.pipeline.clean, stage.point.partitions) as visible:
        visible.count((time.time() + WARM_UP_S) * 1000)
        sent, start_s, end_s = stage.open_loop(workers, rate, seconds + WARM_UP_S, f"latency at {rate:,.0f} events/s")
        stage.wait_drained(workers, "draining")
        found.latency_ms, found.latency_curve = visible.percentiles_ms(), visible.curve()
    _note_sent(found, sent)
    found.latency_rate = rate
    if sent.behind_ms_max > BEHIND_MS:
        found.notes.append(
            f"the generators were up to {sent.behind_ms_max / 1000:.1f} s behind their schedule at {rate:,.0f} "
            "events/s: that is part of the latency"
        )
    return start_s, end_s


def _open(stage: Stage, found: Found) -> list[str]:
    with stage.workers() as workers:
        stage.wait_ready(workers)
        _steady(stage, found, workers, stage.plan.rate or _default_rate(stage), stage.plan.seconds)
        return workers.incidents


def _steady(stage: Stage, found: Found, workers: Crew, rate: float, seconds: float) -> None:
    waited_before_s = _waited_s(workers)
    start_s, end_s = _timed_open_loop(stage, found, workers, rate, seconds)
    _note_busy(stage, found, workers, start_s, end_s, waited_before_s)


def _ramp(stage: Stage, found: Found) -> list[str]:
    """Raise the rate until lag grows, then halve the interval a few times; at last time what is sustained."""
    with stage.workers() as workers:
        stage.wait_ready(workers)
        rate, sustained, failed = float(stage.plan.rate or _default_rate(stage)), 0.0, 0.0
        steps = searches = 0
        while steps < RAMP_STEPS_MAX and searches < RAMP_SEARCHES:
            steps += 1
            sent, start_s, end_s = stage.open_loop(
                workers, rate, stage.plan.seconds, f"step {steps}: {rate:,.0f} events/s"
            )
            _note_sent(found, sent)
            lag = sum(stage.sampler.last.lag) if stage.sampler.last else 0
            is_sent = sent.behind_ms_max <= BEHIND_MS
            ok = lag < rate * RAMP_LAG_S and is_sent
            found.notes.append(
                f"{rate:,.0f} events/s: lag {lag:,} at its end, {'sustained' if ok else 'not sustained'}"
            )
            found.behind_ms = sent.behind_ms_max if not ok else found.behind_ms
            if not ok or not found.busy.samples:
                found.busy = stage.sampler.series.between(start_s, end_s)
            stage.wait_drained(workers, "draining")
            sustained, failed = (rate, failed) if ok else (sustained, rate)
            if failed and sustained:
                searches += 1
                rate = (sustained + failed) / 2
            else:
                rate = rate / RAMP_FACTOR if failed else rate * RAMP_FACTOR
            if rate < RATE_MIN:
                break
        found.consume_rate = found.publish_rate = sustained
        if sustained:
            _timed_open_loop(stage, found, workers, 0.8 * sustained, stage.plan.seconds)
        return workers.incidents


def _spike(stage: Stage, found: Found) -> list[str]:
    rate, seconds = float(stage.plan.rate or _default_rate(stage) / SPIKE_FACTOR), float(stage.plan.seconds)
    with stage.workers() as workers:
        stage.wait_ready(workers)
        with VisibleLatency(stage.settings, stage.pipeline.clean, stage.point.partitions) as visible:
            visible.count((time.time() + WARM_UP_S) * 1000)
            with stage.traffic("--rate", str(round(rate)), "--seconds", str(round(seconds * 3))) as base:
                _watch(stage, workers, seconds, "before the spike")
                before_s = stage.sampler.now_s()
                more, _, spike_end_s = stage.open_loop(workers, rate * (SPIKE_FACTOR - 1), seconds, "spike")
                while base.running():
                    workers.look()
                    stage.progress("after the spike", 0.5)
                    time.sleep(0.1)
                sent = base.result()
            ended_s = stage.wait_drained(workers, "draining")
            found.latency_ms, found.latency_curve, found.latency_rate = visible.percentiles_ms(), visible.curve(), rate
        _note_sent(found, sent)
        _note_sent(found, more)
        series = stage.sampler.series
        calm = series.between(before_s - seconds / 2, before_s).samples
        usual = statistics.median(sum(sample.lag) for sample in calm) if calm else 0.0
        recovered_s = next(
            (s.at_s for s in series.between(spike_end_s, ended_s).samples if sum(s.lag) <= usual + rate / 2), ended_s
        )
        found.busy = series.between(before_s, spike_end_s)
        found.consume_rate = found.busy.rate()
        found.publish_rate = rate
        found.notes.append(
            f"spike of {rate * SPIKE_FACTOR:,.0f} events/s for {seconds:.0f} s over {rate:,.0f}: lag at most "
            f"{series.lag_max():,}, usual again {max(0.0, recovered_s - spike_end_s):.1f} s after its end"
        )
        return workers.incidents


def _soak(stage: Stage, found: Found) -> list[str]:
    with stage.workers() as workers:
        stage.wait_ready(workers)
        _steady(stage, found, workers, stage.plan.rate or _default_rate(stage), stage.plan.seconds)
        samples = found.busy.samples[int(len(found.busy.samples) * SOAK_WARM_UP_SHARE) :]
        for name in found.busy.cores_by_process(Role.WORKER):
            values = [sample.rss_mb[name] for sample in samples if name in sample.rss_mb]
            tenth = max(1, len(values) // 10)
            first, last = statistics.median(values[:tenth]), statistics.median(values[-tenth:])
            found.notes.append(
                f"{name}: RSS {first:,.0f} MB after the warm-up, {last:,.0f} MB at the end ({last / first - 1:+.1%})"
            )
        return workers.incidents


DRIVES: Final[Mapping[Drive, Callable[[Stage, Found], list[str]]]] = {
    Drive.DRAIN: _drain,
    Drive.OPEN: _open,
    Drive.RAMP: _ramp,
    Drive.SPIKE: _spike,
    Drive.SOAK: _soak,
}


def _default_rate(stage: Stage) -> float:
    """When none is asked for: well within what the workers can do."""
    if stage.point.work is Work.DOWNSTREAM:
        return LATENCY_SHARE * stage.plan.downstream_rate(stage.point.partitions)
    return 10_000.0


def _watch(stage: Stage, workers: Crew, seconds: float, what: str) -> None:
    start_s = time.monotonic()
    while (elapsed_s := time.monotonic() - start_s) < seconds:
        workers.look()
        stage.progress(what, elapsed_s / seconds)
        time.sleep(0.1)


def _waited_s(workers: Crew) -> float:
    """Seconds that the workers, together, have waited for the downstream so far."""
    return workers.operator_seconds().get(DOWNSTREAM, 0.0)


def _note_busy(stage: Stage, found: Found, workers: Crew, start_s: float, end_s: float, waited_before_s: float) -> None:
    """Figures of an open-loop phase, its warm-up left out."""
    found.busy = stage.sampler.series.between(start_s + WARM_UP_S, end_s)
    found.consume_rate = found.busy.rate()
    waited_s = _waited_s(workers) - waited_before_s
    found.downstream_share = waited_s / ((end_s - start_s) * max(1, len(workers)))


def _note_sent(found: Found, sent: Sent) -> None:
    found.rejects += sent.rejects
    found.rejects_exact &= sent.rejects_exact
    found.publish_rate = found.publish_rate or sent.records_per_s
