"""A flow as nodes and edges, and the rates that a snapshot has of them."""

from dataclasses import replace

import pytest

from streams.flow.discover import declared_flows
from streams.flow.graph import Graph, graph_of
from streams.monitor.web.flows import flows
from tests.unit.test_scale_book import looks, snapshot_of

GRAPHS = {each.flow.name: graph_of(each.flow, each.flow.pipeline) for each in declared_flows()}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_each_edge_joins_two_nodes_and_every_node_is_reached(graph: Graph) -> None:
    nodes = {node.id for node in graph.nodes}
    ends = [place for edge in graph.edges for place in (edge.start, edge.end)]

    assert nodes == set(ends)
    assert len(nodes) == len(graph.nodes)


def test_topics_have_the_prefix_of_the_flow() -> None:
    gps = next(each for each in declared_flows() if each.flow.name == "gps")
    graph = graph_of(gps.flow, gps.flow.pipeline.with_prefix("test."))

    topics = {node.id for node in graph.nodes if node.kind in {"topic", "beside"}}
    assert {"test.gps.positions.v1", "test.gps.positions.v1.clean", "test.gps.positions.v1.dlq"} <= topics
    assert all(topic.startswith("test.") for topic in topics)


def test_rates_are_those_of_topics_groups_and_outcomes() -> None:
    group = replace(looks()[-1], partitions=[("gps.positions.v1", 0)])
    snapshot = replace(
        snapshot_of(None),
        groups={"streams.gps": group},
        topic_rates={"vehicles.state.v1": 12.34},
        flow_rates={"gps/clean": 90.0, "gps/late": 5.0, "orders/clean": 1.0},
    )
    told = {flow["name"]: flow for flow in flows(list(GRAPHS.values()), snapshot)["flows"]}
    rates = {(edge["from"], edge["to"]): edge["rate"] for edge in told["gps"]["edges"]}

    assert 50.0 == pytest.approx(rates["gps.positions.v1", "deduplicate"], rel=0.1)
    assert 95.0 == rates["deduplicate", "reorder"]
    assert 90.0 == rates["reorder", "fold:vehicles.state.v1"]
    assert 12.3 == rates["fold:vehicles.state.v1", "vehicles.state.v1"]
    assert rates["window:vehicles.minutes.v1", "vehicles.minutes.v1"] is None
    assert (None, None) == (told["orders"]["status"], told["orders"]["lag"])
