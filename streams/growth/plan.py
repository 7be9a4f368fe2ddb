"""Which topics of a flow get partitions in a growth, in which order, and why a growth is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from streams.errors import StreamsError, UsageError
from streams.growth.layout import Growth, Layout
from streams.growth.stages import Phase
from streams.text import counted

PARTITIONS_MAX: Final = 10_000
"""Partitions that a topic may have: a growth to more is taken for a mistake."""


class GrowthRefused(StreamsError):
    """The growth cannot be done, or not now; nothing was changed."""


class WrongCount(GrowthRefused, UsageError):
    """No growth leads to the number of partitions that was asked for."""


class Kind(IntEnum):
    """What a topic is to the flow, in the order in which topics get partitions."""

    OUTPUT = 1
    """A topic of events, rows or dead letters: a child writes to it from its first event on."""
    STATE = 2
    """Journal and tables: a child writes there when it adopts."""
    FORWARDED = 3
    """Internal: a parent writes there from its cut on."""
    INPUT = 4
    """Read beside the source: before that one, whose partitions the group divides."""
    SOURCE = 5
    """Last: producers write into new partitions as soon as they see them."""


@dataclass(frozen=True, slots=True)
class TopicCount:
    """A topic of the flow, and how many partitions it has now; 0: it does not exist."""

    name: str
    kind: Kind
    partitions: int


@dataclass(frozen=True, slots=True)
class Reader:
    """Another flow that reads a topic of this one: it must have a layout for the partitions that come."""

    flow: str
    topic: str
    partitions: int
    """Number of partitions in the layout that the reader's state is in."""


@dataclass(frozen=True, slots=True)
class Under:
    """A growth that was begun earlier, by its record."""

    growth: Growth
    phase: Phase
    is_over: bool


@dataclass(frozen=True, slots=True)
class Addition:
    """A topic that gets partitions."""

    topic: str
    kind: Kind
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class GrowthPlan:
    """What a growth does to the topics of a flow."""

    flow: str
    growth: Growth
    additions: Sequence[Addition]
    """In this order; without those that have their partitions already."""
    is_resumed: bool
    """Whether it goes on with a growth that was begun earlier."""
    is_by_hand: bool
    """Whether the source got its partitions before its flow was asked: more events may be late."""

    @property
    def before_begin(self) -> list[Addition]:
        """What has to be done before any parent cuts: all but what is read."""
        return [one for one in self.additions if one.kind < Kind.INPUT]

    @property
    def inputs(self) -> list[Addition]:
        """What is done once all parents have cut: the topics that are read, the source last."""
        return [one for one in self.additions if one.kind >= Kind.INPUT]


def plan_growth(
    flow: str,
    layout: Layout,
    topics: Sequence[TopicCount],
    partitions: int,
    *,
    under: Under | None = None,
    readers: Sequence[Reader] = (),
    stuck: Mapping[int, str] | None = None,
) -> GrowthPlan:
    """The plan to bring a flow from its `layout` to `partitions`; says all that is against it.

    `topics` are all of the flow, one of them the source. `under` is the newest growth that was begun, `readers` are
    flows that read one of the topics, `stuck` has the partitions that are not processed, and why.

    Raises:
        GrowthRefused: it cannot be done, or not now; the message has every reason, and what to do.

    """
    resumed = under is not None and not under.is_over and under.growth.after.partitions == partitions
    growth = under.growth if under is not None and resumed else _new_growth(flow, layout, partitions, under)
    against = [
        *_missing(flow, topics),
        *_uneven(topics, growth),
        *_unread(topics, growth, readers),
        # One that was begun goes on: its steps wait for a partition that is stuck, and say so.
        *([] if resumed else _stuck(stuck or {})),
    ]
    if against:
        raise GrowthRefused(f"{flow} cannot be grown to {partitions}: {'; '.join(against)}")
    source = _source(topics)
    before_cut = not resumed or (under is not None and under.phase is Phase.PLANNED)
    return GrowthPlan(
        flow,
        growth,
        [
            Addition(topic.name, topic.kind, topic.partitions, growth.after.partitions)
            for topic in sorted(topics, key=lambda one: (one.kind, one.name))
            if topic.partitions < growth.after.partitions
        ],
        is_resumed=resumed,
        is_by_hand=before_cut and source.partitions == growth.after.partitions,
    )


