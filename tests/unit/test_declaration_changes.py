"""A flow is stopped, its declaration or the world around it changes, and it starts again: nothing is misread or merged.

Production restore, task and committer over an in-memory Kafka; each change once with the local store and once without.
"""

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from streams.batch.columns import object_rows, objects
from streams.batch.event_ids import time_word
from streams.batch.events import Events
from streams.batch.rows import unpack_rows
from streams.engine.commit import Committer
from streams.engine.config import TaskConfig
from streams.engine.effects import CycleEnd, Effects, PartitionEffects
from streams.engine.encode import RowEncoder
from streams.engine.journal_chain import RestoreFailed
from streams.engine.restore import read_checkpoint, restore_partition
from streams.engine.snapshot import journal_records
from streams.errors import StreamsError
from streams.flow.bounds import Bounds
from streams.flow.declaration import Pipeline, Table, Window
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.operators.fold.builder import Fold, WindowFold
from streams.operators.fold.columns import Count, Greatest, LastTime, Latest
from streams.operators.fold.operator import fold_name
from streams.operators.window.operator import window_name
from streams.sinks.memory import MemoryTransactions
from streams.state.identity import Places
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.store import StoreCorrupted, StoreOutdated
from tests.effects import clean, duplicates, late

pytestmark = pytest.mark.thorough

LATENESS_MS = 100
COLUMNS = {"events": Count(), "warmest": Greatest("warmth"), "charge": Latest("battery")}
Row = tuple[int, bytes, int, dict[str, float]]
"""Id, key, event time, values by field."""
_AVRO = {
    "int64": "long",
    "double": ["null", "double"],
    "timestamp[ms]": {"type": "long", "logicalType": "timestamp-millis"},
}


def rooms(
    columns: dict[str, Any] = COLUMNS,
    *,
    fields: tuple[str, ...] = ("warmth", "battery"),
    tables: tuple[str, ...] = ("rooms.v1",),
    windows: tuple[tuple[str, int], ...] = (("minutes.v1", 1_000),),
    **changed: Any,
) -> Pipeline:
    fold, per_window = Fold("room", fields, columns), WindowFold("room", fields, {"events": Count()})
    return Pipeline(
        name="rooms",
        source="rooms.events.v1",
        payload_fields=fields,
        tables=tuple(Table(topic, fold) for topic in tables),
        windows=tuple(Window(topic, per_window, size_ms=size_ms, grace_ms=0) for topic, size_ms in windows),
        **changed,
    )


def schema_of(batch: pa.RecordBatch) -> str:
    fields = []
    for column in batch.schema:
        kind = "string" if pa.types.is_string(column.type) else "int" if pa.types.is_int32(column.type) else None
        fields.append({"name": column.name, "type": kind or _AVRO[str(column.type)]})
    return json.dumps({"type": "record", "name": "Row", "fields": fields})


