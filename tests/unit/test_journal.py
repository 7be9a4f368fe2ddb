import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from streams.batch.columns import Headers, object_rows, objects
from streams.batch.events import Events, Fields
from streams.operators.dedup.section import Ids
from streams.operators.reorder.section import DueRows
from streams.state import journal
from streams.state.codec import pack_headers, unpack_headers
from streams.state.journal import JournalCorrupted, JournalEntry, Position
from tests.journalled import packed, unpacked

UNLIMITED = 1 << 40
FIELDS = Fields(("latitude", "longitude", "speed_kmh", "heading_deg"))
POSITIONS = {"a.source": Position(123, -(2**63)), "another": Position(-1, 7)}
COLUMNS = ("timestamp_ms", "event_time", "sequence", "id_hi", "id_lo", "id_word")
TEXTS = ("event_id", "key", "value")


def ids(count: int, seed: int = 1) -> Ids:
    rng = np.random.default_rng(seed)
    return Ids(*(rng.integers(1, 2**63, count, dtype=np.uint64) for _ in range(3)))


def held(
    count: int, *, headers: Sequence[Headers | None] | None = None, value_bytes: int = 50, seed: int = 1
) -> Events:
    rng = np.random.default_rng(seed)
    words = ids(count, seed)
    payload = rng.normal(size=(4, count))
    if count:
        payload[2, 0], payload[3, -1] = np.nan, -0.0
    return Events(
        row=np.full(count, -1),
        timestamp_ms=rng.integers(-5, 2**40, count),
        event_time=rng.integers(0, 2**40, count),
        sequence=rng.integers(-(2**62), 2**62, count),
        event_id=objects([f"é{i}".encode() for i in range(count)]),
        id_hi=words.hi,
        id_lo=words.lo,
        id_word=words.word,
        key=objects([f"schlüssel-{i}".encode() for i in range(count)]),
        value=objects([bytes([i % 256]) * (value_bytes + i % 3) for i in range(count)]),
        headers=None if headers is None else objects(headers),
        payload=payload,
        texts=object_rows([], count),
        slot=np.full(count, -1),
        fields=FIELDS,
    )


def due(count: int) -> DueRows:
    keys = objects([f"k\xff{i}".encode("latin-1") for i in range(count)])
    return DueRows(
        keys, np.arange(count) + 10, -np.arange(count), objects([b"" if i % 2 else b"id" for i in range(count)])
    )


HEAD = JournalEntry(7, 2**40, positions=POSITIONS, identity=b"who")


@dataclass(frozen=True)
class Written:
    """A cycle as three operators write it."""

    ids: Ids
    held: Events
    due: DueRows
    known_from: int = 0
    head: JournalEntry = HEAD

    def packed(self, record_bytes_max: int = UNLIMITED) -> list[bytes]:
        return packed(
            self.head,
            self.ids,
            self.held,
            self.due,
            ids_known_from=self.known_from,
            record_bytes_max=record_bytes_max,
        )


def entry(*, ids_count: int = 0, held_events: Events | None = None, due_count: int = 0) -> Written:
    events = held(0) if held_events is None else held_events
    return Written(ids(ids_count), events, due(due_count), -5)


def assert_equal_events(found: Events, expected: Events) -> None:
    for name in COLUMNS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name in TEXTS:
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.payload.tobytes() == expected.payload.tobytes()


