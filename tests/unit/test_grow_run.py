"""The command that grows a flow: its steps over a cluster in memory, killed before and after each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import pytest

from logistics.flows.gps import GPS
from streams.errors import FencedError, StreamsError
from streams.flow.inputs import Input
from streams.grow.found import COMMAND, OVER, Found, flow_of_topic, status_of
from streams.grow.run import BROKER_AWAY_S_MAX, Event, GrowthRun, NoAnswer, StandsStill, give_up, is_done
from streams.growth.control import AddPartitions, Await, Over, Write
from streams.growth.layout import Growth, Layout
from streams.growth.plan import Addition, GrowthPlan, GrowthRefused, WrongCount
from streams.growth.record import GrowthRecord, newest_records
from streams.growth.stages import Phase, Standing

T = TypeVar("T")
NAMES: Final = [*(topic.name for topic in GPS.topics()), GPS.forwarded_of(0)]


class Killed(BaseException):
    """The process of the command is gone."""


@dataclass
class Cluster:
    """Topics, a growth topic and workers that do one thing each second, if they run."""

    counts: dict[str, int] = field(default_factory=lambda: {**dict.fromkeys(NAMES, 3), GPS.growth: 1})
    log: list[tuple[bytes, bytes | None, int]] = field(default_factory=list)
    standings: dict[int, Standing] = field(default_factory=lambda: dict.fromkeys(range(3), Standing(1)))
    stuck_ones: dict[int, str] = field(default_factory=dict)
    works: bool = True
    now_s: float = 0.0
    opened: int = 0
    calls: int = 0
    kill_at: int | None = None
    kill_after: bool = False
    fails: Callable[[], None] = lambda: None
    """Raises while brokers give no answer."""

    def found(self) -> Found:
        return Found(GPS, newest_records(self.log), dict(self.counts), dict(self.standings))

    def second(self, seconds: float) -> None:
        """Time passes; one partition does what is asked of it."""
        self.now_s += seconds
        found = self.found()
        status = status_of(found)
        if not self.works or status is None or not status.waits_for:
            return
        partition, epoch = status.waits_for[0], status.record.growth.epoch
        was = self.standings.get(partition, Standing(0))
        self.standings[partition] = {
            "ready": replace(was, ready=epoch),
            "cut": replace(was, epoch=epoch),
            "adopted": Standing(epoch),
            "cleared": replace(was, cleared=epoch),
            "settled": replace(was, settled=epoch),
        }[status.step]


class Port:
    """One command's view of the cluster; a command that was opened later fences it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.session = 0

    def look(self) -> Found:
        return self._call(self.cluster.found)

    def stuck(self, partitions: int, _patience_s: float) -> Mapping[int, str]:
        return self._call(lambda: {one: why for one, why in self.cluster.stuck_ones.items() if one < partitions})

    def open(self) -> None:
        def take() -> None:
            self.cluster.opened += 1
            self.session = self.cluster.opened

        self._call(take)

    def write(self, record: GrowthRecord) -> None:
        self._written(record.key, record.value)

    def give_up(self, growth: Growth) -> None:
        self._written(str(growth.epoch).encode(), None)

    def add(self, addition: Addition) -> None:
        assert addition.before == self.cluster.counts[addition.topic]
        self._call(lambda: self.cluster.counts.update({addition.topic: addition.after}))

    def _written(self, key: bytes, value: bytes | None) -> None:
        def produce() -> None:
            if self.session != self.cluster.opened:
                raise FencedError("another one has started")
            self.cluster.log.append((key, value, int(self.cluster.now_s * 1000)))

        self._call(produce)

    def _call(self, does: Callable[[], T]) -> T:
        cluster = self.cluster
        cluster.calls += 1
        dies = cluster.calls == cluster.kill_at
        if dies and not cluster.kill_after:
            raise Killed
        cluster.fails()
        done = does()
        if dies:
            raise Killed
        return done


def grow(cluster: Cluster, partitions: int = 6, events: list[Event] | None = None) -> Found:
    told: list[Event] = [] if events is None else events

    def tell(event: Event, _found: Found | None) -> None:
        told.append(event)

    return GrowthRun(Port(cluster), partitions, tell, cluster.second, lambda: cluster.now_s).run()


