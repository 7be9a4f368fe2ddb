"""A growth in words and as rows of JSON: output of the command and of the page. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from streams.grow.found import COMMAND, Found, GrowthStatus
from streams.grow.run import Event, NoAnswer, StandsStill
from streams.growth.control import AddPartitions, Await, Over, Write
from streams.growth.layout import Growth
from streams.growth.plan import GrowthPlan, Kind, named
from streams.growth.stages import Phase
from streams.limits import GROWTH_QUIET_MS
from streams.text import counted

LINES_MAX: Final = 16
"""Parents that text shows one by one."""
PHASES: Final = {
    Phase.PLANNED: "planned: the tasks of all partitions are asked whether they are ready",
    Phase.ANNOUNCED: "all are ready: all topics but the source get their partitions",
    Phase.BEGUN: "begun: partitions give keys away; from here on the growth can only be finished",
}
WAITS: Final = {
    "ready": "to be ready",
    "cut": "to give their keys away",
    "adopted": "to take over the state of their keys",
    "cleared": "to delete the rows of their keys from where these were before",
    "settled": "to go by their own time again: this takes "
    f"{GROWTH_QUIET_MS // 60_000} minutes without a record by the old number of partitions",
}
_ADVICE: Final = {
    "ready": "a worker of an earlier version does not say so: upgrade all; /readyz of a worker says what it waits for",
    "cut": "/readyz of the workers says what they wait for; keys that move wait until then",
    "adopted": "/readyz of the workers says what the new partitions wait for",
    "cleared": "the workers of these partitions do it with their next commits",
}


def event_lines(event: Event, found: Found | None) -> list[str]:
    """Lines of text about an event."""
    lines: list[str] = []
    if isinstance(event, GrowthPlan):
        lines = plan_lines(event)
    elif isinstance(event, Write):
        lines = [PHASES[event.phase]]
    elif isinstance(event, AddPartitions):
        first = event.additions[0]
        lines = [f"adding partitions to {first.topic}: {first.before} to {first.after}"]
        if first.kind is Kind.SOURCE:
            lines.append("once this is done nothing waits for this command: stopped and started again, it goes on")
    elif isinstance(event, Await):
        lines = [f"waiting for {named(event.partitions)} {WAITS[event.what]}"]
    elif isinstance(event, StandsStill):
        lines = _still_lines(event)
    elif isinstance(event, NoAnswer):
        lines = [f"{event.why}; {'going on' if event.goes_on else 'trying again'}"]
    elif isinstance(event, Over) and found is not None:
        lines = over_lines(found)
    return lines


def over_lines(found: Found) -> list[str]:
    """Lines that a flow has its partitions and nothing is left to do."""
    return [f"{found.flow.name} has {counted(found.layout.partitions, 'partition')}: its growth is over"]


def plan_lines(plan: GrowthPlan) -> list[str]:
    """Lines about what a growth will do."""
    growth = plan.growth
    verb = "goes on growing" if plan.is_resumed else "grows"
    lines = [f"{plan.flow} {verb} from {growth.before.partitions} to {growth.after.partitions} partitions"]
    if plan.is_by_hand:
        lines.append(
            "somebody has given the source its partitions already: more events may be late than without that, and no "
            "order is broken"
        )
    lines += [f"  {one}" for one in family_lines(growth)]
    if plan.additions:
        width = max(len(one.topic) for one in plan.additions)
        lines.append("topics get partitions in this order:")
        lines += [f"  {one.topic:<{width}}  {one.before} to {one.after}" for one in plan.additions]
    return lines


def family_lines(growth: Growth) -> list[str]:
    """Lines about which partitions take keys over from which."""
    shown = list(growth.parents)[:LINES_MAX]
    lines = [f"keys of partition {one} go to {named(growth.children_of(one))}, or stay" for one in shown]
    if len(growth.parents) > len(shown):
        lines.append(f"and so on, of {counted(len(growth.parents) - len(shown), 'more partition')}")
    return lines


def status_lines(status: GrowthStatus) -> list[str]:
    """Lines about the progress of a growth."""
    growth = status.record.growth
    head = f"{status.flow} {{}} from {growth.before.partitions} to {growth.after.partitions} partitions"
    if status.is_over:
        return [f"{head.format('has grown')}: the growth is over"]
    lines = [f"{head.format('grows')}: {status.record.phase.value}; {waiting_words(status)}"]
    lines += [f"  {name:<8} {done:>6} of {of}" for name, (done, of) in status.steps.items()]
    return lines


def waiting_words(status: GrowthStatus) -> str:
    """What a growth that is not over waits for."""
    if status.problem:
        return f"it cannot go on: {status.problem}"
    if status.step == COMMAND:
        command = f"streams topics grow {status.topic} --partitions {status.record.growth.after.partitions}"
        return f"its next step is made by `{command}`"
    return f"waiting for {named(status.waits_for)} {WAITS[status.step]}"


def status_row(status: GrowthStatus) -> dict[str, Any]:
    """Return the status as a JSON object."""
    growth = status.record.growth
    return {
        "pipeline": status.flow,
        "topic": status.topic,
        "epoch": growth.epoch,
        "before": growth.before.partitions,
        "after": growth.after.partitions,
        "phase": status.record.phase.value,
        "phase_at_ms": status.record.at_ms,
        "step": status.step,
        "waits_for": list(status.waits_for),
        "partitions": {name: {"done": done, "of": of} for name, (done, of) in status.steps.items()},
        "over": status.is_over,
        "problem": status.problem or None,
    }


def plan_row(plan: GrowthPlan) -> dict[str, Any]:
    """A plan as JSON."""
    growth = plan.growth
    return {
        "pipeline": plan.flow,
        "epoch": growth.epoch,
        "before": growth.before.partitions,
        "after": growth.after.partitions,
        "resumed": plan.is_resumed,
        "by_hand": plan.is_by_hand,
        "children": {str(one): list(growth.children_of(one)) for one in growth.parents},
        "topics": [_addition_row(one.topic, one.before, one.after) for one in plan.additions],
    }


def _addition_row(topic: str, before: int, after: int) -> Mapping[str, Any]:
    return {"topic": topic, "before": before, "after": after}


def _still_lines(event: StandsStill) -> list[str]:
    if event.stuck:
        return [f"partition {one} is not processed: {why}" for one, why in sorted(event.stuck.items())]
    return [f"nothing has changed for {event.seconds} s: {_ADVICE[event.step.what]}"]
