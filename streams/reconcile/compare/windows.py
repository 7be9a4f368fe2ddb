"""The rows of a key's windows and sessions against its clean events.

A window may have several rows: it is closed, and opened again by an event that comes after its grace, or by idle time
that has passed. Which events went into which of its rows depends on the clock. What does not: each row is the fold of
some consecutive events of its window, the rows of a window follow each other, and together they have all of its events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from streams.batch.rows import Rows
from streams.reconcile.compare.folded import Row, WindowFold
from streams.reconcile.compare.seen import Scope, SeenRow
from streams.reconcile.differences import Column, Difference, Findings, Kind, Place, Unchecked, differing, instant
from streams.reconcile.model.decode import RowUnreadable
from streams.reconcile.model.events import Event
from streams.reconcile.model.history import Due
from streams.text import counted

ReadRow = Callable[[bytes], dict[str, Any]]

_ROWS: Final = "window rows"
_CLOSING_MS: Final = 60_000
"""A window is closed for certain when the watermark is so far beyond what closes it: closing takes some cycles."""


class WindowShape(Protocol):
    """What a flow declares of a window."""

    @property
    def topic(self) -> str:
        """Topic of its rows."""

    @property
    def size_ms(self) -> int:
        """Its length; 0: it is a session."""

    @property
    def grace_ms(self) -> int:
        """How far beyond its end the watermark is when it closes."""

    @property
    def gap_ms(self) -> int:
        """Longest time between two events of a session."""

    @property
    def advance_ms(self) -> int:
        """How far windows that overlap are apart; 0: they do not."""

    @property
    def phases(self) -> int:
        """How many windows an event belongs to."""


class Span(NamedTuple):
    """The events of a window: positions of the first, and of the one after the last."""

    start_ms: int
    first: int
    end: int


class _Read(NamedTuple):
    seen: SeenRow
    row: Row


@dataclass(frozen=True, slots=True)
class _Walk:
    """How far rows could be explained: all of them when `wrong` is None."""

    covered: int
    """Events that rows are a fold of."""
    state: Rows | None
    """State of the fold after the last of these events."""
    wrong: int | None = None
    """Number of the row that is none."""


def spans_of(window: WindowShape, events: Sequence[Event], phase: int = 0) -> list[Span]:
    """The windows of the events of one key, which are in order."""
    found: list[Span] = []
    offset_ms = phase * window.advance_ms
    for number, event in enumerate(events):
        at = event.event_time_ms
        if window.gap_ms:
            is_new = not found or at - events[number - 1].event_time_ms > window.gap_ms
            start_ms = at if is_new else found[-1].start_ms
        else:
            start_ms = (at - offset_ms) // window.size_ms * window.size_ms + offset_ms
            is_new = not found or found[-1].start_ms != start_ms
        if is_new:
            found.append(Span(start_ms, number, number + 1))
        else:
            found[-1] = found[-1]._replace(end=number + 1)
    return found


class WindowComparison:
    """Compares the windows of one topic, one key after the other."""

    def __init__(self, scope: Scope, window: WindowShape, fold: WindowFold, read_row: ReadRow) -> None:
        self._scope, self._window, self._fold, self._read_row = scope, window, fold, read_row
        self._start = fold.names.start

    def compare(
        self, key: bytes, due: Sequence[Due], rows: Sequence[SeenRow], findings: Findings, *, is_whole: bool
    ) -> None:
        """Note every window of the key whose rows are wrong, missing, or should not be there."""
        if self._start is None:
            findings.remarks[f"rows of {self._window.topic} do not name the start of their window: not checked"] += 1
            return
        by_start = self._by_start(key, rows, findings)
        findings.checked[_ROWS] += len(rows)
        events = [each.event for each in due]
        first_known = -1
        for phase in range(self._window.phases):
            spans = spans_of(self._window, events, phase)
            first_known = max(first_known, spans[0].start_ms if spans else -1)
            state: Rows | None = None
            for number, span in enumerate(spans):
                follows = number + 1 < len(spans) and due[spans[number + 1].first].is_due
                base = self._fold.nothing() if state is None or self._window.gap_ms else self._fold.carry(state)
                mine = by_start.pop(span.start_ms, [])
                state = self._compare_span(
                    key,
                    due,
                    span,
                    mine,
                    base,
                    findings,
                    is_over=follows or self._is_closed(due, span),
                    is_whole=is_whole,
                )
        for start_ms, left in by_start.items():
            if not is_whole and (not due or start_ms <= max(self._scope.clean_after_ms, first_known)):
                findings.unchecked[Unchecked.WINDOWS_BEFORE] += 1
                continue
            rows_of = f"{counted(len(left), 'row')} of the window from {instant(start_ms)}"
            text = f"{rows_of}, at offset {left[0].seen.offset}, of no clean event"
            findings.note(Difference(Kind.SURPLUS_WINDOW, key, self._window.topic, text))

    def _by_start(self, key: bytes, rows: Sequence[SeenRow], findings: Findings) -> dict[int, list[_Read]]:
        found: dict[int, list[_Read]] = {}
        for seen in rows:
            try:
                row = self._read_row(seen.value or b"")
                start_ms = int(row[self._start or ""])
            except (RowUnreadable, KeyError, TypeError, ValueError) as error:
                text = f"the row at offset {seen.offset} cannot be read: {error}"
                findings.note(Difference(Kind.WRONG_WINDOW, key, self._window.topic, text))
                continue
            found.setdefault(start_ms, []).append(_Read(seen, row))
        return found

    def _end_ms(self, span: Span, last: Event) -> int:
        gap_ms = self._window.gap_ms
        return last.event_time_ms + gap_ms if gap_ms else span.start_ms + self._window.size_ms

    def _is_closed(self, due: Sequence[Due], span: Span) -> bool:
        """Whether the watermark has closed it for certain. A window of the past has its grace from its events on."""
        events = due[span.first : span.end]
        prior = max(each.watermark_before for each in events)
        closes_at = max(self._end_ms(span, events[-1].event), prior) + self._window.grace_ms
        return all(each.is_due for each in events) and closes_at + _CLOSING_MS <= self._scope.watermark

    def _compare_span(
        self,
        key: bytes,
        due: Sequence[Due],
        span: Span,
        rows: list[_Read],
        base: Rows,
        findings: Findings,
        *,
        is_over: bool,
        is_whole: bool,
    ) -> Rows:
        """Compare a window; returns the state after its events."""
        part = due[span.first : span.end]
        events = [each.event for each in part]
        needed = sum(each.is_due for each in part) if is_over else 0
        local = Findings()
        rows = self._without_repetitions(key, rows, span, local)
        walk = self._walk(key, span, events, rows, base)
        if walk.wrong is not None:
            local.note(self._wrong_row(key, span, events, rows[walk.wrong], walk, base))
        elif walk.covered < needed:
            local.note(self._missing(key, span, events, walk.covered, rows))
        elif walk.covered < len(events):
            findings.unchecked[Unchecked.OPEN_WINDOWS] += 1
        if local.total and self._is_before(due, span, is_whole=is_whole):
            findings.unchecked[Unchecked.WINDOWS_BEFORE] += 1
        else:
            findings.add(local)
        if walk.wrong is None and walk.state is not None and walk.covered == len(events):
            return walk.state
        return self._fold.fold(base, events)

    def _is_before(self, due: Sequence[Due], span: Span, *, is_whole: bool) -> bool:
        """Whether not all of its events, or rows, can be known."""
        scope = self._scope
        if span.start_ms <= scope.windows_after_ms:
            return True
        if is_whole:
            return False
        return span.first == 0 or due[span.first - 1].event.event_time_ms <= scope.clean_after_ms

    def _without_repetitions(self, key: bytes, rows: list[_Read], span: Span, findings: Findings) -> list[_Read]:
        """The rows without those whose revision was there already, which are noted."""
        name = self._fold.names.revision
        found: list[_Read] = []
        for each in rows:
            if name is not None and any(each.row.get(name) == one.row.get(name) for one in found):
                text = (
                    f"the row of the window from {instant(span.start_ms)} at offset {each.seen.offset} has revision "
                    f"{each.row.get(name)}, which was there already"
                )
                findings.note(Difference(Kind.SURPLUS_WINDOW, key, self._window.topic, text))
            else:
                found.append(each)
        return found

    def _walk(self, key: bytes, span: Span, events: Sequence[Event], rows: Sequence[_Read], base: Rows) -> _Walk:
        """Find for each row the consecutive events that it is the fold of."""
        covered, state = 0, None
        for number, each in enumerate(rows):
            found = self._match(key, span, events, covered, number, each.row, base, is_last=number == len(rows) - 1)
            if found is None:
                return _Walk(covered, state, number)
            covered, state = found.covered, found.state
            if state is not None:
                base = self._fold.carry(state)
        return _Walk(covered, state)

    def _match(
        self,
        key: bytes,
        span: Span,
        events: Sequence[Event],
        first: int,
        revision: int,
        row: Row,
        base: Rows,
        *,
        is_last: bool,
    ) -> _Walk | None:
        """The events from `first` on that `row` is the fold of; the last row is of all that is left, as a rule."""
        if first >= len(events):
            return None
        if is_last:
            state = self._fold.fold(base, events[first:])
            if not differing(self._row(key, span, events[-1], revision, state), row):
                return _Walk(len(events), state)
        state = base
        for end in range(first + 1, len(events) + 1):
            state = self._fold.fold(state, [events[end - 1]])
            if not differing(self._row(key, span, events[end - 1], revision, state), row):
                return _Walk(end, state)
        return None

    def _row(self, key: bytes, span: Span, last: Event, revision: int, state: Rows) -> Row:
        return self._fold.row(key, span.start_ms, self._end_ms(span, last), revision, state)

    def _wrong_row(
        self, key: bytes, span: Span, events: Sequence[Event], wrong: _Read, walk: _Walk, base: Rows
    ) -> Difference:
        """The difference, with the first event after which the row has other values."""
        revision, where = (
            walk.wrong or 0,
            f"the row of the window from {instant(span.start_ms)} at offset {wrong.seen.offset}",
        )
        left = events[walk.covered :]
        if not left:
            text = f"{where} is of no event: the rows before it have all {len(events)} events of the window"
            return Difference(Kind.SURPLUS_WINDOW, key, self._window.topic, text)
        state = base if walk.state is None else self._fold.carry(walk.state)
        columns = differing(self._row(key, span, left[-1], revision, self._fold.fold(state, left)), wrong.row)
        first = left[0]
        for number, event in enumerate(left[:-1]):
            state = self._fold.fold(state, [event])
            if _agrees(self._row(key, span, event, revision, state), columns):
                first = left[number + 1]
        text = f"{where} is the fold of no consecutive events of the window"
        return Difference(
            Kind.WRONG_WINDOW, key, self._window.topic, text, Place.of(self._scope.partition, first), columns
        )

    def _missing(
        self, key: bytes, span: Span, events: Sequence[Event], covered: int, rows: Sequence[_Read]
    ) -> Difference:
        text = (
            f"the rows of the window from {instant(span.start_ms)} have {covered} of its {len(events)} events"
            if rows
            else f"the window from {instant(span.start_ms)} with {len(events)} events has no row"
        )
        place = Place.of(self._scope.partition, events[covered])
        return Difference(Kind.MISSING_WINDOW, key, self._window.topic, text, place)


def _agrees(row: Row, columns: Sequence[Column]) -> bool:
    return all(row.get(each.name) == each.actual for each in columns)