@dataclass
class World:
    """A broker, a disk, and one flow at a time."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(1))
    disk: dict[bytes, bytes] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    offset: int = 0

    def restore(self, flow: Pipeline, *, horizon_ms: int = 10_000, lateness_ms: int = LATENESS_MS) -> "World":
        flow = replace(flow, bounds=Bounds(lateness_ms, horizon_ms, quarantine_rejects=0))
        self.config = TaskConfig(flow, lambda _: nullcontext(), partial(partitions_of, partitions=1))
        store = MemoryStore(self.disk)
        self.task = restore_partition(
            self.config, 0, store, MemoryChangelog(self.kafka), ids_in_memory_max=10**6, places=self.places
        )
        nothing = np.empty(0, np.int64)
        tables = [
            RowEncoder(t.topic, schema_of(t.aggregate.table(objects([]), np.empty(0, t.aggregate.dtype))), 1)
            for t in flow.tables
        ]
        windows = [
            RowEncoder(
                w.topic,
                schema_of(w.aggregate.table(objects([]), nothing, nothing, nothing, np.empty(0, w.aggregate.dtype))),
                2,
            )
            for w in flow.windows
        ]
        transactions = MemoryTransactions(self.kafka, "worker", lambda: "committed")
        self.committer = Committer(
            flow, transactions, MemoryChangelog(self.kafka), [*tables, *windows], author="worker", session="s"
        )
        self.kafka.owners[0] = "worker"
        return self

    def restore_anew(self, flow: Pipeline, **options: Any) -> "World":
        """As a worker does: a store that does not fit is moved aside, and restored from nothing."""
        try:
            return self.restore(flow, **options)
        except StoreCorrupted as error:
            self.disk.clear()
            self.outdated = isinstance(error, StoreOutdated)
            return self.restore(flow, **options)

    def feed(self, *rows: Row) -> PartitionEffects:
        """Rows of (id, key, event time, {field: value}), each a record; committed as one cycle."""
        names = self.config.fields.payload
        for row in rows:
            self.kafka.append(self.config.pipeline.source, 0, row[1], b"v", row[2])
        time = np.array([row[2] for row in rows], dtype=np.int64)
        number = np.array([row[0] for row in rows], dtype=np.uint64)
        events = Events(
            row=np.arange(len(rows)), timestamp_ms=time, event_time=time, sequence=number.astype(np.int64),
            event_id=objects([b"e%d" % row[0] for row in rows]), id_hi=number, id_lo=number,
            id_word=time_word(time, np.zeros(len(rows), dtype=np.bool_)), key=objects([row[1] for row in rows]),
            value=objects([b"v%d" % row[0] for row in rows]), headers=None,
            payload=np.array([[row[3].get(name, np.nan) for row in rows] for name in names]),
            texts=object_rows([], len(rows)), slot=np.full(len(rows), -1), fields=self.config.fields,
        )  # fmt: skip
        self.offset = len(self.kafka.log(self.config.pipeline.source, 0))
        effects = self.task.on_batch(events, self.offset, leader_epoch=self.kafka.leader_epoch)
        self.committer.write(Effects(0, len(rows), [effects]))
        commit = self.task.cycle.close()
        assert commit is not None
        self.committer.commit(CycleEnd([commit]), {0: self.task}, 0, lambda: self.kafka.membership_of("worker"))
        return effects

    def stop(self, *, keep: bool) -> None:
        self.task.maintenance.park()
        if not keep:
            self.disk.clear()

    def row(self, topic: str = "rooms.v1", key: bytes = b"a") -> np.void:
        table = next(one for one in self.config.pipeline.tables if one.topic == topic)
        [packed] = self.task.store.get_many([operator_prefix(fold_name(topic)) + key])
        assert packed is not None
        row: np.void = unpack_rows(table.aggregate.dtype, [packed])[0]
        return row

    def open_window(self, topic: str = "minutes.v1", key: bytes = b"a") -> bytes:
        [packed] = self.task.store.get_many([operator_prefix(window_name(topic)) + key])
        assert packed is not None
        return packed


def event(number: int, time: int, key: bytes = b"a", **values: float) -> Row:
    return number, key, time, values


@pytest.fixture(params=[True, False], ids=["store kept", "store lost"])
def keep(request: pytest.FixtureRequest) -> bool:
    is_kept: bool = request.param
    return is_kept


def a_world(flow: Pipeline | None = None) -> World:
    """Two released events of room a, and one that is held."""
    world = World().restore(flow or rooms())
    world.feed(event(1, 1_000, warmth=20.0, battery=0.5), event(2, 1_200, warmth=25.0, battery=0.4))
    world.feed(event(3, 1_400, warmth=30.0, battery=0.3))
    assert world.task.in_memory()["held"] == 1
    return world


def test_fields_may_be_added_and_taken_away_while_events_are_held(keep: bool) -> None:
    world = a_world()
    world.stop(keep=keep)
    world.restore_anew(rooms({**COLUMNS, "dampest": Greatest("humidity")}, fields=("humidity", "warmth", "battery")))
    world.feed(event(4, 1_600, warmth=10.0, humidity=0.8), event(5, 1_800, humidity=0.7))
    row = world.row()
    assert (row["events"]["count"], row["warmest"]["value"], row["charge"]["value"]) == (4, 30.0, 0.3)
    assert row["dampest"]["value"] == 0.8
    world.stop(keep=keep)
    world.restore_anew(rooms())
    world.feed(event(6, 2_000, warmth=40.0))
    row = world.row()
    assert (row["events"]["count"], row["warmest"]["value"], row["charge"]["value"]) == (5, 30.0, 0.3)


def test_columns_of_a_fold_in_another_order_keep_their_values(keep: bool) -> None:
    """Two columns of one type that changed places had their values swapped."""
    world = a_world(rooms({"coldest": Latest("warmth"), "charge": Latest("battery")}))
    world.stop(keep=keep)
    world.restore_anew(rooms({"charge": Latest("battery"), "coldest": Latest("warmth")}))
    row = world.row()
    assert (row["coldest"]["value"], row["charge"]["value"]) == (25.0, 0.4)


def test_a_column_that_is_added_starts_empty(keep: bool) -> None:
    world = a_world()
    world.stop(keep=keep)
    world.restore_anew(rooms({**COLUMNS, "seen": LastTime(), "again": Count()}))
    assert world.row()["again"]["count"] == 0
    world.feed(event(4, 1_600, warmth=10.0))
    row = world.row()
    assert (row["events"]["count"], row["again"]["count"], row["seen"]["time"]) == (3, 1, 1_400)


def test_tables_and_windows_in_another_order_keep_their_rows(keep: bool) -> None:
    tables, windows_of = ("rooms.v1", "others.v1"), (("minutes.v1", 1_000), ("hours.v1", 10_000))
    world = a_world(rooms(tables=tables, windows=windows_of))
    rows = [world.row(topic) for topic in tables]
    windows = [world.open_window("minutes.v1"), world.open_window("hours.v1")]
    world.stop(keep=keep)
    world.restore(rooms(tables=tables[::-1], windows=windows_of[::-1]))
    assert rows == [world.row(topic) for topic in tables]
    assert windows == [world.open_window("minutes.v1"), world.open_window("hours.v1")]


def test_a_table_that_is_added_counts_from_then_on_whatever_its_topic_holds(keep: bool) -> None:
    world = a_world(rooms(tables=("rooms.v1", "others.v1")))
    world.stop(keep=keep)
    world.restore_anew(rooms())
    world.feed(event(4, 1_600))
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("others.v1", "rooms.v1")))
    world.feed(event(5, 1_800))
    assert world.row("rooms.v1")["events"]["count"] == 4
    assert world.row("others.v1")["events"]["count"] == 1
    windows = world.open_window()
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("others.v1", "rooms.v1")))
    assert world.row("others.v1")["events"]["count"] == 1
    assert windows == world.open_window()


def test_the_only_table_with_rows_of_all_keys_is_not_given_up_for_one_that_was_added_later(keep: bool) -> None:
    """Windows of keys without events since the other table was added were lost: only the old table's rows have them."""
    world = a_world()
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("rooms.v1", "others.v1")))
    world.feed(event(4, 1_600, key=b"b"))
    world.feed(event(5, 1_800, key=b"b"))
    windows = world.open_window()
    world.stop(keep=keep)
    with pytest.raises(
        RestoreFailed, match=r"minutes.v1 are kept with the rows of rooms.v1, .*only some keys .*others.v1"
    ):
        world.restore_anew(rooms(tables=("others.v1",)))
    world.restore_anew(rooms(tables=("rooms.v1", "others.v1")))
    world.stop(keep=False)
    world.restore_anew(rooms(tables=("rooms.v1",)))
    assert windows == world.open_window()


