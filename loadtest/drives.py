"""The drives: how traffic meets the workers, and what is found on the way."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.bottleneck import BEHIND_MS
from loadtest.crew import Crew
from loadtest.generators import Sent
from loadtest.plan import Drive, Work
from loadtest.sampler import Role, Series
from loadtest.stage import OpenLoop, Span, Stage, in_turn
from loadtest.trial import Trial
from loadtest.worker_process import DOWNSTREAM

OVERLOAD: Final = 1.2
"""Rate that keeps a downstream's queue full without piling up minutes of it."""
RATE_MIN: Final = 200
RAMP_FACTOR: Final = 1.5
RAMP_STEPS_MAX: Final = 20
RAMP_SEARCHES: Final = 3
SPIKE_FACTOR: Final = 4
SOAK_WARM_UP_SHARE: Final = 0.2
DEFAULT_SHARE: Final = 0.25
"""Default rate of an open loop, as a share of what the downstream lets through."""
DEFAULT_RATE: Final = 10_000.0
STEADY_SHARE_MAX: Final = 0.95
"""Share of the topic up to which a drain is steady. After that, partitions run empty one by one."""


@dataclass(slots=True)
class Found:
    """Figures of the phases so far."""

    consume_rate: float | None = None
    publish_rate: float | None = None
    sustainable_rate: float | None = None
    steady_s: float | None = None
    trials: list[Trial] = field(default_factory=list)
    """Every rate that was sent for a while, in order."""
    busy: Series = field(default_factory=Series)
    """Samples of the time in which the workers were kept busy."""
    drained: Series = field(default_factory=Series)
    """Samples of a whole drain, to its end; as `busy` where nothing was drained."""
    downstream_share: float = 0.0
    behind_ms: float = 0.0
    rejects: int = 0
    rejects_exact: bool = True
    notes: list[str] = field(default_factory=list)


def _drain(stage: Stage, found: Found) -> list[str]:
    if stage.point.work is Work.DOWNSTREAM:
        return _saturate(stage, found)
    events = stage.events
    # Before any worker is there: nobody takes from the topic while it is being filled, however long that takes.
    with stage.traffic(*stage.plan.drain_arguments(events), devices=stage.plan.drain_devices(events)) as traffic:
        sent = traffic.wait(on_progress=lambda done: stage.progress("filling the topic", done / events))
    _note_sent(found, sent)
    started_s = stage.sampler.now_s()
    with stage.workers() as workers:
        stage.wait_ready(workers)
        ready_s = stage.sampler.now_s()
        ended_s = stage.wait_drained(workers, "draining")
        found.drained = stage.sampler.series.between(started_s, ended_s)
        found.busy = steady(
            found.drained,
            ready_s=ready_s,
            warm_up_s=stage.plan.length.warm_up_s,
            seconds=stage.plan.length.seconds,
            events=sent.records,
        )
        if not found.busy.rate():  # over within two commits: what there is, and it is said to be too short
            found.busy = found.drained
        found.consume_rate, found.steady_s = found.busy.rate(), found.busy.seconds()
        if found.steady_s < 0.9 * stage.plan.length.seconds:
            found.notes.append(
                f"the steady state lasted {found.steady_s:.1f} s of {stage.plan.length.seconds:.0f} asked for: "
                f"{events:,} events were too few"
            )
        _sustain_and_time(stage, found, workers)
        stage.close_windows(workers)
        return workers.incidents


def steady(series: Series, *, ready_s: float, warm_up_s: float, seconds: float, events: int) -> Series:
    """The stretch of a drain that is measured: after the warm-up, for so long, and before partitions run empty.

    The warm-up counts from the first commit, and is not over before all workers are ready. Where too little is left
    after it, it is shortened to what leaves half of the drain.
    """
    moving = [
        later.at_s for earlier, later in zip(series.samples, series.samples[1:], strict=False)
        if later.done != earlier.done
    ]  # fmt: skip
    if not moving:
        return series
    first_s = moving[0]
    ends_s = next((each.at_s for each in series.samples if each.done >= STEADY_SHARE_MAX * events), moving[-1])
    begins_s = min(max(first_s + warm_up_s, ready_s), (first_s + ends_s) / 2)
    return series.between(begins_s, min(ends_s, begins_s + seconds))


