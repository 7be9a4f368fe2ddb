"""`streams worker`: one worker, or several that a supervisor keeps."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.app import AppOption, use_app
from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.schemas.personal import with_personal
from streams.settings import Settings, load_settings
from streams.unknown_variables import warn_of_unknown_variables
from streams.worker.failpoint import parse_failpoint
from streams.worker.lifeline import Supervised
from streams.worker.process import WorkerProcess
from streams.worker.restarts import SWITCHED
from streams.worker.supervisor import Supervisor, memory_share_mb
from streams.worker.version_watch import current_versions


def worker(
    pipeline: Annotated[
        list[str] | None, typer.Option("--pipeline", help="Flow to run; repeatable. Default: all.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Local state; one worker each. Default: STREAMS_DATA_DIR.")
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            "--web-port", min=0, max=65535, help="Port of /metrics, /healthz, /readyz. Default: 6066 or next."
        ),
    ] = None,
    app: AppOption = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            min=1,
            max=1000,
            help="Processes that share the work, one for each core. Each has a directory below --data-dir and its part "
            "of STREAMS_MEMORY_MB_MAX; one that ends is started again.",
        ),
    ] = 1,
    supervised: Annotated[str | None, typer.Option("--supervised", hidden=True)] = None,
    *,
    leave: Annotated[
        bool,
        typer.Option(
            "--leave",
            help="Leave the group when stopped: others take its partitions over at once. For scaling down; without it "
            "the partitions wait a session (10 s) for this worker to come back. Default: STREAMS_GROUP_LEAVE.",
        ),
    ] = False,
) -> None:
    """Run a stream worker until SIGTERM or Ctrl-C; start more of them to share the work.

    Exit status: 0 stopped cleanly; 1 failed; 2 wrong usage; 3 fenced, another process has taken this worker's place.
    """
    use_app(app)
    settings = load_settings(streams_data_dir=data_dir, streams_group_leave=leave or None)
    declared = with_personal(select_pipelines(pipeline, prefix=settings.streams_topic_prefix))
    if versions := [one.name for one in declared if one.version]:
        raise UsageError(
            f"--pipeline {versions[0]}: name the flow, a worker runs its current version; `streams backfill --flow "
            "NAME --into VERSION --promote` changes which one that is"
        )
    if supervised is not None:
        _run_supervised(Supervised.parse(supervised), settings, declared)
        return
    # Errors at the start are one line, no log.
    if processes > 1:
        options = [part for name in pipeline or [] for part in ("--pipeline", name)] + ["--leave"] * leave
        run = Supervisor(settings, options, processes=processes, web_port=web_port).run
        _log(settings, declared)
        run()
        return
    if settings.streams_failpoint:
        parse_failpoint(settings.streams_failpoint)  # a wrong one is refused before anything else is looked at
    running = current_versions(settings, declared, on_wait=partial(_log, settings, declared))
    process = WorkerProcess(settings, running, web_port=web_port, follows_versions=True)
    _log(settings, declared)
    process.run()
    if process.is_switching:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-P", "-m", "streams", *sys.argv[1:]])  # noqa: S606 - this very command


def _log(settings: Settings, pipelines: list[Pipeline]) -> None:
    configure_logging(settings.streams_log_format, masks_values=any(one.personal for one in pipelines))
    warn_of_unknown_variables()


def _run_supervised(this: Supervised, settings: Settings, declared: list[Pipeline]) -> None:
    """Run one of several processes."""
    masks = any(one.personal for one in declared)
    configure_logging(settings.streams_log_format, process=this.number, masks_values=masks)
    this.end_with_the_supervisor()
    share = settings.model_copy(update={"streams_memory_mb_max": memory_share_mb(settings, this.of)})
    running = current_versions(share, declared, on_wait=lambda: None)
    process = WorkerProcess(share, running, web_port=None, web_listener=this.web_socket(), follows_versions=True)
    process.run()
    if process.is_switching:
        raise typer.Exit(SWITCHED)