def test_a_table_that_was_there_before_the_windows_may_take_the_place_of_another(keep: bool) -> None:
    world = a_world(rooms(windows=()))
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("rooms.v1", "others.v1"), windows=()))
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("rooms.v1", "others.v1")))
    world.feed(event(4, 1_600))
    world.feed(event(5, 1_800))
    windows = world.open_window()
    world.stop(keep=keep)
    world.restore_anew(rooms(tables=("others.v1",)))
    assert windows == world.open_window()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (rooms(windows=(("minutes.v1", 500),)), "windows of minutes.v1 were 1000 ms long and are 500 ms now"),
        (rooms({**COLUMNS, "charge": Greatest("battery")}), "columns charge"),
        (rooms(time_field="arrived"), "an event's time was the field event_time and is arrived now"),
    ],
    ids=["window size", "meaning", "time field"],
)
def test_what_cannot_be_carried_over_is_refused_and_going_back_goes_on(after: Pipeline, says: str, keep: bool) -> None:
    world = a_world()
    world.stop(keep=keep)
    before = dict(world.disk)
    with pytest.raises(RestoreFailed, match=f"{says}.*--from source"):
        world.restore(after)
    world.disk.update(before)
    world.restore(rooms())
    assert world.row()["events"]["count"] == 2


def test_a_longer_horizon_takes_no_copy_for_a_first_event(keep: bool) -> None:
    """Ids of the span that was added had been forgotten: copies of it came out again as clean events."""
    world = World().restore(rooms(), horizon_ms=1_000)
    world.feed(event(1, 1_000), event(2, 5_000))
    world.feed(event(3, 9_000))
    world.task.maintenance.expire()
    world.stop(keep=keep)
    world.restore(rooms(), horizon_ms=8_000)
    effects = world.feed(event(1, 1_000), event(2, 5_000), event(3, 9_000), event(4, 8_500))
    released = clean(effects)
    assert released is None or b"v1" not in released.value
    assert [part.events.value.tolist() for part in late(effects) if part.beyond_horizon] == [[b"v1", b"v2"]]
    assert duplicates(effects) == 1
    world.stop(keep=keep)
    world.restore(rooms(), horizon_ms=8_000)  # what is known stays known
    world.feed(event(5, 20_000))
    parts = late(world.feed(event(6, 11_000), event(7, 12_500)))
    assert [(one.beyond_horizon, one.events.value.tolist()) for one in parts] == [(True, [b"v6"])]