def _saturate(stage: Stage, found: Found) -> list[str]:
    """Slightly more than the downstream lets through: what is consumed meanwhile is what the workers can do."""
    rate = stage.plan.downstream_rate(stage.point.partitions) * OVERLOAD
    with stage.workers() as workers:
        stage.wait_ready(workers)
        _steady_trial(stage, found, workers, rate, is_timed=False)
        _sustain_and_time(stage, found, workers)
        stage.close_windows(workers)
        return workers.incidents


def _sustain_and_time(stage: Stage, found: Found, workers: Crew) -> None:
    """Find the rate that can be sustained, where the plan asks for it, and the latency at shares of it."""
    rate = float(stage.plan.rate or found.consume_rate or 0.0)
    if stage.plan.length.is_searching and rate:
        _search(stage, found, workers, rate)
    base = float(stage.plan.rate) or found.sustainable_rate or found.consume_rate or 0.0
    shares = (1.0,) if stage.plan.rate else stage.plan.length.latency_shares
    if not shares:
        return
    _timed(stage, found, workers, [(share, max(RATE_MIN, share * base)) for share in shares])


def _timed(stage: Stage, found: Found, workers: Crew, rates: Sequence[tuple[float | None, float]]) -> None:
    """Open loops one after the other whose records are timed; the first number of each is its share, for the report."""
    length = stage.plan.length
    spans = in_turn([rate for _, rate in rates], warm_up_s=length.warm_up_s, seconds=length.seconds)
    loops = stage.open_loops(workers, spans)
    stage.wait_drained(workers, "draining")
    for (share, _), loop in zip(rates, loops, strict=True):
        _note_trial(found, loop, share)


def _note_trial(found: Found, loop: OpenLoop, share: float | None = None) -> Trial:
    assert loop.sent is not None  # noqa: S101 - `open_loops` has waited for it
    _note_sent(found, loop.sent)
    trial = Trial.of(loop, share)
    found.trials.append(trial)
    if loop.sent.behind_ms_max > BEHIND_MS:
        found.notes.append(
            f"the generators were up to {loop.sent.behind_ms_max / 1000:.1f} s behind their schedule at "
            f"{loop.rate:,.0f} events/s: that is part of the latency, and a metric of its own (publish delay)"
        )
    return trial


def _steady_trial(stage: Stage, found: Found, workers: Crew, rate: float, *, is_timed: bool) -> None:
    """One open loop that is what the point is about."""
    length = stage.plan.length
    waited_before_s, began_s = _waited_s(workers), stage.sampler.now_s()
    spans = in_turn([rate], warm_up_s=length.warm_up_s, seconds=length.seconds)
    (loop,) = stage.open_loops(workers, spans, is_timed=is_timed)
    waited_s, took_s = _waited_s(workers) - waited_before_s, stage.sampler.now_s() - began_s
    trial = _note_trial(found, loop)
    found.busy = loop.series
    found.consume_rate, found.publish_rate = loop.series.rate(), trial.publish_rate
    found.steady_s = loop.series.seconds()
    found.downstream_share = waited_s / (took_s * max(1, len(workers)))
    found.behind_ms = max(found.behind_ms, loop.sent.behind_ms_max if loop.sent else 0.0)
    stage.wait_drained(workers, "draining")


def _search(stage: Stage, found: Found, workers: Crew, rate: float) -> None:
    """Raise the rate until lag grows, then halve the interval a few times. What is reported is what was measured.

    A rate is sustained when lag grows by no more than 1% of it. One that the generators could not keep up with is the
    highest that can be asked for.
    """
    length = stage.plan.length
    best: Trial | None = None
    failed = 0.0
    searches = 0
    for _ in range(RAMP_STEPS_MAX):
        if searches >= RAMP_SEARCHES or rate < RATE_MIN:
            break
        spans = in_turn([rate], warm_up_s=length.step_warm_up_s, seconds=length.step_s)
        (loop,) = stage.open_loops(workers, spans, is_timed=False)
        trial = _note_trial(found, loop)
        stage.wait_drained(workers, "draining")
        if not found.busy.samples or not trial.is_sustained:
            found.busy = loop.series if stage.plan.drive is Drive.RAMP else found.busy
        behind_ms = loop.sent.behind_ms_max if loop.sent else 0.0
        if trial.is_sustained and (best is None or trial.consume_rate > best.consume_rate):
            best = trial
        if trial.is_sustained and behind_ms > BEHIND_MS:
            found.notes.append(
                f"no more than {trial.publish_rate:,.0f} events/s were sent: the generators are the wall"
            )
            found.behind_ms = max(found.behind_ms, behind_ms)
            break
        failed = failed if trial.is_sustained else rate
        sustained = best.rate_asked if best else 0.0
        if failed and sustained:
            searches += 1
            rate = (sustained + failed) / 2
        else:
            rate = rate / RAMP_FACTOR if failed else rate * RAMP_FACTOR
    found.sustainable_rate = min(best.consume_rate, best.publish_rate) if best else None
    if best is None:
        found.notes.append("no rate was found that can be sustained: lag grew at every one")


