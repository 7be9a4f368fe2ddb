"""The oracle of dead letters: what the topics say of them must add up, and each is dealt with.

By other means than the product's: plain dictionaries over whole topics. A letter is an id; each of its attempts must be
in the dead-letter topic once, and in the source once for each replay; what the audit topic says became of it must be
what the topics show.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final

from confluent_kafka import Message

from loadtest.oracle.check import Topics
from loadtest.oracle.read import TopicReader
from streams.kafka.headers import headers_of

DETAILS_MAX: Final = 20


@dataclass(slots=True)
class LetterReport:
    """The verdict; all of `FAULTS` are zero when everything is right and every letter was dealt with."""

    open: int = 0
    """Letters whose latest attempt nothing was done about."""
    attempts_twice: int = 0
    """Dead letters with an id and attempt that was there already."""
    replays_twice: int = 0
    """Records of the source with an id and attempt that was there already."""
    replays_unexplained: int = 0
    """Records of the source that no dead letter is the origin of, by id, attempt and bytes."""
    replays_missing: int = 0
    """Letters that the audit topic calls replayed, and that are not in the source."""
    outcomes_missing: int = 0
    """Replayed letters of which nothing says what became of them."""
    outcomes_wrong: int = 0
    """Replayed letters of which the topics show something else than the audit topic says."""
    unnamed: int = 0
    """Resolutions without a person, a time or a reason."""

    letters: int = 0
    attempts: int = 0
    replays: int = 0
    resolved: dict[str, int] = field(default_factory=dict)
    """Letters by their latest resolution and outcome."""
    details: list[str] = field(default_factory=list)

    FAULTS: ClassVar = (
        "open",
        "attempts_twice",
        "replays_twice",
        "replays_unexplained",
        "replays_missing",
        "outcomes_missing",
        "outcomes_wrong",
        "unnamed",
    )

    @property
    def ok(self) -> bool:
        """Whether every letter was dealt with once, and the audit topic says so."""
        return not any(getattr(self, name) for name in self.FAULTS)

    def as_dict(self) -> dict[str, Any]:
        """Return the report on dead letters as an object of the report's JSON."""
        return asdict(self)

    def note(self, fault: str, text: str) -> None:
        """Count a fault, and keep the first few in words."""
        setattr(self, fault, getattr(self, fault) + 1)
        if len(self.details) < DETAILS_MAX:
            self.details.append(f"{fault}: {text}")


def check_letters(bootstrap: str, topics: Topics, *, repaired: bool = False) -> LetterReport:
    """Compare dead letters, replays, outputs and audit. `repaired`: replays may have other bytes than their letters."""
    reader = TopicReader(bootstrap)
    try:
        return _judge(reader, topics, repaired=repaired)
    finally:
        reader.close()


def _judge(reader: TopicReader, topics: Topics, *, repaired: bool) -> LetterReport:
    report = LetterReport()
    attempts: dict[tuple[str, int], Any] = {}
    latest: dict[str, int] = {}
    for headers, message in _records(reader, topics.dlq):
        letter_id, attempt = headers["dlq.id"], int(headers["dlq.attempt"])
        if (letter_id, attempt) in attempts:
            report.note("attempts_twice", f"{letter_id}, attempt {attempt}")
        attempts[letter_id, attempt] = message.value()
        latest[letter_id] = max(attempt, latest.get(letter_id, 0))
    replays: set[tuple[str, int]] = set()
    for headers, message in _records(reader, topics.source):
        if "dlq.replayed" not in headers:
            continue
        letter_id, attempt = headers["dlq.id"], int(headers["dlq.attempt"])
        if (letter_id, attempt) in replays:
            report.note("replays_twice", f"{letter_id}, attempt {attempt}")
        replays.add((letter_id, attempt))
        origin = (letter_id, attempt - 1)
        if origin not in attempts or not (repaired or attempts[origin] == message.value()):
            report.note("replays_unexplained", f"{letter_id}, attempt {attempt}")
    shown = _shown(reader, topics)
    audit = {
        message.key(): json.loads(message.value() or b"{}")
        for _, message in _records(reader, f"{topics.dlq}.audit")
        if ":" not in (message.key() or b"").decode()
    }
    for letter_id, attempt in latest.items():
        _judge_letter(report, letter_id, attempt, audit.get(letter_id.encode()), replays, shown)
    report.letters, report.attempts, report.replays = len(latest), len(attempts), len(replays)
    return report


def _judge_letter(
    report: LetterReport,
    letter_id: str,
    attempt: int,
    record: dict[str, Any] | None,
    replays: set[tuple[str, int]],
    shown: dict[str, Counter[str]],
) -> None:
    if record is None or record.get("attempt") != attempt:
        report.note("open", f"{letter_id}, attempt {attempt}: {record}")
        return
    if not (record.get("by") and record.get("at") and record.get("why")):
        report.note("unnamed", f"{letter_id}: {record}")
    outcome = record.get("outcome")
    name = f"{record.get('resolution')}, {outcome}" if outcome else str(record.get("resolution"))
    report.resolved[name] = report.resolved.get(name, 0) + 1
    if record.get("resolution") != "replayed":
        return
    if (letter_id, attempt + 1) not in replays:
        report.note("replays_missing", f"{letter_id}, attempt {attempt + 1}")
    if outcome is None:
        report.note("outcomes_missing", letter_id)
        return
    due = Counter({outcome: 1}) if outcome in {"clean", "late"} else Counter[str]()
    if shown.get(letter_id, Counter()) != due:
        report.note("outcomes_wrong", f"{letter_id}: {outcome}, shown {dict(shown.get(letter_id, {}))}")


def _shown(reader: TopicReader, topics: Topics) -> dict[str, Counter[str]]:
    """How often each replayed letter is in clean and late."""
    shown: dict[str, Counter[str]] = defaultdict(Counter)
    for name, topic in (("clean", topics.clean), ("late", topics.late)):
        for headers, _ in _records(reader, topic):
            if "dlq.id" in headers:
                shown[headers["dlq.id"]][name] += 1
    return dict(shown)


def _records(reader: TopicReader, topic: str) -> Iterator[tuple[dict[str, str], Message]]:
    for message in reader.records(topic):
        yield {name: (value or b"").decode(errors="replace") for name, value in headers_of(message)}, message