def test_a_flow_is_grown_step_by_step_and_each_step_is_told_once() -> None:
    cluster, events = Cluster(), list[Event]()
    found = grow(cluster, 6, events)
    assert is_done(found, 6)
    assert set(cluster.counts.values()) == {1, 6}
    plan, *steps = events
    assert isinstance(plan, GrowthPlan)
    order = [step.additions[0].topic for step in steps if isinstance(step, AddPartitions)]
    assert set(order) == set(NAMES)
    assert order[-2:] == [GPS.forwarded_of(0), GPS.source]
    assert [step.phase for step in steps if isinstance(step, Write)] == list(Phase)
    waited = [(step.what, len(step.partitions)) for step in steps if isinstance(step, Await)]
    assert waited == [(what, left) for what in ("ready", "cut", "adopted", "cleared", "settled") for left in (3, 2, 1)]
    assert isinstance(steps[-1], Over)
    assert [step for step in steps if isinstance(step, NoAnswer)] == []


def test_a_command_that_is_killed_before_or_after_any_call_is_finished_by_the_next_one() -> None:
    whole = Cluster()
    grow(whole)
    for kill_at in range(1, whole.calls):
        for kill_after in (False, True):
            cluster = Cluster(kill_at=kill_at, kill_after=kill_after)
            with pytest.raises(Killed):
                grow(cluster)
            assert is_done(grow(cluster), 6)
            assert cluster.counts == whole.counts, (kill_at, kill_after)
            phases = [record.phase for record in map_records(cluster)]
            assert phases == list(Phase), (kill_at, kill_after)


def map_records(cluster: Cluster) -> list[GrowthRecord]:
    return [newest_records([one])[0] for one in cluster.log]


def test_a_second_growth_follows_on_the_first() -> None:
    cluster = Cluster()
    grow(cluster, 6)
    found = grow(cluster, 24)
    assert [record.growth for record in found.records] == [
        Growth(Layout(1, 3), Layout(2, 6)), Growth(Layout(2, 6), Layout(3, 24)),
    ]  # fmt: skip
    assert is_done(grow(cluster, 24), 24), "run again it says that it is done, and changes nothing"
    assert len(cluster.log) == 6


def test_two_commands_fence_each_other_and_the_later_one_finishes() -> None:
    cluster = Cluster(works=False)
    first = Port(cluster)

    def pause(seconds: float) -> None:
        """The second command comes while the first one waits."""
        cluster.works = True
        second = grow(cluster)
        assert is_done(second, 6)
        cluster.standings[1] = Standing(1)  # as if a step were left to be written
        cluster.log.append((b"2", GrowthRecord(second.records[0].growth, Phase.PLANNED).value, 0))
        cluster.standings |= {one: Standing(1, ready=2) for one in range(3)}
        cluster.now_s += seconds

    with pytest.raises(FencedError):
        GrowthRun(first, 6, lambda *_: None, pause, lambda: cluster.now_s).run()


def test_brokers_that_are_away_for_a_while_are_waited_for_and_that_is_said_once() -> None:
    cluster, events = Cluster(), list[Event]()
    grow_at = 12

    def fails() -> None:
        if grow_at <= cluster.calls and cluster.now_s < 60:
            raise StreamsError("no answer")

    cluster.fails = fails
    assert is_done(grow(cluster, 6, events), 6)
    assert [event.why for event in events if isinstance(event, NoAnswer)] == ["no answer"]


def test_brokers_that_stay_away_end_the_command_in_words() -> None:
    cluster = Cluster()

    def fails() -> None:
        if cluster.calls > 6:
            raise StreamsError("no answer")

    cluster.fails = fails
    with pytest.raises(StreamsError, match="no answer; run the same command again, it goes on"):
        grow(cluster)
    assert BROKER_AWAY_S_MAX <= cluster.now_s < BROKER_AWAY_S_MAX + 10


def test_no_answer_at_the_very_first_look_ends_the_command_at_once() -> None:
    cluster = Cluster()

    def fails() -> None:
        raise StreamsError("no broker")

    cluster.fails = fails
    with pytest.raises(StreamsError, match=r"^no broker$"):
        grow(cluster)
    assert cluster.now_s == 0


