"""Grows a flow: looks, does the next step, and looks again. It keeps no state that another process would need."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from streams.errors import FencedError, StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.grow.found import Found
from streams.growth.control import AddPartitions, Await, Over, Step, Write, may_be_abandoned
from streams.growth.layout import Growth
from streams.growth.plan import Addition, GrowthPlan, GrowthRefused, Kind
from streams.growth.record import GrowthRecord

STILL_S: Final = 15.0
"""Report a lack of change after this time, and then each time after twice as long."""
STUCK_S: Final = 15.0
"""A partition with records waiting whose offset does not move for so long is not processed."""
STUCK_BRIEF_S: Final = 3.0
"""The same while the command waits, and shall not miss that there is something to do."""
LOOK_S: Final = 1.0
"""Between two looks while something is waited for."""
LOOK_CUT_S: Final = 0.2
"""The same while keys wait for the command."""
BROKER_AWAY_S_MAX: Final = 900.0
"""How long brokers may give no answer before the command ends; the growth goes on with the next one."""


class GrowthPort(Protocol):
    """A cluster; `streams.grow.admin.GrowthAdmin` is the one over Kafka. Raises StreamsError for what may pass."""

    def look(self) -> Found:
        """Return the flow as it stands now."""

    def stuck(self, partitions: int, patience_s: float) -> Mapping[int, str]:
        """Those of the first `partitions` of the source that are not processed for `patience_s`, and why."""

    def open(self) -> None:
        """Become the only command that grows the flow."""

    def write(self, record: GrowthRecord) -> None:
        """Write the growth's record."""

    def give_up(self, growth: Growth) -> None:
        """Take the growth's record back."""

    def add(self, addition: Addition) -> None:
        """Give one topic its partitions."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Brokers do not answer, or refuse a step; it is tried again, or is not needed."""

    why: str
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class StandsStill:
    """What is waited for has not changed for a while."""

    step: Await
    seconds: int
    stuck: Mapping[int, str]
    """Those of its partitions that are not processed, and why."""


Event = GrowthPlan | Step | NoAnswer | StandsStill
"""Events of a growth: its plan once, each step before it is made, what it waits for whenever that changes."""
Tell = Callable[[Event, Found | None], None]


