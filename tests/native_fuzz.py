"""Mutated records through the native decoder and the judge: what the first accepts is what the second says.

    make fuzz-native SEED=17 ARGS='--records 10000000'

The seed decides the values and the mutations. Of each schema some records are left whole; the others are cut,
lengthened, or changed in bits, bytes, varints and lengths. A record that the native decoder doubts is decoded by the
judge in any case.
"""

import argparse
import io
import json
import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import numpy as np

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.avro.native import Native, NativeProgram, choose, decode_by_reference, decode_natively, program_of
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan, build_plan
from streams.avro.validity import Validator
from streams.avro.values import Columns, decode_one, from_rows
from streams.batch.event_ids import EVENT_TIME_MAX
from streams.batch.records import Records
from streams.schemas.catalog import Catalog

BATCH: Final = 4_000
NESTED: Final = (
    {
        "name": "vendor",
        "type": {
            "type": "record",
            "name": "Vendor",
            "fields": [
                {"name": "name", "type": "string"},
                {"name": "at", "type": {"type": "fixed", "name": "F", "size": 12}},
            ],
        },
    },
    {"name": "satellites", "type": {"type": "array", "items": ["null", "int"]}},
    {"name": "extras", "type": {"type": "map", "values": {"type": "array", "items": "string"}}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "reading", "type": ["null", "string", "long", "boolean", {"type": "map", "values": "float"}]},
    {"name": "mode", "type": ["null", {"type": "enum", "name": "Mode", "symbols": ["A", "B", "C"]}]},
)
BYTES: Final = (0, 1, 2, 3, 4, 0x7E, 0x7F, 0x80, 0xC0, 0xC3, 0xED, 0xF4, 0xFE, 0xFF)
VARINTS: Final = (
    b"\x80\x00", b"\x01", b"\x03", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\xfe" + b"\xff" * 8 + b"\x01",
    b"\xfe\xff\xff\xff\x0f", b"\x80" * 10 + b"\x01", b"\x80" * 7 + b"\x20", b"\x82" + b"\x80" * 6 + b"\x20",
)  # fmt: skip
"""Numbers at the edges: in more bytes than needed, negative, of 64 bits and more, about 2^53."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A writer's schema and what reads it."""

    name: str
    plan: Plan
    program: NativeProgram
    reads: ReaderFields
    whole: list[bytes]
    native: Native


@dataclass(slots=True)
class Tally:
    """What came of the records."""

    records: int = 0
    accepted: int = 0
    doubted: int = 0
    valid: int = 0
    """Of those accepted, by reference."""


class Differs(AssertionError):
    """The native decoder accepts what the judge does not, or reads it otherwise; the message holds the record."""


def subjects(native: Native, rng: random.Random) -> list[Subject]:
    """The flows' own schemas, older ones, and some with every kind of type beside."""
    catalog = Catalog.load()
    gps, orders = catalog.versions(GPS.subject), catalog.latest(ORDERS.subject)
    newest = json.loads(gps[-1].text)
    nested = {**newest, "fields": [NESTED[0], *newest["fields"], *NESTED[1:]]}
    moved = {**newest, "fields": [_widened(field) for field in reversed(newest["fields"])]}
    pairs = [
        ("gps 1", gps[0].text, gps[-1].text, GPS),
        ("gps 2", gps[-1].text, gps[-1].text, GPS),
        ("nested beside", json.dumps(nested), gps[-1].text, GPS),
        ("nested, known to the reader", json.dumps(nested), json.dumps(nested), GPS),
        ("other types", json.dumps(moved), gps[-1].text, GPS),
        ("orders", orders.text, orders.text, ORDERS),
    ]
    return [_subject(native, rng, number, *pair) for number, pair in enumerate(pairs)]


def _widened(field: dict[str, Any]) -> dict[str, Any]:
    other = {"latitude": "float", "longitude": "long", "speed_kmh": ["float", "null"], "heading_deg": ["null", "int"]}
    return {"name": field["name"], "type": other.get(field["name"], field["type"])}


