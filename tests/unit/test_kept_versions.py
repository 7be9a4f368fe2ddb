"""A version of a flow that is kept, and that nobody is to run, raises no alarm."""

from typing import Any

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.kafka.round import FOREIGN, Group, Member, Round
from streams.monitor.group_lag import GroupLag
from streams.monitor.kept_versions import KeptVersions, idle_versions
from streams.monitor.policies import GroupPolicies
from streams.monitor.report import partition_row
from streams.monitor.tracker import LagTracker
from streams.settings import Settings
from streams.versions.record import CurrentRecord, VersionRecord, Versions

V2 = VersionRecord("v2", finished_ms=1)
V3 = VersionRecord("v3", finished_ms=2)
MAKING = VersionRecord("v4")


def made(*records: VersionRecord) -> dict[str, VersionRecord]:
    return {one.version: one for one in records}


@pytest.mark.parametrize(
    ("versions", "idle"),
    [
        (Versions(), []),
        (Versions(made=made(V2, MAKING)), ["v2"]),
        (Versions(CurrentRecord("v2"), made(V2, V3, MAKING)), ["", "v3"]),
        (Versions(CurrentRecord("v2", going_to="v3"), made(V2, V3)), [""]),
        (Versions(CurrentRecord("v2", going_to=""), made(V2, V3)), ["v3"]),
    ],
    ids=["none was made", "one is made", "one has taken over", "one takes over", "going back"],
)
def test_versions_that_nobody_is_to_run(versions: Versions, idle: list[str]) -> None:
    assert idle == list(idle_versions(versions))


def look(time_s: int, *, members: tuple[Member, ...] = (), versions_end: int = 0) -> Round:
    """A round in which the group of the flow is 40 records behind."""
    none = np.empty(0, dtype=np.int64)
    ends = np.array([50 + time_s, versions_end], dtype=np.int64)
    here = np.zeros(1, dtype=np.int64)
    return Round(
        cluster="c", time_ms=1_800_000_000_000 + 1_000 * time_s, topics=((GPS.source, 1), (GPS.versions, 1)),
        groups=(Group(GPS.group, "STABLE", members),), failed=(), end=ends, low=np.zeros_like(ends), high=ends,
        newest_offset=none, newest_ms=none, commit_group=here, commit_partition=here, commit_offset=here + 10,
        commit_mark=here, commit_cycle=np.full(1, FOREIGN),
    )  # fmt: skip


def judged(kept: frozenset[str], members: tuple[Member, ...] = ()) -> GroupLag:
    tracker = LagTracker(GroupPolicies(), window_s=60, interval_s=1, flows=[GPS])
    for second in range(60):
        tracker.note(look(second, members=members))
        tracker.keep(kept)
        found = tracker.judge()
    return found[GPS.group]


def test_its_lag_is_shown_and_not_counted_and_no_alarm() -> None:
    alarm = judged(frozenset())
    assert ("STOP", 99) == (partition_row(alarm, 0)["status"], alarm.lag_sum), "a group that nobody runs"

    kept = judged(frozenset({GPS.group}))
    row = partition_row(kept, 0)
    assert ("OK", "kept_version", 99) == (row["status"], row["reason"], row["lag"])
    assert (0, 0) == (kept.lag_sum, kept.lag_max)
    assert "nobody runs" in row["why"]


def test_whoever_runs_it_all_the_same_is_judged() -> None:
    member = Member("m", "worker-1", "host", (0,))
    assert "STALL" == partition_row(judged(frozenset({GPS.group}), (member,)), 0)["status"]


def test_the_versions_topic_is_read_when_its_end_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = [StreamsError("no answer"), Versions(CurrentRecord("v2"), made(V2)), Versions(made=made(V2))]

    def read(_: object) -> Versions:
        answer = said.pop(0)
        if isinstance(answer, StreamsError):
            raise answer
        assert isinstance(answer, Versions)
        return answer

    monkeypatch.setattr("streams.monitor.kept_versions.VersionsTopic.read", read)
    kept = KeptVersions(Settings(), [GPS])
    assert frozenset() == kept.look(look(0)), "the topic is empty"
    assert frozenset() == kept.look(look(1, versions_end=2)), "it could not be read"
    assert frozenset({GPS.group}) == kept.look(look(2, versions_end=2)), "asked again"
    assert frozenset({GPS.group}) == kept.look(look(3, versions_end=2))
    assert frozenset({GPS.as_version("v2").group}) == kept.look(look(4, versions_end=4)), "it went back"
    assert not said
    kept.close()
