"""The least rights of each role, and how they compare with what is granted: without a broker."""

import json
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from typer.testing import CliRunner

from logistics.flows.fleet import fleet
from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.acls.comparison import compare
from streams.acls.quotas import Quota, quota_of
from streams.acls.rights import Grant, Kind, Operation, Pattern, Right, least
from streams.acls.roles import Role, principal_of, rights_of
from streams.cli import app
from streams.cli.acls import _entries
from streams.errors import UsageError
from streams.flow.discover import select_fed, select_pipelines
from streams.kafka.acls import _binding, _filter, _grant
from streams.settings import Settings

ME = "User:me"
FLOWS = [GPS.with_prefix("blue."), ORDERS.with_prefix("blue.")]


def on_topic(name: str, operation: Operation, pattern: Pattern = Pattern.LITERAL) -> Right:
    return Right(Kind.TOPIC, name, pattern, operation)


@pytest.mark.parametrize(
    ("has", "other", "includes"),
    [
        (on_topic("a", Operation.READ), on_topic("a", Operation.READ), True),
        (on_topic("a", Operation.READ), on_topic("a", Operation.DESCRIBE), True),
        (on_topic("a", Operation.DESCRIBE), on_topic("a", Operation.READ), False),
        (on_topic("a", Operation.READ), on_topic("a", Operation.DESCRIBE_CONFIGS), False),
        (on_topic("a", Operation.ALTER_CONFIGS), on_topic("a", Operation.DESCRIBE_CONFIGS), True),
        (on_topic("a", Operation.CREATE), on_topic("a", Operation.DESCRIBE), False),
        (on_topic("a", Operation.ALL), on_topic("a", Operation.ALTER_CONFIGS), True),
        (on_topic("a", Operation.READ), on_topic("ab", Operation.READ), False),
        (on_topic("*", Operation.READ), on_topic("ab", Operation.READ), True),
        (on_topic("*", Operation.READ), on_topic("a", Operation.READ, Pattern.PREFIXED), True),
        (on_topic("a", Operation.READ, Pattern.PREFIXED), on_topic("ab", Operation.READ), True),
        (on_topic("a", Operation.READ, Pattern.PREFIXED), on_topic("ab", Operation.READ, Pattern.PREFIXED), True),
        (on_topic("ab", Operation.READ, Pattern.PREFIXED), on_topic("a", Operation.READ, Pattern.PREFIXED), False),
        (on_topic("a", Operation.READ), on_topic("a", Operation.READ, Pattern.PREFIXED), False),
        (on_topic("a", Operation.READ), Right(Kind.GROUP, "a", Pattern.LITERAL, Operation.READ), False),
    ],
)
def test_a_right_includes_what_an_authorizer_permits_by_it(has: Right, other: Right, *, includes: bool) -> None:
    assert has.includes(other) is includes


def test_of_rights_that_others_include_none_is_named_and_reasons_of_equal_ones_are_joined() -> None:
    read, twice = on_topic("a", Operation.READ), on_topic("b", Operation.WRITE)
    found = least([replace(twice, why="one"), on_topic("a", Operation.DESCRIBE), read, replace(twice, why="two")])
    assert found == (read, twice)
    assert found[1].why == "one; two"


def test_readers_that_join_no_group_use_that_of_the_flow_so_that_no_group_is_shared_by_flows() -> None:
    groups = {role: {right.name for right in rights_of([role], FLOWS) if right.kind is Kind.GROUP} for role in Role}
    own = {flow.group for flow in FLOWS}
    assert groups[Role.WORKER] == groups[Role.OPERATOR] == own
    assert groups[Role.MONITOR] - own == {"streams-monitor", "streams-dlq-review"}


UNJOINED = {"streams-monitor", "streams-dlq-review"}
"""Groups by which clients read that join none."""