class GrowthRun:
    """One growth to its end. `pause` waits seconds, `clock` is monotonic seconds."""

    def __init__(
        self, port: GrowthPort, partitions: int, tell: Tell, pause: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._port, self._partitions, self._tell, self._pause, self._clock = port, partitions, tell, pause, clock
        self._told: Event | None = None
        self._away_since_s: float | None = None
        self._told_at_s = 0.0
        self._still_s = STILL_S
        self._stuck: Mapping[int, str] | None = None
        """None: not asked; it is asked once, by the command that begins a growth."""

    def run(self) -> Found:
        """Do everything that is left of it; returns the flow at its end.

        Raises:
            GrowthRefused: it cannot be done, or not now.
            FencedError: another command goes on with it.
            StreamsError: brokers did not answer for `BROKER_AWAY_S_MAX`; or at the very first look.

        """
        found = self._port.look()
        if is_done(found, self._partitions):
            return found
        self._judged(found)
        self._port.open()
        while True:
            try:
                found = self._port.look()
                if is_done(found, self._partitions):
                    self._say(Over(), found)
                    return found
                plan = self._judged(found)
                step = found.step(plan)
                self._say(step, found)
                self._do(plan, step, found)
            except (UsageError, GrowthRefused, FencedError):
                raise
            except StreamsError as error:
                self._away(error)
            else:
                self._away_since_s = None

    def _judged(self, found: Found) -> GrowthPlan:
        """The plan, if nothing prevents it; whether partitions are stuck is checked before a growth begins."""
        plan = found.plan(self._partitions, self._stuck)
        if self._stuck is None:
            self._tell(plan, found)
            self._stuck = {} if plan.is_resumed else self._stuck_before(plan.growth.before.partitions)
            if self._stuck:
                found.plan(self._partitions, self._stuck)
        return plan

    def _stuck_before(self, partitions: int) -> Mapping[int, str]:
        """Stuck partitions; empty if unknown: a stuck one does not report ready, and is waited for."""
        try:
            return self._port.stuck(partitions, STUCK_S)
        except StreamsError as error:
            self._say(NoAnswer(f"whether partitions are stuck is not known: {error}", goes_on=True), None)
            return {}

    def _do(self, plan: GrowthPlan, step: Step, found: Found) -> None:
        if isinstance(step, Write):
            self._port.write(GrowthRecord(plan.growth, step.phase))
        elif isinstance(step, AddPartitions):
            self._port.add(step.additions[0])  # one at a time: what there is by then is looked at before the next
        elif isinstance(step, Await):
            self._say_still(step, found)
            self._pause(LOOK_CUT_S if step.what == "cut" else LOOK_S)

    def _say_still(self, step: Await, found: Found) -> None:
        still_s = self._clock() - self._told_at_s
        if still_s < self._still_s or step.what == "settled":  # it takes minutes, and reports that
            return
        self._still_s *= 2
        stuck: Mapping[int, str] = {}
        if step.what in {"ready", "cut"}:
            with contextlib.suppress(StreamsError):  # then less is said
                stuck = self._port.stuck(found.counts.get(found.flow.source, 0), STUCK_BRIEF_S)
        concerned = {one: why for one, why in stuck.items() if one in step.partitions}
        self._tell(StandsStill(step, int(still_s), concerned), found)

    def _say(self, event: Event, found: Found | None) -> None:
        if event != self._told:
            self._told, self._told_at_s, self._still_s = event, self._clock(), STILL_S
            self._tell(event, found)

    def _away(self, error: StreamsError) -> None:
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s = now_s
        if now_s - self._away_since_s > BROKER_AWAY_S_MAX:
            raise StreamsError(f"{error}; run the same command again, it goes on where this one has ended")
        self._say(NoAnswer(str(error)), None)
        self._pause(LOOK_S)
        try:
            self._port.open()
        except FencedError:
            raise
        except StreamsError as again:
            self._say(NoAnswer(str(again)), None)


def is_done(found: Found, partitions: int) -> bool:
    """Whether the newest growth has led to as many partitions, and is over."""
    newest = found.newest
    return newest is not None and newest.growth.after.partitions == partitions and found.is_over


def give_up(port: GrowthPort, flow: Pipeline) -> Growth:
    """Give the growth of a flow up, as long as no topic with state has got partitions; returns it.

    Outputs that have got theirs keep them. Beyond that it is not given up: a worker takes it from the topics with
    state by how many partitions a flow is divided that was never grown.

    Raises:
        GrowthRefused: there is none, or it has gone too far.
        FencedError: a command that was started after this one goes on with it.
        StreamsError: no answer; nothing was changed.

    """
    port.open()
    found = port.look()
    newest = found.newest
    if newest is None or found.is_over:
        raise GrowthRefused(f"{flow.name} does not grow: there is nothing to give up")
    if not may_be_abandoned(newest.phase):
        raise GrowthRefused(
            f"the growth of {flow.name} to {newest.growth.after.partitions} has begun: keys have left their "
            f"partitions, and it can only be finished, with `streams topics grow {flow.source} --partitions "
            f"{newest.growth.after.partitions}`"
        )
    before = newest.growth.before.partitions
    if has_more := [one.name for one in found.topics if one.kind is Kind.STATE and one.partitions > before]:
        raise GrowthRefused(
            f"{', '.join(has_more)} has its new partitions already, and Kafka cannot take them away. The flow goes on "
            f"as before until the growth is begun: finish it with `streams topics grow {flow.source} --partitions "
            f"{newest.growth.after.partitions}`"
        )
    port.give_up(newest.growth)
    return newest.growth
