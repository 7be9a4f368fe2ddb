import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.audit import Act, Actor, Outcome, RecordWriter
from streams.deadletters.letter.envelope import envelope_headers, id_of_place
from streams.deadletters.letter.figures import figures
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.foreign import NO_SCHEMA_ID, Envelopes, Kind, read_envelope, read_envelopes
from streams.deadletters.letter.index import Letters
from streams.deadletters.letter.letter import parts_of, plain_parts
from streams.deadletters.letter.pin import Pin
from streams.deadletters.letter.resolutions import Resolutions

TOPIC = "t.dlq"
IDS = [id_of_place(str(number)).encode() for number in range(6)]


def letters(
    rows: list[tuple[bytes, int, str, None] | tuple[bytes, int, str, bytes]]
    | list[tuple[bytes, int, str, None]]
    | list[tuple[bytes, int, str, bytes]],
) -> Letters:
    """Letters of (id, attempt, reason, key) at offsets 0, 1, ... of partition 0."""
    made = Letters(TOPIC)
    if rows:
        ids, attempts, reasons, keys = zip(*rows, strict=True)
        count = len(rows)
        envelopes = Envelopes(
            [Kind.STREAMS] * count,
            ids,
            attempts,
            reasons,
            ["t"] * count,
            [7] * count,
            list(range(1_000, 1_000 + count)),
            [b"m"] * count,
            [(0, 0)] * count,
        )
        made.add([0] * count, list(range(count)), list(range(count)), keys, envelopes)
    return made


def resolution(
    letter_id: bytes, attempt: int, *, act: Act = Act.REPLAYED, offset: int = 10**6, outcome: str | None = None
) -> bytes:
    writer = RecordWriter(act, Actor("me", "x", "r"), topic=TOPIC, at_ms=1)
    value = writer.record(letter_id.decode(), attempt=attempt, reason="r", partition=0, offset=offset)
    return value if outcome is None else value[:-1] + f',"outcome":"{outcome}"}}'.encode()


def audit(*records: bytes) -> Resolutions:
    made = Resolutions()
    for record in records:
        made.add([json.loads(record)["id"].encode()], [record], [0], [0])
    return made


ROWS = st.lists(
    st.tuples(st.sampled_from(IDS), st.integers(1, 4), st.sampled_from(["a", "b"]), st.sampled_from([b"k", b"l", None]))
)


@given(ROWS, st.lists(st.tuples(st.sampled_from(IDS), st.integers(1, 4))))
def test_what_is_said_of_a_letter_is_said_of_its_latest_attempt(
    rows: list[tuple[bytes, int, str, None] | tuple[bytes, int, str, bytes]]
    | list[tuple[bytes, int, str, None]]
    | list[tuple[bytes, int, str, bytes]],
    resolved: list[tuple[bytes, int]],
) -> None:
    latest = {}
    for offset, row in enumerate(rows):
        if row[0] not in latest or (row[1], offset) > (latest[row[0]][1], latest[row[0]][4]):
            latest[row[0]] = (*row, offset)
    open_ids = {each for each, row in latest.items() if not any(e == each and a >= row[1] for e, a in resolved)}

    found = letters(rows).latest()
    states = audit(*(resolution(*each) for each in resolved)).of(found)

    assert {each: row[4] for each, row in latest.items()} == dict(
        zip(found.ids.tolist(), found.offset.tolist(), strict=True)
    )
    assert Counter(row[2] for row in latest.values()) == found.counts("reason")
    assert open_ids == set(found.where(states.is_open).ids.tolist())
    told = figures(TOPIC, found, states)
    assert (len(latest), len(open_ids)) == (sum(told.by_reason.values()), sum(told.open_by_reason.values()))
    assert (told.oldest_open_at_ms is None) == (not open_ids)
    for key in (b"k", b"none"):
        wanted = found.matching(Filter(keys=frozenset({key})))
        assert {each for each, row in latest.items() if row[3] == key} == set(wanted.ids.tolist())


def test_of_an_attempt_the_outcome_counts_and_of_several_attempts_the_last() -> None:
    rows = letters([(IDS[0], 2, "a", b"k")]).latest()
    of = audit(
        resolution(IDS[0], 2, outcome="clean"), resolution(IDS[0], 2), resolution(IDS[0], 1, act=Act.DISCARDED)
    ).of(rows)
    assert [(Act.REPLAYED, Outcome.CLEAN)] == of.named()
    assert not of.is_open.any()