def test_state_that_is_written_again_under_a_longer_horizon_takes_no_copy_for_a_first_event() -> None:
    """A rebuild wrote the new horizon as if ids had been remembered for so long: the next start forgot that they were
    not."""
    world = World().restore(rooms(), horizon_ms=1_000)
    world.feed(event(1, 1_000), event(2, 5_000))
    world.feed(event(3, 9_000))
    world.task.maintenance.expire()
    world.stop(keep=True)
    store = MemoryStore(world.disk)
    checkpoint = read_checkpoint(store)
    assert checkpoint is not None
    longer = replace(world.config, pipeline=replace(rooms(), bounds=Bounds(LATENESS_MS, 8_000, quarantine_rejects=0)))
    identity = longer.identity(Places()).written_again(checkpoint.identity, ())
    records = journal_records(longer, 0, store, checkpoint, identity, bytes_max=1 << 20)
    world.kafka.logs.pop(("rooms.events.v1.journal", 0))
    for record in records:
        world.kafka.append("rooms.events.v1.journal", 0, None, record, 0)
    world.kafka.group[0] = replace(world.kafka.group[0], cycle=1)
    world.disk.clear()
    world.restore(rooms(), horizon_ms=8_000)
    effects = world.feed(event(1, 1_000), event(2, 5_000), event(3, 9_000), event(4, 8_500))
    assert [part.events.value.tolist() for part in late(effects) if part.beyond_horizon] == [[b"v1", b"v2"]]
    assert duplicates(effects) == 1


