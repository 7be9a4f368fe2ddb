"""Data of the monitor's page: the overview, and one group in columns. Pure."""

from typing import Any, Final

import numpy as np

from streams.grow.words import waiting_words
from streams.monitor.group_lag import GroupLag
from streams.monitor.reasons import Reason
from streams.monitor.report import missing_row, number, worst_first
from streams.monitor.snapshot import Snapshot
from streams.monitor.status import Status
from streams.monitor.topic_growth import GrowthView, stands_still
from streams.monitor.words import advice
from streams.sinks.spec import sink_of

SPARK_POINTS: Final = 60
GROUPS_MAX: Final = 500
"""Groups that the page shows, the worst first."""
PARTITIONS_MAX: Final = 2_000
"""Partitions of a group that the page shows, the worst first."""
PARENTS_MAX: Final = 64
CHILDREN_MAX: Final = 32
"""Partitions that have children, and children of each, in the picture of a growth."""


def overview(snapshot: Snapshot) -> dict[str, Any]:
    """Everything except the partitions of groups."""
    groups = sorted(snapshot.groups.values(), key=lambda one: (-one.status, -one.lag_s_max, one.name))
    return {
        "time": snapshot.time_ms,
        "cluster": snapshot.cluster,
        "interval": snapshot.interval_s,
        "age": round(snapshot.age_s, 1),
        "failure": snapshot.failure,
        "groups": [_group(snapshot, group) for group in groups[:GROUPS_MAX]],
        "groups_total": len(groups),
        "growths": [_growth(one) for one in snapshot.growths[:GROUPS_MAX]],
        "missing_topics": [missing_row(one) for one in snapshot.missing],
        "sources": [
            {
                "source": one.source.name,
                "silent": one.silent,
                "waiting": one.waiting,
                "recovered": one.recovered_ms is not None,
                "event_age": None if one.event_age_s is None else round(one.event_age_s, 1),
                "arrival_age": None if one.arrival_age_s is None else round(one.arrival_age_s, 1),
                "limit": one.source.silent_after_s,
                "why": one.why,
            }
            for one in snapshot.freshness
        ],
        "workers": _workers(snapshot),
        "sinks": _sinks(snapshot),
        "rates": {outcome: round(value, 1) for outcome, value in snapshot.rates.items()},
        "dead_letters": [
            {
                "topic": one.topic,
                "letters": one.letters,
                "open": one.open,
                "grown": one.grown,
                "grown_s": round(one.grown_s),
            }
            for one in snapshot.dead_letters
        ],
        "slo": _slo(snapshot),
    }


def _growth(one: GrowthView) -> dict[str, Any]:
    status = one.status
    growth = status.record.growth
    return {
        "flow": status.flow,
        "before": growth.before.partitions,
        "after": growth.after.partitions,
        "phase": status.record.phase.value,
        "step": status.step,
        "still_s": round(one.still_s, 1),
        "stands_still": stands_still(one),
        "waits": waiting_words(status),
        "steps": {name: list(done) for name, done in status.steps.items()},
        "parents": [
            {"partition": parent, "children": list(growth.children_of(parent))[:CHILDREN_MAX]}
            for parent in list(growth.parents)[:PARENTS_MAX]
        ],
        "states": list(status.states),
    }


def _group(snapshot: Snapshot, group: GroupLag) -> dict[str, Any]:
    statuses, counts = np.unique(group.verdicts.status, return_counts=True)
    worst = worst_first(group)[0]
    points = snapshot.history.get(group.name, ())[-SPARK_POINTS:]
    bad = group.status > Status.OK
    return {
        "group": group.name,
        "status": group.status.name,
        "lag": group.lag_sum,
        "lag_s": round(group.lag_s_max, 1),
        "catch_up": number(group.catch_up_s, 1),
        "members": None if group.group.members is None else len(group.group.members),
        "partitions": len(group.partitions),
        "verdicts": {Status(code).name: n for code, n in zip(statuses.tolist(), counts.tolist(), strict=True)},
        "history": [point.lag_sum for point in points],
        "consume": _rate(group.verdicts.consume_rate),
        "arrive": _rate(group.verdicts.arrive_rate),
        "worst": f"{group.partitions[worst][0]}-{group.partitions[worst][1]}: {group.why(worst)}" if bad else "",
        "advice": advice(Reason(int(group.verdicts.reason[worst]))) if bad else "",
        "since": int(group.since_ms[worst]) if bad else None,
        "reason": Reason(int(group.verdicts.reason[worst])).name.lower() if bad else "",
    }