def test_a_letter_behind_the_resolved_one_is_another_one_although_its_id_is_the_same() -> None:
    rows = letters([(IDS[1], 1, "b", None), (IDS[0], 1, "a", b"k")]).latest()
    of = audit(resolution(IDS[0], 1, offset=0)).of(rows)
    assert of.is_open.all()


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"nonsense", b"{}", b"[]", b'{"id": 1}', b'{"id":"x","resolution":"replayed","attempt":1}',
        resolution(IDS[1], 1).replace(b'"attempt":1', b'"attempt":99999999999999999999'),
        resolution(IDS[1], 1).replace(b'"attempt":1', b'"attempt":"1"'),
        resolution(IDS[1], 1).replace(b'"at":1', b'"at":{}'), b"\n", resolution(IDS[1], 1)[:-1] + b'\n,"x":1}',
    ],
)  # fmt: skip
def test_what_somebody_else_writes_into_the_audit_topic_spoils_nothing(junk: bytes) -> None:
    made = Resolutions()
    good = resolution(IDS[0], 1)
    made.add([IDS[0], IDS[2], None, b"short"], [good, junk, good, good], [0] * 4, [5, 6, 7, 8])
    rows = letters([(IDS[0], 1, "a", b"k"), (IDS[2], 1, "a", b"k")]).latest()
    states = dict(zip(rows.ids.tolist(), made.of(rows).is_open.tolist(), strict=True))
    assert {IDS[0]: False, IDS[2]: True} == states
    assert 5 == made.place_of(IDS[0]).offset
    assert made.place_of(IDS[5]) is None


def test_what_the_broker_has_deleted_is_forgotten_and_rows_found_before_stay() -> None:
    made = letters([(each, 1, "a", b"k") for each in IDS])
    before = made.latest()
    made.forget_before({0: 4})
    assert (6, 2) == (len(before), len(made.latest()))
    assert set(IDS) == set(before.ids.tolist())


def test_filters_take_the_beginning_of_an_id_and_times_without_their_end() -> None:
    rows = letters([(each, 1, "a", b"k") for each in IDS]).latest()
    assert [IDS[3]] == rows.matching(Filter(ids=frozenset({IDS[3][:8].decode()}))).ids.tolist()
    found = rows.matching(Filter(since_ms=2, until_ms=4)).in_log_order()
    assert [2, 3] == found.offset.tolist()
    assert 0 == len(rows.matching(Filter(schema_ids=frozenset({8}))))


def test_a_pinned_filter_means_nothing_that_came_after_the_question() -> None:
    rows = letters([(each, 1, "a", b"k") for each in IDS]).latest()
    everything = Filter()
    assert [0, 1, 2] == rows.matching(everything.pinned(Pin({TOPIC: (3,)}))).in_log_order().offset.tolist()
    for ends in ({}, {TOPIC: ()}, {TOPIC: (0,)}, {"other.dlq": (9,)}):
        assert 0 == len(rows.matching(everything.pinned(Pin(ends))))
    assert everything.pinned(Pin({})).narrows
    assert not everything.narrows


def test_the_next_attempt_of_a_letter_is_no_part_of_a_set_that_was_pinned_before_it() -> None:
    rows = letters([(IDS[0], 1, "a", b"k"), (IDS[1], 1, "a", b"k"), (IDS[0], 2, "a", b"k")]).latest()
    assert [IDS[1]] == rows.matching(Filter(pin=Pin({TOPIC: (2,)}))).ids.tolist()


# --- envelopes --------------------------------------------------------------------------------------------------------


def written(
    reason: Reason = Reason.INVALID,
    schema_id: int | None = 7,
    headers: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]] | None = None,
    offset: int = 42,
) -> list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]]:
    letter = DeadLetter(Reject(0, reason, "m", schema_id), 1, offset, 1_700, b"k", b"v", headers)
    return envelope_headers(letter, source="s", group="g", now_ms=1_700)


