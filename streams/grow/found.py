"""The state of a flow's growth in Kafka, and what follows from it. Pure: used by command and monitor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.flow.declaration import JOURNAL_SUFFIX, Pipeline
from streams.growth.control import Await, Over, Step, next_step
from streams.growth.layout import FIRST_EPOCH, Growth, Layout
from streams.growth.plan import GrowthPlan, GrowthRefused, Kind, Reader, TopicCount, Under, plan_growth
from streams.growth.record import GrowthRecord
from streams.growth.stages import Standing, is_over

COMMAND = "command"
"""Instead of what a growth waits for: only for the next step of the command."""
OVER = "over"


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that is known of a flow at one moment, to decide its growth's next step."""

    flow: Pipeline
    records: Sequence[GrowthRecord]
    """Records of the flow's growth topic, by epoch; empty: the flow was never grown."""
    counts: Mapping[str, int]
    """Partitions of every topic of the cluster."""
    standings: Mapping[int, Standing]
    """How far each partition of the source is in the growth, by the metadata of the group's commits."""
    all_flows: Sequence[Pipeline] = ()
    """Declared flows, of which some may read what this one writes."""

    @property
    def newest(self) -> GrowthRecord | None:
        """Return the record of the newest growth."""
        return self.records[-1] if self.records else None

    @property
    def settled(self) -> frozenset[int]:
        """Parents of the newest growth that have said that the coupling has ended."""
        if self.newest is None:
            return frozenset()
        growth = self.newest.growth
        return frozenset(one for one in growth.parents if self.standing(one).settled >= growth.epoch)

    @property
    def is_over(self) -> bool:
        """Whether no growth is under way."""
        return self.newest is None or (
            self.counts.get(self.flow.source, 0) >= self.newest.growth.after.partitions
            and is_over(self.newest.growth, self.standings, self.settled)
        )

    @property
    def layout(self) -> Layout:
        """The layout that the flow is in; while it grows, the one that it leaves.

        Of a flow that was never grown, the partitions that every topic with state has: a source that somebody has grown
        by hand has more.
        """
        if self.newest is not None:
            return self.newest.growth.after if self.is_over else self.newest.growth.before
        counts = [found for topic in self.flow.changelogs if (found := self.counts.get(topic))]
        return Layout(FIRST_EPOCH, min(counts, default=self.counts.get(self.flow.source) or 1))

    @property
    def topics(self) -> list[TopicCount]:
        """The topics that a growth is about, and how many partitions they have."""
        return [TopicCount(name, kind, self.counts.get(name, 0)) for name, kind in self._kinds()]

    @property
    def readers(self) -> list[Reader]:
        """Flows that read an output of this one, declared here or not: who reads a topic keeps a journal beside it."""
        outputs = self.flow.outputs
        joining = [
            Reader(flow.name, one.topic, self.counts[flow.journal])
            for flow in self.all_flows
            if flow.further_inputs and flow.journal in self.counts
            for one in flow.inputs
            if one.topic in outputs
        ]
        by_source = {one.source: one.name for one in self.all_flows}
        told = {reader.topic for reader in joining}
        return joining + [
            Reader(by_source.get(topic, f"of {topic}"), topic, self.counts[journal])
            for topic in outputs
            if (journal := f"{topic}{JOURNAL_SUFFIX}") in self.counts and topic not in told
        ]

    def standing(self, partition: int) -> Standing:
        """Return how far one partition is; a partition without a commit has done nothing."""
        return self.standings.get(partition, Standing(0))

    def plan(self, partitions: int, stuck: Mapping[int, str] | None = None) -> GrowthPlan:
        """The plan to bring the flow to `partitions`.

        Raises:
            GrowthRefused: as `plan_growth`.

        """
        lacking = [topic.name for topic in self.flow.growth_topics() if not self.counts.get(topic.name)]
        if lacking:
            raise GrowthRefused(
                f"{', '.join(lacking)}: no such topic; create with `streams topics apply`, then restart the workers of "
                f"{self.flow.name}"
            )
        newest = self.newest
        under = None if newest is None else Under(newest.growth, newest.phase, self.is_over)
        return plan_growth(
            self.flow.name, self.layout, self.topics, partitions, under=under, readers=self.readers, stuck=stuck
        )

    def step(self, plan: GrowthPlan) -> Step:
        """Return the next step of a plan."""
        newest = self.newest
        phase = newest.phase if newest is not None and newest.growth == plan.growth else None
        return next_step(plan, phase, self.standings, self.settled)

    def _kinds(self) -> Iterable[tuple[str, Kind]]:
        flow = self.flow
        kinds = {one.topic: Kind.INPUT for one in flow.inputs} | {flow.source: Kind.SOURCE}
        kinds |= dict.fromkeys(flow.changelogs, Kind.STATE)
        kinds |= dict.fromkeys(flow.forwarded_topics, Kind.FORWARDED)
        for topic in flow.topics():
            kinds.setdefault(topic.name, Kind.OUTPUT)
        for topic in flow.sink_topics():
            if topic.name in self.counts:  # no sink may run here
                kinds.setdefault(topic.name, Kind.OUTPUT)
        kinds.pop(flow.growth, None)
        return kinds.items()