def test_no_role_has_a_right_on_everything_of_a_kind_or_on_the_cluster() -> None:
    for role in Role:
        for right in rights_of([role], FLOWS):
            assert right.kind is not Kind.CLUSTER
            assert right.operation is not Operation.ALL
            tools = ("streams.ingest.", "streams.dlq.blue.", "streams.grow.blue.")
            own = right.name.startswith("blue.") or right.name.startswith(tools)
            assert own or right.name in UNJOINED, right


def test_roles_that_only_look_may_write_nothing_and_each_role_writes_only_what_it_is_for() -> None:
    def written(role: Role) -> set[str]:
        return {
            one.name
            for one in rights_of([role], [GPS])
            if one.kind is Kind.TOPIC and one.operation not in {Operation.READ, Operation.DESCRIBE}
            and one.operation is not Operation.DESCRIBE_CONFIGS
        }  # fmt: skip

    assert written(Role.MONITOR) == written(Role.SINK) == set()
    assert written(Role.GATEWAY) == {GPS.source, GPS.dlq}
    assert written(Role.STEWARD) == {GPS.source, GPS.audit, GPS.forget}
    own = {topic.name for topic in GPS.topics()}
    assert written(Role.WORKER) == own - {GPS.source} | {GPS.forget, GPS.forwarded_of(0)}
    assert written(Role.CI) == own | {GPS.growth, GPS.forwarded_of(0)}
    sinks = {topic.name for topic in GPS.sink_topics()}
    assert written(Role.OPERATOR) == own | sinks | {GPS.growth, GPS.forwarded_of(0)}


def test_what_a_principal_lacks_and_what_it_has_beyond_is_told_apart() -> None:
    read, write = on_topic("a", Operation.READ), on_topic("b", Operation.WRITE)
    describe, prefixed = on_topic("a", Operation.DESCRIBE), on_topic("x", Operation.READ, Pattern.PREFIXED)
    found = compare(
        ME,
        [read, write],
        [Grant(ME, read), Grant(ME, describe), Grant(ME, prefixed), Grant("User:other", write)],
    )
    assert (found.lacking, found.denied, found.beyond) == ((write,), (), (Grant(ME, prefixed),))
    assert compare(ME, [read], [Grant(ME, on_topic("*", Operation.ALL))]).lacking == ()
    assert compare(ME, [read], [Grant(ME, on_topic("*", Operation.ALL))]).beyond != ()
    assert compare(ME, [read], [Grant("User:*", read)]).is_exact
    assert compare(ME, [], [Grant("User:*", read)]).beyond == (Grant("User:*", read),)
    assert compare(ME, [read], [Grant(ME, read, host="10.0.0.1")]).lacking == (read,)
    assert compare(ME, [read], [Grant(ME, read, host="10.0.0.1")]).beyond == ()


@pytest.mark.parametrize(
    ("denied", "harms"),
    [
        (on_topic("a", Operation.READ), True),
        (on_topic("*", Operation.ALL), True),
        (on_topic("a", Operation.WRITE), False),
        (on_topic("b", Operation.READ), False),
    ],
)
def test_a_denial_of_what_is_needed_is_told(denied: Right, *, harms: bool) -> None:
    read = on_topic("a", Operation.READ)
    denial = Grant(ME, denied, denies=True)
    assert compare(ME, [read], [Grant(ME, read), denial]).denied == ((denial,) if harms else ())


def test_a_denial_within_a_prefix_that_is_needed_is_told() -> None:
    wanted = Right(Kind.GROUP, "streams.ingest.", Pattern.PREFIXED, Operation.READ)
    denial = Grant(ME, Right(Kind.GROUP, "streams.ingest.abc", Pattern.LITERAL, Operation.READ), denies=True)
    assert compare(ME, [wanted], [Grant(ME, wanted), denial]).denied == (denial,)