HISTORY = [("dlq.id", IDS[0]), ("dlq.attempt", b"3"), ("dlq.first_failed_at", b"12"), ("dlq.history", b"[]")]
AGAIN = st.sampled_from([HISTORY, HISTORY[:3], [("own", b"x"), *HISTORY], [*HISTORY[:3], ("dlq.history", b"")]])
NAMES = ["a", "dlq", "trace", "kafka_dlt-original-topic", "__connect.errors.topic", "x-original-topic"]
OWN = st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.binary(max_size=3)), max_size=3)


@given(
    st.lists(
        st.builds(written, st.sampled_from(list(Reason)), st.none() | st.integers(-9, 9), OWN | AGAIN)
        | OWN
        | st.none(),
        max_size=8,
    ),
    st.integers(1, 30),
)
def test_envelopes_in_one_go_say_what_each_of_them_says(rows: object, times: int) -> None:
    rows = sorted(rows * times, key=str)  # many alike together, as they come
    places = {"topic": TOPIC, "partition": 0}
    one_by_one = [read_envelope(row, **places, offset=at, timestamp_ms=at) for at, row in enumerate(rows)]
    count = len(rows)
    together = read_envelopes(rows, topic=TOPIC, partitions=[0] * count, offsets=range(count), timestamps=range(count))
    assert [each.id for each in one_by_one] == list(together.ids)
    for name in ("kind", "attempt", "reason", "source", "schema_id"):
        plural = {"schema_id": "schema_ids"}.get(name, f"{name}s")
        assert [getattr(each, name) for each in one_by_one] == list(getattr(together, plural))
    assert [each.first_failed_at for each in one_by_one] == list(together.first_failed_at)


def test_what_a_plain_letter_says_is_known_without_its_headers_and_any_other_is_looked_at() -> None:
    rows = [written(offset=7), written(headers=[("own", b"x")], offset=8), written(headers=HISTORY, offset=9)]
    for some, known in ((rows[:1], [True]), (rows[:2], [True, False]), (rows, [True, False, False])):
        count = len(some)
        made = Letters(TOPIC)
        zeros = [0] * count
        envelopes = read_envelopes(some, topic=TOPIC, partitions=zeros, offsets=range(count), timestamps=zeros)
        made.add(zeros, range(count), zeros, [b"k"] * count, envelopes)
        plain = made.latest().in_log_order().plain()
        assert known == [each is not None for each in plain]
        for row, each in zip(some, plain, strict=True):
            assert each is None or plain_parts(*each) == parts_of(row)


def test_a_replayed_letter_says_its_attempt_and_a_truncated_one_is_broken() -> None:
    again = read_envelope(written(headers=HISTORY), topic=TOPIC, partition=0, offset=0, timestamp_ms=0)
    assert (Kind.STREAMS, IDS[0], 3, 12) == (again.kind, again.id, again.attempt, again.first_failed_at)
    for left_out in ("dlq.id", "dlq.reason", "dlq.attempt", "__streams.errors.topic"):
        cut = [pair for pair in written() if pair[0] != left_out]
        assert Kind.BROKEN == read_envelope(cut, topic=TOPIC, partition=0, offset=0, timestamp_ms=0).kind
    nothing = read_envelope(None, topic=TOPIC, partition=2, offset=3, timestamp_ms=4)
    assert (Kind.BROKEN, "unknown", "", NO_SCHEMA_ID) == (
        nothing.kind, nothing.reason, nothing.source, nothing.schema_id,
    )  # fmt: skip
    assert id_of_place(f"{TOPIC}-2@3").encode() == nothing.id


@pytest.mark.parametrize("name", ["dlq.attempt", "dlq.schema_id", "dlq.first_failed_at"])
@pytest.mark.parametrize("value", [b"9" * 30, b"-9" * 9, b"x", b"\xff"])
def test_numbers_that_are_none_or_too_large_break_nothing(name: str, value: bytes) -> None:
    changed = [(each, value if each == name else text) for each, text in written()]
    made = Letters(TOPIC)
    made.add([0], [0], [0], [b"k"], read_envelopes([changed], topic=TOPIC, partitions=[0], offsets=[0], timestamps=[0]))
    assert 1 == len(made.latest())
    assert np.iinfo(np.int32).max > made.latest().attempt[0]
