"""`streams sink`: the process of a sink."""

from typing import Annotated

import typer

from streams.cli.app import AppOption, use_app
from streams.flow.discover import select_sink
from streams.logs import configure_logging
from streams.schemas.personal import any_personal
from streams.settings import load_settings
from streams.sink.process import SinkProcess
from streams.unknown_variables import warn_of_unknown_variables


def sink(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the sink; `streams flows show` lists them.")],
    web_port: Annotated[
        int | None,
        typer.Option(
            "--web-port", min=0, max=65535, help="Port of /metrics, /healthz, /readyz. Default: 6080 or next."
        ),
    ] = None,
    app: AppOption = None,
) -> None:
    """Copy a topic of a flow into a database, a Delta table or an endpoint until SIGTERM or Ctrl-C.

    Start more of them to share the partitions. Rows and offsets are written together: stopped or killed at any time,
    it goes on where the target stands.

    Exit status: 0 stopped cleanly; 1 failed; 2 wrong usage.
    """
    use_app(app)
    settings = load_settings()
    pipeline, spec = select_sink(name, prefix=settings.streams_topic_prefix)
    process = SinkProcess(settings, pipeline, spec, web_port=web_port)  # what is wrong from the start is one line
    configure_logging(settings.streams_log_format, masks_values=any_personal([pipeline]))
    warn_of_unknown_variables()
    process.run()
