"""`streams lag`: verdicts on the lag of consumer groups."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from streams.acls.rights import Operation, Right, on_topic
from streams.cli.output import Format, FormatOption, echo_json, echo_line, printable
from streams.errors import FoundSomething, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.acls import in_words, lacking
from streams.kafka.admin import wait_for_broker
from streams.logs import configure_logging
from streams.monitor.group_lag import GroupLag
from streams.monitor.missing import ADVICE
from streams.monitor.observe import LagReport, observed_lag, watched_lag
from streams.monitor.report import catch_up_words, instant, partition_row, worst_first
from streams.monitor.words import duration
from streams.settings import Settings, load_settings
from streams.text import counted

ROWS_MAX: Final = 40
"""Partitions of a group that text shows; the rest is counted."""


def lag(
    group: Annotated[
        list[str] | None, typer.Option("--group", help="Consumer group; repeatable. Default: all groups.")
    ] = None,
    observe: Annotated[
        float,
        typer.Option(
            "--for", min=0, max=600, help="Seconds to watch before judging: it takes time to see whether lag falls."
        ),
    ] = 5.0,
    interval: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C; JSON: one document a line.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Verdict on every consumer group and partition: its lag, since when, why, and what to do.

    Missing topics of a flow in use, for example deleted ones, are reported, too.

    Exit status: 0 all is OK; 100 a verdict is worse than OK, a group that was asked for is not there, or a topic is
    missing.
    """
    if any(not name for name in group or ()):
        raise UsageError("--group is empty")
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.CRITICAL)  # what fails is said in one line
    flows = select_pipelines(None, prefix=settings.streams_topic_prefix)
    if lacks := lacking(wait_for_broker(settings), _looked_at(flows)):
        echo_line(f"streams: this is not all: {in_words(lacks)}", err=True)
    wanted = tuple(dict.fromkeys(group or ()))
    if watch:
        _watch(settings, wanted, interval, output)
        return
    with _waiting(observe):
        report = observed_lag(settings, wanted, observe_s=observe, interval_s=interval)
    _show(report, output)
    if report.not_ok or report.unknown or report.missing:
        raise FoundSomething(_summary(report))


def _looked_at(flows: Sequence[Pipeline]) -> Iterator[Right]:
    """Rights on topics that verdicts come from."""
    for flow in flows:
        yield on_topic(flow.source, Operation.READ)
        yield from (on_topic(topic.name, Operation.DESCRIBE) for topic in flow.topics())


def _summary(report: LagReport) -> str:
    parts = []
    if report.not_ok:
        parts.append(f"not OK: {', '.join(map(printable, report.not_ok))}")
    if report.unknown:
        names = ", ".join(map(printable, report.unknown))
        parts.append(f"no such consumer group, or it has committed nothing: {names}")
    if report.missing:
        parts.append(f"missing: {', '.join(one.topic for one in report.missing)}")
    return "; ".join(parts)


@contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return

    with Console(stderr=True).status(f"watching for {seconds:g} s"):
        yield


def _watch(settings: Settings, wanted: tuple[str, ...], interval_s: float, output: Format) -> None:
    with _shower(output) as show, closing(watched_lag(settings, wanted, interval_s=interval_s)) as reports:
        for report in reports:
            if isinstance(report, LagReport):
                show(report)
            else:
                echo_line(f"streams: {report}; trying again", err=True)


@contextmanager
def _shower(output: Format) -> Iterator[Callable[[LagReport], None]]:
    if output is Format.JSON:
        yield lambda report: echo_json(report.as_dict(), indent=None)
        return
    if not sys.stdout.isatty():
        yield lambda report: _show(report, output)
        return
    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        yield lambda report: live.update(
            Text("\n".join(map(printable, _lines(report))), no_wrap=True, overflow="ellipsis"), refresh=True
        )


def _show(report: LagReport, output: Format) -> None:
    if output is Format.JSON:
        echo_json(report.as_dict())
        return
    for line in _lines(report):
        echo_line(line)


def _lines(report: LagReport) -> list[str]:
    lines = [f"{instant(report.time_ms)}  {counted(len(report.groups), 'consumer group')}"]
    for group in report.worst_first:
        lines += ["", *_group_lines(group)]
    if report.unknown:
        lines += ["", *(f"{name}  NOTFOUND  no such group, or it has committed nothing" for name in report.unknown)]
    if report.missing:
        lines += ["", *(f"{one.topic}  MISSING  ({one.group}) {one.why}" for one in report.missing), f"  -> {ADVICE}"]
    return lines


def _group_lines(group: GroupLag) -> list[str]:
    members = "" if group.group.members is None else f", {counted(len(group.group.members), 'member')}"
    head = f"{group.name}  {group.status.name}  {counted(group.lag_sum, 'record')}, {duration(group.lag_s_max)} behind"
    after = catch_up_words(group)
    lines = [f"{head}{members}{f', {after}' if after else ''}"]
    rows = [partition_row(group, row) for row in worst_first(group)]
    shown = rows[:ROWS_MAX]
    width = max(len(f"{row['topic']}-{row['partition']}") for row in shown)
    for row in shown:
        place = f"{row['topic']}-{row['partition']}"
        behind = duration(row["lag_seconds"] or 0.0)
        lines.append(f"  {row['status']:<8} {place:<{width}}  {row['lag']:>10,}  {behind:>7}  {row['why']}")
        if row["advice"]:
            lines.append(f"  {'':<8} {'':<{width}}  {'':>10}  {'':>7}  -> {row['advice']}")
    if len(rows) > len(shown):
        lines.append(f"  and {counted(len(rows) - len(shown), 'partition')} no worse than these")
    return lines
