"""Data of the page of flows: each flow as a graph, with the rates of its edges from the newest snapshot. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.flow.graph import Edge, Graph
from streams.monitor.group_lag import GroupLag
from streams.monitor.report import number
from streams.monitor.snapshot import Snapshot
from streams.monitor.workers import FLOW_OUTCOME


def flows(graphs: Sequence[Graph], snapshot: Snapshot) -> dict[str, Any]:
    """All flows. Rates are events or records a second; None: not counted, or not known."""
    return {
        "time": snapshot.time_ms,
        "interval": snapshot.interval_s,
        "failure": snapshot.failure,
        "flows": [_flow(graph, snapshot) for graph in graphs],
    }


def _flow(graph: Graph, snapshot: Snapshot) -> dict[str, Any]:
    group = snapshot.groups.get(graph.group)
    return {
        "name": graph.name,
        "group": graph.group,
        "status": None if group is None else group.status.name,
        "lag": None if group is None else group.lag_sum,
        "lag_s": None if group is None else round(group.lag_s_max, 1),
        "members": None if group is None or group.group.members is None else len(group.group.members),
        "nodes": [
            {"id": node.id, "kind": node.kind, "title": node.title, "detail": node.detail} for node in graph.nodes
        ],
        "edges": [
            {"from": edge.start, "to": edge.end, "rate": number(_rate(graph, edge, group, snapshot), 1)}
            for edge in graph.edges
        ],
    }


def _rate(graph: Graph, edge: Edge, group: GroupLag | None, snapshot: Snapshot) -> float:
    nothing = float("nan")
    if edge.topic:
        return snapshot.topic_rates.get(edge.topic, nothing)
    if edge.consumed:
        return nothing if group is None else _consumed(group, edge.consumed)
    known = [FLOW_OUTCOME.format(graph.name, outcome) for outcome in edge.outcomes]
    told = [snapshot.flow_rates[name] for name in known if name in snapshot.flow_rates]
    return sum(told) if told else nothing


def _consumed(group: GroupLag, topic: str) -> float:
    """Records of a topic that a group commits a second."""
    mine = np.array([one == topic for one, _ in group.partitions], dtype=np.bool_)
    rates = group.verdicts.consume_rate[mine]
    known = rates[np.isfinite(rates)]
    return float(known.sum()) if len(known) else float("nan")
