"""The row of a key in a table against the fold of its clean events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streams.reconcile.compare.events import KeyVerdict
from streams.reconcile.compare.folded import Row, TableFold
from streams.reconcile.compare.seen import Scope, SeenRow
from streams.reconcile.differences import Difference, Findings, Kind, Place, Unchecked
from streams.reconcile.model.decode import RowUnreadable
from streams.reconcile.model.events import Event
from streams.reconcile.model.history import Due, events_of

ReadRow = Callable[[bytes], dict[str, Any]]

_ROWS: Final = "table rows"
EXPLAINED_EVENTS_MAX: Final = 20_000
"""Events of a key that are folded one by one to find the first one that explains a row."""


@dataclass(frozen=True, slots=True)
class WrongRow:
    """A row that differs; the versions of it that the topic still has may tell from which event on."""

    key: bytes
    topic: str
    columns: tuple[Any, ...]
    row: Row
    seen: SeenRow
    events: tuple[Event, ...]
    verdict: KeyVerdict


def compare_row(
    scope: Scope,
    key: bytes,
    topic: str,
    fold: TableFold,
    due: Sequence[Due],
    seen: SeenRow | None,
    read_row: ReadRow,
    verdict: KeyVerdict,
    findings: Findings,
    *,
    was_forgotten: bool = False,
    is_whole: bool = True,
) -> WrongRow | None:
    """Note a row that is missing, or should not be there; returns one that differs, to be explained.

    `is_whole`: the row is a fold of all events of the key that the source ever had.
    """
    if was_forgotten:
        findings.unchecked[Unchecked.FORGOTTEN] += 1
        return None
    if verdict.in_motion:
        findings.unchecked[Unchecked.IN_MOTION] += 1
        return None
    events = events_of(due)
    needed = max((number for number, each in enumerate(due, 1) if each.is_due), default=0)
    row = _row_of(scope, key, topic, events, seen, read_row, findings, needed=needed, is_whole=is_whole)
    if row is None or seen is None:
        return None
    expected = fold.row(key, events)
    if not fold.differing(expected, row) or _is_earlier(fold, key, events, needed, row):
        findings.checked[_ROWS] += 1
        return None
    if not is_whole:
        findings.unchecked[Unchecked.ROWS_BEFORE] += 1
        return None
    findings.checked[_ROWS] += 1
    if needed:  # what must be there is the fairer thing to compare with
        expected = fold.row(key, events[: max(needed, 1)]) if len(events) - needed else expected
    return WrongRow(key, topic, fold.differing(expected, row), row, seen, tuple(events), verdict)


def _row_of(
    scope: Scope,
    key: bytes,
    topic: str,
    events: Sequence[Event],
    seen: SeenRow | None,
    read_row: ReadRow,
    findings: Findings,
    *,
    needed: int,
    is_whole: bool,
) -> Row | None:
    """The row, where there is one and there should be one. `needed`: of so many events it must be there."""
    if seen is None or seen.value is None:
        if needed and not is_whole:
            findings.unchecked[Unchecked.ROWS_BEFORE] += 1
        elif needed:
            _missing(scope, key, topic, events[0], findings)
    elif not events:
        _surplus(key, topic, seen, findings, is_whole=is_whole)
    else:
        try:
            return read_row(seen.value)
        except RowUnreadable as error:
            text = f"the row at offset {seen.offset} cannot be read: {error}"
            findings.note(Difference(Kind.WRONG_ROW, key, topic, text, Place.of(scope.partition, events[0])))
    return None


def _is_earlier(fold: TableFold, key: bytes, events: Sequence[Event], needed: int, row: Row) -> bool:
    """Whether the row is one of before the last events, which may not have been processed yet."""
    return any(not fold.differing(fold.row(key, events[:count]), row) for count in range(max(needed, 1), len(events)))


def _missing(scope: Scope, key: bytes, topic: str, first: Event, findings: Findings) -> None:
    findings.checked[_ROWS] += 1
    text = "the key has clean events and no row"
    findings.note(Difference(Kind.MISSING_ROW, key, topic, text, Place.of(scope.partition, first)))


def _surplus(key: bytes, topic: str, seen: SeenRow, findings: Findings, *, is_whole: bool) -> None:
    if not is_whole:
        findings.unchecked[Unchecked.ROWS_BEFORE] += 1
        return
    findings.checked[_ROWS] += 1
    text = f"the row at offset {seen.offset} is of a key without clean events"
    findings.note(Difference(Kind.SURPLUS_ROW, key, topic, text))


def explain(
    wrong: WrongRow, versions: Sequence[SeenRow], fold: TableFold, read_row: ReadRow, scope: Scope
) -> Difference:
    """The difference, with the first event after which rows differ.

    Each version of the row must be what the fold gives after some event: the first event that is not in them comes
    after the newest version that is. Without earlier versions, which compaction removes, the columns that differ are
    compared with what they were after each event.
    """
    verdict, events = wrong.verdict, wrong.events[:EXPLAINED_EVENTS_MAX]
    where = f"the row at offset {wrong.seen.offset}"
    if verdict.first is not None and verdict.clean:
        as_seen = fold.row(wrong.key, verdict.clean)
        if not fold.differing(as_seen, wrong.row):
            text = f"{where} is the fold of what the clean topic holds, which differs there already"
            return _difference(wrong, text, verdict.first.event)
    states = fold.rows(wrong.key, events)
    reached, at = 0, ""
    for version in versions:
        if version.value is None:
            continue
        row = _read(read_row, version.value)
        found = next(
            (
                count
                for count in range(max(reached, 1), len(states) + 1)
                if row and not fold.differing(states[count - 1], row)
            ),
            None,
        )
        if found is None:
            return _first_wrong(wrong, version, reached, at, scope)
        reached, at = found, f"the row at offset {version.offset} is right after {events[found - 1].event_id}; "
    alike = [
        count
        for count, state in enumerate(states, 1)
        if all(state.get(each.name) == each.actual for each in wrong.columns)
    ]
    if reached and reached < len(wrong.events):  # right once, and not changed since
        text = f"{where} is what it was after {wrong.events[reached - 1].event_id}: what came since is not in it"
        return _difference(wrong, text, Place.of(scope.partition, wrong.events[reached]))
    if alike and alike[-1] < len(wrong.events):
        text = f"{where} is right in what differs up to {wrong.events[alike[-1] - 1].event_id}"
        return _difference(wrong, text, Place.of(scope.partition, wrong.events[alike[-1]]))
    return _difference(wrong, f"{where} is the fold of no events of the key", Place.of(scope.partition, events[0]))


def unexplained(wrong: WrongRow) -> Difference:
    """The difference, without looking for the event."""
    text = f"the row at offset {wrong.seen.offset} is not the fold of the key's clean events"
    return _difference(wrong, text, None if wrong.verdict.first is None else wrong.verdict.first.event)


def _first_wrong(wrong: WrongRow, version: SeenRow, reached: int, before: str, scope: Scope) -> Difference:
    first = wrong.events[min(reached, len(wrong.events) - 1)]
    text = f"{before}the row at offset {version.offset} is right after no event"
    return _difference(wrong, text, Place.of(scope.partition, first))


def _difference(wrong: WrongRow, text: str, event: Place | None) -> Difference:
    return Difference(Kind.WRONG_ROW, wrong.key, wrong.topic, text, event, wrong.columns)


def _read(read_row: ReadRow, value: bytes) -> Mapping[str, Any] | None:
    try:
        return read_row(value)
    except RowUnreadable:
        return None
