"""What state belongs to, and what becomes of it when the declaration or the topics change."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.batch.rows import RowLayout, empty_rows, pack_rows, unpack_rows
from streams.flow.bounds import Bounds
from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline, Table, Window
from streams.flow.identity import identity_of as declared_identity
from streams.flow.identity import judged as judge_under
from streams.operators.fold.builder import Fold, WindowFold
from streams.operators.fold.columns import Count, Greatest, LastTime, Latest, Least
from streams.state.identity import Identity, IdentityUnreadable, Judgement, Places

FIELDS = ("temperature_c", "battery")


def a_flow(
    columns: dict[str, Any] | None = None,
    *,
    size_ms: int = 60_000,
    tables: tuple[str, ...] = ("rooms.state.v1",),
    fields: tuple[str, ...] = FIELDS,
    **changed: Any,
) -> Pipeline:
    fold = Fold("sensor_id", fields, columns or {"events": Count(), "warmest_c": Greatest("temperature_c")})
    window = WindowFold("sensor_id", fields, {"events": Count(), "warmest_c": Greatest("temperature_c")})
    declared: dict[str, Any] = {
        "name": "rooms",
        "source": "rooms.v1",
        "payload_fields": fields,
        "tables": tuple(Table(topic, fold) for topic in tables),
        "windows": (Window("rooms.minutes.v1", window, size_ms=size_ms, grace_ms=0),),
    }
    return Pipeline(**{**declared, **changed})


def identity_of(
    flow: Pipeline,
    *,
    symbols: dict[str, Any] | None = None,
    cluster: str = "c",
    topics: Mapping[str, str] | None = None,
) -> Identity:
    names = {topic.name: f"id of {topic.name}" for topic in flow.topics()}
    places = Places(cluster, {**names, **(topics or {})})
    return declared_identity(flow, operators_of(flow), places, symbols)


def judge(found: Identity, declared: Identity, flow: Pipeline) -> Judgement:
    return judge_under(found, declared, flow, operators_of(flow))


def judged(before: Pipeline, after: Pipeline, **changed: Any) -> Judgement:
    return judge(identity_of(before), identity_of(after, **changed), after)


@pytest.mark.parametrize("flow", [GPS, ORDERS, a_flow()], ids=["gps", "orders", "rooms"])
def test_an_identity_survives_packing(flow: Pipeline) -> None:
    identity = identity_of(flow, symbols={"kind": ("A", "B")})
    assert Identity.unpack(identity.packed) == identity
    assert judge(identity, Identity.unpack(identity.packed), flow).is_same


@pytest.mark.parametrize("data", [b"", b"x", b"\x78\x9c\x03\x00\x00\x00\x00\x01", GPS.source.encode()])
def test_bytes_that_are_no_identity_are_refused(data: bytes) -> None:
    with pytest.raises(IdentityUnreadable):
        Identity.unpack(data)


def test_what_is_not_known_is_not_compared() -> None:
    flow = a_flow()
    somewhere = identity_of(flow)
    nowhere = declared_identity(flow, operators_of(flow), Places())
    assert judge(somewhere, nowhere, flow).is_same
    assert judge(nowhere, somewhere, flow).is_same


def test_another_order_of_tables_or_windows_changes_nothing() -> None:
    one, two = a_flow(tables=("a.v1", "b.v1")), a_flow(tables=("b.v1", "a.v1"))
    assert judged(one, two).is_same


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rooms.v1.journal", "its rows are gone.* --from local"),
        ("rooms.state.v1", "its rows are gone.* --from local"),
        ("rooms.v1.clean", "lacks what the state is made of.* --from source"),
        ("rooms.v1.late", "lacks what the state is made of"),
        ("rooms.minutes.v1", "lacks what the state is made of"),
    ],
)
def test_a_topic_that_was_created_again_is_refused_with_a_command(name: str, says: str) -> None:
    judgement = judged(a_flow(), a_flow(), topics={name: "another"})
    [refusal] = judgement.refused
    assert refusal.startswith(f"{name} was deleted and created again")
    assert re.search(says, refusal)


def test_a_source_that_was_created_again_begins_again_with_the_state_there_is() -> None:
    judgement = judged(a_flow(), a_flow(), topics={"rooms.v1": "another"})
    assert judgement.source_is_new
    assert not judgement.refused


def test_dead_letters_that_were_created_again_change_no_state() -> None:
    judgement = judged(a_flow(), a_flow(), topics={"rooms.v1.dlq": "another"})
    assert not judgement.refused
    assert judgement.migrated == ("rooms.v1.dlq was deleted and created again",)


def test_state_of_another_cluster_is_refused() -> None:
    assert "the cluster c, this one is d" in judged(a_flow(), a_flow(), cluster="d").refused[0]


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (a_flow(size_ms=30_000), "60000 ms long and are 30000 ms now"),
        (a_flow({"events": Count(), "warmest_c": Least("temperature_c")}), "columns warmest_c"),
        (a_flow({"events": Latest("battery"), "warmest_c": Greatest("temperature_c")}), "columns events.known"),
        (a_flow(id_field="uuid"), "id was the field event_id and is uuid now"),
        (a_flow(tables=("others.v1",)), "rows of rooms.minutes.v1 are kept with the rows of rooms.state.v1"),
    ],
    ids=["window size", "meaning", "type", "id field", "carrier"],
)
def test_what_cannot_be_carried_over_is_refused_in_words(after: Pipeline, says: str) -> None:
    assert any(says in refusal for refusal in judged(a_flow(), after).refused)


def test_symbols_may_be_added_at_the_end_and_nowhere_else() -> None:
    flow = a_flow()
    before, added, moved = ({"battery": tuple(one)} for one in ("AB", "ABC", "BA"))
    assert not judge(identity_of(flow, symbols=before), identity_of(flow, symbols=added), flow).refused
    assert not judge(identity_of(flow, symbols=added), identity_of(flow, symbols=before), flow).refused
    assert judge(identity_of(flow, symbols=before), identity_of(flow, symbols=moved), flow).refused


def test_added_and_removed_fields_and_columns_are_brought_over_both_ways() -> None:
    before = a_flow()
    after = a_flow(
        {"events": Count(), "seen": LastTime(), "warmest_c": Greatest("temperature_c")}, fields=("humidity", *FIELDS)
    )
    for one, other, says in ((before, after, "are new: they count from now on"), (after, before, "are dropped")):
        judgement = judged(one, other)
        assert not judgement.refused
        assert any(says in text for text in judgement.migrated)


BEFORE = Bounds(1_000, 20_000, 3_000, 4_000, 5, 6_000)


def test_all_bounds_in_force_are_part_of_the_identity() -> None:
    """Only the horizon was: the others decided results and left no trace."""
    assert identity_of(a_flow(bounds=BEFORE)).bounds == {
        "lateness_ms": 1_000,
        "horizon_ms": 20_000,
        "skew_ms_max": 3_000,
        "idle_ms": 4_000,
        "quarantine_rejects": 5,
        "quarantine_cooldown_ms": 6_000,
    }


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"horizon_ms": 30_000}, "the dedup horizon is longer than before .* it grows as ids are remembered"),
        ({"horizon_ms": 10_000}, "the dedup horizon is shorter than before .* older than it are late from now on"),
        ({"lateness_ms": 2_000}, r"lateness_ms is 2000 now \(was 1000\): the watermark stands still"),
        ({"lateness_ms": 500}, r"lateness_ms is 500 now \(was 1000\): the watermark advances"),
        ({"skew_ms_max": 1}, r"skew_ms_max is 1 now \(was 3000\): from now on"),
        ({"idle_ms": 1}, r"idle_ms is 1 now \(was 4000\): from now on"),
        ({"quarantine_rejects": 1}, r"quarantine_rejects is 1 now \(was 5\): it counts with the next reject"),
        ({"quarantine_cooldown_ms": 1_000}, r"quarantine_cooldown_ms is 1000 now \(was 6000\): it counts from now on"),
    ],
    ids=str,
)
def test_another_bound_is_said_and_the_state_goes_on(changed: dict[str, int], says: str) -> None:
    judgement = judged(a_flow(bounds=BEFORE), a_flow(bounds=replace(BEFORE, **changed)))
    assert not judgement.refused
    (text,) = judgement.migrated
    assert re.match(says, text), text


def test_another_grace_of_windows_is_said() -> None:
    before = a_flow()
    after = replace(before, windows=(replace(before.windows[0], grace_ms=500),))
    (text,) = judged(before, after).migrated
    assert text.startswith("the grace of windows of rooms.minutes.v1 is 500 ms now (was 0 ms)")


def test_an_identity_of_before_all_bounds_were_recorded_says_nothing_of_them() -> None:
    flow = a_flow(bounds=BEFORE)
    earlier = replace(identity_of(flow), bounds={"horizon_ms": 20_000})
    assert judge(earlier, identity_of(flow), flow).is_same


def test_rows_are_brought_over_by_the_names_of_their_columns() -> None:
    """The fault was that columns were read by position: two of them swapped swapped their values."""
    old = np.dtype([("a", "<i8"), ("b", "<i8"), ("gone", "?"), ("deep", [("x", "<f8"), ("known", "?")]), ("t", "O")])
    new = np.dtype(
        [("b", "<i8"), ("added", "<i4", (2,)), ("a", "<i8"), ("t", "O"), ("deep", [("known", "?"), ("x", "<f8")])]
    )
    rows = empty_rows(old, 2)
    rows["a"], rows["b"], rows["deep"]["x"], rows["deep"]["known"], rows["t"] = [1, 2], [3, 4], 0.5, True, [b"q", None]
    empty = empty_rows(new, 1)
    empty["added"] = 7
    found = unpack_rows(new, RowLayout.of(old).convert(pack_rows(rows), new, empty))
    assert found["a"].tolist() == [1, 2]
    assert found["b"].tolist() == [3, 4]
    assert found["added"].tolist() == [[7, 7], [7, 7]]
    assert (found["deep"]["x"].tolist(), found["deep"]["known"].tolist()) == ([0.5, 0.5], [True, True])
    assert found["t"].tolist() == [b"q", None]


def test_a_layout_survives_json_and_names_types_and_meanings() -> None:
    layout = RowLayout.of(ORDERS.tables[0].aggregate.dtype)
    assert RowLayout.from_json(layout.as_json()) == layout
    fold = Fold("id", FIELDS, {"last": Latest("battery", pa.bool_())})
    assert RowLayout.of(fold.dtype, fold.meanings) != RowLayout.of(fold.dtype)


def test_rows_of_an_earlier_layout_are_known_for_as_long_as_they_may_be_met() -> None:
    flow = a_flow()
    first = identity_of(flow)
    changed = a_flow({"events": Count(), "seen": LastTime()})
    second = identity_of(changed).taking_over(first, added_from={})
    third = identity_of(flow).taking_over(second, added_from={})
    assert first.layouts().items() <= second.layouts().items()
    assert second.layouts() == third.layouts()
    assert replace(third, earlier={}) == replace(first, earlier={})