def assert_equal_due(found: DueRows, expected: DueRows) -> None:
    for name in ("key", "event_time", "sequence", "event_id"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def assert_equal_ids(found: Ids, expected: Ids) -> None:
    for name in ("hi", "lo", "word"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "written",
    [
        entry(),
        entry(ids_count=1),
        entry(held_events=held(1)),
        entry(due_count=1),
        entry(ids_count=300, held_events=held(40), due_count=17),
    ],
    ids=["nothing", "ids", "held", "due", "all"],
)
def test_what_is_packed_is_unpacked(written: Written) -> None:
    [data] = written.packed()
    found = unpacked(data, FIELDS)
    head = found.entry
    assert (head.cycle, head.positions, head.identity) == (7, POSITIONS, b"who")
    assert found.ids_known_from == -5
    assert (head.event_time_max, head.part, head.parts) == (2**40, 0, 1)
    assert_equal_ids(found.ids, written.ids)
    assert_equal_events(found.held, written.held)
    assert_equal_due(found.due, written.due)


def test_headers_survive_with_none_and_empty_values_repeats_and_unicode_names() -> None:
    headers: list[Headers | None] = [None, [], [("a", None), ("a", b""), ("ключ", b"\x00\xff"), ("", b"x")]]
    [data] = entry(held_events=held(3, headers=headers)).packed()
    found = unpacked(data, FIELDS).held.headers
    assert found is not None
    assert found.tolist() == [None, None, headers[2]]


def test_events_without_headers_need_no_column_of_them() -> None:
    [data] = entry(held_events=held(3, headers=[None, None, None])).packed()
    assert unpacked(data, FIELDS).held.headers is None


@pytest.mark.parametrize("name_bytes", [65_535, 65_536, 200_000])
def test_header_names_of_any_length_survive(name_bytes: int) -> None:
    headers: Headers = [("n" * name_bytes, b"v")]
    assert unpack_headers(pack_headers(headers)) == headers


@pytest.mark.parametrize("count", [65_535, 65_536, 100_000])
def test_any_number_of_headers_survives(count: int) -> None:
    headers: Headers = [("n", b"v")] * count
    assert unpack_headers(pack_headers(headers)) == headers


@pytest.mark.parametrize("bytes_max", [1, 500, 3_000, 20_000])
def test_a_large_cycle_is_split_and_its_parts_make_the_whole(bytes_max: int) -> None:
    written = entry(
        ids_count=400, held_events=held(90, headers=[[("h", b"x" * (i * 10))] for i in range(90)]), due_count=60
    )
    records = written.packed(bytes_max)
    found = [unpacked(record, FIELDS) for record in records]
    heads = [part.entry for part in found]
    assert [(head.part, head.parts) for head in heads] == [(i, len(records)) for i in range(len(records))]
    assert {(head.cycle, head.event_time_max) for head in heads} == {(7, 2**40)}
    assert (heads[0].positions, heads[0].identity) == (POSITIONS, b"who")
    assert not any(head.positions or head.identity for head in heads[1:])
    assert_equal_ids(Ids.concat([part.ids for part in found]), written.ids)
    whole = Events.concat([part.held for part in found if len(part.held)])
    assert_equal_events(whole, written.held)
    assert whole.headers is not None
    assert written.held.headers is not None
    assert whole.headers.tolist() == written.held.headers.tolist()
    dues = [part.due for part in found]
    joined = DueRows(
        *(
            np.concatenate([getattr(one, name) for one in dues])
            for name in ("key", "event_time", "sequence", "event_id")
        )
    )
    assert_equal_due(joined, written.due)


@pytest.mark.parametrize(
    "large",
    [
        entry(ids_count=20_000),
        entry(held_events=held(2_000, value_bytes=200)),
        entry(held_events=held(500, headers=[[("h", b"x" * 2_000)]] * 500)),
        entry(due_count=9_000),
        Written(
            ids(0),
            held(0),
            DueRows(objects([b"k" * 9_000] * 100), np.arange(100), np.arange(100), objects([b"i"] * 100)),
        ),
    ],
    ids=["ids", "held", "headers", "due", "long keys"],
)
def test_no_record_is_much_larger_than_the_limit(large: Written) -> None:
    records = large.packed(50_000)
    assert len(records) > 1
    assert max(map(len, records)) <= 50_000 + 10_000


def test_a_single_event_larger_than_the_limit_has_a_record_of_its_own() -> None:
    records = entry(held_events=held(3, value_bytes=5_000)).packed(1_000)
    assert [len(unpacked(record, FIELDS).held) for record in records] == [1, 1, 1]


def test_every_truncation_is_refused() -> None:
    [data] = entry(ids_count=3, held_events=held(2, headers=[None, [("a", b"b")]]), due_count=2).packed()
    for size in range(len(data)):
        with pytest.raises(JournalCorrupted):
            unpacked(data[:size], FIELDS)


def test_another_format_is_refused() -> None:
    [data] = entry().packed()
    with pytest.raises(JournalCorrupted, match="another format"):
        unpacked(b"SJ9\0" + data[4:], FIELDS)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_raises_journal_corrupted_or_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    [data] = entry(ids_count=3, held_events=held(3, headers=[None, [("ä", None)], [("a", b"b")]]), due_count=2).packed()
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            # Counts are in the header: that is where garbage would do harm.
            damaged[rng.randrange(150 if rng.random() < 0.5 else len(data))] = rng.randrange(256)
        try:
            unpacked(bytes(damaged), FIELDS)
        except JournalCorrupted:
            continue
    for size in range(0, 200, 7):
        with pytest.raises(JournalCorrupted):
            unpacked(rng.randbytes(size), FIELDS)


def test_held_events_are_read_by_the_names_of_their_fields() -> None:
    """A field more, a field less and another order: every value stays with its name, and what is new is null."""
    written = held(3)
    before = Fields(FIELDS.payload, ("depot_id",))
    written = replace(written, texts=object_rows([objects([b"t", None, b""])], 3), fields=before)
    [data] = entry(held_events=written).packed()
    found = unpacked(data, Fields(("heading_deg", "altitude_m", "latitude"), ("vehicle_id", "depot_id"))).held
    assert found.payload[0].tobytes() == written.payload[3].tobytes()
    assert np.isnan(found.payload[1]).all()
    assert found.payload[2].tobytes() == written.payload[0].tobytes()
    assert found.texts.tolist() == [[None, None, None], [b"t", None, b""]]
    assert_equal_events(unpacked(data, before).held, written)


def test_a_record_names_its_sections() -> None:
    [data] = entry(ids_count=2, held_events=held(1), due_count=1).packed()
    assert [*journal.sections_of(data)] == ["positions", "identity", "dedup", "reorder.held", "reorder.last"]


@pytest.mark.parametrize("magic", [b"SJ1\0", b"SJ2\0"])
def test_a_record_of_an_earlier_version_is_named_as_such(magic: bytes) -> None:
    with pytest.raises(JournalCorrupted, match="written by an earlier version"):
        unpacked(magic + bytes(100), FIELDS)
