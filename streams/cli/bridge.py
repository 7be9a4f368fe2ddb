"""`streams bridge mqtt`: forwards MQTT messages into a source topic."""

import socket
from typing import Annotated, Literal

import typer

from streams.bridge.address import address_of, filter_of
from streams.bridge.process import DEFAULT_PORT, BridgeProcess, source_named
from streams.cli.app import AppOption, use_app
from streams.errors import UsageError
from streams.flow.discover import select_fed
from streams.gateway.formats import load_formats
from streams.gateway.process import FORMATS, gateway_directory
from streams.logs import configure_logging
from streams.schemas.personal import any_personal
from streams.settings import load_settings
from streams.unknown_variables import warn_of_unknown_variables

_CLIENT_ID_BYTES_MAX = 128


def mqtt_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="The MQTT broker: mqtt://HOST:PORT, mqtts:// with TLS.")],
    topic: Annotated[
        list[str], typer.Option("--topic", help="Topic filter to subscribe to, such as owntracks/+/+; repeatable.")
    ],
    source: Annotated[str, typer.Option("--source", help="Source topic that the events go to.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="What a device sends (as of `streams gateway`). Default: the source's fields."),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option("--share", help="Share the messages with all bridges of this name, each its own --client-id."),
    ] = None,
    client_id: Annotated[
        str | None,
        typer.Option("--client-id", help="Name of its session at the broker. Default: by the name of this machine."),
    ] = None,
    protocol: Annotated[
        Literal["5", "3.1.1"], typer.Option("--protocol", help="Version of MQTT; 3.1.1 for brokers without 5.")
    ] = "5",
    web_port: Annotated[
        int, typer.Option("--web-port", min=0, max=65535, help="Port of /metrics, /healthz and /readyz; 0: any.")
    ] = DEFAULT_PORT,
    app: AppOption = None,
) -> None:
    """Take MQTT messages into a source topic, until SIGTERM or Ctrl-C.

    It subscribes with QoS 1 in a session that outlives the connection, and acknowledges a message after Kafka has
    acknowledged its events or its dead letter: messages that arrive while the bridge or Kafka is away wait at the MQTT
    broker. User, password and TLS come from STREAMS_MQTT_*.
    """
    use_app(app)
    settings = load_settings()
    address = address_of(url)
    filters = [filter_of(one, share) for one in topic]
    pipeline = source_named(select_fed(prefix=settings.streams_topic_prefix), source)
    formats = load_formats(gateway_directory(settings) / FORMATS)
    if format_ is not None and format_ not in formats:
        raise UsageError(f"--format {format_[:40]!r}: there is no such format, only {', '.join(sorted(formats))}")
    name = client_id if client_id is not None else f"streams-bridge-{socket.gethostname()}"
    if not 0 < len(name.encode()) <= _CLIENT_ID_BYTES_MAX:
        raise UsageError(f"--client-id has 1 to {_CLIENT_ID_BYTES_MAX} bytes")
    bridge = BridgeProcess(
        settings,
        pipeline,
        address,
        filters,
        client_id=name,
        is_mqtt5=protocol == "5",
        format_=None if format_ is None else formats[format_],
        web_port=web_port,
    )
    configure_logging(settings.streams_log_format, masks_values=any_personal([pipeline]))
    warn_of_unknown_variables()
    bridge.run()
