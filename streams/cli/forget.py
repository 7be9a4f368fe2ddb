"""`streams forget`: nothing of a key is kept any more."""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from streams.cli.dlq.options import ByOption, actor_of
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.deadletters.letter.filter import Filter
from streams.deadletters.review.discard import discard
from streams.deadletters.review.inbox import Inbox
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Cleanup, Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.admin import wait_for_broker
from streams.kafka.topics import TopicState, list_topics
from streams.limits import KEY_BYTES_MAX
from streams.logs import configure_logging
from streams.settings import load_settings
from streams.text import counted
from streams.worker.forgetting import Forgetting, Forgotten

_COMPACTED: Final = "earlier rows, until the topic is compacted; then a record without a value, for delete.retention.ms"
_JOURNAL: Final = "changes of state that held the key, until workers truncate them: at most the dedup horizon later"
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what there is.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Forget a key: its rows in tables and windows, what workers keep of it, its dead letters.

    Stop the flow's workers first.

    Tables get a record without a value, so that consumers and sinks delete the row; workers delete what they keep of
    the key when they start again. Open dead letters of the key are discarded. Events of the key that come later begin
    anew.

    What is in other topics stays until retention deletes it; the command names each of them. A key of which events
    still wait to be processed or released is refused: they would bring its rows back.
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
    states = list_topics(wait_for_broker(settings), [chosen])
    with closing(Forgetting(settings, chosen, encoded, _say)) as forgetting:
        task, found = forgetting.look()
        if not dry_run:
            forgetting.forget(task, actor)
    with closing(Inbox(settings, [chosen.dlq])) as inbox:
        letters = discard(inbox, Filter(keys=frozenset({encoded})), actor, dry_run=dry_run)
    if letters.refusals.count and not dry_run:
        raise StreamsError(
            f"{counted(letters.refusals.count, 'dead letter')} of this key cannot be discarded: `streams dlq list` "
            "shows them; all else is forgotten"
        )
    stays = list(_stays(chosen, states))
    count = sum(letters.by_topic.values())
    if output is Format.JSON:
        echo_json(_result(found, count, stays, dry_run=dry_run))
        return
    _echo(found, count, stays, dry_run=dry_run)


def _stays(flow: Pipeline, states: Sequence[TopicState]) -> "Sequence[_Stays]":
    """What no command can take out of a log: by topic, how long it stays."""
    found = []
    by_name = {state.name: state for state in states}
    for topic in flow.topics():
        state = by_name[topic.name]
        if topic.name == flow.audit:
            until = _AUDIT
        elif topic.name == flow.journal:
            until = _JOURNAL
        elif topic.cleanup is Cleanup.COMPACT:
            until = _COMPACTED
        else:
            until = f"records of the key, until retention deletes them: {_kept(state)}"
        found.append(_Stays(topic.name, until))
    return found


def _kept(state: TopicState) -> str:
    if state.retention_ms is None:
        return "never, as the topic is configured"
    return f"{state.retention_ms / 86_400_000:g} days after they were written"


def _result(found: Forgotten, letters: int, stays: Sequence[_Stays], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "partition": found.partition,
        "rows": list(found.rows),
        "dead_letters": letters,
        "stays": [{"topic": one.topic, "what": one.until} for one in stays],
    }


def _echo(found: Forgotten, letters: int, stays: Sequence[_Stays], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    rows = ", ".join(found.rows) or "none is kept"
    echo_line(f"partition {found.partition}; rows: {rows}{f' {would}deleted' if found.rows else ''}")
    echo_line(f"{counted(letters, 'open dead letter')} {would}discarded")
    echo_line()
    echo_line("What stays:")
    width = max(len(one.topic) for one in stays)
    for one in stays:
        echo_line(f"  {one.topic:<{width}}  {one.until}")
    echo_line(
        "Stores of workers delete the rest when they start the next time; one that is never started again keeps it."
    )


def _say(text: str) -> None:
    echo_line(text, err=True)
