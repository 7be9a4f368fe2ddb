import json

import pytest

from streams.batch.columns import Headers
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.batch.replayed import is_replayed
from streams.deadletters.letter.audit import (
    Act,
    Actor,
    Outcome,
    RecordWriter,
    outcome_record,
    parsed,
    reveal_record,
    settle,
)
from streams.deadletters.letter.envelope import envelope_headers
from streams.deadletters.letter.letter import HistoryWriter, history_of, parts_of, replay_headers

ID = "0123456789abcdef01234567"
NOW_MS = 1_700
WRITER = RecordWriter(Act.REPLAYED, Actor('st"ella', "why\nnot", "r1"), topic="t.dlq", at_ms=5, transform="m:f")


def mark(letter_id: str = ID) -> bytes:
    return WRITER.record(letter_id, attempt=2, reason='in"valid', partition=1, offset=9)


def headers_of(value: bytes, letter_id: bytes = ID.encode()) -> Headers:
    return [
        ("own", b"x"),
        ("dlq.id", letter_id),
        ("dlq.attempt", b"3"),
        ("dlq.history", b"[]"),
        ("dlq.replayed", value),
    ]


def test_a_record_is_json_with_everything_in_it() -> None:
    assert {
        "id": ID, "resolution": "replayed", "attempt": 2, "reason": 'in"valid', "letter_partition": 1,
        "letter_offset": 9, "by": 'st"ella', "at": 5, "why": "why\nnot", "run": "r1", "letter_topic": "t.dlq",
        "transform": "m:f",
    } == json.loads(mark())  # fmt: skip


def test_the_worker_completes_the_record_and_takes_mark_and_history_off() -> None:
    others: list[Headers | None] = [None, [], [("a", b"b")]]
    settled = settle([*others, headers_of(mark())], Outcome.LATE, 77)

    assert [*others, [("own", b"x"), ("dlq.id", ID.encode()), ("dlq.attempt", b"3")]] == settled.headers
    assert [ID.encode()] == settled.keys
    (value,) = settled.values
    assert {**json.loads(mark()), "outcome": "late", "outcome_at": 77} == json.loads(value or b"")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"{}", b"nonsense", b"[]", mark("f" * 24), mark()[:-1], mark() + b" ", b"x" * 5_000,
        mark().replace(b"replayed", b"discarded", 1), mark().replace(b'"attempt":2', b'"attempt":true'),
        mark().replace(b'"attempt":2', b'"attempt":-1'), mark()[:-1] + b"," + b"[" * 3_000,
    ],
)  # fmt: skip
def test_a_mark_that_no_replay_has_written_is_taken_off_and_forgotten(value: bytes) -> None:
    settled = settle([headers_of(value)], Outcome.CLEAN, 1)

    assert ([], []) == (settled.keys, settled.values)
    assert "dlq.replayed" not in dict(settled.headers[0] or ())


def test_a_mark_without_a_value_or_an_id_is_none() -> None:
    assert outcome_record([("dlq.id", ID.encode()), ("dlq.replayed", None)], Outcome.CLEAN, 1) is None
    assert outcome_record([("dlq.replayed", mark())], Outcome.CLEAN, 1) is None


def test_only_a_mark_at_the_end_makes_a_replay() -> None:
    assert is_replayed(headers_of(mark()))
    assert not is_replayed([("dlq.replayed", b""), ("own", b"")])
    assert not is_replayed(None)
    assert not is_replayed([])


def test_each_reveal_has_a_key_of_its_own_and_resolves_nothing() -> None:
    key, value = reveal_record(ID, Actor("a", "b", "c"), at_ms=1, reveal_id="n")
    assert f"{ID}:revealed:n".encode() == key
    assert parsed(value) is None


def test_a_name_or_reason_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most 500"):
        Actor("a" * 501, "", "r")


def letter(
    headers: Headers | None = None,
    message: str = "what is wrong",
) -> DeadLetter:
    return DeadLetter(Reject(0, Reason.MALFORMED, message, 7), 1, 42, 1_700, b"k", b"v", headers)


def test_history_grows_with_each_failure_and_the_envelope_keeps_it() -> None:
    headers: Headers = [("own", None), ("own", b"2")]
    for attempt in range(1, 4):
        dead = envelope_headers(letter(headers), source="s", group="g", now_ms=NOW_MS)
        parts = parts_of(dead)
        assert [("own", None), ("own", b"2")] == parts.own
        assert str(attempt).encode() == dict(dead)["dlq.attempt"]
        writer = HistoryWriter(by="me", why=f"try {attempt}", run="r", at_ms=attempt)
        history = writer.history(parts, attempt, "malformed")
        assert [f"try {number}" for number in range(1, attempt + 1)] == [each["why"] for each in history_of(history)]
        headers = replay_headers(
            parts.own, letter_id=dict(dead)["dlq.id"] or b"", attempt=attempt + 1, first_failed_at=1_700,
            history=history, mark=mark(),
        )  # fmt: skip
    last = history_of(history)[-1]
    assert (3, "malformed", "what is wrong", 1, 42) == tuple(
        last[name] for name in ("attempt", "reason", "message", "partition", "offset")
    )


def test_a_history_is_bounded_and_one_that_is_not_ours_counts_as_none() -> None:
    dead = envelope_headers(letter(message="x" * 10_000), source="s", group="g", now_ms=NOW_MS)
    history = b"[]"
    for attempt in range(1, 100):
        parts = parts_of([*dead, ("dlq.history", history)])
        history = HistoryWriter(by="b" * 400, why="w" * 400, run="r", at_ms=1).history(parts, attempt, "malformed")
        assert len(history) <= 16_384
    assert 99 == history_of(history)[-1]["attempt"]
    for forged in (b"{}", b"nonsense", b"[1, 2]", b"[" * 10_000, b" " * 20_000):
        assert [] == history_of(forged)


def test_an_envelope_believes_no_history_that_is_not_well_formed() -> None:
    forged: Headers = [
        ("dlq.id", b"<script>"),
        ("dlq.attempt", b"-1"),
        ("dlq.first_failed_at", b"now"),
        ("dlq.history", b"x" * 20_000),
    ]
    plain, with_forged = (
        envelope_headers(each, source="s", group="g", now_ms=NOW_MS) for each in (letter(), letter(forged))
    )
    assert plain == with_forged
