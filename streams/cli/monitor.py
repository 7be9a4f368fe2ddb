"""`streams monitor`."""

import threading
from typing import Annotated, Final

import typer

DEFAULT_PORT = 8080
CLOSE_S: Final = 3.0


def monitor(
    web_port: Annotated[
        int,
        typer.Option("--web-port", min=0, max=65535, help="Port of the page, /metrics and the API; 0: any."),
    ] = DEFAULT_PORT,
) -> None:
    """Watch lag, freshness and workers; a live page, Prometheus metrics, and Burrow's API. Until SIGTERM or Ctrl-C.

    It changes nothing in the cluster, but for what is done on the page of dead letters. One is enough for a cluster;
    two do not disturb each other.
    """
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - start-up time of the command line

    from streams.deadletters.review.collector import DeadLetterCollector  # noqa: PLC0415 - as above
    from streams.deadletters.web.app import dead_letters_app  # noqa: PLC0415 - as above
    from streams.deadletters.web.steward import Steward  # noqa: PLC0415 - as above
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - as above
    from streams.logs import configure_logging  # noqa: PLC0415 - as above
    from streams.monitor.web.app import Panel  # noqa: PLC0415 - as above
    from streams.monitor.web.server import MonitorProcess  # noqa: PLC0415 - as above
    from streams.settings import load_settings, warn_of_unknown_variables  # noqa: PLC0415 - as above

    settings = load_settings()
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    steward = Steward(settings)
    metrics = CollectorRegistry()
    metrics.register(DeadLetterCollector(steward.figures))
    review = Panel(
        "/dead-letters",
        "Dead letters",
        dead_letters_app(settings, steward=steward),
        metrics=lambda: generate_latest(metrics),
    )
    process = MonitorProcess(settings, pipelines, port=web_port, panels=[review], count_letters=steward.figures)
    configure_logging(settings.streams_log_format)
    warn_of_unknown_variables()
    try:
        process.run()
    finally:
        # A count may still wait for a broker that is away: it ends with the process.
        closing = threading.Thread(target=steward.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
