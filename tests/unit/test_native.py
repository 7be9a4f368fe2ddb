"""The choice between the native decoder and the Python one, and what the native one leaves to the other."""

import io
import json
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import fastavro
import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.avro import native as native_module
from streams.avro.decode import Decoder
from streams.avro.native import INTERFACE, MODULE, Mode, Native, choose, decode_natively, program_of
from streams.avro.native_library import Decoded
from streams.avro.resolve import Plan, build_plan
from streams.batch.records import Records
from streams.batch.rejects import Reason
from streams.errors import UsageError
from streams.kafka import native_client as native_client_module
from streams.kafka.native_client import native_clients
from streams.limits import NATIVE_DEPTH_MAX
from streams.settings import load_settings
from tests.twin import TwinDecoder, assert_same, by_references
from tests.unit.test_decode import EVENT, NOW, TEXT

SCHEMA = json.loads(TEXT)
FRAME = b"\0\0\0\0\x07"


def with_fields(*fields: Any) -> dict[str, Any]:
    return {**SCHEMA, "fields": [*SCHEMA["fields"], *fields]}


def encoded(schema: dict[str, Any], **changes: object) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {**EVENT, **changes})
    return stream.getvalue()


def plan_of(schema: dict[str, Any]) -> Plan:
    return build_plan(7, json.dumps(schema), TEXT)


