import pytest

from streams import __version__
from streams.batch.columns import Headers
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers

NOW_MS = 1_800_000_000_456


def letter(
    *,
    headers: Headers | None = None,
    reason: Reason = Reason.MALFORMED,
    offset: int = 42,
    partition: int = 1,
    schema_id: int | None = 7,
    message: str = "what is wrong",
) -> DeadLetter:
    return DeadLetter(Reject(0, reason, message, schema_id), partition, offset, 1_700_000_000_123, b"k", b"v", headers)


def ours(subject: DeadLetter, source: str = "gps.positions.v1", group: str = "streams.gps") -> dict[str, bytes]:
    return {name: value or b"" for name, value in envelope_headers(subject, source=source, group=group, now_ms=NOW_MS)}


def test_the_headers_are_those_of_the_contract() -> None:
    found = ours(letter())
    assert found.pop("dlq.id")
    assert found == {
        "__streams.errors.exception": b"streams.Malformed",
        "__streams.errors.message": b"what is wrong",
        "__streams.errors.stacktrace": b"",
        "__streams.errors.topic": b"gps.positions.v1",
        "__streams.errors.partition": b"1",
        "__streams.errors.offset": b"42",
        "dlq.reason": b"malformed",
        "dlq.attempt": b"1",
        "dlq.group": b"streams.gps",
        "dlq.schema_id": b"7",
        "dlq.first_failed_at": b"1800000000456",
        "dlq.app_version": __version__.encode(),
    }


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_name_for_an_exception(reason: Reason) -> None:
    found = ours(letter(reason=reason))
    assert found["dlq.reason"] == reason.value.encode()
    assert found["__streams.errors.exception"].decode().removeprefix("streams.").isalpha()


def test_an_unknown_schema_id_is_empty() -> None:
    assert ours(letter(schema_id=None))["dlq.schema_id"] == b""


@pytest.mark.parametrize("reason", list(Reason))
def test_the_schema_id_of_a_framed_record_is_said_whatever_it_was_rejected_for(reason: Reason) -> None:
    def said(value: bytes | None, headers: Headers | None = None) -> bytes:
        bad = DeadLetter(Reject(0, reason, "x"), 1, 42, 1_700_000_000_123, b"k", value, headers)
        return ours(bad)["dlq.schema_id"]

    in_header: Headers = [("trace", b"1"), ("__value_schema_id", b"\0\0\0\0\x09")]
    assert said(b"\0\0\0\x01\x02body") == b"258"
    assert said(b"\0\xff\xff\xff\xff") == b"-1"
    assert said(b"\0\0\0\x01\x02body", in_header) == b"9"
    assert said(None, in_header) == b"9"
    assert [said(None), said(b""), said(b"\0\0\0\0"), said(b"{json}")] == [b""] * 4
    assert said(b"\0\0\0\x01\x02body", [("__value_schema_id", b"\x01" + bytes(16))]) == b""


def test_the_same_record_gets_the_same_id_and_another_place_another_one() -> None:
    assert ours(letter())["dlq.id"] == ours(letter(reason=Reason.INVALID))["dlq.id"]
    places = [
        letter(),
        letter(offset=43),
        letter(partition=2),
        letter(offset=2, partition=14),
        letter(offset=42, partition=11),
    ]
    assert len({ours(one)["dlq.id"] for one in places} | {ours(letter(), source="orders")["dlq.id"]}) == 6


def test_an_event_whose_offset_is_not_known_has_an_id_by_its_bytes() -> None:
    nowhere = [letter(offset=-1), letter(offset=-1, partition=2)]
    other = DeadLetter(Reject(0, Reason.REFUSED_BY_OUTPUT, "m"), 1, -1, 1, b"k", b"other", None)
    assert 3 == len({ours(each)["dlq.id"] for each in (*nowhere, other)})
    assert ours(letter(offset=-1))["dlq.id"] == ours(nowhere[0])["dlq.id"]


def test_the_records_own_headers_come_first_unchanged_and_in_order() -> None:
    headers: Headers = [("b", b"1"), ("a", None), ("b", b""), ("ключ", b"\xff")]
    assert envelope_headers(letter(headers=headers), source="s", group="g", now_ms=NOW_MS)[:4] == headers


def test_a_replayed_record_keeps_its_id_attempt_and_first_failure_and_nothing_is_there_twice() -> None:
    first = envelope_headers(letter(), source="s", group="g", now_ms=NOW_MS)
    history = [(name, b"3" if name == "dlq.attempt" else value) for name, value in first]
    replayed = letter(headers=[("own", b"x"), *history], offset=99, reason=Reason.INVALID)
    again = envelope_headers(replayed, source="s", group="g", now_ms=NOW_MS + 1_000)
    assert len(again) == len({name for name, _ in again}) == len(first) + 1
    found = dict(again)
    assert found["dlq.id"] == dict(first)["dlq.id"]
    assert (found["dlq.attempt"], found["dlq.reason"], found["__streams.errors.offset"]) == (b"3", b"invalid", b"99")
    assert found["dlq.first_failed_at"] == b"1800000000456"
    assert found["own"] == b"x"


def test_empty_history_is_no_history() -> None:
    found = ours(letter(headers=[("dlq.id", b""), ("dlq.attempt", None)]))
    assert found["dlq.id"]
    assert found["dlq.attempt"] == b"1"
