"""The least rights of each role, derived from declared flows.

What a role's programs truly ask of a broker; a right that another one implies is not named again. None is on the
cluster as a whole. Tests hold each of them against a real authorizer: the role works with exactly these, and without
any one of them fails in words.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from streams.acls.rights import Kind, Operation, Pattern, Right, least, on_topic
from streams.flow.declaration import Pipeline, written_by_flows
from streams.flow.inputs import Input
from streams.names import (
    DLQ_PREFIX,
    GROW_PREFIX,
    INGEST_PREFIX,
    MONITOR_GROUP,
    PULL_PREFIX,
    REVIEW_GROUP,
)
from streams.sinks.spec import SinkSpec, dead_letters_of, group_of

USER: Final = "User:"


class Role(StrEnum):
    """Roles in a cluster."""

    WORKER = "worker"
    GATEWAY = "gateway"
    SINK = "sink"
    MONITOR = "monitor"
    STEWARD = "steward"
    CI = "ci"
    OPERATOR = "operator"
    AUDITOR = "auditor"


DOES: Final = {
    Role.WORKER: "streams worker, streams state inspect, streams state rebuild --from local",
    Role.GATEWAY: "streams gateway, streams bridge, streams pull, streams ingest: what writes events into sources",
    Role.SINK: "streams sink; consumers of the flows' outputs, with groups that begin like the flow's own",
    Role.MONITOR: "streams monitor, streams lag",
    Role.STEWARD: "streams dlq list, show, replay, discard; with the role worker: streams forget",
    Role.CI: "streams topics apply, streams topics list",
    Role.OPERATOR: "streams topics grow",
    Role.AUDITOR: "streams reconcile",
}
"""The commands that a role's rights are for."""


def rights_of(
    roles: Iterable[Role], flows: Sequence[Pipeline], shown: frozenset[str] = frozenset()
) -> tuple[Right, ...]:
    """The rights that `roles` together need for `flows`, none of which another one of them includes; sorted.

    `shown`: topics of the app's fleet map; of them those that the flows write are read by the monitor.
    """
    written = written_by_flows(flows)
    roles = tuple(roles)
    map_rights = (on_topic(topic, Operation.READ, "shows it on the fleet page") for topic in sorted(shown & written))
    return least(
        (
            *(right for role in roles for flow in flows for right in _rights(role, flow, written)),
            *(map_rights if Role.MONITOR in roles else ()),
        )
    )


def _rights(role: Role, flow: Pipeline, written: frozenset[str]) -> Iterator[Right]:
    """Of a role for a flow; nothing from outside goes into topics that are `written` by flows."""
    if role is Role.GATEWAY:
        yield from _gateway(flow, [one for one in flow.inputs if one.topic not in written])
    else:
        yield from _RIGHTS[role](flow)


def principal_of(role: Role) -> str:
    """The principal that is named like a role, as the secured local stack has them."""
    return f"{USER}{role}"


