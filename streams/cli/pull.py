"""`streams pull`: polls a REST source into a source topic."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from streams.cli.app import AppOption, use_app
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.flow.discover import select_fed
from streams.logs import configure_logging
from streams.pull.declaration import load_source
from streams.pull.run import Puller, PullResult, puller
from streams.schemas.personal import any_personal
from streams.settings import load_settings
from streams.unknown_variables import warn_of_unknown_variables

DIRECTORY: Final = "pull"
"""Below STREAMS_DATA_DIR, where STREAMS_PULL_DIR is not set."""


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source: NAME.toml in STREAMS_PULL_DIR.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where sources are declared. Default: STREAMS_PULL_DIR.")
    ] = None,
    app: AppOption = None,
    output: FormatOption = Format.TEXT,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when the source has nothing more; for use with a timer.")
    ] = False,
) -> None:
    """Poll a REST source into the source topic of a flow, until SIGTERM or Ctrl-C.

    The position is committed in the transaction of the events: killed at any moment and run again, it continues from
    there. Run one process per source; a second one takes over, and the first ends (exit status 3).
    """
    use_app(app)
    settings = load_settings(streams_pull_dir=directory)
    folder = settings.streams_pull_dir or settings.streams_data_dir / DIRECTORY
    source = load_source(folder, name)
    pipelines = select_fed(prefix=settings.streams_topic_prefix)
    configure_logging(settings.streams_log_format, masks_values=any_personal(pipelines))
    warn_of_unknown_variables()
    result = asyncio.run(_run(puller(settings, source, pipelines), once=once))
    if output is Format.JSON:
        echo_json(
            {
                "pages": result.pages,
                "records": result.records,
                "sent": result.sent,
                "rejected": result.rejected,
                "failures": result.failures,
            }
        )
    else:
        echo_line(
            f"{name}: {result.pages:,} pages, {result.records:,} records: {result.sent:,} sent, {result.rejected:,} "
            f"rejected (dead letters); {result.failures:,} failures"
        )


async def _run(found: Puller, *, once: bool) -> PullResult:
    loop = asyncio.get_running_loop()
    for how in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(how, found.stop)
    return await found.run(once=once)
