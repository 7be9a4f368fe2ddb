"""`streams lag`."""

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line, printable
from streams.errors import FoundSomething, UsageError
from streams.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.kafka.round import Round
    from streams.monitor.book import GroupLag
    from streams.settings import Settings

ROWS_MAX: Final = 40
"""Partitions of a group that text shows; the rest is counted."""
WATCH_WINDOW_S: Final = 120.0


def lag(
    group: Annotated[
        list[str] | None, typer.Option("--group", help="Consumer group; repeatable. Default: all groups.")
    ] = None,
    observe: Annotated[
        float,
        typer.Option("--for", min=0, max=600, help="Seconds to watch before judging: whether lag falls takes time."),
    ] = 5.0,
    interval: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C; JSON: one document a line.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Verdict on every consumer group and partition: how far behind, since when, why, and what to do.

    Exit status: 0 all is OK; 100 a verdict is worse than OK, or a group that was asked for is not there.
    """
    from streams.kafka.admin import wait_for_broker  # noqa: PLC0415 - start-up time of the command line
    from streams.logs import configure_logging  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    if any(not name for name in group or ()):
        raise UsageError("--group is empty")
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.CRITICAL)  # what fails is said in one line
    wait_for_broker(settings)
    wanted = list(dict.fromkeys(group)) if group else None
    if watch:
        _watch(settings, wanted, interval, output)
        return
    found, groups = _observed(settings, wanted, observe, interval)
    _show(found, groups, wanted, output)
    bad = [one.name for one in groups.values() if one.status.name != "OK"]
    missing = [name for name in wanted or () if name not in groups]
    if bad or missing:
        raise FoundSomething(_summary(bad, missing))


def _summary(bad: list[str], missing: list[str]) -> str:
    parts = []
    if bad:
        parts.append(f"not OK: {', '.join(bad)}")
    if missing:
        parts.append(f"no such consumer group, or it has committed nothing: {', '.join(missing)}")
    return "; ".join(parts)


def _observed(
    settings: "Settings", wanted: list[str] | None, observe_s: float, interval_s: float
) -> "tuple[Round, dict[str, GroupLag]]":
    from streams.monitor.lookout import Lookout  # noqa: PLC0415 - start-up time of the command line

    window_s = max(observe_s, interval_s) + interval_s
    with Lookout(settings, window_s=window_s, interval_s=interval_s) as lookout, _waiting(observe_s):
        ends_s = math.inf
        while True:
            at_s = time.monotonic()
            found, groups = lookout.look(wanted)
            ends_s = min(ends_s, time.monotonic() + observe_s)  # the first look takes longer, and shows nothing move
            if time.monotonic() >= ends_s:
                return found, groups
            time.sleep(max(0.0, at_s + interval_s - time.monotonic()))


@contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time of the command line

    with Console(stderr=True).status(f"watching for {seconds:g} s"):
        yield


def _watch(settings: "Settings", wanted: list[str] | None, interval_s: float, output: Format) -> None:
    from streams.kafka.offsets_process import RoundFailed  # noqa: PLC0415 - start-up time of the command line
    from streams.monitor.lookout import Lookout  # noqa: PLC0415 - as above

    with Lookout(settings, window_s=WATCH_WINDOW_S, interval_s=interval_s) as lookout, _shower(output) as show:
        while True:
            at_s = time.monotonic()
            try:
                show(*lookout.look(wanted), wanted)
            except RoundFailed as error:
                echo_line(f"streams: {error}; trying again", err=True)
            time.sleep(max(0.2, at_s + interval_s - time.monotonic()))


@contextmanager
def _shower(output: Format) -> "Iterator[Callable[[Round, dict[str, GroupLag], list[str] | None], None]]":
    if output is Format.JSON:
        yield lambda found, groups, wanted: echo_json(_document(found, groups, wanted), indent=None)
        return
    if not sys.stdout.isatty():
        yield lambda found, groups, wanted: _show(found, groups, wanted, output)
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time of the command line
    from rich.live import Live  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        yield lambda found, groups, wanted: live.update(
            Text("\n".join(map(printable, _lines(found, groups, wanted))), no_wrap=True, overflow="ellipsis"),
            refresh=True,
        )


def _show(found: "Round", groups: "dict[str, GroupLag]", wanted: list[str] | None, output: Format) -> None:
    if output is Format.JSON:
        echo_json(_document(found, groups, wanted))
        return
    for line in _lines(found, groups, wanted):
        echo_line(line)


def _document(found: "Round", groups: "dict[str, GroupLag]", wanted: list[str] | None) -> dict[str, Any]:
    from streams.monitor.report import group_row, instant  # noqa: PLC0415 - start-up time of the command line
    from streams.monitor.status import Status  # noqa: PLC0415 - as above

    rows = [group_row(one) for one in groups.values()]
    rows += [
        {"group": name, "status": Status.NOTFOUND.name, "partitions": []} for name in wanted or () if name not in groups
    ]
    return {"cluster": found.cluster, "time": instant(found.time_ms), "groups": rows}


def _lines(found: "Round", groups: "dict[str, GroupLag]", wanted: list[str] | None) -> list[str]:
    from streams.monitor.report import instant  # noqa: PLC0415 - start-up time of the command line

    lines = [f"{instant(found.time_ms)}  {counted(len(groups), 'consumer group')}"]
    for one in sorted(groups.values(), key=lambda one: (-one.status, one.name)):
        lines += ["", *_group_lines(one)]
    missing = [name for name in wanted or () if name not in groups]
    if missing:
        lines += ["", *(f"{name}  NOTFOUND  no such group, or it has committed nothing" for name in missing)]
    return lines


def _group_lines(group: "GroupLag") -> list[str]:
    from streams.monitor.report import catch_up_words, partition_row, worst_first  # noqa: PLC0415 - as above
    from streams.monitor.words import duration  # noqa: PLC0415 - as above

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