@dataclass(frozen=True, slots=True)
class GrowthStatus:
    """How far the newest growth of a flow is. Every figure is of partitions."""

    flow: str
    topic: str
    record: GrowthRecord
    step: str
    """What it waits for: `command` (its next step has to be made), `ready`, `cut`, `adopted`, `cleared`, `settled`;
    `over`: nothing is left."""
    waits_for: Sequence[int]
    """Partitions that have not done it yet."""
    ready: int
    """Parents that have said so, or have gone on since."""
    cut: int
    adopted: int
    cleared: int
    settled: int
    states: Sequence[str]
    """What each partition has done last: a parent `none`, `ready`, `cut` or `settled`, a child
    `none`, `adopted` or `cleared`."""
    problem: str = ""
    """Why its next step cannot be made; empty: it can."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.step == OVER

    @property
    def parents(self) -> int:
        """Number of partitions before the growth."""
        return len(self.record.growth.parents)

    @property
    def children(self) -> int:
        """Number of partitions that the growth adds."""
        return len(self.record.growth.children)

    @property
    def steps(self) -> Mapping[str, tuple[int, int]]:
        """By step, how many partitions have done it, of how many."""
        return {
            "ready": (self.ready, self.parents),
            "cut": (self.cut, self.parents),
            "adopted": (self.adopted, self.children),
            "cleared": (self.cleared, self.children),
            "settled": (self.settled, self.parents),
        }


def status_of(found: Found) -> GrowthStatus | None:
    """How far the newest growth is; None: the flow was never grown."""
    record = found.newest
    if record is None:
        return None
    growth, problem, waits_for = record.growth, "", list[int]()
    if found.is_over:
        step = OVER
    else:
        step = COMMAND
        try:
            after = found.step(found.plan(growth.after.partitions))
        except GrowthRefused as error:
            problem = str(error)
        else:
            if isinstance(after, Await):
                step, waits_for = after.what, list(after.partitions)
            elif isinstance(after, Over):
                step = OVER
    cut = [one for one in growth.parents if found.standing(one).epoch >= growth.epoch]
    ready = [one for one in growth.parents if one in cut or found.standing(one).ready >= growth.epoch]
    return GrowthStatus(
        found.flow.name,
        found.flow.source,
        record,
        step,
        waits_for,
        ready=len(ready),
        cut=len(cut),
        adopted=sum(found.standing(one).epoch >= growth.epoch for one in growth.children),
        cleared=sum(found.standing(one).cleared >= growth.epoch for one in growth.children),
        settled=len(found.settled),
        states=[_state(found.standing(one), growth, one) for one in range(growth.after.partitions)],
        problem=problem,
    )


def _state(standing: Standing, growth: Growth, partition: int) -> str:
    if standing.epoch >= growth.epoch:
        if partition in growth.parents:
            return "settled" if standing.settled >= growth.epoch else "cut"
        return "cleared" if standing.cleared >= growth.epoch else "adopted"
    is_ready = partition in growth.parents and standing.ready >= growth.epoch
    return "ready" if is_ready else "none"


def flow_of_topic(flows: Sequence[Pipeline], topic: str, prefix: str = "") -> Pipeline:
    """The flow whose source is `topic`, with the deployment's prefix or without.

    Raises:
        GrowthRefused: none is; the message names what is meant.

    """
    by_source = {one.topic: flow for flow in flows for one in flow.inputs}
    for name in (topic, prefix + topic):
        if name in by_source:
            return by_source[name]
    for flow in flows:
        written = {one.name for one in (*flow.topics(), *flow.sink_topics())}
        if topic in written or prefix + topic in written:
            raise UnknownSource(f"{topic} is written by flow {flow.name}, and grows with its source: {flow.source}")
    raise UnknownSource(f"no declared flow has the source {topic!r}: there is {', '.join(sorted(by_source))}")


class UnknownSource(GrowthRefused):
    """The topic is no source of a declared flow."""

    exit_status = 2