def test_grants_are_the_same_after_a_way_through_the_client() -> None:
    for role in Role:
        for right in rights_of([role], FLOWS):
            grant = Grant(principal_of(role), right)
            assert _grant(_binding(grant)) == grant
            assert _filter(grant).name == right.name
    cluster = Grant(ME, Right(Kind.CLUSTER, "kafka-cluster", Pattern.LITERAL, Operation.ALTER), denies=True)
    assert _grant(_binding(cluster)) == cluster
    token = AclBinding(
        ResourceType.TOPIC, "a", ResourcePatternType.LITERAL, ME, "*", AclOperation.UNKNOWN, AclPermissionType.ALLOW
    )
    assert _grant(token) is None


def test_the_rights_are_shown_as_text_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_TOPIC_PREFIX", "blue.")
    shown = CliRunner().invoke(app, ["acls", "show", "--role", "gateway", "--flow", "gps", "--format", "json"])
    assert shown.exit_code == 0, shown.output
    (entry,) = json.loads(shown.output)
    assert (entry["principal"], entry["roles"], entry["quotas"]) == ("User:gateway", ["gateway"], None)
    topics = {(one["name"], one["operation"]) for one in entry["rights"] if one["resource"] == "topic"}
    source = "blue.gps.positions.v1"
    assert topics == {(source, "READ"), (source, "WRITE"), (f"{source}.dlq", "WRITE")}
    text = CliRunner().invoke(app, ["acls", "show"]).output
    for words in (*map(principal_of, Role), "blue.orders.events.v1.journal", "Quotas: none is proposed"):
        assert words in text


def test_quotas_follow_from_what_comes_into_the_sources_and_bound_nobody_who_must_catch_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert quota_of([Role.GATEWAY], FLOWS, 1_000) == Quota(producer_byte_rate=2_000)
    outputs = sum(len(flow.inputs) * len(flow.outputs) for flow in FLOWS)
    assert quota_of([Role.SINK], FLOWS, 1_000) == Quota(consumer_byte_rate=4_000 * outputs)
    assert quota_of([Role.SINK, Role.GATEWAY], FLOWS, 1_000) == Quota(2_000, 4_000 * outputs)
    for role in (Role.WORKER, Role.MONITOR, Role.STEWARD, Role.CI):
        assert quota_of([role], FLOWS, 1_000).is_unbounded
        assert quota_of([role, Role.GATEWAY], FLOWS, 1_000).is_unbounded, "one principal with the rights of both"
    monkeypatch.setenv("STREAMS_SOURCE_BYTES_PER_S", "1000")
    text = CliRunner().invoke(app, ["acls", "show", "--role", "gateway", "--flow", "gps"]).output
    assert "kafka-configs.sh --alter --entity-type users --entity-name gateway" in text
    assert "producer_byte_rate=1000 (bytes a second, for each broker)" in text
    shown = CliRunner().invoke(app, ["acls", "show", "--role", "worker", "--format", "json"])
    assert json.loads(shown.output)[0]["quotas"] == {"producer_byte_rate": None, "consumer_byte_rate": None}


def test_a_principal_may_have_several_roles_and_has_a_name_of_kafka() -> None:
    settings: Any = Settings()
    (entry,) = _entries(settings, [Role.MONITOR, Role.STEWARD], "User:CN=page", ["gps"])
    assert entry.rights == rights_of([Role.MONITOR, Role.STEWARD], [GPS], fleet.topics)
    assert {"vehicles.minutes.v1", "gps.positions.v1.clean"} <= {
        right.name for right in entry.rights if right.operation is Operation.READ
    }
    with pytest.raises(UsageError, match="--principal needs --role"):
        _entries(settings, None, "User:me", None)
    with pytest.raises(UsageError, match="Kafka names a principal User:NAME"):
        _entries(settings, [Role.CI], "me", None)


def test_nothing_from_outside_is_written_into_what_a_flow_writes() -> None:
    found = {
        right.name for right in rights_of([Role.GATEWAY], select_pipelines(None)) if right.operation is Operation.WRITE
    }
    assert {"gps.positions.v1", "orders.events.v1"} <= found
    assert not found & {"gps.positions.v1.clean", "orders.events.v1.clean", "orders.bound.v1"}
    assert [one.source for one in select_fed()] == ["gps.positions.v1", "orders.events.v1"]