def _new_growth(flow: str, layout: Layout, partitions: int, under: Under | None) -> Growth:
    if under is not None and not under.is_over:
        begun = under.growth
        raise GrowthRefused(
            f"{flow} grows from {begun.before.partitions} to {begun.after.partitions} already, and that is not over: "
            f"finish it with `--partitions {begun.after.partitions}`, see how far it is with `--status`"
        )
    now = counted(layout.partitions, "partition")
    if partitions == layout.partitions:
        raise WrongCount(f"{flow} has {now} already: nothing to do")
    if partitions < layout.partitions:
        raise WrongCount(
            f"{flow} has {now}: Kafka cannot take partitions away. Declare a flow with a new source topic for fewer"
        )
    if partitions % layout.partitions:
        more = partitions - partitions % layout.partitions
        nearest = " or ".join(str(one) for one in (more, more + layout.partitions) if one > layout.partitions)
        raise WrongCount(
            f"{flow} has {now}, and {partitions} is no multiple of it: keys would change between all partitions. "
            f"Ask for {nearest}"
        )
    if partitions > PARTITIONS_MAX:
        raise WrongCount(f"{flow}: {partitions:,} partitions are more than {PARTITIONS_MAX:,}")
    return Growth(layout, Layout(layout.epoch + 1, partitions))


def _source(topics: Sequence[TopicCount]) -> TopicCount:
    found = [topic for topic in topics if topic.kind is Kind.SOURCE]
    if len(found) != 1:
        raise ValueError(f"a flow has one source, not {len(found)}")
    return found[0]


def _missing(flow: str, topics: Sequence[TopicCount]) -> list[str]:
    names = [topic.name for topic in topics if not topic.partitions]
    return [f"{', '.join(names)}: no such topic; create with `streams topics apply --pipeline {flow}`"] if names else []


def _uneven(topics: Sequence[TopicCount], growth: Growth) -> list[str]:
    """Topics that are neither as they were before the growth nor as they shall be."""
    fine = {0, growth.before.partitions, growth.after.partitions}
    return [
        f"{topic.name} has {counted(topic.partitions, 'partition')}, which is neither {growth.before.partitions} nor "
        f"{growth.after.partitions}: {_advice(topic, growth)}"
        for topic in topics
        if topic.partitions not in fine
    ]


def _advice(topic: TopicCount, growth: Growth) -> str:
    count, before, after = topic.partitions, growth.before.partitions, growth.after.partitions
    if topic.kind >= Kind.INPUT and count > before and count % before == 0:
        return f"grow the flow to {count}"
    if topic.kind < Kind.INPUT and count < after:
        return f"give it {after} with Kafka's own tool"
    if topic.kind < Kind.INPUT and count % before == 0:
        return f"grow the flow to {count}"
    return "keys in its partitions are not where any growth would have them; declare a flow with a new source topic"


def _unread(topics: Sequence[TopicCount], growth: Growth, readers: Sequence[Reader]) -> list[str]:
    own = {topic.name for topic in topics if topic.kind is Kind.OUTPUT}
    return [
        f"flow {reader.flow} reads {reader.topic} with {counted(reader.partitions, 'partition')}: grow it first, "
        f"`streams topics grow {reader.topic} --partitions {growth.after.partitions}`"
        for reader in readers
        if reader.topic in own and reader.partitions < growth.after.partitions
    ]


def _stuck(stuck: Mapping[int, str]) -> list[str]:
    by_reason: dict[str, list[int]] = {}
    for partition, why in sorted(stuck.items()):
        by_reason.setdefault(why, []).append(partition)
    return [
        f"{named(partitions)} {'is' if len(partitions) == 1 else 'are'} not processed: {why}"
        for why, partitions in by_reason.items()
    ]


def named(partitions: Sequence[int]) -> str:
    """Partitions by their numbers, in words: `partition 4`, `partitions 0 to 2, 5`."""
    spans: list[tuple[int, int]] = []
    for one in sorted(partitions):
        if spans and spans[-1][1] == one - 1:
            spans[-1] = (spans[-1][0], one)
        else:
            spans.append((one, one))
    told = [
        str(first) if first == last else f"{first}, {last}" if first == last - 1 else f"{first} to {last}"
        for first, last in spans
    ]
    return f"partition{'' if len(partitions) == 1 else 's'} {', '.join(told)}"
