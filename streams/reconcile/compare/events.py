"""The clean and late events of one key against what must have become of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from streams.reconcile.compare.seen import KeyOutputs, Scope, SeenEvent, SeenLateEvent
from streams.reconcile.differences import Difference, Findings, Kind, Place, Unchecked
from streams.reconcile.model.events import Event, Identity, Reject
from streams.reconcile.model.history import Due, DueLate, KeyHistory

Decode = Callable[[bytes], Event | Reject]
"""The event of a value; a reject where it is none."""

_CLEAN: Final = "events in the clean topic"
_LATE: Final = "events in the late topic"


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    """What the events of a key mean for its rows."""

    in_motion: bool = False
    """An event is left out that may be: rows need not be a fold of a beginning of the expected events."""
    first: Difference | None = None
    """The first difference in the clean topic."""
    clean: tuple[Event, ...] | None = None
    """What the clean topic holds, where it is not what it must hold."""


def compare_events(
    scope: Scope, key: bytes, due: KeyHistory, seen: KeyOutputs, decode: Decode, findings: Findings
) -> KeyVerdict:
    """Note every difference in clean and late topic."""
    if scope.clean is None:
        return _only_late(scope, key, due, seen, decode, findings)
    findings.checked[_CLEAN] += len(seen.clean)
    findings.checked[_LATE] += len(seen.late)
    if scope.is_whole and _is_equal(due, seen):
        return KeyVerdict()
    return _Comparison(scope, key, due, seen, decode, findings).run()


def _is_equal(due: KeyHistory, seen: KeyOutputs) -> bool:
    return (
        len(due.clean) == len(seen.clean)
        and len(due.late) == len(seen.late)
        and all(one.event.raw == other.raw for one, other in zip(due.clean, seen.clean, strict=True))
        and sorted((each.late.event.raw, each.late.reason, each.late.by_ms) for each in due.late)
        == sorted((each.raw, each.reason, each.by_ms) for each in seen.late)
    )


def _only_late(
    scope: Scope, key: bytes, due: KeyHistory, seen: KeyOutputs, decode: Decode, findings: Findings
) -> KeyVerdict:
    """A flow without a topic of clean events: what is clean is seen in its rows only."""
    findings.checked[_LATE] += len(seen.late)
    stand_ins = [SeenEvent(each.event.raw, scope.partition, -1) for each in due.clean]
    _Comparison(scope, key, due, KeyOutputs(stand_ins, seen.late), decode, findings).run()
    return KeyVerdict()


class _Comparison:
    """The comparison of one key's events."""

    def __init__(
        self, scope: Scope, key: bytes, due: KeyHistory, seen: KeyOutputs, decode: Decode, findings: Findings
    ) -> None:
        self._scope, self._key, self._findings = scope, key, findings
        self._first: Difference | None = None
        clean = [each for each in due.clean if each.event.event_time_ms > scope.clean_after_ms]
        late = [each for each in due.late if each.late.event.event_time_ms > scope.late_after_ms]
        left_out = len(due.clean) + len(due.late) - len(clean) - len(late)
        if left_out:
            findings.unchecked[Unchecked.EVENTS_BEFORE] += left_out
        self._due: list[Due] = clean
        self._late: list[DueLate] = late
        self._seen = [(each, decode(each.raw)) for each in seen.clean]
        self._seen = [each for each in self._seen if _time(each[1]) > scope.clean_after_ms]
        self._late_seen = [(each, decode(each.raw)) for each in seen.late]
        self._late_seen = [each for each in self._late_seen if _time(each[1]) > scope.late_after_ms]
        self._due_by_id = {each.event.identity: each for each in self._due}
        self._in_clean = Counter(event.identity for _, event in self._seen if not isinstance(event, Reject))
        self._in_late = Counter(event.identity for _, event in self._late_seen if not isinstance(event, Reject))
        self._due_late: dict[Identity, list[DueLate]] = {}
        for one in self._late:
            self._due_late.setdefault(one.late.event.identity, []).append(one)

    def run(self) -> KeyVerdict:
        self._compare_seen()
        self._compare_order()
        in_motion = self._compare_missing()
        self._compare_late()
        clean = tuple(event for _, event in self._seen if not isinstance(event, Reject)) if self._first else None
        return KeyVerdict(in_motion, self._first, clean)

    def _note(self, kind: Kind, topic: str, text: str, event: Event | Reject | None, *, of_source: bool = True) -> None:
        place = None
        if event is not None:
            place = Place.of(self._scope.partition, event)
            if not of_source:
                place = place._replace(partition=-1, offset=-1)
        found = Difference(kind, self._key, topic, text, place)
        self._findings.note(found)
        if topic == self._scope.clean and self._first is None:
            self._first = found

    @property
    def _clean(self) -> str:
        return self._scope.clean or self._scope.late

    def _compare_seen(self) -> None:
        """What is in the clean topic and should not be there, or not like that."""
        times: Counter[Identity] = Counter()
        first_at: dict[Identity, int] = {}
        for record, event in self._seen:
            where = f"{record.partition} at offset {record.offset}"
            if isinstance(event, Reject):
                self._note(
                    Kind.UNEXPECTED, self._clean, f"the record in partition {where} is no event ({event.reason})", None
                )
                continue
            identity = event.identity
            times[identity] += 1
            due = self._due_by_id.get(identity)
            if due is None:
                self._unexpected(record, event)
            elif times[identity] > 1:
                text = f"it is in the clean topic at offset {first_at[identity]} and again at {record.offset}"
                self._note(Kind.DOUBLED, self._clean, text, due.event)
            elif record.raw != due.event.raw:
                text = f"the record in partition {where} has other bytes than its event: {_changed(due.event, event)}"
                self._note(Kind.CHANGED, self._clean, text, due.event)
            first_at.setdefault(identity, record.offset)

    def _unexpected(self, record: SeenEvent, event: Event) -> None:
        late = self._due_late.get(event.identity)
        if late:
            due = late[0].late
            text = f"it is in the clean topic at offset {record.offset}, and is late ({due.reason}, {due.by_ms} ms)"
            self._note(Kind.NOT_LATE, self._clean, text, due.event)
            return
        text = f"the record at offset {record.offset} is no event of the source, or of a record that is none"
        self._note(Kind.UNEXPECTED, self._clean, text, event, of_source=False)

    def _compare_order(self) -> None:
        """Compare the order of expected events: each one counts at the first place where it is."""
        newest: Event | None = None
        known: set[Identity] = set()
        for record, event in self._seen:
            if isinstance(event, Reject) or event.identity in known or event.identity not in self._due_by_id:
                continue
            known.add(event.identity)
            if newest is not None and event.order_key < newest.order_key:
                text = f"it is at offset {record.offset} after {newest.event_id}, which follows it"
                self._note(Kind.OUT_OF_ORDER, self._clean, text, self._due_by_id[event.identity].event)
            else:
                newest = event

    def _compare_missing(self) -> bool:
        """What is clean and not in the clean topic; whether some of it was still in motion."""
        last_seen = max(
            (number for number, each in enumerate(self._due) if each.event.identity in self._in_clean), default=-1
        )
        in_motion = False
        for number, each in enumerate(self._due):
            event = each.event
            if event.identity in self._in_clean:
                continue
            if not each.is_due and (event.offset >= self._scope.reached or number > last_seen):
                in_motion |= number < last_seen
                continue
            if event.identity in self._in_late and event.identity not in self._due_late:
                said = next(one for one, its in self._late_seen if _identity(its) == event.identity)
                text = f"it is in the late topic at offset {said.offset} ({said.reason}, {said.by_ms} ms), and is clean"
                self._note(Kind.LATE_WITHOUT_REASON, self._scope.late, text, event)
                if self._first is None:
                    self._first = self._findings.differences[-1] if self._findings.differences else None
            else:
                self._note(Kind.LOST, self._clean, "it is neither in the clean topic nor late", event)
        return in_motion

    def _compare_late(self) -> None:
        rows: dict[Identity, list[SeenLateEvent]] = {}
        for record, event in self._late_seen:
            if isinstance(event, Reject):
                text = f"the record at offset {record.offset} is no event ({event.reason})"
                self._note(Kind.UNEXPECTED, self._scope.late, text, None)
            else:
                rows.setdefault(event.identity, []).append(record)
        for identity in sorted({*rows, *self._due_late}):
            self._compare_late_event(identity, self._due_late.get(identity, []), rows.get(identity, []))

    def _compare_late_event(self, identity: Identity, due: Sequence[DueLate], seen: Sequence[SeenLateEvent]) -> None:
        scope = self._scope
        if len(seen) < sum(each.is_due for each in due):
            event = due[0].late.event
            if identity not in self._in_clean:  # else it was noted there
                text = f"it is late ({due[0].late.reason}, {due[0].late.by_ms} ms), and is not in the late topic"
                self._note(Kind.LOST, scope.late, text, event)
        surplus = len(seen) - len(due)
        clean = self._due_by_id.get(identity)
        for record in seen[len(seen) - surplus :] if surplus > 0 else ():
            if clean is not None and identity in self._in_clean:
                text = f"it is clean, and in the late topic at offset {record.offset} as well"
                self._note(Kind.DOUBLED, scope.late, text, clean.event)
            elif clean is None and due:
                text = f"it is in the late topic {len(seen)} times, the last time at offset {record.offset}"
                self._note(Kind.DOUBLED, scope.late, text, due[0].late.event)
            elif clean is None:
                text = f"the record at offset {record.offset} is no event of the source"
                found = Event(-1, 0, self._key, record.raw, identity[0], "", identity[1], 0, (), ())
                self._note(Kind.UNEXPECTED, scope.late, text, found, of_source=False)
        self._compare_headers(due, seen)

    def _compare_headers(self, due: Sequence[DueLate], seen: Sequence[SeenLateEvent]) -> None:
        wanted = Counter((each.late.event.raw, each.late.reason, each.late.by_ms) for each in due)
        if not due:
            return
        for record in seen[: len(due)]:
            what = (record.raw, record.reason, record.by_ms)
            if wanted[what]:
                wanted[what] -= 1
                continue
            late = due[0].late
            if record.raw not in {each.late.event.raw for each in due}:
                text = f"the record at offset {record.offset} has other bytes than its event"
                self._note(Kind.CHANGED, self._scope.late, text, late.event)
            else:
                text = (
                    f"its headers at offset {record.offset} say {record.reason}, {record.by_ms} ms; it is "
                    f"{late.reason} by {late.by_ms} ms"
                )
                self._note(Kind.LATE_HEADERS, self._scope.late, text, late.event)


def _time(event: Event | Reject) -> float:
    return float("inf") if isinstance(event, Reject) else event.event_time_ms


def _changed(due: Event, seen: Event) -> str:
    """Say which byte is the first to differ, or that the length differs."""
    for number, (one, other) in enumerate(zip(due.raw, seen.raw, strict=False)):
        if one != other:
            return f"byte {number} is {other:02x} instead of {one:02x}"
    return f"{len(seen.raw)} bytes instead of {len(due.raw)}"


def _identity(event: Event | Reject) -> Identity | None:
    return None if isinstance(event, Reject) else event.identity
