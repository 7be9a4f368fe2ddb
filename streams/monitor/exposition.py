"""Every metric of the monitor, in typed lists, and how they are written. Names are a contract with alerts.

Metrics of a round are rendered once, with the snapshot; those of the monitor itself at each scrape. A scrape never
waits. The number of series is bounded, whatever the cluster holds (`PARTITIONS_MAX`).

Written by hand and not by the client library, which takes 10 µs a sample: with 50 groups and 1,000 partitions there are
some 200,000 of them at each scrape.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.monitor.health import Health
from streams.monitor.notify.counts import Count
from streams.monitor.slo import VISIBLE_S
from streams.monitor.snapshot import Snapshot
from streams.monitor.status import Status
from streams.monitor.topic_growth import GrowthView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

PARTITIONS_MAX: Final = 100_000
"""Partitions of groups that have metrics, in all: those of the worst groups. Other groups are only counted."""

T = TypeVar("T")
Samples = Iterable[tuple[str, float]]
"""Labels as they are written (`{a="b"}` or nothing), and the value."""


@dataclass(frozen=True, slots=True)
class MonitorMetric(Generic[T]):
    """A metric family: name, type, help text, and how its samples are made of a snapshot or the monitor's health."""

    name: str
    kind: str
    documentation: str
    samples: Callable[[T], Samples]


def label(value: str) -> str:
    """Escape a label's value for the text format."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def render(snapshot: Snapshot) -> bytes:
    """All metrics of a snapshot in Prometheus' text format."""
    told = _bounded(snapshot)
    return _written(SNAPSHOT_METRICS, told) + _written([GROUPS_LEFT_OUT], len(snapshot.groups) - len(told.groups))


def render_health(health: Health) -> bytes:
    """The metrics of the monitor itself, in Prometheus' text format."""
    return _written(HEALTH_METRICS, health)


def render_notifications(counts: "Counts") -> bytes:
    """The metrics of messages, in Prometheus' text format; empty where no target is set."""
    return _written(NOTIFICATION_METRICS, counts) if counts else b""


def _written(metrics: Iterable[MonitorMetric[T]], found: T) -> bytes:
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.documentation}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [f"{metric.name}{labels} {_number(value)}" for labels, value in metric.samples(found)]
    lines.append("")
    return "\n".join(lines).encode(errors="replace")


