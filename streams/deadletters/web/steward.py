"""Runs the actions of the review page one at a time, each on a refreshed inbox."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.figures import Figures
from streams.deadletters.letter.filter import Filter
from streams.deadletters.review.choice import Survey, check_reasons, survey
from streams.deadletters.review.discard import DiscardResult, discard
from streams.deadletters.review.inbox import Inbox
from streams.deadletters.review.look import Details, Listing, details, listing, reveal
from streams.deadletters.review.replay import ReplayOptions, ReplayResult, replay
from streams.errors import StreamsError
from streams.settings import Settings

FRESH_S: Final = 1.0
"""An inbox that was read this recently is not read again just for a look."""
ACT_LETTERS_MAX: Final = 100_000
"""Letters of one replay or discard from the page; larger ones belong on the command line."""
OUTCOME_WAIT_S: Final = 3.0
FIGURES_WAIT_S: Final = 2.0


class Steward:
    """The inbox of some topics, shared by threads. Connects when first used, and again after a failure."""

    def __init__(self, settings: Settings, topics: tuple[str, ...] | None = None) -> None:
        self._settings = settings
        self._topics = topics
        self._lock = threading.Lock()
        self._inbox: Inbox | None = None
        self._read_at_s = 0.0

    def listing(self, wanted: Filter, *, group_by: str, limit: int, skip: int) -> tuple[Listing, list[str]]:
        """A page of letters, and the topics that exist.

        Raises:
            UsageError: a reason that is asked for does not exist.

        """
        with self._lock:
            inbox = self._fresh()
            check_reasons(inbox, wanted)
            names = [box.topic for box in inbox.boxes]
            return listing(inbox, wanted, group_by=group_by, limit=limit, skip=skip), names

    def survey(self, wanted: Filter) -> Survey:
        """What a replay and a discard of the selected letters would do now, and the pin of now.

        Raises:
            UsageError: a reason that is asked for does not exist.

        """
        with self._lock:
            inbox = self._fresh(force=True)
            check_reasons(inbox, wanted)
            return survey(inbox, wanted, limit=ACT_LETTERS_MAX)

    def details(self, letter_id: str) -> Details:
        """Everything about a letter, masked."""
        with self._lock:
            inbox = self._fresh()
            return details(inbox, inbox.the_one(letter_id), reveal=False)

    def reveal(self, letter_id: str, actor: Actor) -> Details:
        """All details of a letter, unmasked; recorded in the audit topic."""
        with self._lock:
            inbox = self._fresh()
            return reveal(inbox, inbox.the_one(letter_id), actor)

    def replay(self, wanted: Filter, actor: Actor) -> ReplayResult:
        """Replay open letters."""
        options = ReplayOptions(wanted, actor, limit=ACT_LETTERS_MAX, wait_s=OUTCOME_WAIT_S)
        with self._acting() as inbox:
            return replay(inbox, options)

    def discard(self, wanted: Filter, actor: Actor) -> DiscardResult:
        """Discard open letters."""
        with self._acting() as inbox:
            return discard(inbox, wanted, actor, limit=ACT_LETTERS_MAX)

    def figures(self) -> list[Figures]:
        """Counts for a dashboard.

        The first call reads the topics from their beginnings, at some 10 µs a letter.

        Raises:
            StreamsError: the broker does not answer, or a long replay or another count is under way: nothing is known
                that was not before.

        """
        if not self._lock.acquire(timeout=FIGURES_WAIT_S):
            raise StreamsError("dead letters are being replayed or counted already")
        try:
            return [box.figures() for box in self._fresh().boxes]
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._inbox is not None:
                self._inbox.close()
                self._inbox = None

    @contextmanager
    def _acting(self) -> Iterator[Inbox]:
        """A refreshed inbox for an action; the next look refreshes it again."""
        with self._lock:
            try:
                yield self._fresh(force=True)
            finally:
                self._read_at_s = 0.0

    def _fresh(self, *, force: bool = False) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._settings, self._topics)
            self._read_at_s = 0.0
        if force or time.monotonic() - self._read_at_s > FRESH_S:
            self._inbox.refresh()
            self._read_at_s = time.monotonic()
        return self._inbox
