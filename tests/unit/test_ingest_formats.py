"""The same rows in every format, dialect and compression are the same events."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.ingest import IngestOptions, InputFormat, Reading, TimeUnit, ingest_file
from streams.ingest.events import Converter, Encoder
from streams.ingest.filling import filling_of
from streams.ingest.judge import END_OF_TIME_MS, Judge
from streams.ingest.readers import format_of, open_source
from streams.schemas.catalog import Catalog
from streams.settings import Settings

pytestmark = pytest.mark.thorough

SCHEMA = Catalog.load().latest(GPS.subject)
BEGINNING = datetime(2024, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
COUNT = 50
NUMBERS = ("latitude", "longitude", "speed_kmh")
ROWS: list[dict[str, Any]] = [
    {
        "device_id": f"Gerät-{number % 7}",
        "event_time": BEGINNING + timedelta(milliseconds=1_234 * number),
        "latitude": Decimal("48.1") + Decimal(number) / 10_000_000,
        "longitude": Decimal("-0.0000001") * number,
        "speed_kmh": None if number % 3 else Decimal("77.3"),
        "altitude_m": None,
    }
    for number in range(COUNT)
]
"""Decimals that Arrow's own cast turns into a neighbour of the nearest double; a column without any value."""


def epoch_ms(value: datetime) -> int:
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def texts(**change: Callable[[Any], str]) -> list[dict[str, str]]:
    def text(name: str, value: Any) -> str:
        if value is None:
            return ""
        if name in change:
            return change[name](value)
        return value.isoformat() if name == "event_time" else f"{value:f}" if name in NUMBERS else str(value)

    return [{name: text(name, value) for name, value in row.items()} for row in ROWS]


def written_csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def written_json(time: Callable[[datetime], Any], *, nulls: bool) -> str:
    lines = []
    for row in ROWS:
        plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}
        plain["event_time"] = time(row["event_time"])
        lines.append(json.dumps({name: value for name, value in plain.items() if nulls or value is not None}))
    return "\n".join(lines) + "\n"


def written_parquet(path: Path, **types: pa.DataType) -> None:
    columns = {
        name: pa.array([row[name] for row in ROWS]).cast(types[name], safe=False)
        if name in types
        else pa.array([None if row[name] is None or name not in NUMBERS else float(row[name]) for row in ROWS])
        if name in NUMBERS
        else pa.array([row[name] for row in ROWS])
        for name in ROWS[0]
    }
    pq.write_table(pa.table(columns), path)


DECIMAL = pa.decimal128(20, 9)


def avro_bytes(codec: str = "null", *, decimals: bool = False, time: str = "timestamp-micros") -> bytes:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 9}
    number = decimal if decimals else "double"
    fields = [
        {"name": "device_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": time}},
        {"name": "latitude", "type": number},
        {"name": "longitude", "type": number},
        {"name": "speed_kmh", "type": ["null", number]},
        {"name": "altitude_m", "type": ["null", "double"]},
    ]
    rows = [
        {
            name: float(value) if isinstance(value, Decimal) and not decimals else value
            for name, value in {**row, "event_time": row["event_time"]}.items()
        }
        for row in ROWS
    ]
    out = io.BytesIO()
    schema = fastavro.parse_schema({"type": "record", "name": "R", "fields": fields})
    fastavro.writer(out, schema, rows, codec="null", sync_interval=500)
    return recompressed(out.getvalue(), codec)


def recompressed(container: bytes, codec: str) -> bytes:
    """A container with blocks of another codec; written by hand, since fastavro wants a package for each."""
    if codec == "null":
        return container
    out = io.BytesIO()
    blocks = list(fastavro.block_reader(io.BytesIO(container)))
    sync = container[-16:]
    metadata = {"avro.codec": codec.encode(), "avro.schema": json.dumps(plain_schema(blocks[0].writer_schema)).encode()}
    header = {"magic": b"Obj\x01", "meta": metadata, "sync": sync}
    fastavro.schemaless_writer(out, fastavro.schema.parse_schema(HEADER), header)
    for block in blocks:
        data = packed(block.bytes_.getvalue(), codec)
        out.write(varint(block.num_records) + varint(len(data)) + data + sync)
    return out.getvalue()


HEADER = {
    "type": "record",
    "name": "Header",
    "fields": [
        {"name": "magic", "type": {"type": "fixed", "name": "m", "size": 4}},
        {"name": "meta", "type": {"type": "map", "values": "bytes"}},
        {"name": "sync", "type": {"type": "fixed", "name": "s", "size": 16}},
    ],
}


def plain_schema(schema: Any) -> Any:
    return {key: value for key, value in schema.items() if not key.startswith("__")}


def varint(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    return out.getvalue()


def packed(data: bytes, codec: str) -> bytes:
    match codec:
        case "deflate":
            machine = zlib.compressobj(wbits=-15)
            return machine.compress(data) + machine.flush()
        case "bzip2":
            return bz2.compress(data)
        case "xz":
            return lzma.compress(data)
        case "snappy":
            return bytes(pa.Codec("snappy").compress(data, asbytes=True)) + zlib.crc32(data).to_bytes(4, "big")
        case "zstandard":
            return bytes(pa.Codec("zstd").compress(data, asbytes=True))
        case _:
            return len(data).to_bytes(4, "little") + bytes(pa.Codec("lz4_raw").compress(data, asbytes=True))


def events_of(path: Path, reading: Reading) -> list[dict[str, Any]]:
    """What would be sent, decoded."""
    source = open_source(path, format_of(path), reading)
    filling = filling_of(GPS, SCHEMA, source, {})
    judge = Judge(GPS, SCHEMA, 1, record_bytes_max=2**20, skew_ms_max=0, now_ms=END_OF_TIME_MS)
    converter = Converter(GPS, filling, Encoder(GPS, SCHEMA, 1), judge, reading)
    parsed = fastavro.parse_schema(json.loads(SCHEMA.text))
    found = []
    for chunk in source.chunks(converter.columns):
        batch, bad = converter.convert(chunk)
        assert bad == []
        found += [fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed, None) for value in batch.values]
    return found


