"""What a worker says of its topics before it starts."""

import pytest
from structlog.testing import capture_logs

from logistics.flows.gps import GPS
from streams.errors import StreamsError
from streams.growth.layouts import Layouts
from streams.growth.stages import Phase
from streams.worker.layouts import first_partitions
from streams.worker.process import check_topics
from tests.merged import merged_flow


def counts(**changed: int) -> dict[str, int]:
    return {topic.name: changed.get(topic.name, 12) for topic in GPS.topics()}


def test_topics_with_equal_numbers_of_partitions_are_accepted() -> None:
    check_topics(GPS, counts())


@pytest.mark.parametrize("topic", [GPS.dlq, GPS.clean, GPS.late])
def test_an_output_with_fewer_partitions_than_the_source_is_refused_in_words(topic: str) -> None:
    with pytest.raises(StreamsError, match=rf"{topic} has 3 partitions, {GPS.journal} has 12: give {topic} 12"):
        check_topics(GPS, counts(**{topic: 3}))


def test_an_output_with_more_partitions_than_the_source_is_accepted() -> None:
    check_topics(GPS, counts(**{GPS.dlq: 24}))


@pytest.mark.parametrize("topic", [GPS.journal, GPS.tables[0].topic])
def test_a_topic_of_state_with_more_partitions_than_the_source_is_refused(topic: str) -> None:
    with pytest.raises(StreamsError, match="the source cannot have fewer"):
        check_topics(GPS, counts(**{topic: 24}))


def test_missing_topics_are_named() -> None:
    there = counts()
    del there[GPS.late]
    with pytest.raises(StreamsError, match=f"topics are missing .{GPS.late}.: create them with `streams topics apply`"):
        check_topics(GPS, there)


def test_topics_that_are_merged_have_equally_many_partitions() -> None:
    pipeline = merged_flow().pipeline
    there = {topic.name: 6 for topic in pipeline.topics()}
    check_topics(pipeline, there)
    with pytest.raises(StreamsError, match=r"right\.v1 has 3 partitions, left\.v1 has 6: pair merges them"):
        check_topics(pipeline, {**there, "right.v1": 3})
    with pytest.raises(StreamsError, match=r"right\.v1 has 9 partitions, left\.v1 has 6: pair merges them"):
        check_topics(pipeline, {**there, "right.v1": 9})


def test_an_input_that_another_flow_has_grown_with_it_is_no_error_and_what_to_do_is_said() -> None:
    pipeline = merged_flow().pipeline
    there = {topic.name: 6 for topic in pipeline.topics()} | {"right.v1": 12}
    with capture_logs() as said:
        check_topics(pipeline, there)
    assert [one["grow"] for one in said] == ["streams topics grow left.v1"]
    with capture_logs() as said:
        check_topics(pipeline, there, Layouts.first(6).grown(12, Phase.BEGUN))
    assert not said


GROWS = Layouts.first(12).grown(24, Phase.ANNOUNCED)


def test_while_a_flow_grows_its_topics_may_have_more_partitions_than_the_source() -> None:
    check_topics(GPS, counts(**{GPS.journal: 24, GPS.tables[0].topic: 24, GPS.clean: 24}), GROWS)
    check_topics(GPS, counts(**{GPS.journal: 24}), GROWS)


def test_a_number_that_no_growth_leads_to_is_refused_all_the_same() -> None:
    with pytest.raises(StreamsError, match="the source cannot have fewer"):
        check_topics(GPS, counts(**{GPS.journal: 36}), GROWS)


def test_keys_of_a_flow_that_was_grown_belong_where_its_first_layout_says() -> None:
    grown = dict.fromkeys(counts(), 24)
    assert 24 == first_partitions(GPS, grown, None)
    assert 12 == first_partitions(GPS, grown, GROWS)
