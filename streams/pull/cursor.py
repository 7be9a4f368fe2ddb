"""How far a REST source was read, and what is asked for next. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from streams.gateway.formats import value_at
from streams.ingest.reading import DEFAULT_READING
from streams.ingest.times import value_ms
from streams.pull.declaration import PullSource

TOKEN_CHARACTERS_MAX: Final = 2_000
"""Longest name of a page: the cursor must fit into a checkpoint."""
TOKENS_MAX: Final = 100_000
"""Greatest number of pages in one round."""


class CursorFailed(Exception):
    """The answer names no page that could be asked for next; the message says why."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a source is read on: time of the records, and page."""

    since_ms: int | None = None
    """Newest time of all earlier rounds; None: there is no time cursor."""
    newest_ms: int | None = None
    """Newest time of this round so far."""
    page: str | None = None
    """The page to be asked for; None: the first one."""

    def __str__(self) -> str:
        """Return the cursor as the text that a checkpoint holds."""
        found = {"since_ms": self.since_ms, "newest_ms": self.newest_ms, "page": self.page}
        return json.dumps({name: value for name, value in found.items() if value is not None})

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """What a checkpoint says.

        Raises:
            ValueError: it is no cursor.

        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() - {"since_ms", "newest_ms", "page"}:
            raise ValueError("it is no cursor")
        numbers = [found.get("since_ms"), found.get("newest_ms")]
        if not all(value is None or isinstance(value, int) for value in numbers):
            raise ValueError("its times are no numbers")
        page = found.get("page")
        return cls(numbers[0], numbers[1], None if page is None else str(page))


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from a page: where to go on, and whether the round is over."""

    cursor: Cursor
    is_end: bool
    """Whether the round is over: there is nothing more for now."""
    went_back: bool = False
    """Whether all records are older than what was asked for."""


def first(source: PullSource) -> Cursor:
    """Return the cursor with which a source's first round begins."""
    return Cursor(since_ms=None if source.time is None else source.time.start_ms)


def parameters(source: PullSource, cursor: Cursor) -> dict[str, str]:
    """Parameters of the next request."""
    found = dict(source.parameters)
    if source.time is not None and cursor.since_ms is not None:
        found[source.time.parameter] = _written(max(0, cursor.since_ms - source.time.overlap_ms), source.time.unit)
    if source.page is not None and cursor.page is not None:
        found[source.page.parameter] = cursor.page
    return found


class Course:
    """The pages of a round, one after the other."""

    def __init__(self, source: PullSource) -> None:
        self._source = source
        self._seen: set[str] = set()

    def taken(self, step: Step) -> None:
        """A page is committed: the round goes on from there. One that is not may be asked for again."""
        if step.is_end or step.cursor.page is None:
            self._seen.clear()
        else:
            self._seen.add(step.cursor.page)

    def step(self, cursor: Cursor, answer: Any, records: Sequence[Any]) -> Step:
        """What follows from the answer to what `cursor` asked for; `taken` when it is committed.

        A time never goes back.

        Raises:
            CursorFailed: the next page was there before in this round, or its name is none.

        """
        newest_ms = cursor.newest_ms
        times = self._times(records)
        if times:
            newest_ms = max(times) if newest_ms is None else max(newest_ms, *times)
        went_back = bool(times) and cursor.since_ms is not None and max(times) < self._asked_ms(cursor.since_ms)
        following = self._next(answer)
        if following is not None and following != cursor.page:
            if following in self._seen or len(self._seen) >= TOKENS_MAX:
                self._seen.clear()  # the next attempt may find them mended
                raise CursorFailed("a page comes for the second time: the pages go in a circle")
            return Step(replace(cursor, newest_ms=newest_ms, page=following), is_end=False, went_back=went_back)
        if self._source.time is None or cursor.since_ms is None:
            return Step(cursor, is_end=True)
        since_ms = cursor.since_ms if newest_ms is None else max(cursor.since_ms, newest_ms)
        # Without pages, an answer may be cut off: as long as it goes on, more is asked for.
        is_end = self._source.page is not None or since_ms == cursor.since_ms
        return Step(Cursor(since_ms), is_end=is_end, went_back=went_back)

    def _asked_ms(self, since_ms: int) -> int:
        return since_ms - (0 if self._source.time is None else self._source.time.overlap_ms)

    def _times(self, records: Sequence[Any]) -> list[int]:
        time = self._source.time
        if time is None:
            return []
        found = []
        for record in records:
            try:
                found.append(value_ms(value_at(record, time.field), DEFAULT_READING))
            except (ValueError, TypeError, ArithmeticError):
                continue  # a record without a time says nothing of how far it goes
        return found

    def _next(self, answer: Any) -> str | None:
        if self._source.page is None:
            return None
        found = value_at(answer, self._source.page.next)
        if found is None or found == "" or found is False:
            return None
        if not isinstance(found, str | int) or len(str(found)) > TOKEN_CHARACTERS_MAX:
            raise CursorFailed(f"the name of the next page is no text of at most {TOKEN_CHARACTERS_MAX} characters")
        return str(found)


def _written(time_ms: int, unit: str) -> str:
    match unit:
        case "ms":
            return str(time_ms)
        case "s":
            return str(time_ms // 1_000)
        case _:
            moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