def _subject(
    native: Native, rng: random.Random, number: int, name: str, writer: str, reader: str, reads: ReaderFields
) -> Subject:
    plan = build_plan(number, writer, reader)
    program = program_of(native, plan, reads)
    assert program is not None, name
    parsed: Any = fastavro.parse_schema(json.loads(writer))
    whole = []
    for _ in range(200):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, plan.writer, _value(rng, parsed, {}, ""))
        whole.append(stream.getvalue())
    return Subject(name, plan, program, reads, whole, native)


def _value(rng: random.Random, kind: Any, named: dict[str, Any], name: str) -> Any:
    if isinstance(kind, list):
        return _value(rng, rng.choice(kind), named, name)
    if isinstance(kind, dict):
        match kind["type"]:
            case "record":
                return {each["name"]: _value(rng, each["type"], named, each["name"]) for each in kind["fields"]}
            case "enum":
                return rng.choice(kind["symbols"])
            case "fixed":
                return rng.randbytes(kind["size"])
            case "array":
                return [_value(rng, kind["items"], named, "") for _ in range(rng.randrange(4))]
            case "map":
                return {str(i): _value(rng, kind["values"], named, "") for i in range(rng.randrange(3))}
            case inner:
                return _value(rng, inner, named, name)
    match kind:
        case "null":
            return None
        case "boolean":
            return rng.random() < 0.5
        case "int" | "long":
            return rng.choice((rng.randrange(300), rng.randrange(-(2**31), 2**31))) if name != "event_time" else 10**12
        case "float" | "double":
            return rng.uniform(-90, 90)
        case "bytes":
            return rng.randbytes(rng.randrange(9))
        case _:
            letters = "0123456789abcdef" if rng.random() < 0.7 else "aé漢🚚"
            text = "".join(rng.choices(letters, k=32))
            return (
                f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if rng.random() < 0.6 else text[:9]
            )


