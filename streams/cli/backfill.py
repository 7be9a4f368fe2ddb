"""`streams backfill`: runs history through a flow, into a version of its own."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from streams.backfill.abandon import abandon as abandon_version
from streams.backfill.abandon import to_delete, topics_of
from streams.backfill.make import Made, VersionMaker, called
from streams.backfill.progress import Progress
from streams.backfill.request import NOW, Request, parsed_time
from streams.backfill.running import Tell, data_dir_of
from streams.backfill.switch import Switch, Switched, roll_back, take_back
from streams.backfill.words import (
    left_behind,
    outcomes_line,
    progress_line,
    switched_lines,
    switched_row,
    version_lines,
    version_row,
)
from streams.cli.app import AppOption, use_app
from streams.cli.ingest import parsed_mapping
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.flow.version import checked_version
from streams.kafka.admin import wait_for_broker
from streams.kafka.versions_topic import versions_of
from streams.logs import configure_logging
from streams.schemas.personal import with_personal
from streams.settings import Settings, load_settings
from streams.versions.record import From

_NICE: Final = 10
"""Added to the niceness of this process: a live flow on the same machine has priority."""
_LINE_S: Final = 10.0
"""Interval between two lines of progress where standard error is no terminal."""


def backfill(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="With --source files: as of `streams ingest file`; delta: one table."),
    ] = None,
    *,
    flow: Annotated[str, typer.Option("--flow", help="Flow to run.")],
    into: Annotated[
        str | None, typer.Option("--into", metavar="VERSION", help="Version that its outputs go into, such as v2.")
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Begin with the first record of this time (ISO 8601, UTC without a zone) or later, by the records' "
            "timestamps. Default: the first record.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="End before the first record of this time, or `now`, and release all held events then. "
            "Default: end with the records that exist now and keep events held, so that the version can take over.",
        ),
    ] = None,
    origin: Annotated[From, typer.Option("--source", help="Where the history is read from.")] = From.TOPIC,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Fill a field from a column of another name; repeatable."),
    ] = None,
    share: Annotated[
        float, typer.Option("--share", min=0.01, max=1.0, help="Part of this machine's processors to use at most.")
    ] = 1.0,
    status: Annotated[
        bool, typer.Option("--status", help="Change nothing; print the versions (100: one is not finished).")
    ] = False,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Make the version current: it catches up, workers stop, and continue with it."),
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Return to the previous version, from where it stopped."),
    ] = False,
    abandon: Annotated[
        bool,
        typer.Option(
            "--abandon",
            help="Delete the version: its topics, its group, its local state. During a switch: cancel the switch.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before topics are deleted.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Local state of the backfill. Default: a folder in STREAMS_DATA_DIR."),
    ] = None,
    web_port: Annotated[
        int | None, typer.Option("--web-port", min=0, max=65535, help="Port of /metrics. Default: 6066 or next.")
    ] = None,
    app: AppOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run the history of a flow's source through the flow again, into a version of its outputs.

    A version has topics of its own (vehicles.state.v1.run.v2), a group, a journal and state of its own; the live flow
    goes on meanwhile. Event time follows the events only. The command may be stopped or killed at any time: run it
    again to continue; each event is processed exactly once.

    Exit status: 0 done; 1 stopped, refused, or brokers do not answer; 2 wrong usage; 3 another one of these commands
    was started.
    """
    use_app(app)
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    declared = _declared(flow, settings)
    if status + promote + rollback + abandon > 1:
        raise UsageError("one of --status, --promote, --rollback and --abandon, not several")
    if status:
        _show_status(settings, declared, into, output)
        return
    if rollback:
        _show_switched(declared, roll_back(settings, declared, _say), output)
        return
    if into is None:
        raise UsageError("--into is missing: the version that the outputs go into, such as v2")
    version = checked_version(into)
    own = _own_settings(settings, declared.as_version(version), data_dir)
    if abandon:
        _abandon(own, declared, version, output, is_sure=yes)
        return
    if promote:
        _promote(own, declared, version, output, share=share, web_port=web_port)
        return
    request = Request(
        version,
        origin,
        tuple(paths or ()),
        None if begin is None else parsed_time("--from", begin),
        None if end in {None, NOW} else parsed_time("--to", str(end)),
        parsed_mapping(mapping or []),
        is_closed=end is not None or origin is not From.TOPIC,
    )
    os.nice(_NICE)
    configure_logging(settings.streams_log_format, level=logging.WARNING, masks_values=bool(declared.personal))
    with closing(VersionMaker(own, declared, request, _say)) as maker, _progress(maker.flow) as tell:
        made = maker.run(share=share, web_port=web_port, tell=tell)
    _show_made(settings, declared, made, output)