def test_another_out_of_orderness_goes_on_from_the_same_watermark_and_is_recorded(keep: bool) -> None:
    """What bounds a cycle was computed under could not be told afterwards: only the horizon was recorded."""
    world = a_world()
    watermark = world.task.watermark
    assert world.task.checkpoint.identity.bounds["lateness_ms"] == LATENESS_MS
    world.stop(keep=keep)
    with capture_logs() as logs:
        world.restore(rooms(), lateness_ms=500)
    said = [entry["change"] for entry in logs if entry["event"].startswith("what is declared or set has changed")]
    assert said == ["lateness_ms is 500 now (was 100): the watermark stands still until events are so far ahead of it"]
    effects = world.feed(event(4, watermark + 500))
    assert world.task.watermark == watermark
    assert clean(effects) is None
    released = clean(world.feed(event(5, watermark + 601)))
    assert released is not None
    assert released.value.tolist() == [b"v3"]
    world.stop(keep=keep)
    with capture_logs() as logs:
        world.restore(rooms(), lateness_ms=500)
    assert world.task.identity.bounds["lateness_ms"] == 500
    assert not [entry for entry in logs if "change" in entry]


def test_another_grace_counts_for_windows_that_open_from_then_on(keep: bool) -> None:
    world = a_world()
    flow = rooms()
    world.stop(keep=keep)
    later = replace(flow, windows=(replace(flow.windows[0], grace_ms=300),))
    world.restore(later)

    def rows(*fed: Row) -> int:
        world.feed(*fed)
        return len(world.kafka.log("minutes.v1", 0))

    assert rows(event(4, 2_101, key=b"b")) > 0, "open since before: it closes at its end"
    before = rows(event(5, 2_500, key=b"b"))
    assert rows(event(6, 3_101, key=b"c")) == before, "the window of b is over, and not yet by its grace"
    assert rows(event(7, 3_401, key=b"c")) > before


def test_a_hole_in_the_journal_after_a_clean_stop_is_noticed() -> None:
    """The store had everything up to a cycle; a later cycle whose record is gone went unnoticed."""
    world = a_world()
    world.stop(keep=True)
    durable = dict(world.disk)
    world.restore(rooms())
    world.feed(event(4, 1_600))
    lost = len(world.kafka.log("rooms.events.v1.journal", 0)) - 2
    world.feed(event(5, 1_800))
    world.kafka.log("rooms.events.v1.journal", 0)[lost].is_marker = True
    world.disk.clear()
    world.disk.update(durable)
    with pytest.raises(RestoreFailed, match="is not complete: first comes part 1 of 1 of cycle 4"):
        world.restore(rooms())


# --- the world around the log -----------------------------------------------------------------------------------------


def ids(**changed: str) -> dict[str, str]:
    names = {topic.name: f"id of {topic.name}" for topic in rooms().topics()}
    return {**names, **{name.replace("__", "."): value for name, value in changed.items()}}


@pytest.fixture
def placed() -> World:
    world = World(places=Places("here", ids())).restore(rooms())
    world.feed(event(1, 1_000), event(2, 1_200))
    world.feed(event(3, 1_400))
    return world


def test_a_source_that_was_created_again_is_read_from_its_beginning_and_copies_are_dropped(
    placed: World, keep: bool
) -> None:
    placed.stop(keep=keep)
    placed.kafka.logs[("rooms.events.v1", 0)].clear()
    placed.kafka.group.clear()
    placed.places = Places("here", ids(rooms__events__v1="another"))
    placed.restore(rooms())
    assert placed.task.offset_next == -1
    effects = placed.feed(event(2, 1_200), event(4, 1_500))
    assert duplicates(effects) == 1
    assert placed.task.checkpoint.offset_next == 2
    placed.stop(keep=keep)
    assert placed.restore(rooms()).task.offset_next == 2


