"""Versions of a flow: their names, their records, and which one is current."""

from dataclasses import replace

import pytest

from logistics.flows.gps import GPS
from logistics.flows.tracking import flow as tracking
from streams.errors import UsageError
from streams.flow.chain import tree_of
from streams.flow.code import code_of_app
from streams.flow.discover import select_pipelines
from streams.flow.version import checked_version, declared_name, of_version
from streams.kafka.positions import metadata_of, position_of
from streams.sinks.base import Committed
from streams.versions.record import CurrentRecord, From, VersionLogError, VersionRecord, read_versions

V2 = GPS.as_version("v2")
RECORD = VersionRecord("v2", from_ms=1, starts={0: 5}, ends={0: 9}, begun_ms=7, code="c0de")


def test_a_version_writes_none_of_the_topics_of_another_one_and_reads_the_same() -> None:
    for declared in (GPS, tracking.pipeline, GPS.with_prefix("staging.")):
        version = declared.as_version("v2")
        read = {one.topic for one in declared.inputs}
        assert read == {one.topic for one in version.inputs}
        mine = {one.name for one in (*version.topics(), *version.growth_topics())} - read
        others = {one.name for one in (*declared.topics(), *declared.growth_topics())}
        assert not mine & others
        assert all(name.endswith(".run.v2") for name in mine)
        assert version.group != declared.group
        assert version.member_prefix != declared.member_prefix
        assert version.versions == declared.versions


def test_the_name_of_a_version_is_no_name_that_a_flow_may_have() -> None:
    assert (V2.name, V2.group) == ("gps.run.v2", "streams.gps.run.v2")
    assert "." not in GPS.name


def test_rows_of_a_version_have_the_schemas_of_the_declared_topics() -> None:
    assert [one.subject for one in V2.topics()] == [one.subject for one in GPS.topics()]
    late = tracking.pipeline.with_prefix("p.").as_version("v2")
    assert [one.subject for one in late.row_outputs] == [one.subject for one in tracking.pipeline.row_outputs]


def test_a_version_has_the_operators_of_the_flow_in_their_order() -> None:
    kinds = [type(placed.spec) for placed in tree_of(V2)]
    assert kinds == [type(placed.spec) for placed in tree_of(GPS)]
    assert tree_of(V2)[-1].spec.name == "window.vehicles.trips.v1.run.v2"


def test_a_history_in_another_topic_leaves_all_other_names_as_they_are() -> None:
    history = V2.reading_history(V2.history)
    assert history.source == "gps.positions.v1.history.run.v2"
    assert history.outputs == V2.outputs
    assert (history.dlq, history.journal, history.versions) == (V2.dlq, V2.journal, V2.versions)
    assert [one.dlq for one in history.inputs] == [V2.dlq]


def test_the_declared_version_is_the_flow_itself() -> None:
    assert GPS.as_version("") is GPS


def test_a_version_is_selected_like_a_flow() -> None:
    (found,) = select_pipelines(["gps.run.v2"], prefix="p.")
    assert found == GPS.with_prefix("p.").as_version("v2")
    with pytest.raises(UsageError, match=r"no flow 'nothing\.run\.v2'"):
        select_pipelines(["nothing.run.v2"])


@pytest.mark.parametrize("version", ["v2", "2026-11-30", "a", "x" * 20])
def test_a_version_may_be_a_label(version: str) -> None:
    assert checked_version(version) == version
    assert declared_name(of_version("t.v1", version), version) == "t.v1"


@pytest.mark.parametrize("version", ["", "V2", "v.2", "-v", "x" * 21, "v 2"])
def test_anything_else_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match="--into"):
        checked_version(version)


def test_records_are_read_as_they_were_written() -> None:
    current = CurrentRecord("v2", None, "", {0: 9, 1: 4}, ("f1",), 77)
    found = read_versions([(RECORD.key, RECORD.value, 0), (current.key, current.value, 0)])
    assert found.made == {"v2": RECORD}
    assert found.current == current


def test_the_last_record_of_a_version_counts_and_none_is_gone() -> None:
    over = replace(RECORD, finished_ms=99)
    log = [(RECORD.key, RECORD.value, 0), (over.key, over.value, 0)]
    assert read_versions(log).made["v2"].is_finished
    assert read_versions([*log, (RECORD.key, None, 0)]).made == {}


@pytest.mark.parametrize(
    "record", [(b"other", b"{}", 0), (None, b"{}", 0), (b"current", b"[]", 0), (b"current", b"x", 0)]
)
def test_what_is_no_record_is_refused(record: tuple[bytes | None, bytes | None, int]) -> None:
    with pytest.raises(VersionLogError):
        read_versions([record])


def test_fields_of_a_later_version_are_not_looked_at() -> None:
    value = b'{"version": "v3", "later": 1}'
    assert read_versions([(b"current", value, 0)]).current == CurrentRecord("v3")


def test_a_switch_leads_to_the_version_that_it_was_going_to() -> None:
    going = CurrentRecord().switching("v2")
    assert (going.version, going.going_to) == ("", "v2")
    assert going.cancelled() == CurrentRecord()
    done = going.switched({0: 3}, {"old"}, 5)
    assert done == CurrentRecord("v2", None, "", {0: 3}, ("old",), 5)
    with pytest.raises(ValueError, match="no switch"):
        done.switched({}, (), 6)


def test_only_the_same_options_go_on_with_a_version() -> None:
    assert RECORD.begun_like(replace(RECORD, ends={}, finished_ms=3, code="other"))
    for other in ({"from_ms": 2}, {"to_ms": 9}, {"origin": From.FILES}, {"is_closed": True}, {"inputs": ("a",)}):
        assert not RECORD.begun_like(replace(RECORD, **other))


def test_a_position_names_the_code_that_has_committed_it() -> None:
    position = Committed(5, 3, code=code_of_app())
    assert len(code_of_app()) == 16
    assert position_of(5, metadata_of(position)) == position
