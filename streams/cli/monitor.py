"""`streams monitor`."""

from functools import partial
from typing import Annotated

import typer

from streams.fleet.panel import fleet_panels
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.monitor.web.run import Monitor
from streams.schemas.personal import any_personal
from streams.settings import load_settings
from streams.unknown_variables import warn_of_unknown_variables

DEFAULT_PORT = 8080


def monitor(
    web_port: Annotated[
        int,
        typer.Option("--web-port", min=0, max=65535, help="Port of the page, /metrics and the API; 0: any."),
    ] = DEFAULT_PORT,
) -> None:
    """Watch lag, freshness and workers; a live page, Prometheus metrics, and Burrow's API. Until SIGTERM or Ctrl-C.

    Where the app declares a fleet map, `/fleet/` shows its vehicles. It changes nothing in the cluster, but for what is
    done on the page of dead letters. One is enough for a cluster;
    two do not disturb each other.
    """
    settings = load_settings()
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    panels = partial(fleet_panels, settings, pipelines)
    # What is wrong from the start is one line, no log.
    process = Monitor(settings, pipelines, port=web_port, panels=panels)
    configure_logging(settings.streams_log_format, masks_values=any_personal(pipelines))
    warn_of_unknown_variables()
    process.run()