def _promote(
    settings: Settings, declared: Pipeline, version: str, output: Format, *, share: float, web_port: int | None
) -> None:
    for line in left_behind(declared, select_pipelines(None, prefix=settings.streams_topic_prefix)):
        _say(line)
    configure_logging(settings.streams_log_format, level=logging.WARNING, masks_values=bool(declared.personal))
    flow = declared.as_version(version)
    with closing(Switch(settings, declared, version, _say)) as switch, _progress(flow) as tell:
        done = switch.run(share=share, web_port=web_port, tell=tell)
    _show_switched(declared, done, output)


def _abandon(settings: Settings, declared: Pipeline, version: str, output: Format, *, is_sure: bool) -> None:
    wait_for_broker(settings)
    if versions_of(settings, declared).current.going_to is not None:
        to = take_back(settings, declared)
        if output is Format.JSON:
            echo_json({"flow": declared.name, "taken_back": to})
        else:
            echo_line(f"the switch of {declared.name} to {called(to)} is taken back; workers go on")
        return
    topics = topics_of(declared, to_delete(settings, declared, version))
    if not is_sure:
        echo_line(f"All records of {', '.join(topics)} will be deleted.", err=True)
        typer.confirm("Go on?", abort=True, err=True)
    deleted = abandon_version(settings, declared, version)
    if output is Format.JSON:
        echo_json({"flow": declared.name, "version": version, "deleted": deleted})
    else:
        echo_line(f"version {version} of {declared.name} is deleted")


def _show_switched(declared: Pipeline, done: Switched, output: Format) -> None:
    if output is Format.JSON:
        echo_json(switched_row(declared, done.current, was_done=done.was_done, stopped_s=done.stopped_s))
        return
    for line in switched_lines(declared, done.current):
        echo_line(line)


def _declared(name: str, settings: Settings) -> Pipeline:
    *_, chosen = select_pipelines([name], prefix=settings.streams_topic_prefix)
    return with_personal([chosen])[0]


def _own_settings(settings: Settings, flow: Pipeline, data_dir: Path | None) -> Settings:
    return settings.model_copy(update={"streams_data_dir": data_dir or data_dir_of(settings, flow)})


def _say(text: str) -> None:
    echo_line(text, err=True)


def _show_made(settings: Settings, declared: Pipeline, made: Made, output: Format) -> None:
    ran, record = made.ran, made.record
    if ran is not None and not ran.is_over:
        raise StreamsError(
            f"{made.flow.name}: stopped at {ran.progress.part:.0%} of its range; the same command continues from there"
        )
    versions = versions_of(settings, declared)
    if output is Format.JSON:
        echo_json({**version_row(declared, record, versions), "run": _run_row(made)})
        return
    if ran is None:
        echo_line(f"{made.flow.name} was finished already")
    else:
        seconds = f"{ran.seconds:.1f} s, {ran.progress.per_s:,.0f} offsets/s"
        echo_line(f"{made.flow.name} is over: {outcomes_line(ran.outcomes) or 'no event'} in this run; {seconds}")
    for line in version_lines(declared, record, versions):
        echo_line(line)


def _run_row(made: Made) -> dict[str, Any] | None:
    ran = made.ran
    if ran is None:
        return None
    events = sum(ran.outcomes.values())
    return {
        "outcomes": dict(ran.outcomes),
        "seconds": round(ran.seconds, 3),
        "events_per_second": round(events / ran.seconds) if ran.seconds else 0,
    }


def _show_status(settings: Settings, declared: Pipeline, into: str | None, output: Format) -> None:
    wait_for_broker(settings)
    versions = versions_of(settings, declared)
    found = [one for one in versions.made.values() if into in {None, one.version}]
    if output is Format.JSON:
        current = versions.current
        echo_json({
            "flow": declared.name,
            "current": current.version,
            "switching_to": current.going_to,
            "before": current.before,
            "versions": [version_row(declared, one, versions) for one in found],
        })  # fmt: skip
    elif not found:
        echo_line(f"{declared.name} has the declared version only" if into is None else f"there is no version {into}")
    else:
        for one in found:
            for line in version_lines(declared, one, versions):
                echo_line(line)
    if any(not one.is_finished for one in found):
        raise FoundSomething("" if output is Format.JSON else "a version is not finished")


@contextmanager
def _progress(flow: Pipeline) -> Iterator[Tell]:
    """A bar on standard error if that is a terminal; else a line every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LinesOf(flow)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[done]:,} of {task.fields[of]:,} offsets, {task.fields[pace]:,.0f}/s")
    with Bar(*columns, note, console=console, transient=True) as bar:
        task = bar.add_task(flow.name, total=1.0, done=0, of=0, pace=0.0)
        yield lambda now: bar.update(task, completed=now.part, done=now.done, of=now.total, pace=now.per_s)


class _LinesOf:
    """Prints the progress of one flow in lines."""

    def __init__(self, flow: Pipeline) -> None:
        self._flow, self._due_s = flow, time.monotonic() + _LINE_S

    def __call__(self, now: Progress) -> None:
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + _LINE_S
            echo_line(progress_line(self._flow, now, time.time()), err=True)
            sys.stderr.flush()
