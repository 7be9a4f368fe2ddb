"""Records to look up in a log for their times, and what was found. Pure."""

from dataclasses import dataclass

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Question:
    """A question for the first record at or after `offset`, and its time."""

    topic: str
    partition: int
    offset: int
    end: int
    """End of the log as of the round: no record before it means that there is none to read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The first record at or after the question's offset; `found` None: there is none before `end`."""

    question: Question
    found: int | None
    timestamp_ms: int | None
