"""`streams lag`."""

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line, printable
from streams.errors import FoundSomething, UsageError
from streams.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.kafka.round import Round
    from streams.monitor.book import GroupLag
    from streams.monitor.missing import MissingTopic
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

    Topics that are missing of a flow in use, deleted for example, are named, too.

    Exit status: 0 all is OK; 100 a verdict is worse than OK, a group that was asked for is not there, or a topic is
    missing.
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
    look = _observed(settings, wanted, observe, interval)
    _show(look, output)
    bad = [one.name for one in look.groups.values() if one.status.name != "OK"]
    if bad or look.unknown or look.missing:
        raise FoundSomething(_summary(bad, look))


@dataclass(frozen=True, slots=True)
class _Look:
    """What is shown of one look."""

    round: "Round"
    groups: "dict[str, GroupLag]"
    unknown: list[str]
    """Groups that were asked for and are not there."""
    missing: "tuple[MissingTopic, ...]"
    """Topics that are missing of the flows that were asked for."""


class _Looker:
    """Looks at the groups that were asked for (None: all)."""

    def __init__(self, settings: "Settings", wanted: list[str] | None, *, window_s: float, interval_s: float) -> None:
        from streams.monitor.lookout import Lookout  # noqa: PLC0415 - start-up time of the command line
        from streams.pipelines import select_pipelines  # noqa: PLC0415 - as above

        declared = select_pipelines(None, prefix=settings.streams_topic_prefix)
        self._wanted = wanted
        self._pipelines = [one for one in declared if wanted is None or one.group in wanted]
        self._lookout = Lookout(settings, window_s=window_s, interval_s=interval_s, pipelines=self._pipelines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lookout.close()

    def look(self) -> _Look:
        """Take a round and judge."""
        from streams.monitor.missing import missing_topics  # noqa: PLC0415 - start-up time of the command line

        found, groups = self._lookout.look(self._wanted)
        unknown = [name for name in self._wanted or () if name not in groups]
        return _Look(found, groups, unknown, missing_topics(found.base.keys(), self._pipelines))


def _summary(bad: list[str], look: _Look) -> str:
    parts = []
    if bad:
        parts.append(f"not OK: {', '.join(map(printable, bad))}")
    if look.unknown:
        parts.append(f"no such consumer group, or it has committed nothing: {', '.join(map(printable, look.unknown))}")
    if look.missing:
        parts.append(f"missing: {', '.join(one.topic for one in look.missing)}")
    return "; ".join(parts)


def _observed(settings: "Settings", wanted: list[str] | None, observe_s: float, interval_s: float) -> _Look:
    window_s = max(observe_s, interval_s) + interval_s
    with _Looker(settings, wanted, window_s=window_s, interval_s=interval_s) as looker, _waiting(observe_s):
        ends_s = math.inf
        while True:
            at_s = time.monotonic()
            found = looker.look()
            ends_s = min(ends_s, time.monotonic() + observe_s)  # the first look takes longer, and shows nothing move
            if time.monotonic() >= ends_s:
                return found
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

    looker = _Looker(settings, wanted, window_s=WATCH_WINDOW_S, interval_s=interval_s)
    with looker, _shower(output) as show:
        while True:
            at_s = time.monotonic()
            try:
                show(looker.look())
            except RoundFailed as error:
                echo_line(f"streams: {error}; trying again", err=True)
            time.sleep(max(0.2, at_s + interval_s - time.monotonic()))


@contextmanager
def _shower(output: Format) -> "Iterator[Callable[[_Look], None]]":
    if output is Format.JSON:
        yield lambda look: echo_json(_document(look), indent=None)
        return
    if not sys.stdout.isatty():
        yield lambda look: _show(look, output)
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time of the command line
    from rich.live import Live  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    with Live(console=Console(), auto_refresh=False, screen=True) as live:
        yield lambda look: live.update(
            Text("\n".join(map(printable, _lines(look))), no_wrap=True, overflow="ellipsis"),
            refresh=True,
        )


def _show(look: _Look, output: Format) -> None:
    if output is Format.JSON:
        echo_json(_document(look))
        return
    for line in _lines(look):
        echo_line(line)


def _document(look: _Look) -> dict[str, Any]:
    from streams.monitor.report import group_row, instant, missing_row  # noqa: PLC0415 - start-up time of the command line
    from streams.monitor.status import Status  # noqa: PLC0415 - as above

    rows = [group_row(one) for one in look.groups.values()]
    rows += [{"group": name, "status": Status.NOTFOUND.name, "partitions": []} for name in look.unknown]
    return {
        "cluster": look.round.cluster,
        "time": instant(look.round.time_ms),
        "groups": rows,
        "missing_topics": [missing_row(one) for one in look.missing],
    }


def _lines(look: _Look) -> list[str]:
    from streams.monitor.missing import ADVICE  # noqa: PLC0415 - start-up time of the command line
    from streams.monitor.report import instant  # noqa: PLC0415 - as above

    lines = [f"{instant(look.round.time_ms)}  {counted(len(look.groups), 'consumer group')}"]
    for one in sorted(look.groups.values(), key=lambda one: (-one.status, one.name)):
        lines += ["", *_group_lines(one)]
    if look.unknown:
        lines += ["", *(f"{name}  NOTFOUND  no such group, or it has committed nothing" for name in look.unknown)]
    if look.missing:
        lines += ["", *(f"{one.topic}  MISSING  ({one.group}) {one.why}" for one in look.missing), f"  -> {ADVICE}"]
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