def test_an_offset_in_the_source_that_was_deleted_does_not_count(placed: World, keep: bool) -> None:
    """A worker may still have committed while the topic was created again."""
    placed.stop(keep=keep)
    placed.kafka.group[0] = replace(placed.kafka.group[0], topic_id="id of rooms.events.v1")
    placed.kafka.logs[("rooms.events.v1", 0)].clear()
    placed.places = Places("here", ids(rooms__events__v1="another"))
    assert placed.restore(rooms()).task.offset_next == -1


def test_a_source_that_ends_before_the_offset_is_refused_until_somebody_says_where_to_go_on(
    placed: World, keep: bool
) -> None:
    placed.stop(keep=keep)
    del placed.kafka.logs[("rooms.events.v1", 0)][1:]
    with pytest.raises(RestoreFailed, match=r"offset is 3, the topic ends at 1: it was truncated.*--to-offset 0"):
        placed.restore(rooms())
    placed.kafka.group[0] = replace(placed.kafka.group[0], offset_next=0, cycle=None)
    assert placed.restore(rooms()).task.offset_next == 0


def test_a_source_that_was_truncated_and_written_again_is_refused_as_well(placed: World, keep: bool) -> None:
    """It reaches up to the offset again, and beyond: the offset alone said nothing, and new records were skipped."""
    placed.stop(keep=keep)
    placed.kafka.truncate("rooms.events.v1", 0, 1)
    for _ in range(4):
        placed.kafka.append("rooms.events.v1", 0, b"a", b"another", 9)
    with pytest.raises(RestoreFailed, match=r"offset is 3, .* truncated and written again.*--to-offset 0"):
        placed.restore(rooms())
    placed.kafka.group[0] = replace(placed.kafka.group[0], offset_next=1, cycle=None)
    assert placed.restore(rooms()).task.offset_next == 1
    assert placed.task.checkpoint.leader_epoch == -1


def test_a_new_leader_alone_refuses_nothing(placed: World, keep: bool) -> None:
    placed.stop(keep=keep)
    placed.kafka.truncate("rooms.events.v1", 0, 3)
    placed.kafka.append("rooms.events.v1", 0, b"a", b"another", 9)
    assert placed.restore(rooms()).task.offset_next == 3
    assert placed.task.checkpoint.leader_epoch == 0


@pytest.mark.parametrize("topic", ["rooms.v1", "rooms.events.v1.clean", "rooms.events.v1.late", "minutes.v1"])
def test_an_output_that_was_created_again_is_refused(placed: World, keep: bool, topic: str) -> None:
    placed.stop(keep=keep)
    placed.kafka.logs.pop((topic, 0), None)
    placed.places = Places("here", {**ids(), topic: "another"})
    with pytest.raises(RestoreFailed, match=f"{topic} was deleted and created again.*streams state rebuild"):
        placed.restore(rooms())


def test_a_journal_that_was_created_again_is_refused_while_the_group_has_an_offset(placed: World, keep: bool) -> None:
    placed.stop(keep=keep)
    placed.kafka.logs.pop(("rooms.events.v1.journal", 0))
    placed.places = Places("here", ids(rooms__events__v1__journal="another"))
    before = dict(placed.disk)
    with pytest.raises(
        RestoreFailed, match=r"deleted and created again.*streams state rebuild --pipeline rooms --from local"
    ):
        placed.restore(rooms())
    assert placed.disk == before


def test_a_store_of_an_earlier_life_is_moved_aside_and_never_merged(placed: World) -> None:
    """Everything was deleted and created again: new events were dropped as copies of those of before."""
    placed.stop(keep=True)
    again = World(disk=placed.disk, places=Places("here", dict.fromkeys(ids(), "another")))
    again.restore_anew(rooms())
    assert again.outdated
    effects = again.feed(event(1, 1_000), event(2, 1_200))
    assert duplicates(effects) == 0
    assert again.row()["events"]["count"] == 1


