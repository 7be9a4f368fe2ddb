"""`streams acls`: the least rights of each role in a Kafka cluster."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer

from streams.acls.comparison import Comparison, compare
from streams.acls.quotas import Quota, quota_of
from streams.acls.rights import Grant, Right
from streams.acls.roles import DOES, USER, Role, principal_of, rights_of
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import declared_map, select_pipelines
from streams.kafka.acls import grant, grants
from streams.kafka.admin import wait_for_broker
from streams.logs import configure_logging
from streams.settings import Settings, load_settings
from streams.text import counted

_NO_QUOTAS: Final = (
    "Quotas: none is proposed. A byte rate follows from nothing that a flow declares: with STREAMS_SOURCE_BYTES_PER_S, "
    "what comes into each source at most, this command derives some."
)

RolesOption = Annotated[
    list[Role] | None, typer.Option("--role", help="Role; repeatable. Default: all; apply needs at least one.")
]
PrincipalOption = Annotated[
    str | None,
    typer.Option(
        "--principal",
        metavar="NAME",
        help="Principal with the rights of all named roles, such as User:CN=worker. Default: for each role User: and "
        "its name.",
    ),
]
FlowsOption = Annotated[
    list[str] | None, typer.Option("--flow", help="Flow; repeatable. Default: all that the app has.")
]


@dataclass(frozen=True, slots=True)
class _Entry:
    """The rights of one principal, and the roles that need them."""

    principal: str
    roles: tuple[Role, ...]
    rights: tuple[Right, ...]
    quota: Quota | None = None
    """A quota; None: the bytes per second of the sources are not known."""

    @property
    def title(self) -> str:
        return f"{', '.join(self.roles)} ({self.principal})"


def show_command(
    role: RolesOption = None,
    principal: PrincipalOption = None,
    flow: FlowsOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print the least rights that each role needs for the declared flows, and what each is for. Asks no cluster."""
    settings = load_settings()
    entries = _entries(settings, role, principal, flow)
    if output is Format.JSON:
        echo_json([_shown(entry) for entry in entries])
        return
    for entry in entries:
        echo_line(f"{entry.title}: {'; '.join(DOES[one] for one in entry.roles)}")
        rows = [(one.kind.value, one.pattern.value, one.name, one.operation.value, one.why) for one in entry.rights]
        _echo_table(rows)
        _echo_quota(entry)
        echo_line()
    if settings.streams_source_bytes_per_s is None:
        echo_line(_NO_QUOTAS)