def test_a_refusal_changes_nothing() -> None:
    cluster = Cluster(stuck_ones={1: "it has no leader", 2: "it has no leader"})
    with pytest.raises(GrowthRefused, match="partitions 1, 2 are not processed: it has no leader"):
        grow(cluster)
    cluster.stuck_ones = {}
    with pytest.raises(WrongCount, match="Ask for 6 or 9"):
        grow(cluster, 7)
    assert (cluster.log, cluster.opened, set(cluster.counts.values())) == ([], 0, {1, 3})
    assert (WrongCount("").exit_status, GrowthRefused("").exit_status) == (2, 1)


def test_a_growth_begins_also_where_it_cannot_be_told_whether_partitions_are_stuck() -> None:
    cluster, events = Cluster(), list[Event]()

    def fails() -> None:
        if cluster.calls == 2:  # the question
            raise StreamsError("no offsets")

    cluster.fails = fails
    assert is_done(grow(cluster, 6, events), 6)
    assert [event.why for event in events if isinstance(event, NoAnswer)] == [
        "whether partitions are stuck is not known: no offsets"
    ]


def test_partitions_that_become_stuck_later_are_waited_for() -> None:
    cluster = Cluster(kill_at=9)
    with pytest.raises(Killed):
        grow(cluster)
    cluster.stuck_ones = {1: "it has no leader"}
    assert is_done(grow(cluster), 6)


def test_a_flow_without_a_growth_topic_is_refused_with_the_command_that_helps() -> None:
    cluster = Cluster()
    del cluster.counts[GPS.growth]
    with pytest.raises(GrowthRefused, match=r"gps\.positions\.v1\.growth: no such topic; create with `streams topics"):
        grow(cluster)


def test_a_source_that_was_grown_by_hand_is_finished() -> None:
    cluster, events = Cluster(), list[Event]()
    cluster.counts[GPS.source] = 6
    found = grow(cluster, 6, events)
    plan = events[0]
    assert isinstance(plan, GrowthPlan)
    assert plan.is_by_hand
    assert is_done(found, 6)
    other = Cluster()
    other.counts[GPS.source] = 7
    with pytest.raises(GrowthRefused, match="has 7 partitions, which is neither 3 nor 6"):
        grow(other, 6)


def test_a_flow_that_reads_an_output_is_known_by_its_journal_also_when_it_is_not_declared() -> None:
    cluster = Cluster()
    cluster.counts[f"{GPS.clean}.journal"] = 3
    with pytest.raises(GrowthRefused, match=rf"reads {GPS.clean} with 3 partitions: grow it first"):
        grow(cluster)
    cluster.counts |= {f"{GPS.clean}.journal": 6, GPS.clean: 6}
    assert is_done(grow(cluster), 6)


def test_a_growth_that_waits_for_long_says_so_less_and_less_often_and_why_as_far_as_it_knows() -> None:
    cluster, events = Cluster(works=False, stuck_ones={}), list[Event]()

    def pause(seconds: float) -> None:
        cluster.now_s += seconds
        cluster.stuck_ones = {0: "no worker has it"} if cluster.now_s > 20 else {}
        cluster.works = cluster.now_s > 100
        cluster.second(0)

    def tell(event: Event, _found: Found | None) -> None:
        events.append(event)

    GrowthRun(Port(cluster), 6, tell, pause, lambda: cluster.now_s).run()
    stills = [event for event in events if isinstance(event, StandsStill)]
    assert [(event.seconds, event.stuck) for event in stills] == [
        (15, {}), (30, {0: "no worker has it"}), (60, {0: "no worker has it"}),
    ]  # fmt: skip


# --- giving up ------------------------------------------------------------------------------------------------------


def stopped_at(phase: Phase) -> Cluster:
    """A growth of which the command ended after it had written this phase."""
    for kill_at in range(1, 100):
        cluster = Cluster(kill_at=kill_at, kill_after=True)
        with pytest.raises(Killed):
            grow(cluster)
        if cluster.log and map_records(cluster)[-1].phase is phase:
            cluster.kill_at = None
            return cluster
    raise AssertionError(phase)


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.ANNOUNCED])
def test_a_growth_is_given_up_before_it_has_begun_and_may_be_done_later(phase: Phase) -> None:
    cluster = stopped_at(phase)
    assert give_up(Port(cluster), GPS).after.partitions == 6
    assert cluster.found().newest is None
    with pytest.raises(GrowthRefused, match="gps does not grow"):
        give_up(Port(cluster), GPS)
    assert is_done(grow(cluster), 6)


