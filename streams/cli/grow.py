"""`streams topics grow`: more partitions for a flow, in place."""

import logging
import time
from typing import Annotated

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, UsageError
from streams.flow.discover import select_pipelines
from streams.grow.admin import GrowthAdmin
from streams.grow.found import Found, GrowthStatus, flow_of_topic, status_of
from streams.grow.run import STUCK_S, Event, GrowthRun, give_up, is_done
from streams.grow.words import event_lines, over_lines, plan_lines, plan_row, status_lines, status_row
from streams.growth.plan import PARTITIONS_MAX
from streams.kafka.admin import wait_for_broker
from streams.logs import configure_logging
from streams.settings import load_settings


def grow_command(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Source topic of the flow.")],
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions", min=1, max=PARTITIONS_MAX, help="New number of partitions: a multiple of the current one."
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")] = False,
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="Change nothing; print the progress of the growth (exit status 100: not finished)."
        ),
    ] = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="Give up a growth that has not begun. Partitions that were added stay."),
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Give the topics of a flow more partitions while it runs: state and order of each key are kept.

    Every topic of the flow gets them, the source last. It may be stopped at any time; run it again to continue.
    Progress goes to standard error where the result is JSON.

    Exit status: 0 done; 1 refused, or brokers do not answer; 2 no such source, or a number that cannot be; 3 another
    one of these commands was started.
    """
    if dry_run + status + abandon > 1:
        raise UsageError("one of --dry-run, --status and --abandon, not several")
    if partitions is None and not status and not abandon:
        raise UsageError("--partitions is missing: the new number")
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    flows = select_pipelines(None, prefix=settings.streams_topic_prefix)
    flow = flow_of_topic(flows, topic, settings.streams_topic_prefix)
    wait_for_broker(settings)
    with GrowthAdmin(settings, flow, flows) as admin:
        if status:
            _show_status(status_of(admin.look()), flow.name, output)
            return
        admin.require_rights()
        if abandon:
            given_up = give_up(admin, flow)
            if output is Format.JSON:
                echo_json({"pipeline": flow.name, "given_up": given_up.epoch})
            else:
                echo_line(f"{flow.name} stays at {given_up.before.partitions} partitions")
        elif dry_run:
            _show_plan(admin, partitions or 0, output)
        else:
            _grow(admin, partitions or 0, output)


def _grow(admin: GrowthAdmin, partitions: int, output: Format) -> None:
    def tell(event: Event, found: Found | None) -> None:
        for line in event_lines(event, found):
            echo_line(line, err=output is Format.JSON)

    was_done = is_done(admin.look(), partitions)
    found = GrowthRun(admin, partitions, tell, time.sleep, time.monotonic).run()
    if output is Format.JSON or was_done:  # else it has been told
        _show_over(found, output)


def _show_plan(admin: GrowthAdmin, partitions: int, output: Format) -> None:
    found = admin.look()
    if is_done(found, partitions):
        _show_over(found, output)
        return
    plan = found.plan(partitions)
    if not plan.is_resumed:
        plan = found.plan(partitions, admin.stuck(plan.growth.before.partitions, STUCK_S))
    if output is Format.JSON:
        echo_json(plan_row(plan))
        return
    for line in plan_lines(plan):
        echo_line(line)


def _show_over(found: Found, output: Format) -> None:
    status = status_of(found)
    if output is Format.JSON and status is not None:
        echo_json(status_row(status))
        return
    for line in over_lines(found):
        echo_line(line)


def _show_status(status: GrowthStatus | None, flow: str, output: Format) -> None:
    if status is None:
        if output is Format.JSON:
            echo_json({"pipeline": flow, "step": None, "over": True})
        else:
            echo_line(f"{flow} was never grown")
        return
    if output is Format.JSON:
        echo_json(status_row(status))
    else:
        for line in status_lines(status):
            echo_line(line)
    if not status.is_over:
        raise FoundSomething(f"{flow} grows" if output is Format.TEXT else "")
