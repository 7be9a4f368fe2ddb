"""The list of problems: what the page shows first, and what messages are about. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from streams.monitor.group_lag import GroupLag
from streams.monitor.health import Health
from streams.monitor.missing import ADVICE
from streams.monitor.reasons import Reason
from streams.monitor.report import worst_first
from streams.monitor.snapshot import Snapshot
from streams.monitor.status import Status
from streams.monitor.topic_growth import stands_still
from streams.monitor.words import advice

PROBLEMS_MAX: Final = 500
DEAD_LETTERS_MANY: Final = 100
"""As on the page: so many more letters within the window are a problem."""
_RUNBOOKS: Final = {
    Status.WARN: "lag-growing",
    Status.ERR: "records-lost",
    Status.STOP: "no-progress",
    Status.STALL: "no-progress",
    Status.REWIND: "lag-rewind",
}
_RUNBOOKS_BY_REASON: Final = {
    Reason.OPEN_TRANSACTION: "open-transaction",
    Reason.NOT_IN_LAYOUT: "partitions-not-consumed",
    Reason.OFFSET_NOT_OF_STATE: "worker-not-ready",
    Reason.FLAPPING: "group-flapping",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem. One with the same key is the same; with another `state` it has changed."""

    key: str
    state: str
    """One word: a verdict, `MISSING`, `SILENT`, `STANDS STILL`, `NOT READY`, `DEAD LETTERS`, `BLIND`."""
    subject: str
    text: str
    runbook: str
    advice: str = ""
    is_warning: bool = False
    """Whether it can wait until the morning."""


def problems_of(snapshot: Snapshot | None, health: Health) -> dict[str, Problem]:
    """All problems by key, at most `PROBLEMS_MAX`. A monitor that is blind reports only that: the rest is old.

    A monitor that is blind tells that, and nothing else: what it knew is old.
    """
    if health.age_s is None and health.failure is None and health.dead is None:
        return {}  # the first round is under way
    if (blind := health.blind) is not None:
        return {"monitor": Problem("monitor", "BLIND", "the monitor", blind, "monitor-blind")}
    found: dict[str, Problem] = {}
    for problem in _all(snapshot) if snapshot is not None else ():
        if len(found) == PROBLEMS_MAX:
            break
        found[problem.key] = problem
    return found


def _all(snapshot: Snapshot) -> Iterator[Problem]:
    for missing in snapshot.missing:
        yield Problem(f"topic {missing.topic}", "MISSING", missing.topic, missing.why, "topic-missing", ADVICE)
    for group in sorted(snapshot.groups.values(), key=lambda one: (-one.status, one.name)):
        if group.status > Status.OK:
            yield _of_group(group)
    for growth in snapshot.growths:
        if stands_still(growth):
            flow = growth.status.flow
            text = f"its growth is {growth.status.record.phase.value}, and has not changed for {growth.still_s:.0f} s"
            yield Problem(f"growth {flow}", "STANDS STILL", flow, text, "growth-stands-still")
    for source in snapshot.freshness:
        if source.silent:
            name = source.source.name
            yield Problem(f"source {name}", "SILENT", name, source.why, "source-silent")
    for worker in snapshot.workers:
        if not worker.ready:
            name = str(worker.address)
            yield Problem(f"worker {name}", "NOT READY", name, worker.state, "worker-not-ready", is_warning=True)
    for letters in snapshot.dead_letters:
        if letters.grown >= DEAD_LETTERS_MANY:
            text = f"{letters.grown} more within {letters.grown_s:.0f} s"
            yield Problem(
                f"letters {letters.topic}", "DEAD LETTERS", letters.topic, text, "reject-share", is_warning=True
            )


def _of_group(group: GroupLag) -> Problem:
    row = worst_first(group)[0]
    status = Status(int(group.verdicts.status[row]))
    reason = Reason(int(group.verdicts.reason[row]))
    topic, partition = group.partitions[row]
    return Problem(
        f"group {group.name}",
        status.name,
        group.name,
        f"{topic}-{partition}: {group.why(row)}",
        _RUNBOOKS_BY_REASON.get(reason) or _RUNBOOKS[status],
        advice(reason),
        is_warning=status is Status.WARN,
    )
