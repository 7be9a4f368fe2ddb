"""The oracle of dead letters finds what it is there to find."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from loadtest.oracle.check import Topics
from loadtest.oracle.letters import LetterReport, _judge
from loadtest.oracle.read import TopicReader

TOPICS = Topics("gps", "s", "s.clean", "s.late", "s.dlq", "table")
ID = "0123456789abcdef01234567"


@dataclass
class Record:
    """A message of a topic."""

    values: dict[str, Any]
    raw: bytes = b"v"
    name: bytes = b"k"

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, value.encode()) for name, value in self.values.items()]

    def value(self) -> bytes:
        return self.raw

    def key(self) -> bytes:
        return self.name


class World:
    """One letter that failed twice and then went through."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {
            "s.dlq": [Record({"dlq.id": ID, "dlq.attempt": "1"}), Record({"dlq.id": ID, "dlq.attempt": "2"})],
            "s": [replay(2), replay(3), Record({})],
            "s.clean": [Record({"dlq.id": ID}), Record({})],
            "s.late": [],
            "s.dlq.audit": [audit(attempt=1, outcome="rejected"), audit(attempt=2, outcome="clean")],
        }

    def records(self, topic: str) -> Iterator[Any]:
        return iter(self.topics[topic])


def replay(attempt: int, **changed: object) -> Record:
    return Record({"dlq.id": ID, "dlq.attempt": str(attempt), "dlq.replayed": "{}", **changed})


def audit(**changed: object) -> Record:
    values = {"id": ID, "resolution": "replayed", "attempt": 2, "by": "b", "at": 1, "why": "w", **changed}
    return Record({}, json.dumps(values).encode(), ID.encode())


def judged(world: World, *, repaired: bool = False) -> LetterReport:
    return _judge(cast("TopicReader", world), TOPICS, repaired=repaired)


def test_a_letter_that_was_dealt_with_is_right() -> None:
    report = judged(World())
    assert report.ok, report
    assert (1, 2, 2, {"replayed, clean": 1}) == (report.letters, report.attempts, report.replays, report.resolved)


@pytest.mark.parametrize(
    ("fault", "topic", "records"),
    [
        ("open", "s.dlq.audit", []),
        ("open", "s.dlq.audit", [audit(attempt=1, outcome="rejected")]),
        ("attempts_twice", "s.dlq", [Record({"dlq.id": ID, "dlq.attempt": str(n)}) for n in (1, 2, 2)]),
        ("replays_twice", "s", [replay(2), replay(3), replay(3)]),
        ("replays_missing", "s", [replay(2)]),
        ("replays_unexplained", "s", [replay(2), replay(3), replay(9)]),
        ("outcomes_missing", "s.dlq.audit", [audit()]),
        ("outcomes_wrong", "s.dlq.audit", [audit(outcome="duplicate")]),
        ("outcomes_wrong", "s.clean", []),
        ("outcomes_wrong", "s.late", [Record({"dlq.id": ID})]),
        ("outcomes_wrong", "s.clean", [Record({"dlq.id": ID})] * 2),
        ("unnamed", "s.dlq.audit", [audit(outcome="clean", why="")]),
    ],
)
def test_what_is_wrong_is_found(fault: str, topic: str, records: list[Record]) -> None:
    world = World()
    world.topics[topic] = records
    report = judged(world)
    assert 1 == getattr(report, fault), report
    assert not report.ok


def test_bytes_that_changed_on_the_way_are_found_unless_repairs_were_made() -> None:
    world = World()
    world.topics["s"][1].raw = b"other"
    assert 1 == judged(world).replays_unexplained
    assert judged(world, repaired=True).ok