def _worker(flow: Pipeline) -> Iterator[Right]:
    for one in flow.inputs:
        yield on_topic(one.topic, Operation.READ, "consumes it, commits its offsets")
        yield on_topic(one.dlq, Operation.WRITE, "writes it")
        yield on_topic(one.audit, Operation.WRITE, "writes what became of a replayed letter")
    for topic in flow.outputs:
        yield on_topic(topic, Operation.WRITE, "writes it")
    for topic in flow.event_outputs:
        yield on_topic(topic, Operation.DESCRIBE_CONFIGS, "asks how old a record's timestamp may be")
    for topic in flow.changelogs:
        yield on_topic(topic, Operation.WRITE, "writes the changes of state")
        yield on_topic(topic, Operation.READ, "restores state from it")
    yield on_topic(flow.forget, Operation.READ, "reads requests to forget keys")
    yield on_topic(flow.forget, Operation.WRITE, "writes that it has carried one out")
    yield on_topic(flow.versions, Operation.READ, "hears which version of the flow it runs")
    yield on_topic(flow.journal, Operation.DELETE, "truncates what no restore needs any more")
    for one in flow.inputs:
        if one.is_internal:
            yield on_topic(one.topic, Operation.DELETE, "deletes what it has consumed: no other flow reads it")
    yield on_topic(flow.growth, Operation.READ, "hears when the flow is to grow")
    for topic in flow.forwarded_topics:
        yield on_topic(topic, Operation.WRITE, "forwards records whose key belongs to another partition")
        yield on_topic(topic, Operation.READ, "reads what was forwarded to its partitions")
        yield on_topic(topic, Operation.DELETE, "truncates what was read of it")
    yield Right(Kind.GROUP, flow.group, Pattern.LITERAL, Operation.READ, "is a member of it")
    yield Right(
        Kind.TRANSACTIONAL_ID, flow.member_prefix, Pattern.PREFIXED, Operation.WRITE, "writes in transactions, one id "
        "for each data directory",
    )  # fmt: skip


def _gateway(flow: Pipeline, inputs: Sequence[Input]) -> Iterator[Right]:
    if not inputs:
        return
    for one in inputs:
        yield on_topic(one.topic, Operation.WRITE, "writes it")
        yield on_topic(one.topic, Operation.READ, "notes its progress as an offset of the topic; it reads no record")
        yield on_topic(one.dlq, Operation.WRITE, "writes what came by HTTP and cannot be an event")
    for prefix, what in ((INGEST_PREFIX, "file"), (f"{flow.prefix}{PULL_PREFIX}", "source")):
        yield Right(Kind.GROUP, prefix, Pattern.PREFIXED, Operation.READ, f"keeps the progress of a {what} in a group")
        yield Right(
            Kind.TRANSACTIONAL_ID, prefix, Pattern.PREFIXED, Operation.WRITE,
            f"writes in transactions, one id for each {what}",
        )  # fmt: skip


def _sink(flow: Pipeline) -> Iterator[Right]:
    for topic in flow.outputs:
        yield on_topic(topic, Operation.READ, "reads it")
    for sink in flow.sinks:
        yield Right(Kind.GROUP, group_of(sink, flow.prefix), Pattern.LITERAL, Operation.READ, "commits its offsets")
        yield on_topic(dead_letters_of(sink, flow.prefix), Operation.WRITE, "writes what its target cannot hold")
    yield Right(Kind.GROUP, f"{flow.group}.", Pattern.PREFIXED, Operation.READ, "commits its offsets")


def _monitor(flow: Pipeline) -> Iterator[Right]:
    for one in flow.inputs:
        yield on_topic(one.topic, Operation.READ, "looks at the newest records, and at the oldest uncommitted one")
        for topic in (one.dlq, one.audit):
            yield on_topic(topic, Operation.READ, "counts dead letters that are open")
    for each in flow.topics():
        yield on_topic(each.name, Operation.DESCRIBE, "asks for its ends, and says when it is missing")
    yield Right(Kind.GROUP, flow.group, Pattern.LITERAL, Operation.DESCRIBE, "asks for its offsets and members")
    for group in (MONITOR_GROUP, REVIEW_GROUP):
        yield _unjoined(group)
    yield on_topic(flow.growth, Operation.READ, "says how far a growth is")
    yield on_topic(flow.versions, Operation.READ, "knows which versions are kept, and raises no alarm for them")


def _steward(flow: Pipeline) -> Iterator[Right]:
    for one in flow.inputs:
        yield on_topic(one.dlq, Operation.READ, "reads dead letters")
        yield on_topic(one.audit, Operation.READ, "reads what was done about them")
        yield on_topic(one.audit, Operation.WRITE, "writes what it does about them")
        yield on_topic(one.topic, Operation.WRITE, "replays letters into it")
        yield on_topic(one.topic, Operation.DESCRIBE_CONFIGS, "asks for the largest record that it takes")
        by_topic = f"{DLQ_PREFIX}{one.topic}"
        yield Right(Kind.TRANSACTIONAL_ID, by_topic, Pattern.LITERAL, Operation.WRITE, "writes in transactions")
    yield on_topic(flow.forget, Operation.CREATE, "creates it with the first request to forget a key")
    yield on_topic(flow.forget, Operation.WRITE, "asks workers to forget a key")
    yield _unjoined(REVIEW_GROUP)