def _rate(rates: "np.ndarray[Any, np.dtype[np.float64]]") -> float | None:
    known = rates[np.isfinite(rates)]
    return round(float(known.sum()), 1) if len(known) else None


def _workers(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Workers that answer over HTTP, and the members of each group with what they own."""
    rows = [
        {
            "worker": str(one.address),
            "ready": one.ready,
            "state": one.state,
            "owns": None,
            "watermark": round(max(one.watermark_age_s.values()), 1) if one.watermark_age_s else None,
        }
        for one in snapshot.workers
    ]
    for group in snapshot.groups.values():
        for member in group.group.members or ():
            owned = sorted(snapshot.round.partitions[number] for number in member.partitions)
            rows.append(
                {
                    "worker": member.client_id or member.member_id,
                    "ready": True,
                    "state": f"{group.name} · {member.host.lstrip('/')}",
                    "owns": _ranges(owned),
                    "watermark": None,
                }
            )
    return rows


def _sinks(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Processes of sinks, each with the lag of its sink's group."""
    groups = {sink_of(group.name): group for group in snapshot.groups.values()}
    rows = []
    for one in snapshot.sinks:
        group = groups.get(one.sink)
        rows.append(
            {
                "sink": one.sink,
                "process": str(one.address),
                "ready": one.ready,
                "state": one.state,
                "breaker": one.breaker,
                "unwritten_s": round(one.unwritten_s, 1),
                "written": sum(one.records.get(outcome, 0.0) for outcome in ("written", "deleted", "replaced")),
                "rejected": one.records.get("rejected", 0.0),
                "lag": None if group is None else group.lag_sum,
                "lag_s": None if group is None else round(group.lag_s_max, 1),
            }
        )
    return sorted(rows, key=lambda row: (row["sink"], row["process"]))


def _ranges(partitions: list[tuple[str, int]]) -> str:
    """`topic 0-3, 7`."""
    by_topic: dict[str, list[list[int]]] = {}
    for topic, partition in partitions:
        ranges = by_topic.setdefault(topic, [])
        if ranges and partition == ranges[-1][1] + 1:
            ranges[-1][1] = partition
        else:
            ranges.append([partition, partition])
    return "; ".join(
        f"{topic} {', '.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}"
        for topic, ranges in by_topic.items()
    )


def _slo(snapshot: Snapshot) -> dict[str, Any]:
    slo = snapshot.slo
    return {
        "good": slo.good_share,
        "young": slo.young_share,
        "budget_left": round(slo.budget_left, 4),
        "watched": round(slo.watched_s),
        "events": round(slo.events),
        "burn": {
            name: None if window.burn_rate is None else round(window.burn_rate, 2)
            for name, window in slo.windows.items()
        },
    }


def partitions(snapshot: Snapshot, group: GroupLag, *, history: bool) -> dict[str, Any]:
    """One group's partitions in columns, the worst first; `history`: with the lag over the window, one list each."""
    rows = worst_first(group)[:PARTITIONS_MAX]
    watermarks: dict[tuple[str, int], float] = {}
    for worker in snapshot.workers:
        watermarks.update(worker.watermark_age_s)
    verdicts = group.verdicts
    told: dict[str, Any] = {
        "group": group.name,
        "time": group.time_ms,
        "total": len(group.partitions),
        "topic": [group.partitions[row][0] for row in rows],
        "partition": [group.partitions[row][1] for row in rows],
        "status": [Status(code).name for code in verdicts.status[rows].tolist()],
        "lag": group.lag[rows].tolist(),
        "lag_s": group.window.lag_s[rows].round(1).tolist(),
        "consume": [number(value, 1) for value in verdicts.consume_rate[rows].tolist()],
        "arrive": [number(value, 1) for value in verdicts.arrive_rate[rows].tolist()],
        "catch_up": [number(value, 1) for value in verdicts.catch_up_s[rows].tolist()],
        "watermark": [number(watermarks.get(group.partitions[row], float("nan")), 1) for row in rows],
        "owner": [group.owners.get(row, "") for row in rows],
        "since": group.since_ms[rows].tolist(),
        "why": [group.why(row) for row in rows],
        "advice": [advice(Reason(code)) for code in verdicts.reason[rows].tolist()],
    }
    if history:
        told["history"] = group.window.lag[rows].tolist()
    return told