def test_a_store_of_another_cluster_is_moved_aside(placed: World) -> None:
    placed.stop(keep=True)
    again = World(disk=placed.disk, places=Places("there", ids()))
    with pytest.raises(StoreOutdated, match="of another cluster"):
        again.restore(rooms())


def test_a_journal_that_was_copied_from_another_cluster_is_refused(placed: World) -> None:
    placed.stop(keep=False)
    placed.places = Places("there", ids())
    with pytest.raises(RestoreFailed, match="is not of this journal"):
        placed.restore(rooms())


def test_rows_of_a_table_of_an_earlier_life_are_refused(placed: World) -> None:
    placed.stop(keep=False)
    placed.kafka.logs.pop(("rooms.events.v1.journal", 0))
    placed.kafka.group.clear()
    placed.places = Places("here", ids(rooms__events__v1__journal="another"))
    with pytest.raises(RestoreFailed, match=r"rooms.v1 has rows.*of an earlier life"):
        placed.restore(rooms())


def test_state_that_is_divided_otherwise_is_refused(placed: World, keep: bool) -> None:
    placed.places = Places("here", ids(), 1)
    placed.feed(event(4, 1_600))
    placed.stop(keep=keep)
    assert placed.restore(rooms()).task.identity.partitions == 1
    placed.feed(event(5, 1_800))
    placed.stop(keep=keep)
    placed.places = Places("here", ids(), 2)
    with pytest.raises(RestoreFailed, match=r"divided into 1 partition.*has 2: keys.*--from source"):
        placed.restore(rooms())


def test_a_partition_without_state_does_not_begin_beside_state_that_is_divided_otherwise(placed: World) -> None:
    """Partitions were added to all topics at once: keys that moved began again at nothing."""
    placed.places = Places("here", ids(), 1)
    placed.stop(keep=False)
    placed.restore(rooms()).feed(event(4, 1_600))
    added = MemoryStore()
    with pytest.raises(RestoreFailed, match=r"rooms.events.v1-1: the state is divided into 1 partition"):
        restore_partition(
            placed.config, 1, added, MemoryChangelog(placed.kafka), ids_in_memory_max=9, places=Places("here", ids(), 2)
        )


class OneWithoutLeader(MemoryChangelog):
    """Partition 0 has no leader."""

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:
        if partition == 0:
            raise StreamsError(f"reading the bounds of {topic}-{partition}: no leader")
        return super().bounds(topic, partition, stable=stable)


@pytest.mark.parametrize("reader", [MemoryChangelog, OneWithoutLeader], ids=["damaged", "without a leader"])
def test_a_partition_without_state_does_not_fail_with_the_journal_of_another(
    placed: World, reader: type[MemoryChangelog] | type[OneWithoutLeader]
) -> None:
    """One damaged record kept every partition without state from being restored, and was said to be theirs."""
    placed.places = Places("here", ids(), 2)
    placed.kafka.append("rooms.events.v1.journal", 0, None, b"not a journal record", 0)
    task = restore_partition(
        placed.config, 1, MemoryStore(), reader(placed.kafka), ids_in_memory_max=9, places=placed.places
    )
    assert task.partition == 1


def test_equal_offsets_that_something_else_has_committed_are_accepted(placed: World, keep: bool) -> None:
    placed.stop(keep=keep)
    placed.kafka.group[0] = replace(placed.kafka.group[0], cycle=None)
    assert placed.restore(rooms()).task.offset_next == 3


def test_other_offsets_that_something_else_has_committed_are_refused_with_the_command_that_sets_them_back(
    placed: World, keep: bool
) -> None:
    placed.stop(keep=keep)
    placed.kafka.group[0] = replace(placed.kafka.group[0], offset_next=1, cycle=None)
    with pytest.raises(RestoreFailed, match=r"kafka-consumer-groups.sh .*--topic rooms.events.v1:0 .*--to-offset 3"):
        placed.restore(rooms())
