"""Burrow's HTTP API, version 3, over our verdicts, for tools that read Burrow. Pure.

Differences, all of them additions: partitions carry `reason` and `lag_seconds`; timestamps are of our samples.
It is read-only: Burrow's DELETE of a group is not supported.
"""

from collections.abc import Iterable
from typing import Any

from streams.monitor.group_lag import GroupLag
from streams.monitor.report import number
from streams.monitor.snapshot import Snapshot
from streams.monitor.status import Status
from streams.monitor.window import ABSENT


def clusters(names: Iterable[str]) -> dict[str, Any]:
    """Answer of `/v3/kafka`: the clusters."""
    return _answer("cluster list returned", clusters=list(names))


def cluster(bootstrap_servers: str) -> dict[str, Any]:
    """Answer of `/v3/kafka/:cluster`: the cluster."""
    servers = bootstrap_servers.split(",")
    return _answer("cluster module detail returned", module={"class-name": "kafka", "servers": servers})


def consumers(snapshot: Snapshot) -> dict[str, Any]:
    """Answer of `/v3/kafka/:cluster/consumer`: the groups."""
    return _answer("consumer list returned", consumers=sorted(snapshot.groups))


def consumer(group: GroupLag) -> dict[str, Any]:
    """Answer of `/v3/kafka/:cluster/consumer/:group`: the samples of each partition, by topic."""
    topics: dict[str, list[dict[str, Any]]] = {}
    for row, (topic, _) in enumerate(group.partitions):
        samples = [_offset(group, row, place) for place in range(len(group.window.time_ms))]
        owner = group.owners.get(row, "")
        entry = {"offsets": samples, "owner": owner, "client_id": owner, "current-lag": int(group.lag[row])}
        topics.setdefault(topic, []).append(entry)
    return _answer("consumer detail returned", topics=topics)


def status(snapshot: Snapshot, group: GroupLag, *, every_partition: bool) -> dict[str, Any]:
    """Answer of `/v3/kafka/:cluster/consumer/:group/status` (partitions that are not OK) and `/lag` (all of them)."""
    rows = [_partition(group, row) for row in range(len(group.partitions))]
    worst = max(rows, key=lambda row: row["current_lag"], default=None)
    told = {
        "cluster": snapshot.cluster,
        "group": group.name,
        "status": group.status.name,
        "complete": round(group.complete, 3),
        "partitions": rows if every_partition else [row for row in rows if Status[row["status"]] > Status.OK],
        "partition_count": len(rows),
        "maxlag": worst,
        "totallag": group.lag_sum,
    }
    return _answer("consumer status returned", status=told)


def unknown_status(snapshot: Snapshot, group: str) -> dict[str, Any]:
    """Answer of `/status` for a group that does not exist (404)."""
    told = {
        "cluster": snapshot.cluster,
        "group": group,
        "status": Status.NOTFOUND.name,
        "complete": 1.0,
        "partitions": [],
        "partition_count": 0,
        "maxlag": None,
        "totallag": 0,
    }
    return _answer("consumer status returned", status=told)


def topics(snapshot: Snapshot) -> dict[str, Any]:
    """Answer of `/v3/kafka/:cluster/topic`: the topics."""
    return _answer("topic list returned", topics=[name for name, _ in snapshot.round.topics])


def topic(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """Answer of `/v3/kafka/:cluster/topic/:topic`: the end of each partition; None: no such topic."""
    first = snapshot.round.base.get(name)
    if first is None:
        return None
    count = dict(snapshot.round.topics)[name]
    return _answer("topic offsets returned", offsets=snapshot.round.end[first : first + count].tolist())


def error(message: str) -> dict[str, Any]:
    """Answer for something that does not exist."""
    return {"error": True, "message": message}


def _answer(message: str, **content: object) -> dict[str, Any]:
    return {"error": False, "message": message, **content}


def _partition(group: GroupLag, row: int) -> dict[str, Any]:
    name, partition = group.partitions[row]
    known = [place for place, offset in enumerate(group.window.offset[row].tolist()) if offset != ABSENT]
    owner = group.owners.get(row, "")
    return {
        "topic": name,
        "partition": partition,
        "owner": owner,
        "client_id": owner,
        "status": Status(int(group.verdicts.status[row])).name,
        "start": _offset(group, row, known[0]) if known else None,
        "end": _offset(group, row, known[-1]) if known else None,
        "current_lag": int(group.lag[row]),
        "complete": round(group.complete, 3),
        "lag_seconds": number(float(group.window.lag_s[row])),
        "reason": group.why(row),
    }


def _offset(group: GroupLag, row: int, place: int) -> dict[str, Any] | None:
    offset, time_ms = int(group.window.offset[row, place]), int(group.window.time_ms[place])
    if offset == ABSENT:
        return None
    return {
        "offset": offset,
        "timestamp": time_ms,
        "observedAt": time_ms,
        "lag": int(group.window.lag[row, place]),
    }
