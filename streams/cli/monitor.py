"""`streams monitor`."""

from typing import Annotated

import typer

DEFAULT_PORT = 8080


def monitor(
    web_port: Annotated[
        int,
        typer.Option("--web-port", min=0, max=65535, help="Port of the page, /metrics and the API; 0: any."),
    ] = DEFAULT_PORT,
) -> None:
    """Watch lag, freshness and workers; a live page, Prometheus metrics, and Burrow's API. Until SIGTERM or Ctrl-C.

    It changes nothing in the cluster. One is enough for a cluster; two do not disturb each other.
    """
    from streams.logs import configure_logging  # noqa: PLC0415 - start-up time of the command line
    from streams.monitor.web.server import MonitorProcess  # noqa: PLC0415 - as above
    from streams.pipelines import select_pipelines  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    # Pages of other parts of the system go here: `panels=[Panel("/dead-letters", "Dead letters", app)]`.
    process = MonitorProcess(settings, select_pipelines(None), port=web_port)
    configure_logging(settings.streams_log_format)
    process.run()