def german(value: Decimal) -> str:
    return f"{value:f}".replace(".", ",")


def berlin(value: datetime) -> str:
    return (value + timedelta(hours=1)).replace(tzinfo=None).isoformat(" ")


def dialects() -> dict[str, tuple[bytes, Reading]]:
    plain = written_csv(texts()).encode()
    compressed = gzip.compress(plain[:300]) + gzip.compress(plain[300:])
    decimal_comma = texts(**dict.fromkeys(NUMBERS, german), event_time=berlin)
    return {
        "plain.csv": (plain, Reading()),
        "crlf.csv": (plain.replace(b"\n", b"\r\n"), Reading()),
        "members.csv.gz": (compressed, Reading()),
        "named-otherwise.csv": (gzip.compress(plain), Reading()),
        "zstd.csv.zst": (pa.Codec("zstd").compress(plain, asbytes=True), Reading()),
        "tabs.tsv": (written_csv(texts(), "\t").encode(), Reading()),
        "tabs.csv": (written_csv(texts(), "\t").encode(), Reading()),
        "pipes.csv": (written_csv(texts(), "|").encode(), Reading()),
        "excel.csv": (
            written_csv(decimal_comma, ";").encode("cp1252"),
            Reading(encoding="cp1252", decimal_comma=True, timezone="Europe/Berlin"),
        ),
        "mark.csv": (b"\xef\xbb\xbf" + plain, Reading()),
        "utf16.csv": (plain.decode().encode("utf-16"), Reading()),
        "utf16be.csv": (plain.decode().encode("utf-16-be"), Reading(encoding="utf-16-be")),
        "ms.csv": (written_csv(texts(event_time=lambda v: str(epoch_ms(v)))).encode(), Reading()),
        "us.csv": (
            written_csv(texts(event_time=lambda v: f"{epoch_ms(v)}000")).encode(),
            Reading(time_unit=TimeUnit.US),
        ),
        "s.csv": (written_csv(texts(event_time=lambda v: f"{Decimal(epoch_ms(v)) / 1000}")).encode(), Reading()),
        "nulls.ndjson": (written_json(epoch_ms, nulls=True).encode(), Reading()),
        "absent.ndjson": (written_json(datetime.isoformat, nulls=False).encode(), Reading()),
        "seconds.jsonl.gz": (gzip.compress(written_json(datetime.timestamp, nulls=False).encode()), Reading()),
        "utf16.ndjson": (written_json(epoch_ms, nulls=True).encode("utf-16"), Reading()),
        **{
            f"{codec}.avro": (avro_bytes(codec), Reading())
            for codec in ("null", "deflate", "bzip2", "xz", "snappy", "zstandard", "lz4")
        },
        "decimal.avro": (avro_bytes(decimals=True, time="timestamp-millis"), Reading()),
    }


def parquets() -> dict[str, dict[str, pa.DataType]]:
    decimals = dict.fromkeys(NUMBERS, DECIMAL)
    return {
        "doubles": {},
        "decimals": decimals,
        "ns": {"event_time": pa.timestamp("ns")},
        "ms-zone": {"event_time": pa.timestamp("ms", "Europe/Berlin"), **dict.fromkeys(NUMBERS, pa.decimal256(40, 20))},
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("formats") / "doubles.parquet"
    written_parquet(path)
    found = events_of(path, Reading())
    assert [(one["device_id"], one["latitude"], one["longitude"], one["speed_kmh"]) for one in found] == [
        (
            row["device_id"],
            float(row["latitude"]),
            float(row["longitude"]),
            row["speed_kmh"] and float(row["speed_kmh"]),
        )
        for row in ROWS
    ]
    assert len({one["event_id"] for one in found}) == COUNT
    return found


@pytest.mark.parametrize("name", dialects())
def test_text_and_avro_files_of_the_same_rows_are_the_same_events_with_the_same_ids(
    name: str, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    content, reading = dialects()[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert events_of(path, reading) == expected


@pytest.mark.parametrize("name", parquets())
def test_parquet_files_of_the_same_rows_are_the_same_events_with_the_same_ids(
    name: str, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.parquet"
    written_parquet(path, **parquets()[name])
    assert events_of(path, Reading()) == expected


@pytest.mark.parametrize("kind", list(InputFormat))
def test_a_file_damaged_at_any_byte_is_one_clear_error_or_bad_rows(kind: InputFormat, tmp_path: Path) -> None:
    path = tmp_path / f"file.{kind}"
    match kind:
        case InputFormat.PARQUET:
            written_parquet(path)
        case InputFormat.CSV:
            path.write_text(written_csv(texts()), encoding="utf-8")
        case InputFormat.NDJSON:
            path.write_text(written_json(epoch_ms, nulls=True), encoding="utf-8")
        case InputFormat.AVRO:
            path.write_bytes(avro_bytes("zstandard"))
    whole = path.read_bytes()
    settings = Settings()
    step = max(1, len(whole) // 40)
    for position in range(0, len(whole), step):
        for damaged in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]):
            path.write_bytes(damaged)
            said = ""
            try:
                result = ingest_file(settings, path, GPS.source, IngestOptions(dry_run=True))
            except StreamsError as error:
                said = str(error)
            else:
                assert result.rows == result.valid + result.bad
            assert "\n" not in said
