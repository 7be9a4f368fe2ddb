import pytest

from logistics.flows.gps import GPS
from streams.deadletters.review.flows import Flows
from streams.settings import load_settings


@pytest.mark.parametrize("prefix", ["", "staging.", "gps."])
def test_a_name_means_the_topic_of_this_set_with_or_without_its_prefix(prefix: str) -> None:
    flows = Flows.of(load_settings(streams_topic_prefix=prefix))
    mine = GPS.with_prefix(prefix)
    for name in (GPS.source, GPS.dlq, mine.source, mine.dlq):
        assert mine.dlq == flows.dlq_named(name)
    assert "connect.errors" == flows.dlq_named("connect.errors")
    assert mine.dlq in flows.dlqs
    assert mine == flows.by_dlq(mine.dlq) == flows.by_source(mine.source)
    if prefix:
        assert flows.by_dlq(GPS.dlq) is None
        assert flows.by_source(GPS.source) is None


def test_what_helps_against_a_missing_topic_is_said_for_this_set() -> None:
    flows = Flows.of(load_settings(streams_topic_prefix="staging."))
    assert "run `streams topics apply`" == flows.hint(f"staging.{GPS.audit}")
    assert f"staging.{GPS.dlq}" in flows.hint(GPS.audit)
