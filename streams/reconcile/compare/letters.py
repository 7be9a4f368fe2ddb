"""The dead letters of a partition's records against the records that must have been rejected."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from streams.reconcile.compare.seen import Scope, SeenLetter
from streams.reconcile.differences import Difference, Findings, Kind, Place, Unchecked
from streams.reconcile.model.events import Reject
from streams.reconcile.model.history import REFUSED
from streams.reconcile.model.judge import QUARANTINED

_LETTERS: Final = "dead letters"
_DIGEST_BYTES: Final = 16


def digest_of(raw: bytes) -> bytes:
    """What two values share that are equal."""
    return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).digest()


def compare_letters(
    scope: Scope, due: Mapping[int, Reject], seen: Mapping[int, Sequence[SeenLetter]], findings: Findings
) -> None:
    """Note every letter that is missing, is there without or besides a reject, or says something else.

    Both by the offset of the record in the source.
    """
    findings.checked[_LETTERS] += sum(map(len, seen.values()))
    for offset in sorted({*due, *seen}):
        reject, letters = due.get(offset), seen.get(offset, ())
        if reject is not None and not letters:
            _missing(scope, reject, findings)
        for number, letter in enumerate(letters):
            if reject is None and letter.reason == REFUSED:
                continue
            _compare(scope, offset, reject if number == 0 else None, letter, findings, is_first=number == 0)


def _missing(scope: Scope, reject: Reject, findings: Findings) -> None:
    if reject.offset >= scope.reached:
        return
    if reject.offset < scope.letters_from or (not scope.is_whole and reject.reason == QUARANTINED):
        findings.unchecked[Unchecked.LETTERS_BEFORE] += 1
        return
    text = f"the record is rejected ({reject.reason}) and has no dead letter"
    place = Place.of(scope.partition, reject)
    findings.note(Difference(Kind.MISSING_LETTER, reject.key, scope.dlq, text, place))


def _compare(
    scope: Scope, offset: int, reject: Reject | None, letter: SeenLetter, findings: Findings, *, is_first: bool
) -> None:
    place = Place(scope.partition, offset)
    if not scope.is_whole and QUARANTINED in {letter.reason, reject.reason if reject else ""}:
        findings.unchecked[Unchecked.LETTERS_BEFORE] += 1
        return
    at = f"the dead letter at offset {letter.offset} of partition {letter.partition}"
    if reject is None:
        why = "is of a record that is not rejected" if is_first else "is a second one of its record"
        text = f"{at} ({letter.reason}) {why}"
        findings.note(Difference(Kind.SURPLUS_LETTER, letter.key, scope.dlq, text, place))
        return
    wrong = [
        words
        for words, differs in (
            (f"the reason {letter.reason} instead of {reject.reason}", letter.reason != reject.reason),
            ("another key than its record", letter.key != reject.key),
            ("other bytes than its record", letter.digest != digest_of(reject.raw)),
        )
        if differs
    ]
    if wrong:
        text = f"{at} has {' and '.join(wrong)}"
        findings.note(Difference(Kind.WRONG_LETTER, reject.key, scope.dlq, text, place))
