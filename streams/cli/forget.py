"""`streams forget`: deletes everything that is kept of a key."""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from streams.cli.dlq.options import ByOption, actor_of
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.filter import Filter
from streams.deadletters.review.discard import discard
from streams.deadletters.review.inbox import Inbox
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.flow.topics import Cleanup
from streams.kafka.admin import wait_for_broker
from streams.kafka.topics import TopicState, list_topics
from streams.limits import KEY_BYTES_MAX
from streams.logs import configure_logging
from streams.settings import Settings, load_settings
from streams.text import counted
from streams.worker.forget_asking import ForgetAsking
from streams.worker.forgetting import Forgetting, Forgotten
from streams.worker.rebuild import members_of

_WAIT_S: Final = 60.0
_COMPACTED: Final = "earlier rows, until the topic is compacted; then a record without a value, for delete.retention.ms"
_JOURNAL: Final = "changes of state that held the key, until workers truncate them: at most the dedup horizon later"
_REQUEST: Final = "the request with the key, for a day, where workers were asked"
_AUDIT: Final = "that a key was forgotten, by whom, when and why; the key itself is not in it"


@dataclass(frozen=True, slots=True)
class _Stays:
    """A topic that still holds records of the key, and until when."""

    topic: str
    until: str


def forget(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the records: a device, an order, a person.")],
    flow: Annotated[str, typer.Option("--flow", help="Flow that is to forget it.")],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why; goes into the audit. Mandatory.")] = "",
    by: ByOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; print what is there.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for workers that run, once they are asked.")
    ] = _WAIT_S,
    output: FormatOption = Format.TEXT,
) -> None:
    """Forget a key: delete its rows in tables and windows, the workers' state of it, and its dead letters.

    Tables get a record without a value, so that consumers and sinks delete the row; workers delete what they keep of
    the key. Open dead letters of the key are discarded. Later events of the key start with no state.

    Running workers do it as soon as no event of the key waits to be processed or released: stop what
    sends the key first. Without running workers the command does it itself, and refuses a key with waiting events: they
    would bring its rows back.

    Records in other topics stay until retention deletes them; the command names these topics.
    """
    encoded = key.encode()
    if not 0 < len(encoded) <= KEY_BYTES_MAX:
        raise UsageError(f"a key has 1 to {KEY_BYTES_MAX:,} bytes")
    if not (why.strip() or dry_run):
        raise UsageError('it needs a reason: --why "request 4711"')
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    (chosen,) = select_pipelines([flow], prefix=settings.streams_topic_prefix)
    actor = actor_of(by, why)
    client = wait_for_broker(settings)
    states = list_topics(client, [chosen])
    found = None
    if members_of(client, chosen):
        found = _asked(settings, chosen, encoded, actor, wait_s=None if dry_run else wait)
    by_workers = found is not None
    if found is None:
        found = _done_here(settings, chosen, encoded, None if dry_run else actor)
    with closing(Inbox(settings, [one.dlq for one in chosen.inputs])) as inbox:
        letters = discard(inbox, Filter(keys=frozenset({encoded})), actor, dry_run=dry_run)
    if letters.refusals.count and not dry_run:
        raise StreamsError(
            f"{counted(letters.refusals.count, 'dead letter')} of this key cannot be discarded: `streams dlq list` "
            "shows them; all else is forgotten"
        )
    stays = list(_stays(chosen, states))
    count = sum(letters.by_topic.values())
    if output is Format.JSON:
        echo_json(_result(found, count, stays, dry_run=dry_run, by_workers=by_workers))
        return
    _echo(found, count, stays, dry_run=dry_run, by_workers=by_workers)


def _asked(settings: Settings, flow: Pipeline, key: bytes, actor: Actor, *, wait_s: float | None) -> Forgotten | None:
    """Ask running workers to forget the key; `wait_s` None: only look. Returns None if there are none any more."""
    with closing(ForgetAsking(settings, flow, key, _say)) as asking:
        found = asking.look()
        is_done = wait_s is None or asking.forget(actor, wait_s=wait_s)
    return found if is_done else None


def _done_here(settings: Settings, flow: Pipeline, key: bytes, actor: Actor | None) -> Forgotten:
    """Forget the key while no worker runs; `actor` None: only look."""
    with closing(Forgetting(settings, flow, key, _say)) as forgetting:
        task, found = forgetting.look()
        if actor is not None:
            forgetting.forget(task, actor)
    return found


def _stays(flow: Pipeline, states: Sequence[TopicState]) -> "Sequence[_Stays]":
    """Records that no command can take out of a log: by topic, how long they stay."""
    found = []
    by_name = {state.name: state for state in states}
    audits = {one.audit for one in flow.inputs}
    for topic in flow.topics():
        state = by_name[topic.name]
        if topic.name in audits:
            until = _AUDIT
        elif topic.name == flow.journal:
            until = _JOURNAL
        elif topic.cleanup is Cleanup.COMPACT:
            until = _COMPACTED
        else:
            until = f"records of the key, until retention deletes them: {_kept(state)}"
        found.append(_Stays(topic.name, until))
    return [*found, _Stays(flow.forget, _REQUEST)]


def _kept(state: TopicState) -> str:
    if state.retention_ms is None:
        return "never, as the topic is configured"
    return f"{state.retention_ms / 86_400_000:g} days after they were written"


def _result(
    found: Forgotten, letters: int, stays: Sequence[_Stays], *, dry_run: bool, by_workers: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "workers": "running" if by_workers else "stopped",
        "partition": found.partition,
        "rows": list(found.rows),
        "dead_letters": letters,
        "stays": [{"topic": one.topic, "what": one.until} for one in stays],
    }


def _echo(found: Forgotten, letters: int, stays: Sequence[_Stays], *, dry_run: bool, by_workers: bool) -> None:
    would = "would be " if dry_run else ""
    rows = ", ".join(found.rows) or "none is kept"
    echo_line(f"partition {found.partition}; rows: {rows}{f' {would}deleted' if found.rows else ''}")
    echo_line(f"{counted(letters, 'open dead letter')} {would}discarded")
    echo_line()
    echo_line("What stays:")
    width = max(len(one.topic) for one in stays)
    for one in stays:
        echo_line(f"  {one.topic:<{width}}  {one.until}")
    if by_workers and not dry_run:
        echo_line(
            "The store of a stopped worker deletes the rest when the worker next starts, and keeps it until then."
        )
    else:
        echo_line(
            "Stores of workers delete the rest when the workers next start; "
            "a store that is never started again keeps it."
        )


def _say(text: str) -> None:
    echo_line(text, err=True)
