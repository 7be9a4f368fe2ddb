"""Opens the dead-letter topics for a command, and shows how far it is."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from streams.deadletters.letter.filter import Filter
from streams.deadletters.review.inbox import Inbox
from streams.logs import configure_logging
from streams.settings import load_settings


def missing_ids(inbox: Inbox, ids: list[str] | None) -> list[str]:
    """Those of the ids that no letter has."""
    return [each for each in ids or () if not inbox.find(Filter(ids=frozenset({each})))]


@contextmanager
def open_inbox(topics: list[str] | None) -> Iterator[Inbox]:
    """The dead letters of the topics (None: of all flows), closed at the end of the block."""
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.WARNING)
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL + 1)  # what it cannot do is raised, and told in one line
    inbox = Inbox(settings, topics)
    try:
        yield inbox
    finally:
        inbox.close()


@contextmanager
def progress_line() -> Iterator[Any]:
    """A line on standard error that tells how far it is, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _phase, _done, _total: None
        return
    with console.status("connecting") as status:

        def told(phase: str, done: int, total: int) -> None:
            status.update(f"{phase}: {done:,}" + (f" of {total:,}" if total else ""))

        yield told
