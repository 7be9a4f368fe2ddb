"""Growths as the monitor sees them: how far, for how long nothing has changed, what is told and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.growth.layout import Growth, Layout
from streams.growth.record import GrowthRecord
from streams.growth.stages import Phase, Standing
from streams.kafka.round import Group, Round
from streams.monitor import exposition
from streams.monitor.slo import SloTracker
from streams.monitor.snapshot import Snapshot
from streams.monitor.topic_growth import GrowthTracker, GrowthView, stands_still
from streams.monitor.web.views import overview

TO_6 = Growth(Layout(1, 3), Layout(2, 6))
TOPICS = sorted({*(topic.name for topic in GPS.topics()), GPS.forwarded_of(0), GPS.growth})
DONE = Standing(2, ready=2, cleared=2, settled=2)


def a_round(standings: Mapping[int, Standing], *, source: int = 3, cycle: int = 1, failed: Sequence[str] = ()) -> Round:
    """With all topics of the flow; the source has so many partitions, of which these have commits."""
    topics = tuple((name, 1 if name == GPS.growth else source) for name in TOPICS)
    base = sum(count for name, count in topics if name < GPS.source)
    total = sum(count for _, count in topics)
    none, ends = np.empty(0, dtype=np.int64), np.ones(total, dtype=np.int64)
    places = np.array([base + one for one in standings], dtype=np.int64)
    numbers = np.array([number for one in standings.values() for number in astuple(one)], dtype=np.int64)
    commits = np.zeros(len(places), dtype=np.int64)
    return Round(
        "c", 0, topics, (Group(GPS.group, "STABLE", None),), tuple(failed), ends, ends, ends, none, none,
        commits, places, commits, commits, commits + cycle, numbers,
    )  # fmt: skip


def begun(phase: Phase = Phase.BEGUN) -> dict[str, Sequence[GrowthRecord]]:
    return {GPS.growth: [GrowthRecord(TO_6, phase)]}


def look(tracker: GrowthTracker, found: Round, now_s: float, phase: Phase = Phase.BEGUN) -> GrowthView:
    (view,) = tracker.look(found, begun(phase), now_s)
    return view


def test_time_counts_from_the_last_change_of_anything() -> None:
    tracker = GrowthTracker([GPS])
    before = dict.fromkeys(range(3), Standing(1, ready=2))
    assert look(tracker, a_round(before), 100, Phase.PLANNED).still_s == 0
    assert look(tracker, a_round(before), 130, Phase.PLANNED).still_s == 30
    assert look(tracker, a_round(before, cycle=9), 140, Phase.PLANNED).still_s == 40, "traffic is no progress"
    view = look(tracker, a_round(before), 150, Phase.BEGUN)
    assert (view.still_s, view.status.step) == (0, "command"), "topics have to be given partitions"
    view = look(tracker, a_round(before, source=6), 160)
    assert (view.still_s, view.status.step, view.status.waits_for) == (0, "cut", [0, 1, 2])
    view = look(tracker, a_round(before | {1: Standing(2, ready=2)}, source=6), 170)
    assert (view.still_s, view.status.waits_for, view.status.cut) == (0, [0, 2], 1)
    assert view.status.states == ["ready", "cut", "ready", "none", "none", "none"]


def test_a_child_that_commits_pieces_of_its_state_gets_on() -> None:
    tracker = GrowthTracker([GPS])
    young = dict.fromkeys(range(3), DONE) | {3: Standing(0)}
    assert look(tracker, a_round(young, source=6), 0).status.step == "adopted"
    assert look(tracker, a_round(young, source=6, cycle=2), 50).still_s == 0
    assert look(tracker, a_round(young, source=6, cycle=2), 90).still_s == 40


def test_a_growth_that_is_over_or_was_given_up_is_not_told() -> None:
    tracker = GrowthTracker([GPS])
    assert tracker.look(a_round(dict.fromkeys(range(6), DONE), source=6), begun(), 0) == ()
    assert tracker.look(a_round({}), {}, 0) == ()
    assert tracker.look(a_round({}), {GPS.growth: []}, 0) == ()


def test_a_group_whose_offsets_could_not_be_had_is_left_as_it_was() -> None:
    tracker = GrowthTracker([GPS])
    cut = dict.fromkeys(range(3), Standing(2, ready=2))
    look(tracker, a_round(cut, source=6), 0)
    assert tracker.look(a_round({}, source=6, failed=[GPS.group]), begun(), 30) == ()
    assert look(tracker, a_round(cut, source=6), 60).still_s == 60


@pytest.mark.parametrize(
    ("phase", "step", "still_s", "stands"),
    [
        (Phase.BEGUN, "cut", 59, False), (Phase.BEGUN, "cut", 60, True), (Phase.BEGUN, "command", 60, True),
        (Phase.BEGUN, "adopted", 60, True), (Phase.BEGUN, "cleared", 299, False), (Phase.BEGUN, "cleared", 300, True),
        (Phase.BEGUN, "settled", 1_799, False), (Phase.BEGUN, "settled", 1_800, True),
        (Phase.PLANNED, "ready", 299, False), (Phase.PLANNED, "ready", 300, True),
    ],
)  # fmt: skip
def test_when_a_growth_stands_still(phase: Phase, step: str, still_s: float, *, stands: bool) -> None:
    status = look(GrowthTracker([GPS]), a_round({}), 0).status
    view = GrowthView(replace(status, record=GrowthRecord(TO_6, phase), step=step), still_s)
    assert stands_still(view) is stands


def test_metrics_and_page_tell_the_growth_and_nothing_without_one() -> None:
    view = look(GrowthTracker([GPS]), a_round(dict.fromkeys(range(3), Standing(2)), source=6), 0.0)
    snapshot = Snapshot(0, "c", 5.0, a_round({}), {}, {}, (), SloTracker().judge(), (), {}, (), None)
    told = exposition.render(replace(snapshot, growths=(view,))).decode()
    for line in (
        'streams_growth_partitions{pipeline="gps",state="before"} 3.0',
        'streams_growth_partitions{pipeline="gps",state="after"} 6.0',
        'streams_growth_done_partitions{pipeline="gps",step="cut"} 3.0',
        'streams_growth_done_partitions{pipeline="gps",step="adopted"} 0.0',
        'streams_growth_waiting_partitions{pipeline="gps",step="adopted"} 3.0',
        'streams_growth_still_seconds{pipeline="gps",phase="begun",step="adopted"} 0.0',
    ):
        assert f"\n{line}\n" in told
    assert "streams_growth_still_seconds{" not in exposition.render(snapshot).decode()
    (row,) = overview(replace(snapshot, growths=(view,)))["growths"]
    assert row["parents"] == [{"partition": one, "children": [one + 3]} for one in range(3)]
    assert row["waits"] == "waiting for partitions 3 to 5 to take over the state of their keys"
    assert overview(snapshot)["growths"] == []