def records(values: list[bytes | None]) -> Records:
    count = len(values)
    return Records(np.zeros(count, np.int64), np.arange(count), np.full(count, NOW), [b"d"] * count, values)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Choices are made once for a process: here they are made anew."""
    choose.cache_clear()
    yield
    choose.cache_clear()


def library(**attributes: object) -> SimpleNamespace:
    return types.SimpleNamespace(**{"INTERFACE": INTERFACE, "__version__": "9", "Program": None, **attributes})


# --- the choice -------------------------------------------------------------------------------------------------------


def test_off_is_python(fresh: None) -> None:
    assert choose("off").native is None
    assert "STREAMS_NATIVE=off" in choose("off").reason


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (None, "logistics-streams-native is not installed"),
        (library(INTERFACE=INTERFACE + 1), f"has interface {INTERFACE + 1}, this version needs {INTERFACE}"),
        (library(INTERFACE=None), "has interface None"),
        (library(), "fails its check: TypeError"),
        (
            library(Program=lambda *_: types.SimpleNamespace(decode=lambda *_: None)),
            "fails its check: it refuses valid records",
        ),
    ],
)
def test_what_cannot_be_used_is_not_used_and_the_reason_is_said(
    fresh: None, monkeypatch: pytest.MonkeyPatch, module: SimpleNamespace | None, why: str
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, module)
    assert choose("auto").native is None
    assert why in choose("auto").reason
    with pytest.raises(UsageError, match=f"STREAMS_NATIVE=on, but .*{why}"):
        choose("on")


@pytest.mark.native
def test_a_library_that_reads_something_else_is_not_used(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sys.modules[MODULE] if MODULE in sys.modules else __import__(MODULE)

    class Wrong:
        def __init__(self, *arguments: Any) -> None:
            self._program = real.Program(*arguments)

        def decode(self, *arguments: Any) -> Decoded | None:
            found: Decoded | None = self._program.decode(*arguments)
            if found is not None:
                found.numbers[0] += 1
            return found

    monkeypatch.setitem(sys.modules, MODULE, library(Program=Wrong))
    assert "a known record is read as" in choose("auto").reason


@pytest.mark.native
def test_a_library_that_is_there_and_right_is_used(fresh: None) -> None:
    assert choose("auto").native is not None
    assert "natively" in choose("auto").reason


# --- what is left to Python -------------------------------------------------------------------------------------------


@pytest.fixture
def native() -> Native:
    found = choose("on").native
    assert found is not None
    return found


@pytest.mark.native
@pytest.mark.parametrize("depth", [NATIVE_DEPTH_MAX // 2, NATIVE_DEPTH_MAX + 1])
def test_a_schema_that_is_too_deep_is_decoded_in_python(native: Native, depth: int) -> None:
    kind: Any = "long"
    value: Any = 1
    for _ in range(depth):
        kind, value = {"type": "array", "items": kind}, [value]
    schema = with_fields({"name": "deep", "type": kind})
    plan = plan_of(schema)
    assert (program_of(native, plan, GPS) is None) == (depth > NATIVE_DEPTH_MAX)
    result = TwinDecoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000).decode(
        records([FRAME + encoded(schema, deep=value)]), {7: plan}
    )
    assert len(result.events) == 1


@pytest.mark.native
def test_a_plan_that_is_not_columnar_is_decoded_in_python(native: Native) -> None:
    schema = with_fields({"name": "three", "type": {"type": "fixed", "name": "Three", "size": 3}})
    assert program_of(native, plan_of(schema), GPS) is None


@pytest.mark.native
@pytest.mark.parametrize(
    "value",
    [
        b"\x7f" + b"\0" * 10,  # a count of -64, and a size: written in blocks
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a count of 2^63 - 1
        b"\xff" * 9 + b"\x02",  # more than 64 bits
        b"\x02\x80\x00\x00",  # a number in more bytes than it needs
    ],
)
def test_what_is_in_doubt_is_left_to_the_judge_and_costs_no_memory(native: Native, value: bytes) -> None:
    schema = with_fields({"name": "numbers", "type": {"type": "array", "items": "long"}})
    plan = plan_of(schema)
    good = encoded(schema, numbers=[1])
    doubtful = encoded(schema, numbers=[])[:-1] + value
    program = program_of(native, plan, GPS)
    assert program is not None
    part = decode_natively(program, [good, doubtful, good], np.arange(3), framed=False, bytes_max=10_000)
    assert part is not None
    assert [1] == part.doubted.tolist()
    assert [0, 2] == part.columns.rows.tolist()
    batch = records([FRAME + good, FRAME + doubtful, FRAME + good])
    decoder = TwinDecoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000)
    for _ in range(2):  # the second time as the usual schema
        decoder.decode(batch, {7: plan})


@pytest.mark.native
@pytest.mark.parametrize("value", [None, b"", b"\1\0\0\0\x07", FRAME + b"\0" * 10_000])
def test_values_of_another_kind_send_the_whole_batch_to_python(native: Native, value: bytes | None) -> None:
    program = program_of(native, plan_of(SCHEMA), GPS)
    assert program is not None
    values = [FRAME + encoded(SCHEMA), value]
    assert decode_natively(program, values, np.arange(2), framed=True, bytes_max=10_000) is None


@pytest.mark.native
def test_a_panic_sends_the_batch_to_python(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Program:
        def decode(self, *_: object) -> None:
            raise PanicException

        decode_refs = decode

    plan = plan_of(SCHEMA)
    made = native_module.NativeProgram(plan, Program(), (), (), 5, ())
    monkeypatch.setattr(native_module, "program_of", lambda *_: made)
    batch = records([FRAME + encoded(SCHEMA)])
    decoder, other = (Decoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000, native=each) for each in (native, None))
    found = other.decode(batch, {7: plan})
    for given in (batch, batch, by_references(batch, native), by_references(batch, native)):
        assert_same(found, decoder.decode(given, {7: plan}))


@pytest.mark.native
@pytest.mark.parametrize(
    "words",
    [[], [10] * 100, [9, 1 << 40], [7, -1], [12, 1, 8], [99], [2, 2], [8, 1 << 40]],
    ids=["nothing", "too deep", "fields", "size", "short", "unknown", "long", "symbols"],
)
def test_a_program_that_is_none_is_refused(native: Native, words: list[int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        native.library.Program([(words, [])], 0, 2)


@pytest.mark.native
@pytest.mark.parametrize(
    "sinks", [[(0, 5000)], [(3, 0)], [(1, 1)], [(4, 0)], [(0, -1)]], ids=["far", "kind", "beyond", "none", "negative"]
)
def test_a_program_with_a_place_that_is_none_is_refused(native: Native, sinks: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"."):
        native.library.Program([([2], sinks)], 1, 2)


@pytest.mark.native
def test_a_reader_that_wants_one_field_twice_gets_it_twice(native: Native) -> None:
    class Twice(types.SimpleNamespace):
        pass

    twice = Twice(
        id_field="event_id",
        key_field="device_id",
        time_field="event_time",
        sequence_field="sequence",
        payload_fields=("sequence", "latitude"),
        text_fields=("device_id",),
        field_ranges={},
        fields_read=("event_id", "device_id", "event_time", "sequence", "sequence", "latitude", "device_id"),
    )
    decoder = TwinDecoder(twice, record_bytes_max=10_000, skew_ms_max=60_000)
    batch = records([FRAME + encoded(SCHEMA, sequence=number) for number in (3, 2**60)])
    result = decoder.decode(batch, {7: plan_of(SCHEMA)})
    assert [3.0, 48.5] == result.events.payload[:, 0].tolist()
    assert [b"d"] == result.events.texts[0].tolist()
    assert [Reason.INVALID] == [reject.reason for reject in result.rejects]


# --- records out of the client ----------------------------------------------------------------------------------------


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    native_clients.cache_clear()
    yield
    native_clients.cache_clear()


@pytest.mark.native
@pytest.mark.parametrize(("mode", "is_native"), [("auto", True), ("on", True), ("off", False)])
def test_records_are_taken_natively_unless_that_is_turned_off(fresh_clients: None, mode: Mode, is_native: bool) -> None:
    assert (native_clients(mode) is not None) == is_native


@pytest.mark.native
def test_where_records_cannot_be_taken_natively_python_takes_them_and_the_log_says_why(
    fresh_clients: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(confluent_kafka, "libversion", lambda: ("2.9.0", 0x020900FF))
    assert native_clients("auto") is None
    assert "librdkafka 2.9.0 is not from 2.10" in capsys.readouterr().out


@pytest.mark.native
def test_an_older_librdkafka_is_refused_by_its_version(fresh_clients: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confluent_kafka, "libversion", lambda: ("2.9.0", 0x020900FF))
    with pytest.raises(UsageError, match=r"STREAMS_NATIVE=on, but .* librdkafka 2\.9\.0 is not from 2\.10"):
        native_clients("on")


@pytest.mark.native
@pytest.mark.parametrize("within", [0, 4096])
def test_without_a_certain_handle_python_takes_the_records(
    fresh_clients: None, monkeypatch: pytest.MonkeyPatch, within: int
) -> None:
    clients = native_clients("on")
    assert clients is not None
    monkeypatch.setattr(native_client_module, "_handle_within", lambda _: within)
    consumer, reader = clients.consumer(load_settings(kafka_bootstrap_servers="127.0.0.1:1"), {"group.id": "g"})
    assert reader is None
    consumer.close()


@pytest.mark.native
def test_a_reader_that_is_closed_reads_nothing_and_may_be_closed_again(fresh_clients: None) -> None:
    settings = load_settings(kafka_bootstrap_servers="127.0.0.1:1")
    clients = native_clients("on")
    assert clients is not None
    consumer, reader = clients.consumer(settings, {"group.id": "g"})
    assert reader is not None
    reader.attach("t", 0)
    assert reader.poll(10, 1) is None
    reader.close()
    reader.close()
    with pytest.raises(RuntimeError, match="the reader is closed"):
        reader.poll(10, 1)
    with pytest.raises(RuntimeError, match="the reader is closed"):
        reader.attach("t", 1)
    consumer.close()