def _bounded(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the worst groups only, where all of them have more than `PARTITIONS_MAX` partitions."""
    if sum(len(group.partitions) for group in snapshot.groups.values()) <= PARTITIONS_MAX:
        return snapshot
    kept, left = {}, PARTITIONS_MAX
    for name, group in sorted(snapshot.groups.items(), key=lambda one: (-one[1].status, -one[1].lag_sum, one[0])):
        if len(group.partitions) <= left:
            kept[name] = group
            left -= len(group.partitions)
    return replace(snapshot, groups=kept)


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _of_partitions(column: Callable[[Snapshot, str], Iterable[float]]) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        for name, group in snapshot.groups.items():
            head = f'{{group="{label(name)}",topic="'
            for (topic, partition), value in zip(group.partitions, column(snapshot, name), strict=True):
                yield f'{head}{label(topic)}",partition="{partition}"}}', value

    return samples


def _of_groups(value: Callable[[Snapshot, str], float]) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        return [(f'{{group="{label(name)}"}}', value(snapshot, name)) for name in snapshot.groups]

    return samples


def _of_sources(value: Callable[[Snapshot, int], float | None]) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Iterator[tuple[str, float]]:
        for place, one in enumerate(snapshot.freshness):
            found = value(snapshot, place)
            if found is not None:
                yield f'{{source="{label(one.source.name)}"}}', found

    return samples


def _ends(snapshot: Snapshot) -> Samples:
    ends = snapshot.round.end.tolist()
    for (topic, partition), end in zip(snapshot.round.partitions, ends, strict=True):
        if end >= 0:
            yield f'{{topic="{label(topic)}",partition="{partition}"}}', end


def _open_transactions(column: Callable[[Snapshot, str], Float64 | Int64]) -> Callable[[Snapshot], Samples]:
    """One sample per partition with an open transaction, however many groups read it."""

    def samples(snapshot: Snapshot) -> Samples:
        found: dict[tuple[str, int], float] = {}
        for name, group in snapshot.groups.items():
            values = column(snapshot, name)
            for row in np.flatnonzero(group.window.open_s > 0).tolist():
                found[group.partitions[row]] = float(values[row])
        return [
            (f'{{topic="{label(topic)}",partition="{partition}"}}', value)
            for (topic, partition), value in sorted(found.items())
        ]

    return samples


def _of_growths(value: Callable[[GrowthView], float], *names: str) -> Callable[[Snapshot], Samples]:
    """A sample for each growth that is not over, with these labels beside the flow."""

    def samples(snapshot: Snapshot) -> Samples:
        for one in snapshot.growths:
            told = {"pipeline": one.status.flow, "phase": one.status.record.phase.value, "step": one.status.step}
            labels = ",".join(f'{name}="{label(told[name])}"' for name in ("pipeline", *names))
            yield f"{{{labels}}}", value(one)

    return samples


def _growth_steps(snapshot: Snapshot) -> Samples:
    for one in snapshot.growths:
        for step, (done, _) in one.status.steps.items():
            yield f'{{pipeline="{label(one.status.flow)}",step="{step}"}}', float(done)


def _health(value: Callable[[Health], float | None]) -> Callable[[Health], Samples]:
    def samples(health: Health) -> Samples:
        found = value(health)
        return [] if found is None else [("", found)]

    return samples


def _burn_rates(snapshot: Snapshot) -> Samples:
    return [
        (f'{{window="{name}"}}', window.burn_rate)
        for name, window in snapshot.slo.windows.items()
        if window.burn_rate is not None
    ]


def _one(value: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        found = value(snapshot)
        return [] if found is None else [("", found)]

    return samples


SNAPSHOT_METRICS: Final[tuple[MonitorMetric[Snapshot], ...]] = (
    MonitorMetric(
        "kafka_consumergroup_group_lag",
        "gauge",
        "Records from the committed offset to the last stable offset.",
        _of_partitions(lambda s, g: s.groups[g].lag.tolist()),
    ),
    MonitorMetric(
        "kafka_consumergroup_group_lag_seconds",
        "gauge",
        "Age of the oldest record that is not committed; 0 without lag.",
        _of_partitions(lambda s, g: s.groups[g].window.lag_s.round(3).tolist()),
    ),
    MonitorMetric(
        "streams_lag_status",
        "gauge",
        "Lag verdict: NOTFOUND 0, OK 1, WARN 2, ERR 3, STOP 4, STALL 5, REWIND 6.",
        _of_partitions(lambda s, g: s.groups[g].verdicts.status.tolist()),
    ),
    MonitorMetric(
        "kafka_consumergroup_group_max_lag",
        "gauge",
        "Largest lag of a partition of the group, in records.",
        _of_groups(lambda s, g: float(s.groups[g].lag_max)),
    ),
    MonitorMetric(
        "kafka_consumergroup_group_max_lag_seconds",
        "gauge",
        "Largest lag of a partition of the group, in seconds.",
        _of_groups(lambda s, g: round(s.groups[g].lag_s_max, 3)),
    ),
    MonitorMetric(
        "kafka_consumergroup_group_sum_lag",
        "gauge",
        "Lag of all partitions of the group, in records.",
        _of_groups(lambda s, g: float(s.groups[g].lag_sum)),
    ),
    MonitorMetric(
        "streams_lag_group_status",
        "gauge",
        "Verdict on the group: NOTFOUND 0, OK 1, WARN 2, ERR 3.",
        _of_groups(lambda s, g: float(s.groups[g].status)),
    ),
    MonitorMetric(
        "streams_lag_catch_up_seconds",
        "gauge",
        "Seconds until the group has caught up at its present pace; +Inf: it is not catching up.",
        _of_groups(lambda s, g: s.groups[g].catch_up_s),
    ),
    MonitorMetric(
        "streams_lag_group_members",
        "gauge",
        "Members of the group; missing where the coordinator did not say.",
        lambda s: [
            (f'{{group="{label(name)}"}}', float(len(group.group.members)))
            for name, group in s.groups.items()
            if group.group.members is not None
        ],
    ),
    MonitorMetric(
        "streams_lag_group_flaps",
        "gauge",
        "How often a partition of the group has lost its member within 15 minutes; that of the worst partition.",
        _of_groups(lambda s, g: float(s.groups[g].flaps_max)),
    ),
    MonitorMetric(
        "streams_lag_group_batch",
        "gauge",
        "1: the group is declared to run in batches (STREAMS_MONITOR_GROUP_POLICIES); alerts do not page for it.",
        _of_groups(lambda s, g: float(s.groups[g].policy.batch_s is not None)),
    ),
    MonitorMetric("kafka_partition_latest_offset", "gauge", "Last stable offset of the partition.", _ends),
    MonitorMetric(
        "streams_open_transaction_seconds",
        "gauge",
        "How long a transaction has been open on a partition that groups read; missing where none is.",
        _open_transactions(lambda s, g: s.groups[g].window.open_s.round(3)),
    ),
    MonitorMetric(
        "streams_open_transaction_records",
        "gauge",
        "Records after the begin of that transaction: nobody can read them yet.",
        _open_transactions(lambda s, g: s.groups[g].window.unreadable),
    ),
    MonitorMetric(
        "streams_topic_missing",
        "gauge",
        "1: a flow in use needs the topic, and the cluster does not have it; missing where it exists.",
        lambda s: [(f'{{topic="{label(one.topic)}",group="{label(one.group)}"}}', 1.0) for one in s.missing],
    ),
    MonitorMetric(
        "streams_growth_partitions",
        "gauge",
        "Partitions that a flow has, and will have, by state (before, after), while it is grown in place.",
        lambda s: [
            (f'{{pipeline="{label(one.status.flow)}",state="{state}"}}', float(layout.partitions))
            for one in s.growths
            for state, layout in (
                ("before", one.status.record.growth.before),
                ("after", one.status.record.growth.after),
            )
        ],
    ),
    MonitorMetric(
        "streams_growth_done_partitions",
        "gauge",
        "Partitions that have done a step of a growth: ready, cut, settled of those before it; adopted, cleared of new "
        "ones. Missing where no growth is under way.",
        _growth_steps,
    ),
    MonitorMetric(
        "streams_growth_waiting_partitions",
        "gauge",
        "Partitions that a growth waits for, by step; step command: its next step has to be made.",
        _of_growths(lambda one: float(len(one.status.waits_for)), "step"),
    ),
    MonitorMetric(
        "streams_growth_still_seconds",
        "gauge",
        "Time since a growth last changed, by its phase and step; missing where no growth is under way.",
        _of_growths(lambda one: round(one.still_s, 1), "phase", "step"),
    ),
    MonitorMetric(
        "streams_source_freshness_seconds",
        "gauge",
        "Time since the newest event of the source happened, by its event time.",
        _of_sources(lambda s, i: s.freshness[i].event_age_s),
    ),
    MonitorMetric(
        "streams_source_arrival_age_seconds",
        "gauge",
        "Time since the last event of the source arrived.",
        _of_sources(lambda s, i: s.freshness[i].arrival_age_s),
    ),
    MonitorMetric(
        "streams_source_silent",
        "gauge",
        "1: nothing has arrived from the source for longer than it may be silent.",
        _of_sources(lambda s, i: float(s.freshness[i].silent)),
    ),
    MonitorMetric(
        "streams_source_waiting",
        "gauge",
        "1: the source has never had an event; it is not silent.",
        _of_sources(lambda s, i: float(s.freshness[i].waiting)),
    ),
    MonitorMetric(
        "streams_slo_waiting_events",
        "gauge",
        "Events that a flow's workers have not committed within 60 s of their arrival, and not yet since.",
        lambda s: [
            (f'{{group="{label(name)}"}}', round(group.waiting(VISIBLE_S), 1))
            for name, group in s.groups.items()
            if group.is_flow
        ],
    ),
    MonitorMetric(
        "streams_slo_good_ratio",
        "gauge",
        "Share of events visible within 60 s of their arrival, since the monitor was started; the objective is 0.99. "
        "Dead letters, and what has waited for longer, are not visible.",
        _one(lambda s: s.slo.good_share),
    ),
    MonitorMetric(
        "streams_slo_event_time_ratio",
        "gauge",
        "Share of events visible within 60 s of their own time, since the monitor was started; no objective.",
        _one(lambda s: s.slo.young_share),
    ),
    MonitorMetric(
        "streams_slo_budget_left_ratio",
        "gauge",
        "Share of the error budget that is left, since the monitor was started; below 0: the objective is missed.",
        _one(lambda s: s.slo.budget_left),
    ),
    MonitorMetric(
        "streams_slo_burn_rate",
        "gauge",
        "How many times faster than allowed the error budget is used up, by window; missing below 100 events.",
        _burn_rates,
    ),
    MonitorMetric(
        "streams_worker_ready",
        "gauge",
        "1: the worker answers and processes.",
        lambda s: [(f'{{worker="{label(str(one.address))}"}}', float(one.ready)) for one in s.workers],
    ),
    MonitorMetric(
        "streams_monitor_round_timestamp_seconds",
        "gauge",
        "When the offsets were read that these metrics are made from.",
        _one(lambda s: s.round.time_ms / 1000.0),
    ),
)

GROUPS_LEFT_OUT: Final[MonitorMetric[int]] = MonitorMetric(
    "streams_monitor_groups_left_out",
    "gauge",
    "Consumer groups that have no metrics here, since all groups together have too many partitions; the worst have.",
    lambda count: [("", float(count))],
)

HEALTH_METRICS: Final[tuple[MonitorMetric[Health], ...]] = (
    MonitorMetric("streams_monitor_rounds_total", "counter", "Rounds of offsets.", _health(lambda h: h.rounds)),
    MonitorMetric(
        "streams_monitor_round_failures_total",
        "counter",
        "Rounds that failed: the broker did not answer, or the process that asks died.",
        _health(lambda h: h.failures),
    ),
    MonitorMetric(
        "streams_monitor_probe_deaths_total",
        "counter",
        "Deaths of the process that reads offsets.",
        _health(lambda h: h.deaths),
    ),
    MonitorMetric(
        "streams_monitor_round_seconds", "gauge", "Duration of the newest round.", _health(lambda h: h.round_s)
    ),
    MonitorMetric(
        "streams_monitor_round_age_seconds",
        "gauge",
        "Age of the offsets that these metrics are made from; missing before the first round.",
        _health(lambda h: h.age_s),
    ),
)

Counts = Mapping[str, Count]
"""Counts of notifications, by the target's name."""
NOTIFICATION_METRICS: Final[tuple[MonitorMetric[Counts], ...]] = (
    MonitorMetric(
        "streams_notifications_total",
        "counter",
        "Messages about what is wrong, by target (webhook, slack, email) and outcome (sent, failed).",
        lambda counts: [
            (f'{{target="{name}",outcome="{outcome}"}}', float(number))
            for name, count in counts.items()
            for outcome, number in (("sent", count.sent), ("failed", count.failed))
        ],
    ),
    MonitorMetric(
        "streams_notification_target_down",
        "gauge",
        "1: the target has not taken the last message; it is tried again.",
        lambda counts: [(f'{{target="{name}"}}', float(count.is_down)) for name, count in counts.items()],
    ),
)

MONITOR_METRICS: Final[tuple[MonitorMetric[Any], ...]] = (
    *SNAPSHOT_METRICS,
    GROUPS_LEFT_OUT,
    *HEALTH_METRICS,
    *NOTIFICATION_METRICS,
)

assert len({metric.name for metric in MONITOR_METRICS}) == len(MONITOR_METRICS)  # noqa: S101
assert max(Status) == Status.REWIND  # noqa: S101 - the documentation of streams_lag_status names all codes
