"""Tables that are asked: what is read beside the writer, how it is chosen, put together, masked and said."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logistics.flows import gps, orders
from streams.batch.key_hash import murmur2
from streams.batch.rows import pack_rows
from streams.engine.commit import STEPS
from streams.errors import UsageError
from streams.growth.layouts import Layouts
from streams.growth.stages import Phase
from streams.limits import CHANGES_QUEUE_BYTES_MAX
from streams.schemas.catalog import Catalog
from streams.sinks.base import Committed
from streams.sources.kafka.membership import client_id_of, member_of
from streams.state.store import StoreClosed
from streams.tables.asked import Asked, cursor_of, key_of_cursor, parameters_of_rows
from streams.tables.change_log import Chunk, View, id_of, positions_of
from streams.tables.changes import Reader
from streams.tables.lookups import Lookups
from streams.tables.owners import owners_of
from streams.tables.portion import KEY, Part, Portion, merged, uncovered, with_keys
from streams.tables.rendering import arrow_stream, batch_of, dicts_of
from streams.tables.shape import TableShape, tables_of
from streams.tables.stored import FlowState, StoredTables
from streams.tables.where import conditions_of, matching
from streams.testing import FlowDriver

START = datetime(2024, 1, 1, tzinfo=UTC)
DEVICES = [f"truck-{number:02d}" for number in range(12)]


def shape(topic: str) -> TableShape:
    flows = [gps.GPS, orders.ORDERS]
    return next(one for flow in flows for one in tables_of(flow, Catalog.load()) if one.topic == topic)


VEHICLES = shape("vehicles.state.v1")
ORDERS = shape("orders.state.v1")


def position(device: str, second: int, speed: float = 50.0) -> dict[str, Any]:
    return {
        "event_id": f"{device}-{second}", "device_id": device, "sequence": second,
        "event_time": START.timestamp() * 1000 + second * 1000, "latitude": 48.1, "longitude": 16.3,
        "speed_kmh": speed, "heading_deg": None, "altitude_m": None,
    }  # fmt: skip


class Driven:
    """The flow of positions in memory, with the tables that a worker would serve of it."""

    def __init__(self, partitions: int = 3) -> None:
        self.driver = FlowDriver(gps.flow, partitions=partitions)
        self.stored = StoredTables(FlowState(lambda: self.driver._engine.tasks, lambda: None, partitions))
        self.steps: list[tuple[str, dict[str, int], dict[str, set[int]]]] = []

    def feed(self, second: int) -> None:
        self.driver.feed(*(position(device, second) for device in DEVICES))

    def served(self) -> dict[str, int]:
        """Number of events of each row that is served."""
        rows = self.stored.scan(VEHICLES, Asked(limit=1_000)).rows
        return dict(zip(rows.column("device_id").to_pylist(), rows.column("events").to_pylist(), strict=True))

    def committed(self) -> dict[str, set[int]]:
        """Number of events of each row that was ever committed."""
        found: dict[str, set[int]] = {}
        for record in self.driver.read(VEHICLES.topic):
            found.setdefault((record.key or b"").decode(), set()).add(record.fields["events"])
        return found

    def note(self, step: str) -> None:
        self.steps.append((step, self.served(), self.committed()))


def test_at_every_step_of_a_commit_cycle_only_committed_rows_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven()
    monkeypatch.setattr(FlowDriver, "_failpoint", lambda _, step: driven.note(step))
    driven.driver.crash()  # from here on the committer tells of its steps
    for second in range(0, 60, 20):
        driven.feed(second)
    driven.driver.advance("60s")
    assert {step for step, _, _ in driven.steps} == set(STEPS)
    for step, served, committed in driven.steps:
        assert all(events in committed.get(key, ()) for key, events in served.items()), step
    moves = [(after[0], after[1] != before[1]) for before, after in pairwise(driven.steps)]
    assert {"applied"} == {step for step, has_changed in moves if has_changed}, "once it is committed, and not before"
    assert driven.served() == {key: max(events) for key, events in driven.committed().items()}
    assert len(driven.served()) == len(DEVICES)


def test_a_key_is_found_where_its_partition_is_at_work_and_elsewhere_where_not() -> None:
    driven = Driven()
    for second in (0, 20, 40):
        driven.feed(second)
    driven.driver.advance("60s")
    tasks = driven.driver._engine.tasks
    gone = murmur2(b"truck-03") % 3
    stored = StoredTables(FlowState(lambda: {p: task for p, task in tasks.items() if p != gone}, lambda: None, 3))
    keys = [device.encode() for device in DEVICES]
    look = stored.look(VEHICLES, [*keys, b"none", b"truck-03"])
    assert look.elsewhere == {key for key in [*keys, b"none"] if murmur2(key) % 3 == gone}
    assert set(look.rows) == {key for key in keys if murmur2(key) % 3 != gone}
    assert look.absent == ({b"none"} if murmur2(b"none") % 3 != gone else set())
    portion = stored.scan(VEHICLES, Asked(limit=100))
    assert uncovered(portion.parts, 3) == [gone]


def test_rows_that_are_asked_for_in_one_turn_are_found_together_and_a_closed_store_is_no_error() -> None:
    driven = Driven(partitions=1)
    driven.feed(0)
    driven.driver.advance("60s")
    lookups = Lookups(driven.stored)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(lookups.find(VEHICLES, key) for key in (b"truck-01", b"no truck", b"truck-01")))

    first, absent, again = asyncio.run(ask())
    assert (True, "truck-01", 1) == (first.is_here, first.row["device_id"], first.row["events"])
    assert (True, None) == (absent.is_here, absent.row)
    assert first == again
    [task] = driven.driver._engine.tasks.values()
    task.store.close()
    with pytest.raises(StoreClosed):
        task.store.get_many([b"x"])
    assert [False] * 3 == [found.is_here for found in asyncio.run(ask())]
    assert not driven.stored.scan(VEHICLES, Asked()).parts


def test_pages_follow_each_other_in_the_order_of_keys_whatever_is_left_out() -> None:
    driven = Driven()
    driven.feed(0)
    driven.driver.advance("60s")
    for where in ((), ("device_id>=truck-04", "device_id!=truck-07")):
        found: list[bytes] = []
        asked = parameters_of_rows([("limit", "2"), *(("where", one) for one in where)]).rows(VEHICLES)
        through: bytes | None = b""
        while through is not None:
            page = Asked(through + b"\0" if through else b"", asked.end, asked.where, None, asked.limit)
            portion = driven.stored.scan(VEHICLES, page)
            found += portion.rows.column(KEY).to_pylist()
            through = portion.through
        wanted = [one.encode() for one in DEVICES if not where or (one >= "truck-04" and one != "truck-07")]
        assert wanted == found


def test_homes_of_a_key_are_those_of_the_newest_layout_then_of_earlier_ones() -> None:
    layouts = Layouts.first(3).grown(12, Phase.BEGUN)
    hashed = murmur2(b"truck-03")
    state = FlowState(dict, lambda: layouts, 3)
    assert list(dict.fromkeys([hashed % 12, hashed % 3])) == state.homes(b"truck-03")
    assert [12, 3] == state.divisions()
    assert [hashed % 3] == FlowState(dict, lambda: None, 3).homes(b"truck-03")


def test_parts_of_a_layout_before_a_growth_cover_those_after_it() -> None:
    assert [] == uncovered([Part(0, 3), Part(1, 3), Part(2, 3)], 12)
    assert [] == uncovered([Part(0, 3), Part(1, 3), *(Part(number, 12) for number in (2, 5, 8, 11))], 12)
    assert [5] == uncovered([Part(0, 3), Part(1, 3), *(Part(number, 12) for number in (2, 8, 11))], 12)
    assert [0, 1, 2] == uncovered([], 3)
    assert [2] == uncovered([Part(0, 3), *(Part(number, 12) for number in (1, 4, 7, 10))], 3), "a growth heard of late"


def portion(keys: list[bytes], part: Part, through: bytes | None = None) -> Portion:
    rows = pa.RecordBatch.from_pydict({"number": pa.array([len(key) for key in keys], pa.int64())})
    return Portion(with_keys(keys, rows), frozenset({part}), through)


def test_what_several_workers_have_is_put_together_only_as_far_as_all_of_them_have_looked() -> None:
    first = portion([b"a", b"d", b"z"], Part(0, 2))
    second = portion([b"b", b"c"], Part(1, 2), through=b"c")
    found = merged([first, second], limit=10)
    assert ([b"a", b"b", b"c"], b"c") == (found.rows.column(KEY).to_pylist(), found.through)
    found = merged([first, second], limit=2)
    assert ([b"a", b"b"], b"b") == (found.rows.column(KEY).to_pylist(), found.through)
    found = merged([first, portion([b"a", b"q"], Part(1, 2))], limit=10)
    assert ([b"a", b"d", b"q", b"z"], None) == (found.rows.column(KEY).to_pylist(), found.through)
    assert frozenset({Part(0, 2), Part(1, 2)}) == found.parts
    empty = portion([], Part(0, 2), through=b"k")
    assert (0, b"c") == (merged([empty, second], limit=5).rows.num_rows - 2, merged([empty, second], limit=5).through)


def orders_of(statuses: list[int], promised: list[int | None]) -> pa.RecordBatch:
    rows = np.repeat(ORDERS.state.empty, len(statuses))
    rows["status"] = statuses
    rows["promised_known"] = [one is not None for one in promised]
    rows["promised_time"] = [one or 0 for one in promised]
    keys = [b"order-%d" % number for number in range(len(statuses))]
    return with_keys(keys, ORDERS.rows(keys, pack_rows(rows)))


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("status=DELIVERED", [1]),
        ("status != DELIVERED", [0, 2]),
        ("promised_time=null", [2]),
        ("promised_time!=null", [0, 1]),
        ("promised_time<1970-01-01T00:00:02Z", [0]),
        ("promised_time>=2000000", [1]),
        ("events<=0", [0, 1, 2]),
        ("events>0", []),
        ('order_id="order-1"', [1]),
        ("order_id>order-1", [2]),
    ],
)
def test_a_condition_holds_for_the_rows_that_it_says(condition: str, wanted: list[int]) -> None:
    batch = orders_of([0, 3, 1], [1_000, 2_000_000, None])
    found = matching(batch, conditions_of([condition], ORDERS.columns, table=ORDERS.topic))
    assert [b"order-%d" % number for number in wanted] == found.column(KEY).to_pylist()


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("status", "is no condition"),
        ("speed=3", "no column 'speed'"),
        ("events=many", "not a whole number"),
        ("events=1.5", "not a whole number"),
        ("promised_time=tomorrow", "a time such as"),
        ("events<null", "use = or !="),
        ("events=99999999999999999999", "64 bits"),
        ("__import__('os')=1", "is no condition"),
        ("status=" + "x" * 2_000, "no condition"),
    ],
)
def test_what_is_no_condition_is_refused_in_words(condition: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parameters_of_rows([("where", condition)]).rows(ORDERS)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "10001")], "limit"),
        ([("limit", "-1")], "limit"),
        ([("as_of", "now")], "committed"),
        ([("cursor", "%%")], "cursor"),
        ([("colums", "x")], "no parameter"),
        ([("columns", "x")], "no column"),
        ([("limit", "1"), ("limit", "2")], "twice|2 times"),
        ([("prefix", "x" * 2_000)], "1024"),
        ([("where", "events=1")] * 17, "at most"),
    ],
)
def test_parameters_that_say_nothing_usable_are_refused_in_words(pairs: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parameters_of_rows(pairs).rows(VEHICLES)


def test_a_range_is_what_prefix_bounds_and_cursor_leave() -> None:
    asked = parameters_of_rows([("prefix", "truck-"), ("from", "truck-02"), ("to", "truck-05")]).rows(VEHICLES)
    assert (b"truck-02", b"truck-05") == (asked.start, asked.end)
    asked = parameters_of_rows([("prefix", "truck-"), ("cursor", cursor_of(b"truck-04"))]).rows(VEHICLES)
    assert (b"truck-04\0", b"truck.") == (asked.start, asked.end)
    assert b"\xff\0\x01" == key_of_cursor(cursor_of(b"\xff\0\x01"))


def test_personal_data_is_masked_in_json_and_null_in_arrow_and_odd_numbers_are_text() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "place": pa.array([1.5, None, float("nan")]),
            "speed": pa.array([float("inf"), 2.5, None]),
            "at": pa.array([0, 1_700_000_000_123, None], pa.timestamp("ms", "UTC")),
            "raw": pa.array([b"\xff", None, b""]),
        }
    )
    rows = dicts_of(batch, masked={"place"})
    assert ["•••", None, "•••"] == [row["place"] for row in rows]
    assert ["inf", 2.5, None] == [row["speed"] for row in rows]
    assert ["1970-01-01T00:00:00.000Z", "2023-11-14T22:13:20.123Z", None] == [row["at"] for row in rows]
    assert ["ff", None, ""] == [row["raw"] for row in rows]
    again = batch_of(arrow_stream(batch, masked={"place"}, about={"parts": "0/3"}))
    assert [None] * 3 == again.column("place").to_pylist()
    assert batch.column("at") == again.column("at")
    assert b"0/3" == again.schema.metadata[b"parts"]


def test_where_a_worker_answers_is_said_by_what_it_has_committed_and_by_its_client_id() -> None:
    client_id = client_id_of("streams-gps-4f1c", "127.0.0.1:6066")
    assert ("streams-gps-4f1c", "127.0.0.1:6066") == member_of(client_id)
    assert ("streams-gps-4f1c", "") == member_of("streams-gps-4f1c")
    members = [(client_id, [0, 1]), (client_id_of("b", "[::1]:7"), [2]), ("of-an-earlier-version", [3])]
    other, moved = Committed(5, 1, "b", address="10.0.0.9:1"), Committed(5, 1, "streams-gps-4f1c", address="10.0.0.7:6")
    found = owners_of(members, {0: other, 1: moved})
    assert ["10.0.0.7:6", "127.0.0.1:6066"] == [one.address for one in found[0]], "what it has committed comes first"
    assert found[0] == found[1]
    assert ["10.0.0.9:1", "[::1]:7"] == [one.address for one in found[2]]
    assert () == found[3]
    assert () == owners_of([("w@evil.example/x?:80", [0])], {})[0]


def test_the_id_of_an_event_is_where_reading_goes_on() -> None:
    assert {0: 118, 2: 5, 1: 97} == positions_of(id_of({2: 5, 0: 118, 1: 97}))
    for wrong in ("", "x", "0:1", "0-", "0-1,", "-1-2", "0-٣"):
        assert positions_of(wrong) is None


def chunk(count: int, *, size: int = 10) -> Chunk:
    keys = [b"k%d" % number for number in range(count)]
    rows = with_keys(
        keys, pa.RecordBatch.from_pydict({"text": pa.array(["x" * size] * count), "n": pa.array(range(count))})
    )
    return Chunk(
        [(0, number) for number in range(count)],
        keys,
        frozenset({0}),
        {},
        rows.slice(1),
        list(range(1, count)),
        {0: count},
    )


def test_changes_are_said_in_their_order_deletions_too_and_nothing_where_nothing_is_seen() -> None:
    event = chunk(3).event(View(columns=("n",))).decode()
    assert event.startswith("id: 0-3\nevent: changes\ndata: ")
    assert '{"key":"k0","partition":0,"offset":0,"row":null,"deleted":true}' in event
    assert '{"key":"k2","partition":0,"offset":2,"row":{"n":2}}' in event
    assert '"k1"' not in chunk(3).event(View(masks_keys=True)).decode()
    assert "xxx" not in chunk(3).event(View(masked=frozenset({"text"}))).decode()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_reader_that_does_not_keep_up_is_cut_off_and_holds_no_memory(loop: asyncio.AbstractEventLoop) -> None:
    reader = Reader(View(), loop)
    one = chunk(100, size=10_000)
    size = len(one.event(View()))
    for _ in range(CHANGES_QUEUE_BYTES_MAX // size):
        reader.deliver(one)
    assert CHANGES_QUEUE_BYTES_MAX // size == len(reader.take()), "nothing of what fits is dropped"
    for _ in range(CHANGES_QUEUE_BYTES_MAX // size + 1):
        reader.deliver(one)
    assert reader.is_cut_off
    assert [] == reader.take()
