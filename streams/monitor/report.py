"""Verdicts as plain values, for JSON and lines of text. Pure."""

import math
from datetime import UTC, datetime
from typing import Any

from streams.monitor.group_lag import GroupLag
from streams.monitor.missing import ADVICE, MissingTopic
from streams.monitor.reasons import Reason
from streams.monitor.status import Status
from streams.monitor.window import ABSENT
from streams.monitor.words import advice, duration


def instant(time_ms: int) -> str:
    """A time as ISO 8601, UTC."""
    return datetime.fromtimestamp(time_ms / 1000.0, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(value: float, digits: int = 3) -> float | None:
    """A number that JSON can hold: None for unknown or infinite ones."""
    return round(value, digits) if math.isfinite(value) else None


def group_row(group: GroupLag, *, partitions: bool = True) -> dict[str, Any]:
    """A group; `catch_up_seconds` None: it is not catching up."""
    row: dict[str, Any] = {
        "group": group.name,
        "status": group.status.name,
        "state": group.group.state,
        "members": None if group.group.members is None else len(group.group.members),
        "lag": group.lag_sum,
        "lag_seconds": number(group.lag_s_max),
        "catch_up_seconds": number(group.catch_up_s),
    }
    if partitions:
        row["partitions"] = [partition_row(group, number) for number in range(len(group.partitions))]
    return row


def partition_row(group: GroupLag, row: int) -> dict[str, Any]:
    """A partition of a group, with its verdict, the reason for it and what to do."""
    topic, partition = group.partitions[row]
    offset = int(group.offset[row])
    verdicts, reason = group.verdicts, Reason(int(group.verdicts.reason[row]))
    return {
        "topic": topic,
        "partition": partition,
        "status": Status(int(verdicts.status[row])).name,
        "reason": reason.name.lower(),
        "why": group.why(row),
        "advice": advice(reason),
        "owner": group.owners.get(row),
        "offset": None if offset == ABSENT else offset,
        "end": int(group.end[row]),
        "lag": int(group.lag[row]),
        "lag_seconds": number(float(group.window.lag_s[row])),
        "lag_seconds_is_lower_bound": bool(group.lag_s_is_bound[row]),
        "consume_rate": number(float(verdicts.consume_rate[row])),
        "arrive_rate": number(float(verdicts.arrive_rate[row])),
        "catch_up_seconds": number(float(verdicts.catch_up_s[row])),
        "unreadable": int(group.window.unreadable[row]),
        "open_transaction_seconds": number(float(group.window.open_s[row])),
        "status_since": instant(int(group.since_ms[row])),
    }


def missing_row(missing: MissingTopic) -> dict[str, Any]:
    """A missing topic of a flow, why that is a problem, and what to do."""
    return {"topic": missing.topic, "group": missing.group, "why": missing.why, "advice": ADVICE}


def worst_first(group: GroupLag) -> list[int]:
    """Rows, the worst first: by verdict, then by seconds, then by records."""
    status, lag_s, lag = group.verdicts.status.tolist(), group.window.lag_s.tolist(), group.lag.tolist()
    return sorted(range(len(status)), key=lambda row: (-status[row], -lag_s[row], -lag[row], group.partitions[row]))


def catch_up_words(group: GroupLag) -> str:
    """When the group will have caught up, in a few words."""
    if not group.catch_up_s:
        return ""
    return f"caught up in {duration(group.catch_up_s)}" if math.isfinite(group.catch_up_s) else "not catching up"