def test_a_growth_is_not_given_up_once_a_topic_with_state_has_its_partitions() -> None:
    cluster = stopped_at(Phase.ANNOUNCED)
    cluster.counts[GPS.clean] = 6
    cluster.counts[GPS.journal] = 6
    with pytest.raises(GrowthRefused, match=r"gps\.positions\.v1\.journal has its new partitions already"):
        give_up(Port(cluster), GPS)
    cluster.counts[GPS.journal] = 3
    assert give_up(Port(cluster), GPS).after.partitions == 6
    assert cluster.found().layout.partitions == 3


def test_a_growth_that_has_begun_is_not_given_up() -> None:
    cluster = stopped_at(Phase.BEGUN)
    with pytest.raises(GrowthRefused, match=r"has begun.*`streams topics grow gps\.positions\.v1 --partitions 6`"):
        give_up(Port(cluster), GPS)
    assert cluster.found().newest is not None


# --- how far it is --------------------------------------------------------------------------------------------------


def test_how_far_a_growth_is_at_each_of_its_steps() -> None:
    cluster = Cluster()
    assert status_of(cluster.found()) is None
    seen: list[tuple[str, int, int, int, int, int]] = []

    def tell(_event: Event, found: Found | None) -> None:
        status = None if found is None else status_of(found)
        if status is not None:
            assert not status.problem
            row = (status.step, status.ready, status.cut, status.adopted, status.cleared, status.settled)
            if row not in seen:
                seen.append(row)

    GrowthRun(Port(cluster), 6, tell, cluster.second, lambda: cluster.now_s).run()
    assert seen[:5] == [
        ("ready", 0, 0, 0, 0, 0), ("ready", 1, 0, 0, 0, 0), ("ready", 2, 0, 0, 0, 0), (COMMAND, 3, 0, 0, 0, 0),
        ("cut", 3, 0, 0, 0, 0),
    ]  # fmt: skip
    assert ("adopted", 3, 3, 2, 0, 0) in seen
    assert seen[-1] == (OVER, 3, 3, 3, 3, 3)


def test_a_growth_that_cannot_go_on_says_why() -> None:
    cluster = stopped_at(Phase.ANNOUNCED)
    cluster.counts[GPS.clean] = 5
    status = status_of(cluster.found())
    assert status is not None
    assert status.step == COMMAND
    assert "has 5 partitions, which is neither 3 nor 6" in status.problem


# --- which flow ------------------------------------------------------------------------------------------------------


def test_the_flow_is_named_by_its_source_with_the_prefix_or_without() -> None:
    blue = GPS.with_prefix("blue.")
    assert flow_of_topic([blue], "gps.positions.v1", "blue.") is blue
    assert flow_of_topic([blue], "blue.gps.positions.v1", "blue.") is blue
    with pytest.raises(GrowthRefused, match=r"is written by flow gps, and grows with its source: gps\.positions\.v1"):
        flow_of_topic([GPS], GPS.clean)
    with pytest.raises(
        GrowthRefused, match=r"no declared flow has the source 'gps': there is gps\.positions\.v1"
    ) as no:
        flow_of_topic([GPS], "gps")
    assert no.value.exit_status == 2


def test_the_topics_of_all_inputs_get_partitions_the_source_last() -> None:
    merged = replace(
        GPS, further_inputs=(Input("orders", "orders", "event_id", "device_id", "event_time", "sequence"),)
    )
    names = [*(topic.name for topic in merged.topics()), *merged.forwarded_topics]
    plan = Found(merged, [], {**dict.fromkeys(names, 3), GPS.growth: 1}, {}).plan(6)
    assert [one.topic for one in plan.additions][-4:] == [*merged.forwarded_topics, "orders", GPS.source]
    with pytest.raises(GrowthRefused, match=r"gps\.positions\.v1\.forwarded\.orders: no such topic"):
        Found(merged, [], {**dict.fromkeys(NAMES, 3), GPS.growth: 1}, {}).plan(6)
