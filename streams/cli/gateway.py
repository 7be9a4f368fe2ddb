"""`streams gateway`: the service, and its tokens."""

import re
import time
from typing import Annotated, Final

import typer

from streams.cli.app import AppOption, use_app
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import UsageError
from streams.flow.discover import select_fed
from streams.gateway.credentials import Credential, CredentialFile, Kind
from streams.gateway.crew import Crew, Member
from streams.gateway.process import DEFAULT_PORT, GatewayProcess, gateway_directory
from streams.logs import configure_logging
from streams.schemas.personal import any_personal
from streams.settings import Settings, load_settings
from streams.unknown_variables import warn_of_unknown_variables

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def run_command(
    web_port: Annotated[
        int, typer.Option("--web-port", min=0, max=65535, help="Port of the events, /metrics and the rest; 0: any.")
    ] = DEFAULT_PORT,
    app: AppOption = None,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, max=1000, help="Processes that share the port, one for each core."),
    ] = 1,
    member: Annotated[str | None, typer.Option("--member", hidden=True)] = None,
) -> None:
    """Accept events over HTTP into the source topics of the declared flows, until SIGTERM or Ctrl-C.

    POST /v1/events/SOURCE takes JSON, NDJSON and Avro, and answers 202 when Kafka has acknowledged. It listens at
    STREAMS_WEB_HOST. Start as many as you like; they are independent.

    With --processes, one that ends is restarted, and /metrics and /readyz cover all.
    """
    use_app(app)
    settings = load_settings()
    pipelines = select_fed(prefix=settings.streams_topic_prefix)
    masks = any_personal(pipelines)
    if member is not None:
        this = Member.parse(member)
        configure_logging(settings.streams_log_format, process=this.number, masks_values=masks)
        this.end_with_the_supervisor()
        GatewayProcess(settings, pipelines, port=web_port, member=this).run()
        return
    # Errors at the start are one line, no log.
    run = (
        Crew(settings.streams_web_host, web_port, processes, []).run
        if processes > 1
        else GatewayProcess(settings, pipelines, port=web_port).run
    )
    configure_logging(settings.streams_log_format, masks_values=masks)
    warn_of_unknown_variables()
    run()


def new_command(
    source: Annotated[list[str], typer.Option("--source", help="Source that it permits to send to; repeatable.")],
    name: Annotated[str, typer.Option("--name", help="Of the sender; several tokens may have it.")],
    expires: Annotated[
        str | None, typer.Option("--expires", help="When it ends: 90d, 12h, 30m. Default: never.")
    ] = None,
    output: FormatOption = Format.TEXT,
    *,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="A secret for signed webhooks (Standard Webhooks), not a token.")
    ] = False,
) -> None:
    """Make a token, or a webhook's secret, and print it: it is not shown again.

    To rotate: make a second one, move the senders to it, then revoke the first.
    """
    settings = load_settings()
    known = [one.source.removeprefix(one.prefix) for one in select_fed(prefix=settings.streams_topic_prefix)]
    for one in source:
        if one not in known:
            raise UsageError(f"--source {one}: there is no such source, only {', '.join(known)}")
    ends_ms = None if expires is None else _now_ms() + _duration_ms("--expires", expires)
    kind = Kind.WEBHOOK if webhook else Kind.TOKEN
    made = _file(settings).new(kind, name, source, ends_ms=ends_ms)
    if output is Format.JSON:
        echo_json({**_shown(made.credential), kind.value: made.shown})
        return
    echo_line(made.shown)
    echo_line(f"id {made.credential.id}, for {', '.join(source)}; it is not shown again", err=True)


def list_command(output: FormatOption = Format.TEXT) -> None:
    """List tokens and webhook secrets: id, name, sources, until when. Never the secret."""
    found = _file(load_settings()).read()
    if output is Format.JSON:
        echo_json([_shown(one) for one in found])
        return
    for one in found:
        echo_line(f"{one.id}  {one.kind.value:8}{one.name:24}{_state(one):28}{', '.join(one.sources)}")
    if not found:
        echo_line("There is none yet: streams gateway token new --source SOURCE --name NAME")


def revoke_command(
    credential: Annotated[str, typer.Argument(metavar="ID", help="As `streams gateway token list` names it.")],
    after: Annotated[str | None, typer.Option("--in", help="Later: 24h, 30m. Default: now.")] = None,
) -> None:
    """Revoke a token or a webhook's secret, now or later; gateways know within a second."""
    later_ms = 0 if after is None else _duration_ms("--in", after)
    ended = _file(load_settings()).end(credential, _now_ms() + later_ms)
    echo_line(f"{ended.id} ({ended.name}): {_state(ended)}")


def _file(settings: Settings) -> CredentialFile:
    return CredentialFile(gateway_directory(settings))


def _shown(one: Credential) -> dict[str, object]:
    return {
        "id": one.id, "kind": one.kind.value, "name": one.name, "sources": list(one.sources),
        "created_ms": one.created_ms, "ends_ms": one.ends_ms, "is_valid": one.is_valid(_now_ms()),
    }  # fmt: skip


def _state(one: Credential) -> str:
    if one.ends_ms is None:
        return "valid"
    word = "valid until" if one.is_valid(_now_ms()) else "ended"
    return f"{word} {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(one.ends_ms / 1000))}"


def _duration_ms(option: str, text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} {text!r}: a number and s, m, h or d, such as 90d")
    return int(found[1]) * _UNITS_S[found[2]] * 1_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