def _ci(flow: Pipeline) -> Iterator[Right]:
    for each in (*flow.topics(), *flow.growth_topics()):
        yield on_topic(each.name, Operation.CREATE, "creates it where it is missing")
        yield on_topic(each.name, Operation.DESCRIBE, "sees that it is there")
        yield on_topic(each.name, Operation.DESCRIBE_CONFIGS, "compares its configuration with the declaration")


def _operator(flow: Pipeline) -> Iterator[Right]:
    yield from growing_rights(flow)
    yield Right(Kind.GROUP, flow.group, Pattern.LITERAL, Operation.DESCRIBE, "sees how far workers are with a growth")
    yield Right(
        Kind.TRANSACTIONAL_ID, f"{GROW_PREFIX}{flow.source}", Pattern.LITERAL, Operation.WRITE, "writes in transactions"
    )


def growing_rights(flow: Pipeline) -> Iterator[Right]:
    """Rights on topics that `streams topics grow` needs for a flow."""
    for topic in (*flow.topics(), *flow.sink_topics()):
        yield on_topic(topic.name, Operation.ALTER, "gives it more partitions")
    for name in flow.forwarded_topics:
        yield on_topic(name, Operation.ALTER, "gives it more partitions")
    yield on_topic(flow.growth, Operation.WRITE, "writes the steps of a growth")
    yield on_topic(flow.growth, Operation.READ, "reads how far a growth is")
    for one in flow.inputs:
        yield on_topic(one.topic, Operation.READ, "looks whether records wait in a partition that does not move")


def reconciling_rights(flow: Pipeline) -> Iterator[Right]:
    """Rights on topics that `streams reconcile` needs for a flow."""
    for one in flow.inputs:
        yield on_topic(one.topic, Operation.READ, "recomputes from it")
        yield on_topic(one.dlq, Operation.READ, "compares it with the records that are rejected")
    for topic in flow.outputs:
        yield on_topic(topic, Operation.READ, "compares it")
    yield on_topic(flow.journal, Operation.READ, "reads where commit cycles ended, and which bounds are recorded")


def comparing_rights(sink: SinkSpec, prefix: str) -> Iterator[Right]:
    """Rights on topics that `streams reconcile` needs for a sink."""
    yield on_topic(sink.topic, Operation.READ, "compares the target with it")
    yield on_topic(dead_letters_of(sink, prefix), Operation.READ, "compares it with what the target does not have")


def _auditor(flow: Pipeline) -> Iterator[Right]:
    yield from reconciling_rights(flow)
    for sink in flow.sinks:
        yield from comparing_rights(sink, flow.prefix)
        yield _unjoined(group_of(sink, flow.prefix))
    group = Right(Kind.GROUP, flow.group, Pattern.LITERAL, Operation.DESCRIBE, "reads how far workers are; joins none")
    yield group


def _unjoined(group: str) -> Right:
    """Of a client that reads, and needs a group's name for it."""
    return Right(Kind.GROUP, group, Pattern.LITERAL, Operation.DESCRIBE, "reads under this name, and joins no group")


_RIGHTS: Final[Mapping[Role, Callable[[Pipeline], Iterator[Right]]]] = {
    Role.WORKER: _worker,
    Role.SINK: _sink,
    Role.MONITOR: _monitor,
    Role.STEWARD: _steward,
    Role.CI: _ci,
    Role.OPERATOR: _operator,
    Role.AUDITOR: _auditor,
}
