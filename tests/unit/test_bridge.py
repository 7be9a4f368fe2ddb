"""Addresses, topic filters and messages of the MQTT bridge."""

import json

import pytest

from streams.batch.rejects import Reason
from streams.bridge.address import Address, address_of, filter_of
from streams.bridge.messages import rows_of
from streams.errors import UsageError
from streams.gateway.formats import load_formats, parse_format
from streams.gateway.records import Rejection

BYTES_MAX = 10_000


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", Address("broker", 1883, is_tls=False)),
        ("mqtts://broker", Address("broker", 8883, is_tls=True)),
        ("mqtt://127.0.0.1:2000/", Address("127.0.0.1", 2000, is_tls=False)),
        ("mqtt://[::1]:2000", Address("::1", 2000, is_tls=False)),
    ],
)
def test_an_address_is_read(url: str, expected: Address) -> None:
    assert address_of(url) == expected


@pytest.mark.parametrize(
    "url", ["", "broker", "http://broker", "mqtt://", "mqtt://b:x", "mqtt://b:0", "mqtt://b/path", "mqtt://b?x=1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="mqtt://HOST"):
        address_of(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        address_of("mqtt://me:s3cret@broker")
    assert "STREAMS_MQTT_PASSWORD" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("topic", ["a", "a/b", "+/a/#", "#", "+", "a//b", "$SYS/x"])
def test_a_topic_filter_is_taken(topic: str) -> None:
    assert filter_of(topic, None) == topic
    assert filter_of(topic, "all") == f"$share/all/{topic}"


@pytest.mark.parametrize("topic", ["", "a#", "#/a", "a+/b", "a\0b", "$share/x/a", "x" * 70_000])
def test_what_is_no_topic_filter_is_refused(topic: str) -> None:
    with pytest.raises(UsageError, match="--topic"):
        filter_of(topic, None)


@pytest.mark.parametrize("share", ["", "a/b", "a+", "x" * 65])
def test_what_is_no_name_of_a_share_is_refused(share: str) -> None:
    with pytest.raises(UsageError, match="--share"):
        filter_of("a", share)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"junk", Reason.MALFORMED),
        (b"\xff", Reason.MALFORMED),
        (b"[" * 10_000 + b"]" * 10_000, Reason.MALFORMED),
        (b'{"a": "' + b"x" * BYTES_MAX + b'"}', Reason.TOO_LARGE),
        (b"[" + b"{}," * 10_000 + b"{}]", Reason.TOO_LARGE),
    ],
)
def test_what_cannot_be_read_is_one_rejected_row(payload: bytes, reason: Reason) -> None:
    found = rows_of(payload, "a", None, BYTES_MAX)
    (row,) = found.rows
    assert isinstance(row, Rejection)
    assert row.reason is reason
    assert found.raw(0) == payload


def test_an_object_is_a_row_and_a_list_several() -> None:
    assert rows_of(b'{"a": 1}', "t", None, BYTES_MAX).rows == [{"a": 1}]
    assert rows_of(b'[{"a": 1}, {"a": 2}]', "t", None, BYTES_MAX).rows == [{"a": 1}, {"a": 2}]


def test_the_device_of_owntracks_is_the_topic() -> None:
    payload = json.dumps({"_type": "location", "tid": "x", "tst": 1767225600, "lat": 1.0, "lon": 2.0}).encode()
    (row,) = rows_of(payload, "owntracks/ann/phone", load_formats()["owntracks"], BYTES_MAX).rows
    assert isinstance(row, dict)
    assert row["device_id"] == "owntracks/ann/phone"
    away = json.dumps({"_type": "lwt", "tst": 1}).encode()
    assert rows_of(away, "owntracks/ann/phone", load_formats()["owntracks"], BYTES_MAX).rows == []


@pytest.mark.parametrize(("place", "expected"), [("topic:2", "häuser"), ("topic:", "a/häuser/c"), ("topic:9", None)])
def test_a_format_takes_levels_of_the_topic(place: str, expected: str | None) -> None:
    found = parse_format("mine", f'[fields]\ndevice_id = {{ at = "{place}" }}\n', "mine.toml")
    assert [dict(row) for row in rows_of(b"{}", "a/häuser/c", found, BYTES_MAX).rows if isinstance(row, dict)] == (
        [{"device_id": expected}] if expected else [{}]
    )


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="first level"):
        parse_format("mine", '[fields]\ndevice_id = { at = "topic:0" }\n', "mine.toml")
