"""`streams monitor`: watches lag, sources and workers, and serves the pages."""

from functools import partial
from typing import Annotated

import typer

from streams.cli.output import echo_line
from streams.errors import StreamsError, UsageError
from streams.fleet.panel import fleet_panels
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.monitor.notify.ledger import Message
from streams.monitor.notify.problems import Problem
from streams.monitor.notify.targets import targets_of
from streams.monitor.notify.words import Origin
from streams.monitor.web.run import Monitor
from streams.schemas.personal import any_personal
from streams.settings import Settings, load_settings
from streams.unknown_variables import warn_of_unknown_variables

DEFAULT_PORT = 8080


def monitor(
    web_port: Annotated[
        int,
        typer.Option("--web-port", min=0, max=65535, help="Port of the page, /metrics and the API; 0: any."),
    ] = DEFAULT_PORT,
    test_notification: Annotated[  # noqa: FBT002 - an option
        bool,
        typer.Option(
            "--test-notification", help="Send a message to each target that is set (STREAMS_NOTIFY_...), and end."
        ),
    ] = False,
) -> None:
    """Watch lag, freshness and workers; a live page, Prometheus metrics, and Burrow's API. Until SIGTERM or Ctrl-C.

    Where the app declares a fleet map, `/fleet/` shows its vehicles. Where STREAMS_NOTIFY_WEBHOOK_URL,
    STREAMS_NOTIFY_SLACK_URL or STREAMS_NOTIFY_SMTP_URL is set, it sends messages about what is wrong, has changed or is
    over (docs/monitor.md).

    It changes nothing in the cluster, except for actions on the page of dead letters. One monitor is enough for a
    cluster; two do not disturb each other.
    """
    settings = load_settings()
    if test_notification:
        _send_tests(settings)
        return
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    panels = partial(fleet_panels, settings, pipelines)
    # Errors at the start are one line, no log.
    process = Monitor(settings, pipelines, port=web_port, panels=panels)
    configure_logging(settings.streams_log_format, masks_values=any_personal(pipelines))
    warn_of_unknown_variables()
    process.run()


def _send_tests(settings: Settings) -> None:
    targets = targets_of(settings)
    if not targets:
        raise UsageError(
            "no target is set: STREAMS_NOTIFY_WEBHOOK_URL, STREAMS_NOTIFY_SLACK_URL or STREAMS_NOTIFY_SMTP_URL"
        )
    problem = Problem("test", "TEST", "the monitor", "sent by `streams monitor --test-notification`", "monitor-blind")
    message = Message((problem,), (), frozenset({problem.key}))
    failures = []
    for target in targets:
        try:
            target.send(message, Origin(settings.streams_cluster_name, settings.streams_monitor_url.rstrip("/")))
        except StreamsError as error:
            failures.append(f"{target.name}: {error}")
        else:
            echo_line(f"{target.name}: sent to {target.place}")
    if failures:
        raise StreamsError("; ".join(failures))