def _ramp(stage: Stage, found: Found) -> list[str]:
    with stage.workers() as workers:
        stage.wait_ready(workers)
        _search(stage, found, workers, float(stage.plan.rate or _default_rate(stage)))
        found.consume_rate = found.publish_rate = found.sustainable_rate
        if found.sustainable_rate:
            shares = stage.plan.length.latency_shares
            _timed(stage, found, workers, [(share, share * found.sustainable_rate) for share in shares])
        stage.close_windows(workers)
        return workers.incidents


def _open(stage: Stage, found: Found) -> list[str]:
    with stage.workers() as workers:
        stage.wait_ready(workers)
        rate = stage.plan.rate or _default_rate(stage)
        _steady_trial(stage, found, workers, rate, is_timed=True)
        stage.close_windows(workers)
        return workers.incidents


def _spike(stage: Stage, found: Found) -> list[str]:
    rate, seconds = float(stage.plan.rate or _default_rate(stage) / SPIKE_FACTOR), stage.plan.length.seconds
    warm_up_s = stage.plan.length.warm_up_s
    spans = [
        Span(rate, 0.0, warm_up_s, 3 * seconds),
        Span(rate * (SPIKE_FACTOR - 1), warm_up_s + seconds, 0.0, seconds, is_measured=False),
    ]
    with stage.workers() as workers:
        stage.wait_ready(workers)
        base, more = stage.open_loops(workers, spans)
        ended_s = stage.wait_drained(workers, "draining")
        if base.sent is not None and more.sent is not None:
            _note_sent(found, more.sent)
            base.sent = base.sent.with_due_of(more.sent)
        _note_trial(found, base)
        series = stage.sampler.series
        begins_s, ends_s = stage.sampler.at_s(more.from_ms), stage.sampler.at_s(more.until_ms)
        calm = series.between(begins_s - seconds / 2, begins_s).samples
        usual = statistics.median(sum(sample.lag) for sample in calm) if calm else 0.0
        recovered_s = next(
            (s.at_s for s in series.between(ends_s, ended_s).samples if sum(s.lag) <= usual + rate / 2), ended_s
        )
        found.busy = more.series
        found.consume_rate, found.publish_rate = found.busy.rate(), rate
        found.notes.append(
            f"spike of {rate * SPIKE_FACTOR:,.0f} events/s for {seconds:.0f} s over {rate:,.0f}: lag at most "
            f"{series.lag_max():,}, usual again {max(0.0, recovered_s - ends_s):.1f} s after its end"
        )
        stage.close_windows(workers)
        return workers.incidents


def _soak(stage: Stage, found: Found) -> list[str]:
    with stage.workers() as workers:
        stage.wait_ready(workers)
        rate = stage.plan.rate or _default_rate(stage)
        _steady_trial(stage, found, workers, rate, is_timed=True)
        usage = found.busy.usage[int(len(found.busy.usage) * SOAK_WARM_UP_SHARE) :]
        for name in found.busy.cores_by_process(Role.WORKER):
            values = [sample.rss_mb[name] for sample in usage if name in sample.rss_mb]
            if not values:
                continue
            tenth = max(1, len(values) // 10)
            first, last = statistics.median(values[:tenth]), statistics.median(values[-tenth:])
            found.notes.append(
                f"{name}: RSS {first:,.0f} MB after the warm-up, {last:,.0f} MB at the end ({last / first - 1:+.1%})"
            )
        stage.close_windows(workers)
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
        return DEFAULT_SHARE * stage.plan.downstream_rate(stage.point.partitions)
    return DEFAULT_RATE


def _waited_s(workers: Crew) -> float:
    """Seconds that the workers, together, have waited for the downstream so far."""
    return workers.operator_seconds().get(DOWNSTREAM, 0.0)


def _note_sent(found: Found, sent: Sent) -> None:
    found.rejects += sent.rejects
    found.rejects_exact &= sent.rejects_exact
    found.publish_rate = found.publish_rate or sent.records_per_s