def apply_command(
    role: RolesOption = None,
    principal: PrincipalOption = None,
    flow: FlowsOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Grant what the principal of a role lacks. Takes nothing away; safe to repeat.

    Name the roles. Running it needs DESCRIBE and ALTER on the cluster. `audit` says what is granted beyond.
    """
    if not role:
        raise UsageError(f"which role: --role {'|'.join(Role)}; repeatable")
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    entries = _entries(settings, role, principal, flow)
    client = wait_for_broker(settings)
    there = grants(client)
    found = [(entry, compare(entry.principal, entry.rights, there)) for entry in entries]
    for entry, compared in found:
        grant(client, entry.principal, compared.lacking)
        if output is Format.TEXT:
            had = len(entry.rights) - len(compared.lacking)
            echo_line(f"{entry.title}: {counted(len(compared.lacking), 'right')} granted, {had} there already")
            _echo_each("granted", compared.lacking)
    if output is Format.JSON:
        echo_json(
            [{**_named(entry), "granted": [_row(right) for right in compared.lacking]} for entry, compared in found]
        )
    denied = [grant for _, compared in found for grant in compared.denied]
    if denied:
        raise FoundSomething(
            f"{denied[0].principal} is denied what it needs: {denied[0]}; a denial goes before every grant, remove it"
        )


def audit_command(
    role: RolesOption = None,
    principal: PrincipalOption = None,
    flow: FlowsOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Compare the rights of principals with the least ones: what they lack, and what is granted beyond.

    Changes nothing. Exit status 100 when there is a difference. A cluster does not report the rights of super users and
    of groups of an external authorizer.
    """
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    entries = _entries(settings, role, principal, flow)
    there = grants(wait_for_broker(settings))
    found = [(entry, compare(entry.principal, entry.rights, there)) for entry in entries]
    if output is Format.JSON:
        echo_json([{**_named(entry), **_differences(compared)} for entry, compared in found])
    else:
        for entry, compared in found:
            _echo_comparison(entry, compared)
    wrong = [compared.principal for _, compared in found if not compared.is_exact]
    if wrong:
        raise FoundSomething(
            f"the rights of {', '.join(wrong)} are not the least ones: `streams acls apply --role ROLE` grants what is "
            "lacking, kafka-acls.sh --remove takes what is beyond"
        )


def _entries(
    settings: Settings, roles: Sequence[Role] | None, principal: str | None, names: list[str] | None
) -> list[_Entry]:
    prefix, rate = settings.streams_topic_prefix, settings.streams_source_bytes_per_s
    flows, shown = select_pipelines(names, prefix=prefix), declared_map(prefix=prefix)
    topics = frozenset[str]() if shown is None else shown.topics
    if principal is None:
        wanted = tuple(dict.fromkeys(roles or Role))
        return [_entry(principal_of(role), (role,), flows, topics, rate) for role in wanted]
    if not roles:
        raise UsageError("--principal needs --role: whose rights it is to have")
    if not principal.startswith(USER) or principal == USER:
        raise UsageError(f"--principal {principal}: Kafka names a principal User:NAME")
    return [_entry(principal, tuple(dict.fromkeys(roles)), flows, topics, rate)]


def _entry(
    principal: str, roles: tuple[Role, ...], flows: Sequence[Pipeline], shown: frozenset[str], rate: int | None
) -> _Entry:
    quota = None if rate is None else quota_of(roles, flows, rate)
    return _Entry(principal, roles, rights_of(roles, flows, shown), quota)


def _echo_quota(entry: _Entry) -> None:
    if entry.quota is None:
        return
    if entry.quota.is_unbounded:
        echo_line("  quota none: a throttled client could not catch up, restore or judge; or it reads little")
        return
    user = entry.principal.removeprefix(USER)
    echo_line(f"  quota  {entry.quota.config()} (bytes a second, for each broker)")
    echo_line(f"         kafka-configs.sh --alter --entity-type users --entity-name {shlex.quote(user)} \\")
    echo_line(f"           --add-config {entry.quota.config()} --bootstrap-server SERVERS")


def _echo_comparison(entry: _Entry, compared: Comparison) -> None:
    if compared.is_exact:
        echo_line(f"{entry.title}: has its {counted(len(entry.rights), 'right')}, and no other")
        return
    echo_line(f"{entry.title}: {counted(len(entry.rights), 'right')} needed")
    _echo_each("lacks", compared.lacking)
    _echo_each("denied", compared.denied)
    _echo_each("beyond", compared.beyond)


def _echo_each(what: str, rights: Sequence[Right | Grant]) -> None:
    for each in rights:
        echo_line(f"  {what:<7}  {each}")


def _echo_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        echo_line(f"  {'  '.join(cells)}".rstrip())


def _named(entry: _Entry) -> dict[str, Any]:
    return {"principal": entry.principal, "roles": [one.value for one in entry.roles]}


def _shown(entry: _Entry) -> dict[str, Any]:
    rights = [{**_row(one), "why": one.why} for one in entry.rights]
    return {**_named(entry), "rights": rights, "quotas": None if entry.quota is None else asdict(entry.quota)}


def _row(right: Right) -> dict[str, str]:
    return {
        "resource": right.kind.value,
        "pattern": right.pattern.value,
        "name": right.name,
        "operation": right.operation.value,
    }


def _differences(compared: Comparison) -> dict[str, Any]:
    return {
        "exact": compared.is_exact,
        "lacking": [_row(right) for right in compared.lacking],
        "denied": [{**_row(one.right), "principal": one.principal, "host": one.host} for one in compared.denied],
        "beyond": [{**_row(one.right), "principal": one.principal, "host": one.host} for one in compared.beyond],
    }