def mutated(rng: random.Random, body: bytes) -> bytes:
    """The record with one to four changes."""
    found = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(8):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(found):
                found[at] = rng.choice(BYTES)
            case 2:
                del found[at : at + rng.randrange(1, 9)]
            case 3:
                found[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                del found[at:]
            case 5:
                found += rng.randbytes(rng.randrange(1, 4))
            case 6:
                found[at : at + 1] = rng.choice(VARINTS)
            case _:
                found[at : at + 8] = struct.pack("<d", rng.choice((float("nan"), float("inf"), -0.0, 2.0**53 + 2)))
    return bytes(found)


def check(subject: Subject, bodies: list[bytes], tally: Tally) -> None:
    """Compare what the native decoder accepts of `bodies` with what the judge says.

    Raises:
        Differs: it is something else.

    """
    part = decode_natively(subject.program, bodies, np.arange(len(bodies)), framed=False, bytes_max=1 << 20)
    if part is None:
        raise Differs(f"{subject.name}: it decodes nothing at all")
    rows = part.columns.rows.tolist()
    if sorted([*rows, *part.doubted.tolist()]) != list(range(len(bodies))):
        raise Differs(f"{subject.name}: rows {rows} and doubted {part.doubted.tolist()} are not all there are")
    records = []
    for row in rows:
        judged = decode_one(subject.plan, bodies[row])
        if not isinstance(judged, dict):
            raise Differs(f"{subject.name}: accepted, but {judged[1]}: {bodies[row].hex()}")
        records.append(judged)
    if records:
        wanted = from_rows(subject.plan, records, part.columns.rows, subject.reads)
        for column, one, other in zip(_COLUMNS, _plain(part.columns), _plain(wanted), strict=True):
            if one != other:
                _name_it(subject, bodies, rows, column)
    tally.valid += _check_by_reference(subject, bodies, part.columns)
    tally.records += len(bodies)
    tally.accepted += len(rows)
    tally.doubted += len(part.doubted)


def _check_by_reference(subject: Subject, bodies: list[bytes], accepted: Columns) -> int:
    """By reference, the same values must give what Python finds valid of those accepted; returns how many."""
    made, frame = subject.native.library.ByteRefs, subject.program.frame()
    keys: list[bytes | None] = [b"of nobody"] * len(bodies)
    for row, key in zip(accepted.rows.tolist(), accepted.key_field.to_pylist(), strict=True):
        keys[row] = key.encode()
    values: list[bytes | None] = [frame + body for body in bodies]
    numbers, times = np.arange(len(bodies)), np.full(len(bodies), EVENT_TIME_MAX)
    validator = Validator(subject.reads, 60_000)
    wanted = validator.events(Records(numbers, numbers, times, keys, values), accepted, [], None)
    limits_ms = validator.limits_ms(times, None)
    found = decode_by_reference(subject.program, made.of(values), made.of(keys), limits_ms, bytes_max=1 << 20)
    if found is None:
        raise Differs(f"{subject.name}: nothing is decoded by reference")
    columns = (
        ("rows", found.rows.tolist(), wanted.row.tolist()),
        ("others", sorted([*found.rows.tolist(), *found.others.tolist()]), numbers.tolist()),
        ("id", found.event_id.tolist(), wanted.event_id.tolist()),
        ("time", found.event_time.tobytes(), wanted.event_time.tobytes()),
        ("sequence", found.sequence.tobytes(), wanted.sequence.tobytes()),
        ("payload", _without_nans(found.payload), _without_nans(wanted.payload)),
        ("texts", [text.cast("binary").to_pylist() for text in found.texts], wanted.texts.tolist()),
        ("words", [one.tobytes() for one in found.words], [
            one.tobytes() for one in (wanted.id_hi, wanted.id_lo, wanted.id_word)
        ]),
    )  # fmt: skip
    for name, one, other in columns:
        if one != other:
            if len(bodies) > 1:
                for body in bodies:
                    check(subject, [body], Tally())
            raise Differs(f"{subject.name}: by reference {name} differs: {[body.hex() for body in bodies][:3]}")
    return len(found.rows)


def _without_nans(payload: Any) -> bytes:
    return np.where(np.isnan(payload), np.nan, payload).tobytes()


_COLUMNS: Final = ("id", "key", "time", "sequence", "payload", "nulls", "texts", "words")


def _plain(columns: Columns) -> tuple[Any, ...]:
    return (
        columns.event_id.to_pylist(),
        columns.key_field.to_pylist(),
        columns.event_time.tobytes(),
        columns.sequence.tobytes(),
        _without_nans(columns.payload),
        columns.nulls.tobytes(),
        [column.to_pylist() for column in columns.texts],
        [column.tobytes() for column in columns.id_words()],
    )


def _name_it(subject: Subject, bodies: list[bytes], rows: list[int], column: str) -> None:
    """Find the record by which a column differs, decoded alone."""
    if len(rows) > 1:
        for row in rows:
            check(subject, [bodies[row]], Tally())
    raise Differs(f"{subject.name}: {column} differs: {[bodies[row].hex() for row in rows][:3]}")


def run(native: Native, *, seed: int, records: int) -> Iterator[Tally]:
    """Check `records` records; yields the sum after each batch.

    Raises:
        Differs: the two disagree.

    """
    rng = random.Random(seed)
    made, tally = subjects(native, rng), Tally()
    while tally.records < records:
        for subject in made:
            count = min(BATCH, records - tally.records)
            pool = subject.whole
            check(
                subject, [mutated(rng, rng.choice(pool)) if i % 10 else rng.choice(pool) for i in range(count)], tally
            )
        yield tally


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=int, default=10_000_000)
    chosen = parser.parse_args()
    native = choose("on").native
    assert native is not None
    tally = Tally()
    for batch, tally in enumerate(run(native, seed=chosen.seed, records=chosen.records)):
        if batch % 40 == 0:
            sys.stderr.write(f"{tally.records:,} records\n")
    sys.stdout.write(
        f"seed {chosen.seed}: {tally.records:,} records, {tally.accepted:,} accepted and as fastavro reads them, "
        f"{tally.doubted:,} left to it; by reference {tally.valid:,} valid, as in Python\n"
    )


if __name__ == "__main__":
    main()
